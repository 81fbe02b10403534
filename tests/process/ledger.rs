//! What the clients were told, and whether the log agrees.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

/// xorshift; the same sequence for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// One message as it was sent.
#[derive(Clone)]
struct Sent {
    feed: String,
    id: String,
    text: String,
}

/// A client with its ledger.
pub(crate) struct Client {
    uid: String,
    agent: ureq::Agent,
    random: Random,
    next: u64,
    /// Everything that was acknowledged, with its place.
    acked: Vec<(Sent, u64)>,
    /// Sent, and no answer came.
    in_flight: Option<Sent>,
    /// How often such a message turned out to have happened.
    pub(crate) settled_duplicates: usize,
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn own_feed(client: usize) -> String {
    format!("crash/own-{client}")
}

const SHARED: &str = "crash/shared";

/// One open feed for each client and one for all.
pub(crate) fn create_feeds(url: &str, clients: usize) {
    for feed in (0..clients).map(own_feed).chain([SHARED.to_owned()]) {
        let answer = agent()
            .post(format!("{url}/v1/feeds"))
            .header("authorization", "Bearer admin")
            .send_json(json!({"feed_id": feed, "kind": "open"}))
            .expect("the server answers");
        assert_eq!(answer.status(), 201, "creating {feed}");
    }
}

impl Client {
    pub(crate) fn new(n: usize, seed: u64) -> Self {
        Self {
            uid: format!("client-{n}"),
            agent: agent(),
            random: Random::new(seed.wrapping_add(n as u64 + 1)),
            next: 0,
            acked: Vec::new(),
            in_flight: None,
            settled_duplicates: 0,
        }
    }

    /// How many acknowledgements the ledger holds.
    pub(crate) fn acks(&self) -> usize {
        self.acked.len()
    }

    fn own(&self) -> String {
        self.uid.replace("client-", "crash/own-")
    }

    /// Sends the next message; `false` when no answer came.
    pub(crate) fn send(&mut self, url: &str) -> bool {
        let feed = if self.random.below(3) == 0 { SHARED.to_owned() } else { self.own() };
        let text = format!("{} says {}", self.uid, "word ".repeat(self.random.below(60) as usize));
        let sent = Sent { feed, id: format!("{}:{}", self.uid, self.next), text };
        self.next += 1;
        self.in_flight = Some(sent);
        self.try_send(url).is_some()
    }

    /// After a restart: what was in flight is sent again under the same id.
    pub(crate) fn settle(&mut self, url: &str) {
        if self.in_flight.is_some() {
            let duplicate = self.try_send(url).expect("a server that is not killed answers");
            self.settled_duplicates += usize::from(duplicate);
        }
    }

    /// Sends what is in flight and enters the answer; `Some(duplicate)` when acknowledged.
    fn try_send(&mut self, url: &str) -> Option<bool> {
        let sent = self.in_flight.clone()?;
        let path = sent.feed.replace('/', "%2F");
        let mut answer = self
            .agent
            .post(format!("{url}/v1/feeds/{path}/messages"))
            .header("authorization", format!("Bearer {}", self.uid))
            .send_json(json!({"client_msg_id": sent.id, "payload": sent.text}))
            .ok()?;
        let status = answer.status().as_u16();
        let body: Value = answer.body_mut().read_json().ok()?;
        assert!(matches!(status, 200 | 201), "{status} {body}");
        let seq = body["seq_id"].as_u64().expect("an acknowledgement has a seq_id");
        let duplicate =
            body["duplicate"].as_bool().expect("an acknowledgement says whether it is a duplicate");
        assert_eq!(duplicate, status == 200);
        self.acked.push((sent, seq));
        self.in_flight = None;
        Some(duplicate)
    }

