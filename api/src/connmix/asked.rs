//! What back ends ask: the calls of `/v1/mesh/…` and `/ws/v1`, and their answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use feedlog_core::ids::ClientMsgId;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The longest `i`, as JSON text.
pub(crate) const ID_BYTES_MAX: usize = 128;
/// Most channels of one `conn.call`, topics of one `queue.pop`.
pub(crate) const NAMES_MAX: usize = 1000;

/// Error codes. [connmix: codes]
pub(crate) mod code {
    pub(crate) const PARAMETER: u16 = 101;
    pub(crate) const CONSUME: u16 = 201;
    pub(crate) const CONSUMING: u16 = 202;
    pub(crate) const UNCONSUME: u16 = 203;
    pub(crate) const CALL: u16 = 301;
    pub(crate) const SEND: u16 = 401;
}

/// Why a call was not done. The text repeats no input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: u16,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn parameter(problem: &str) -> Self {
        Self::new(code::PARAMETER, format!("invalid parameter: {problem}"))
    }
}

/// What is delivered: one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    /// A binary frame; otherwise the bytes are UTF-8.
    pub(crate) binary: bool,
}

/// A call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Publish(Publish),
    Send { client: u64, body: Body },
    Call { client: u64, call: ConnCall },
    Pop { topics: Vec<String> },
    Unpop,
}

/// To all who subscribe to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) channel: String,
    pub(crate) body: Body,
    /// Ours: makes a retry harmless.
    pub(crate) id: Option<ClientMsgId>,
}

/// What is done with a connection from afar. Nothing else of Lua's connection object is documented to be called so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnCall {
    /// All of the context: keys with values as JSON text.
    SetContext(Vec<(String, Box<str>)>),
    SetValue(String, Box<str>),
    Subscribe(Vec<String>),
    Unsubscribe(Vec<String>),
}

impl ConnCall {
    /// Bytes that it holds.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::SetContext(fields) => fields.iter().map(|(key, value)| key.len() + value.len()).sum(),
            Self::SetValue(key, value) => key.len() + value.len(),
            Self::Subscribe(names) | Self::Unsubscribe(names) => names.iter().map(String::len).sum(),
        }
    }
}

/// By what an answer is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Id {
    key: &'static str,
    /// JSON text: a short string, a number, or `null`.
    value: Box<str>,
}

impl Id {
    fn none() -> Self {
        Self { key: "i", value: "null".into() }
    }
}

/// A frame of `/ws/v1`: a call with the id of its answer.
pub(crate) fn frame(text: &str) -> (Id, Result<Asked, Fault>) {
    #[derive(Deserialize)]
    struct Frame<'a> {
        #[serde(borrow)]
        m: Option<&'a RawValue>,
        #[serde(borrow)]
        p: Option<&'a RawValue>,
        #[serde(borrow)]
        i: Option<&'a RawValue>,
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    // Derived code alone would also take an array, as the fields in their order.
    let frame = match serde_json::from_str::<Frame<'_>>(text) {
        Ok(frame) if text.trim_start().starts_with('{') => frame,
        _ => return (Id::none(), Err(Fault::parameter("the frame is not a JSON object"))),
    };
    // One sample of the original writes `id`. [connmix: inconsistencies]
    let id = match (frame.i, frame.id) {
        (Some(i), _) => Some(("i", i.get())),
        (None, Some(id)) => Some(("id", id.get())),
        (None, None) => None,
    };
    let id = match id {
        None => Id::none(),
        Some((_, value)) if value.len() > ID_BYTES_MAX || value.starts_with(['{', '[', 't', 'f']) => {
            return (Id::none(), Err(Fault::parameter("i")));
        }
        Some((key, value)) => Id { key, value: value.into() },
    };
    let params = frame.p.map_or("{}", RawValue::get);
    let method = frame.m.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    let asked = match method.as_deref() {
        Some("mesh.publish") => publish(params).map(Asked::Publish),
        Some("mesh.send") => send(params, true),
        Some("conn.call") => call(params),
        // The second is what connmix-php calls it.
        Some("queue.pop" | "queue.consume") => pop(params),
        Some("queue.unpop" | "queue.unconsume") => Ok(Asked::Unpop),
        _ => Err(Fault::parameter("m")),
    };
    (id, asked)
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    c: Option<&'a RawValue>,
    #[serde(borrow)]
    d: Option<&'a RawValue>,
    #[serde(borrow)]
    t: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    f: Option<&'a RawValue>,
    #[serde(borrow)]
    a: Option<&'a RawValue>,
}

