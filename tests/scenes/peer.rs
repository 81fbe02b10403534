//! Somebody on MQTT, over TCP or WebSocket, and somebody on HTTP with a stream of events.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use feedlog_api::mqtt::wire::{
    Ack, Connect, Decoder, Level, Packet, Properties, PropertyWriter, Publish, Qos, Role, Subscribe,
    SubscribeOptions, Text, encode,
};
use serde_json::{Value, json};

/// What does not come in this time does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client of MQTT.
pub(crate) struct Peer {
    stream: TcpStream,
    web: bool,
    /// Bytes of the socket that are not a whole WebSocket frame.
    frames: BytesMut,
    input: BytesMut,
    decoder: Decoder,
    level: Level,
    requests: u64,
    /// What came while something else was waited for.
    inbox: VecDeque<Publish>,
    pub(crate) session_present: bool,
}

impl Peer {
    /// Over TCP.
    pub(crate) fn tcp(server: SocketAddr, level: Level, user: &str, lasting: bool) -> Self {
        Self::over(TcpStream::connect(server).unwrap(), false, level, user, lasting)
    }

    /// Over WebSocket, as Paho's page does.
    pub(crate) fn web(url: &str, user: &str) -> Self {
        let host = url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        write!(
            stream,
            "GET /mqtt HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        )
        .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101") && head.contains("sec-websocket-protocol: mqtt"), "{head}");
        Self::over(stream, true, Level::V311, user, false)
    }

    fn over(stream: TcpStream, web: bool, level: Level, user: &str, lasting: bool) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut decoder = Decoder::new(Role::Client, 16 << 20);
        decoder.set_level(level);
        let (frames, input) = (BytesMut::new(), BytesMut::new());
        let inbox = VecDeque::new();
        let mut peer =
            Self { stream, web, frames, input, decoder, level, requests: 0, inbox, session_present: false };
        let properties = match level {
            Level::V5 if lasting => {
                let mut writer = PropertyWriter::new();
                writer.session_expiry_s(3600);
                writer.finish()
            }
            _ => Properties::default(),
        };
        peer.send(&Packet::Connect(Box::new(Connect {
            level,
            clean_start: !lasting,
            keep_alive_s: 60,
            client_id: Text::new(&format!("{user}-1")).unwrap(),
            will: None,
            username: Text::new(user),
            password: Some(Bytes::copy_from_slice(user.as_bytes())),
            properties,
        })));
        match peer.next() {
            Packet::Connack(connack) => {
                assert_eq!(connack.reason, 0, "{user}");
                peer.session_present = connack.session_present;
            }
            other => panic!("not a CONNACK: {other:?}"),
        }
        peer
    }

    fn send(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        encode::packet(self.level, packet, &mut bytes);
        if self.web {
            // A binary frame, masked with zeros.
            let mut head = vec![0x82];
            match bytes.len() {
                short @ 0..=125 => head.push(0x80 | short as u8),
                long => {
                    head.push(0x80 | 126);
                    head.extend((long as u16).to_be_bytes());
                }
            }
            head.extend([0; 4]);
            self.stream.write_all(&head).unwrap();
        }
        self.stream.write_all(&bytes).unwrap();
    }

