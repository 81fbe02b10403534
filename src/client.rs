//! The command line's side of the HTTP interface.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::http::{Method, Request};

use crate::cli::fail::{Exit, Fail};

/// Everything but letters, digits and these is encoded in a path segment or a query value.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Largest answer that is read, in bytes: a page of 1,000 entries with payloads in base64.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// One segment of a path, or one value of a query.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// A server and who asks it. Cheap to clone; connections are kept and shared.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
    token: Option<String>,
    acting: Option<String>,
}

impl Client {
    /// For a server's base address, e.g. `http://127.0.0.1:7171`.
    ///
    /// # Errors
    /// When the address is not one.
    pub fn new(server: &str, token: Option<&str>, acting: Option<&str>) -> Result<Self, Fail> {
        let base = server.trim_end_matches('/');
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(Fail::usage("--server: expected an address like http://127.0.0.1:7171"));
        }
        for (text, what) in [(token, "--token"), (acting, "--as")] {
            if text.is_some_and(|text| text.is_empty() || text.chars().any(|c| c.is_control())) {
                return Err(Fail::usage(format!("{what}: is empty or has control characters")));
            }
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .max_redirects(0)
            .max_idle_connections_per_host(64)
            .user_agent(concat!("feedlog/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            base: base.to_owned(),
            token: token.map(str::to_owned),
            acting: acting.map(str::to_owned),
        })
    }

    /// The same connection, acting for another user (needs the scope `send_as`).
    #[must_use]
    pub fn acting(&self, uid: &str) -> Self {
        Self { acting: Some(uid.to_owned()), ..self.clone() }
    }

    /// GET.
    ///
    /// # Errors
    /// As the server says; `Unavailable` when it cannot be reached.
    pub fn get(&self, path: &str) -> Result<Value, Fail> {
        self.call(Method::GET, path, None).map(|(_, value)| value)
    }

    /// POST with a JSON body; the status and the answer.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub fn post(&self, path: &str, body: &Value) -> Result<(u16, Value), Fail> {
        self.call(Method::POST, path, Some(body.to_string()))
    }

    /// As [`Client::post`], of JSON that is text already.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub fn post_text(&self, path: &str, body: &str) -> Result<(u16, Value), Fail> {
        self.call(Method::POST, path, Some(body.to_owned()))
    }

    /// DELETE.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub fn delete(&self, path: &str) -> Result<Value, Fail> {
        self.call(Method::DELETE, path, None).map(|(_, value)| value)
    }

    /// GET of a stream of server-sent events or of lines; the body is read as it comes.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub fn stream(
        &self,
        path: &str,
        accept: &str,
        last_event_id: Option<&str>,
    ) -> Result<impl BufRead + use<>, Fail> {
        let mut request = self.request(Method::GET, path)?.header("accept", accept);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(()).map_err(bad_request)?;
        let answer = self.agent.run(request).map_err(|err| self.unreachable(&err))?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        if !(200..300).contains(&status) {
            let text = body.with_config().limit(1 << 20).read_to_string().unwrap_or_default();
            return Err(refusal(status, &serde_json::from_str(&text).unwrap_or(Value::Null)));
        }
        Ok(BufReader::new(body.into_with_config().limit(u64::MAX).reader()))
    }

    fn call(&self, method: Method, path: &str, body: Option<String>) -> Result<(u16, Value), Fail> {
        let request = self.request(method, path)?.header("accept", "application/json");
        let answer = match body {
            Some(text) => {
                let request =
                    request.header("content-type", "application/json").body(text).map_err(bad_request)?;
                self.agent.run(request)
            }
            None => self.agent.run(request.body(()).map_err(bad_request)?),
        };
        let mut answer = answer.map_err(|err| self.unreachable(&err))?;
        let status = answer.status().as_u16();
        let text = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .map_err(|err| self.unreachable(&err))?;
        let value =
            if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(Value::Null) };
        if (200..300).contains(&status) {
            if value.is_null() && !text.is_empty() {
                return Err(Fail::failed(format!("{} does not answer like feedlog", self.base)));
            }
            return Ok((status, value));
        }
        Err(refusal(status, &value))
    }

    fn request(&self, method: Method, path: &str) -> Result<ureq::http::request::Builder, Fail> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(uid) = &self.acting {
            request = request.header("x-feedlog-user", uid);
        }
        Ok(request)
    }

    fn unreachable(&self, err: &ureq::Error) -> Fail {
        Fail::new(Exit::Unavailable, "unreachable", format!("{} cannot be reached: {err}", self.base))
    }
}

fn bad_request(err: ureq::http::Error) -> Fail {
    Fail::usage(format!("cannot be sent: {err}"))
}

/// The server's refusal, with its stable code.
fn refusal(status: u16, answer: &Value) -> Fail {
    let error = &answer["error"];
    let exit = match status {
        408 | 429 | 502..=504 => Exit::Unavailable,
        400..=499 => Exit::Refused,
        _ => Exit::Failed,
    };
    let code = error["code"].as_str().unwrap_or("failed");
    let message = error["message"].as_str().unwrap_or("the server gave no reason");
    Fail::new(exit, code, format!("{message} ({code}, HTTP {status})"))
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SseEvent {
    /// Its name, `message` when not given.
    pub event: String,
    /// What resumes after it.
    pub id: Option<String>,
    /// Its data.
    pub data: String,
}

/// The next event of a stream; `None` at its end (WHATWG HTML §9.2.6).
///
/// # Errors
/// When reading fails.
pub fn next_event(body: &mut impl BufRead) -> std::io::Result<Option<SseEvent>> {
    let mut event = SseEvent::default();
    let mut any = false;
    let mut line = String::new();
    loop {
        line.clear();
        if body.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let text = line.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            if any {
                if event.event.is_empty() {
                    event.event.push_str("message");
                }
                return Ok(Some(event));
            }
            continue;
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut event.event),
            "id" => event.id = Some(value.to_owned()),
            "data" => {
                if any && !event.data.is_empty() {
                    event.data.push('\n');
                }
                event.data.push_str(value);
                any = true;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_carry_any_id() {
        assert_eq!(segment("irc/2004-12-25.train-c"), "irc%2F2004-12-25.train-c");
        assert_eq!(segment("a b?#%é"), "a%20b%3F%23%25%C3%A9");
    }

    #[test]
    fn events_are_read_as_they_come() {
        let mut body = std::io::Cursor::new(
            ": hello\n\nid: 7\nevent: entry\ndata: {\"a\":\ndata: 1}\n\nretry: 5\ndata:x\r\n\r\ndata: cut off",
        );
        let first = next_event(&mut body).unwrap().unwrap();
        assert_eq!(
            first,
            SseEvent { event: "entry".into(), id: Some("7".into()), data: "{\"a\":\n1}".into() }
        );
        let second = next_event(&mut body).unwrap().unwrap();
        assert_eq!((second.event.as_str(), second.data.as_str()), ("message", "x"));
        assert_eq!(next_event(&mut body).unwrap(), None);
    }

    #[test]
    fn refusals_have_their_exit_code() {
        let answer = serde_json::json!({"error": {"code": "feed_not_found", "message": "no such feed"}});
        let fail = refusal(404, &answer);
        assert_eq!((fail.exit, fail.code.as_str()), (Exit::Refused, "feed_not_found"));
        assert_eq!(refusal(503, &Value::Null).exit, Exit::Unavailable);
        assert_eq!(refusal(429, &Value::Null).exit, Exit::Unavailable);
        assert_eq!(refusal(500, &Value::Null).exit, Exit::Failed);
    }
}