/// Other fields mean nothing.
fn params(text: &str) -> Result<Params<'_>, Fault> {
    match serde_json::from_str::<Params<'_>>(text) {
        Ok(params) if text.trim_start().starts_with('{') => Ok(params),
        _ => Err(Fault::parameter("not a JSON object")),
    }
}

fn string(raw: Option<&RawValue>) -> Option<String> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
}

/// `{"c","d","t"}` of `mesh.publish`, and of `POST /v1/mesh/publish`.
pub(crate) fn publish(text: &str) -> Result<Publish, Fault> {
    published(&params(text)?)
}

fn published(params: &Params<'_>) -> Result<Publish, Fault> {
    let channel = string(params.c).ok_or_else(|| Fault::parameter("c"))?;
    let id = match params.id.map(RawValue::get) {
        None | Some("null") => None,
        Some(raw) => {
            let number = raw.starts_with(|c: char| c.is_ascii_digit()).then(|| raw.to_owned());
            let text = number.or_else(|| string(params.id));
            let id = text.and_then(|text| ClientMsgId::parse(&text).ok());
            Some(id.ok_or_else(|| Fault::parameter("id"))?)
        }
    };
    Ok(Publish { channel, body: body(params)?, id })
}

/// `{"c","d","t"}` of `mesh.send`, and of `POST /v1/mesh/send`.
///
/// connmix-php's synchronous meshPublish says `mesh.send`, on the WebSocket alone: `or_publish`. What is plainly a channel is
/// one then; anything else would be kept for everybody although it was meant for one. [connmix: inconsistencies]
pub(crate) fn send(text: &str, or_publish: bool) -> Result<Asked, Fault> {
    let params = params(text)?;
    match client(params.c) {
        Some(client) => Ok(Asked::Send { client, body: body(&params)? }),
        None if or_publish && string(params.c).is_some_and(|name| name.contains([':', '@'])) => {
            published(&params).map(Asked::Publish)
        }
        None => Err(Fault::parameter("c")),
    }
}

fn body(params: &Params<'_>) -> Result<Body, Fault> {
    let text = string(params.d).ok_or_else(|| Fault::parameter("d"))?;
    match params.t.map(RawValue::get) {
        None | Some("null" | r#""text""# | r#""""#) => Ok(Body { bytes: text.into(), binary: false }),
        Some(r#""binary""#) => {
            let bytes = STANDARD.decode(text).map_err(|_| Fault::parameter("d is not base64"))?;
            Ok(Body { bytes: bytes.into(), binary: true })
        }
        Some(_) => Err(Fault::parameter("t")),
    }
}

/// A client id: an integer, or its text.
fn client(raw: Option<&RawValue>) -> Option<u64> {
    let raw = raw?.get();
    raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw).parse().ok()
}

/// `{"c","f","a"}`.
fn call(text: &str) -> Result<Asked, Fault> {
    let params = params(text)?;
    let client = client(params.c).ok_or_else(|| Fault::parameter("c"))?;
    let arguments = || Fault::parameter("a");
    let a = params.a.map_or("[]", RawValue::get);
    let names = || {
        let names: Vec<String> = serde_json::from_str(a).map_err(|_| arguments())?;
        if names.is_empty() || names.len() > NAMES_MAX { Err(arguments()) } else { Ok(names) }
    };
    let call = match string(params.f).as_deref() {
        Some("subscribe") => ConnCall::Subscribe(names()?),
        Some("unsubscribe") => ConnCall::Unsubscribe(names()?),
        Some("set_context") => {
            let [context]: [&RawValue; 1] = serde_json::from_str(a).map_err(|_| arguments())?;
            let fields: std::collections::BTreeMap<String, &RawValue> =
                serde_json::from_str(context.get()).map_err(|_| arguments())?;
            ConnCall::SetContext(fields.into_iter().map(|(key, value)| (key, value.get().into())).collect())
        }
        Some("set_context_value") => {
            let [key, value]: [&RawValue; 2] = serde_json::from_str(a).map_err(|_| arguments())?;
            let key = string(Some(key)).ok_or_else(arguments)?;
            ConnCall::SetValue(key, value.get().into())
        }
        _ => return Err(Fault::parameter("f")),
    };
    Ok(Asked::Call { client, call })
}

/// `{"t":[…]}`, or the bare array of connmix-php. [connmix: inconsistencies]
fn pop(text: &str) -> Result<Asked, Fault> {
    let topics = || Fault::parameter("t");
    let text =
        if text.starts_with('[') { text } else { params(text)?.t.map(RawValue::get).ok_or_else(topics)? };
    let names: Vec<String> = serde_json::from_str(text).map_err(|_| topics())?;
    if names.is_empty() || names.len() > NAMES_MAX {
        return Err(topics());
    }
    Ok(Asked::Pop { topics: names })
}