    fn next(&mut self) -> Packet {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.input).unwrap() {
                return packet;
            }
            assert!(Instant::now() < deadline, "nothing comes");
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => panic!("the server closed"),
                Ok(count) if self.web => self.unframe(&bytes[..count]),
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
            }
        }
    }

    fn unframe(&mut self, bytes: &[u8]) {
        self.frames.extend_from_slice(bytes);
        while self.frames.len() >= 2 {
            assert!(matches!(self.frames[0] & 0x0f, 0 | 2), "a data frame with bytes");
            let (head, length) = match self.frames[1] {
                126 if self.frames.len() < 4 => return,
                126 => (4, usize::from(u16::from_be_bytes([self.frames[2], self.frames[3]]))),
                short => (2, usize::from(short)),
            };
            if self.frames.len() < head + length {
                return;
            }
            self.frames.advance(head);
            let data = self.frames.split_to(length);
            self.input.extend_from_slice(&data);
        }
    }

    /// The next packet that is not a message; messages are acknowledged and kept.
    fn answer(&mut self) -> Packet {
        loop {
            match self.next() {
                Packet::Publish(message) => {
                    if let Some(packet_id) = message.packet_id {
                        assert_eq!(message.qos, Qos::AtLeastOnce);
                        self.send(&Packet::Puback(Ack {
                            packet_id,
                            reason: 0,
                            properties: Properties::default(),
                        }));
                    }
                    self.inbox.push_back(message);
                }
                other => return other,
            }
        }
    }

    pub(crate) fn subscribe(&mut self, filter: &str) {
        let options = SubscribeOptions {
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
        };
        let (packet_id, properties) = (NonZeroU16::new(500).unwrap(), Properties::default());
        let filters = vec![(Text::new(filter).unwrap(), options)];
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties, filters }));
        match self.answer() {
            Packet::Suback(suback) => assert!(suback.reasons[0] < 0x80, "{filter}: {suback:?}"),
            other => panic!("not a SUBACK: {other:?}"),
        }
    }

    /// Publishes at QoS 1 and waits for the acknowledgement.
    pub(crate) fn publish(&mut self, topic: &str, payload: impl Into<Bytes>) -> Ack {
        let packet_id = NonZeroU16::new(7);
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic: Text::new(topic).unwrap(),
            packet_id,
            properties: Properties::default(),
            payload: payload.into(),
        }));
        match self.answer() {
            Packet::Puback(ack) => {
                assert_eq!((Some(ack.packet_id), ack.reason), (packet_id, 0), "{topic}");
                ack
            }
            other => panic!("not a PUBACK: {other:?}"),
        }
    }

    /// A request by one of mqant's methods: its result.
    pub(crate) fn ask(&mut self, method: &str, body: &Value) -> Value {
        self.requests += 1;
        let topic = format!("im://modulus/{method}?msg_id={}", self.requests);
        self.publish(&topic, body.to_string());
        let reply =
            self.message(|message| (message.topic.as_str() == topic).then(|| message.payload.clone()));
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        assert_eq!(reply["Error"], "", "{method} {body}: {reply}");
        reply["Result"].clone()
    }

    /// The first message, of those that came and those to come, that is meant. It is taken; the others stay.
    #[track_caller]
    pub(crate) fn message<T>(&mut self, meant: impl Fn(&Publish) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found =
                self.inbox.iter().enumerate().find_map(|(at, one)| meant(one).map(|found| (at, found)));
            if let Some((at, found)) = found {
                self.inbox.remove(at);
                return found;
            }
            assert!(Instant::now() < deadline, "it does not come; here is {:?}", self.inbox);
            self.send(&Packet::Pingreq);
            assert_eq!(self.answer(), Packet::Pingresp);
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// A request over HTTP.
pub(crate) fn http(url: &str, uid: &str, method: &str, path: &str, body: Option<Value>) -> Value {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{url}{path}"))
        .header("authorization", format!("Bearer {uid}"))
        .header("content-type", "application/json");
    let answer = match body {
        Some(body) => agent.run(request.body(body.to_string()).unwrap()),
        None => agent.run(request.body(()).unwrap()),
    };
    let mut answer = answer.unwrap();
    let status = answer.status();
    let text = answer.body_mut().read_to_string().unwrap();
    assert!(status.is_success(), "{method} {path} as {uid}: {status} {text}");
    serde_json::from_str(&text).unwrap_or(json!(null))
}

/// A stream of server-sent events of all feeds of a user.
pub(crate) struct Events {
    entries: Receiver<(String, Value)>,
    seen: Vec<Value>,
    /// Where to go on.
    pub(crate) last_id: Option<String>,
}

impl Events {
    pub(crate) fn open(url: &str, uid: &str, last_id: Option<&str>) -> Self {
        let mut request =
            ureq::get(format!("{url}/v1/stream")).header("authorization", format!("Bearer {uid}"));
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let answer = request.call().unwrap();
        let (told, entries) = channel();
        std::thread::spawn(move || {
            let (mut id, mut event) = (String::new(), String::new());
            for line in BufReader::new(answer.into_body().into_reader()).lines().map_while(Result::ok) {
                if let Some(text) = line.strip_prefix("id:") {
                    text.trim().clone_into(&mut id);
                } else if let Some(text) = line.strip_prefix("event:") {
                    text.trim().clone_into(&mut event);
                } else if let Some(data) = line.strip_prefix("data:")
                    && event == "entry"
                    && told.send((id.clone(), serde_json::from_str(data).unwrap())).is_err()
                {
                    return;
                }
            }
        });
        Self { entries, seen: Vec::new(), last_id: last_id.map(str::to_owned) }
    }

    /// The entry at this place of a feed.
    pub(crate) fn entry(&mut self, feed: &str, seq: u64) -> Value {
        let meant = |entry: &&Value| entry["feed_id"] == feed && entry["seq_id"] == seq;
        loop {
            if let Some(entry) = self.seen.iter().find(meant) {
                return entry.clone();
            }
            let (id, entry) = self.entries.recv_timeout(PATIENCE).expect("an entry, in time");
            self.last_id = Some(id);
            self.seen.push(entry);
        }
    }
}