    /// The newest acknowledgements are where they should be.
    pub(crate) fn check_recent(&self, url: &str) {
        for (sent, seq) in self.acked.iter().rev().take(3) {
            let path = sent.feed.replace('/', "%2F");
            let mut answer = self
                .agent
                .get(format!("{url}/v1/feeds/{path}/entries/{seq}"))
                .header("authorization", format!("Bearer {}", self.uid))
                .call()
                .expect("the server answers");
            assert_eq!(answer.status(), 200, "{} at {seq} was acknowledged and is lost", sent.id);
            let entry: Value = answer.body_mut().read_json().expect("an entry is JSON");
            assert_eq!(entry["client_msg_id"], json!(sent.id), "another message stands at {seq}");
            assert_eq!(entry["payload"], json!(sent.text));
        }
    }

    /// The own feed holds exactly what was sent, in the order in which it was sent.
    pub(crate) fn check_all(&self, url: &str) {
        let entries = messages(&self.agent, url, &self.own());
        let expected: Vec<_> = self.acked.iter().filter(|(sent, _)| sent.feed == self.own()).collect();
        assert_eq!(entries.len(), expected.len(), "{}: lost or doubled", self.own());
        for ((id, seq, text), (sent, acked_seq)) in entries.iter().zip(expected) {
            assert_eq!((id, *seq, text), (&sent.id, *acked_seq, &sent.text), "{}: reordered", self.own());
        }
    }
}

/// The shared feed holds what all clients together were told.
pub(crate) fn check_shared(url: &str, clients: &[Client]) {
    let entries = messages(&agent(), url, SHARED);
    let mut expected = HashMap::new();
    for (sent, seq) in clients.iter().flat_map(|client| &client.acked) {
        if sent.feed == SHARED {
            assert!(expected.insert(*seq, sent).is_none(), "two acknowledgements for {seq}");
        }
    }
    assert_eq!(entries.len(), expected.len(), "the shared feed lost or doubled a message");
    for (id, seq, text) in &entries {
        let sent = expected.get(seq).unwrap_or_else(|| panic!("nobody was told of {seq}"));
        assert_eq!((id, text), (&sent.id, &sent.text));
    }
}

/// All messages of a feed: id, place, text.
fn messages(agent: &ureq::Agent, url: &str, feed: &str) -> Vec<(String, u64, String)> {
    let text = |entry: &Value, name: &str| entry[name].as_str().expect("a text").to_owned();
    entries(agent, url, feed, "admin")
        .iter()
        .map(|entry| {
            let seq = entry["seq_id"].as_u64().expect("an entry has a place");
            (text(entry, "client_msg_id"), seq, text(entry, "payload"))
        })
        .collect()
}

/// The payloads of all messages of a feed.
pub(crate) fn payloads(url: &str, feed: &str) -> Vec<Bytes> {
    let payload = |entry: &Value| match entry["payload_base64"].as_str() {
        Some(text) => STANDARD.decode(text).expect("base64").into(),
        None => entry["payload"].to_string().into(),
    };
    entries(&agent(), url, feed, "admin").iter().map(payload).collect()
}

/// The places of all messages of a feed, as this user reads them.
pub(crate) fn places(url: &str, feed: &str, token: &str) -> Vec<u64> {
    let place = |entry: &Value| entry["seq_id"].as_u64().expect("an entry has a place");
    entries(&agent(), url, feed, token).iter().map(place).collect()
}

/// All messages of a feed. The places of all entries must be 1, 2, 3 … without a gap.
fn entries(agent: &ureq::Agent, url: &str, feed: &str, token: &str) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let path = feed.replace('/', "%2F");
        let mut answer = agent
            .get(format!("{url}/v1/feeds/{path}/entries?last_seq_id={after}&limit=1000"))
            .header("authorization", format!("Bearer {token}"))
            .call()
            .expect("the server answers");
        assert_eq!(answer.status(), 200, "{feed}");
        let page: Value =
            answer.body_mut().with_config().limit(64 << 20).read_json().expect("a page is JSON");
        for entry in page["entries"].as_array().expect("a page has entries") {
            let seq = entry["seq_id"].as_u64().expect("an entry has a place");
            assert_eq!(seq, after + 1, "{feed} has a gap");
            after = seq;
            if entry["type"] == "message" {
                all.push(entry.clone());
            }
        }
        if page["next"].is_null() {
            assert_eq!(page["head_seq_id"].as_u64(), Some(after), "{feed} ends before its head");
            return all;
        }
    }
}