/// What is answered; `null` for `E` when it was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `{"s":true}`.
    Done,
    /// How many connections get it and how many cannot now, and its place in the feed.
    Published {
        delivered: u64,
        failed: u64,
        seq: u64,
        duplicate: bool,
    },
    Failed(Fault),
}

impl Reply {
    /// As the body of an HTTP answer, or with the id of its call.
    pub(crate) fn write(&self, id: Option<&Id>) -> String {
        let mut out = match self {
            Self::Done => r#"{"E":null,"r":{"s":true}"#.to_owned(),
            Self::Published { delivered, failed, seq, duplicate } => {
                let again = if *duplicate { r#","duplicate":true"# } else { "" };
                format!(r#"{{"E":null,"r":{{"s":{delivered},"f":{failed},"seq_id":{seq}{again}}}"#)
            }
            Self::Failed(fault) => {
                let message = serde_json::Value::from(fault.message.as_str());
                format!(r#"{{"E":{{"c":{},"m":{message}}}"#, fault.code)
            }
        };
        if let Some(id) = id {
            out.push_str(",\"");
            out.push_str(id.key);
            out.push_str("\":");
            out.push_str(&id.value);
        }
        out.push('}');
        out
    }
}

/// For fuzzing: any frame is a call or a fault, and its answer is JSON with the same id.
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (id, asked) = frame(text);
    let reply = match asked {
        Ok(_) => Reply::Done,
        Err(fault) => {
            assert_eq!(fault.code, code::PARAMETER, "{text}");
            Reply::Failed(fault)
        }
    };
    let reply: serde_json::Value =
        serde_json::from_str(&reply.write(Some(&id))).expect("INVARIANT: answers are JSON");
    assert!(reply.get(id.key).is_some(), "{text}");
    let _ = (publish(text), send(text, false));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &str) -> Body {
        Body { bytes: Bytes::copy_from_slice(body.as_bytes()), binary: false }
    }

    fn asked(frame_text: &str) -> Asked {
        frame(frame_text).1.unwrap_or_else(|fault| panic!("{frame_text}: {fault:?}"))
    }

    #[test]
    fn every_call_of_the_page_is_read() {
        let publish = |channel: &str, body: &str| {
            Asked::Publish(Publish { channel: channel.into(), body: text(body), id: None })
        };
        let client = 1_463_786_910_324_359_168;
        for (frame, wanted) in [
            (
                r#"{"m":"mesh.publish","p":{"c":"channel1","d":"data"},"i":12345}"#,
                publish("channel1", "data"),
            ),
            (
                r#"{"m":"mesh.publish","p":{"c":"user:1001","d":"x","t":"text"},"i":1}"#,
                publish("user:1001", "x"),
            ),
            (
                r#"{"m":"mesh.send","p":{"c":"1463786910324359168","d":"data"},"id":12345}"#,
                Asked::Send { client, body: text("data") },
            ),
            (
                r#"{"m":"mesh.send","p":{"c":1463786910324359168,"d":"AAH/","t":"binary"},"i":1}"#,
                Asked::Send { client, body: Body { bytes: Bytes::from_static(b"\0\x01\xff"), binary: true } },
            ),
            // What connmix-php's meshPublish sends.
            (r#"{"m":"mesh.send","p":{"c":"user:1001","d":"data"},"i":1}"#, publish("user:1001", "data")),
            (
                r#"{"m":"conn.call","p":{"c":"7","f":"set_context_value","a":["user_id",10000]},"i":12345}"#,
                Asked::Call { client: 7, call: ConnCall::SetValue("user_id".into(), "10000".into()) },
            ),
            (
                r#"{"m":"conn.call","p":{"c":7,"f":"set_context","a":[{"user_id":10000}]},"i":12345}"#,
                Asked::Call {
                    client: 7,
                    call: ConnCall::SetContext(vec![("user_id".into(), "10000".into())]),
                },
            ),
            (
                r#"{"m":"conn.call","p":{"c":"7","f":"subscribe","a":["channel1","channel2"]},"i":12345}"#,
                Asked::Call {
                    client: 7,
                    call: ConnCall::Subscribe(vec!["channel1".into(), "channel2".into()]),
                },
            ),
            (
                r#"{"m":"conn.call","p":{"c":"7","f":"unsubscribe","a":["channel1"]},"i":12345}"#,
                Asked::Call { client: 7, call: ConnCall::Unsubscribe(vec!["channel1".into()]) },
            ),
            (
                r#"{"m":"queue.pop","p":{"t":["topic1"]},"i":12345}"#,
                Asked::Pop { topics: vec!["topic1".into()] },
            ),
            (r#"{"m":"queue.pop","p":["topic1"],"i":12345}"#, Asked::Pop { topics: vec!["topic1".into()] }),
            (r#"{"m":"queue.unpop","p":{},"i":12345}"#, Asked::Unpop),
            (r#"{"m":"queue.unpop","p":[],"i":12345}"#, Asked::Unpop),
        ] {
            assert_eq!(asked(frame), wanted, "{frame}");
        }
    }

    #[test]
    fn bad_parameters_are_101() {
        for p in [
            r#""#,
            r#"{"c":"x"}"#,
            r#"{"d":"x"}"#,
            r#"{"c":7,"d":"x"}"#,
            r#"{"c":"x","d":{"not":"a string"}}"#,
            r#"{"c":"x","d":"*","t":"binary"}"#,
            r#"{"c":"x","d":"x","t":"other"}"#,
            r#"{"c":"x","d":"x","id":{}}"#,
            r#"{"c":"x","d":"x","id":""}"#,
            r#"{"c":"x","d":"\ud800"}"#,
            r#"["x","y"]"#,
        ] {
            assert_eq!(super::publish(p).unwrap_err().code, code::PARAMETER, "{p}");
        }
        for (method, p) in [
            ("nope", "{}"),
            ("mesh.send", r#"{"c":7}"#),
            ("mesh.send", r#"{"c":"undefined","d":"x"}"#),
            ("conn.call", r#"{"c":"x","f":"subscribe","a":["c"]}"#),
            ("conn.call", r#"{"c":7,"f":"close","a":[]}"#),
            ("conn.call", r#"{"c":7,"f":"subscribe","a":[]}"#),
            ("conn.call", r#"{"c":7,"f":"subscribe","a":[7]}"#),
            ("conn.call", r#"{"c":7,"f":"set_context","a":[7]}"#),
            ("conn.call", r#"{"c":7,"f":"set_context_value","a":["key"]}"#),
            ("queue.pop", r#"{"t":"topic1"}"#),
            ("queue.pop", r#"{"t":[]}"#),
            ("queue.pop", r#"{}"#),
        ] {
            let text = format!(r#"{{"m":"{method}","p":{p},"i":1}}"#);
            assert_eq!(frame(&text).1.unwrap_err().code, code::PARAMETER, "{text}");
        }
    }

    #[test]
    fn answers_carry_the_id_as_it_came() {
        let published = Reply::Published { delivered: 9, failed: 0, seq: 2, duplicate: false };
        for (id, wanted) in [
            (r#""i":12345"#, r#"{"E":null,"r":{"s":9,"f":0,"seq_id":2},"i":12345}"#),
            (r#""id":12345"#, r#"{"E":null,"r":{"s":9,"f":0,"seq_id":2},"id":12345}"#),
            (r#""i":"a","id":3"#, r#"{"E":null,"r":{"s":9,"f":0,"seq_id":2},"i":"a"}"#),
            (r#""x":1"#, r#"{"E":null,"r":{"s":9,"f":0,"seq_id":2},"i":null}"#),
            (r#""i":[1]"#, r#"{"E":null,"r":{"s":9,"f":0,"seq_id":2},"i":null}"#),
        ] {
            assert_eq!(published.write(Some(&frame(&format!("{{{id}}}")).0)), wanted);
        }
        assert_eq!(Reply::Done.write(None), r#"{"E":null,"r":{"s":true}}"#);
        let failed = Reply::Failed(Fault::new(101, "\"quoted\""));
        assert_eq!(failed.write(None), r#"{"E":{"c":101,"m":"\"quoted\""}}"#);
        let long = format!(r#"{{"m":"queue.unpop","i":"{}"}}"#, "x".repeat(ID_BYTES_MAX - 2));
        assert_eq!(frame(&long).1, Ok(Asked::Unpop));
        let longer = long.replace("\"x", "\"xx");
        assert_eq!(frame(&longer), (Id::none(), Err(Fault::parameter("i"))));
    }

    #[test]
    fn an_id_of_ours_makes_a_publish_repeatable() {
        for (id, wanted) in [(r#""m-1""#, Some("m-1")), ("17", Some("17")), ("null", None)] {
            let p = format!(r#"{{"c":"x","d":"y","id":{id}}}"#);
            let got = super::publish(&p).unwrap().id;
            assert_eq!(got.as_ref().map(ClientMsgId::as_str), wanted);
        }
    }
}
