//! The WebSocket systems beside MQTT: rooms of gotapi-ws and the channels of CONNMIX. The client is as light as the other.

use std::net::SocketAddr;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::BenchError;
use super::client::{PATIENCE, dial};
use super::{Broker, Common};

/// What a program is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// MQTT over TCP.
    Mqtt,
    /// Raw frames in rooms of gotapi-ws; nothing acknowledges them.
    Room,
    /// Data packets in those rooms.
    Packet,
    /// CONNMIX: `mesh.publish` on `/ws/v1`, clients on `/message-center`.
    Connmix,
}

impl Wire {
    /// As options name it.
    pub(super) fn named(name: &str) -> Option<Self> {
        [("mqtt", Self::Mqtt), ("room", Self::Room), ("packet", Self::Packet), ("connmix", Self::Connmix)]
            .into_iter()
            .find_map(|(known, wire)| (known == name).then_some(wire))
    }
}

/// A WebSocket past its handshake.
pub(super) struct Web {
    pub(super) stream: TcpStream,
    buffer: BytesMut,
}

impl Web {
    async fn open(address: SocketAddr, number: usize, path: &str) -> Result<Self, BenchError> {
        let mut stream = dial(address, number).await?;
        let ask = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(ask.as_bytes()).await?;
        let mut web = Self { stream, buffer: BytesMut::new() };
        let head = tokio::time::timeout(PATIENCE, web.head()).await;
        head.map_err(|_| BenchError::Other("no answer to the handshake".into()))??;
        Ok(web)
    }

    async fn head(&mut self) -> Result<(), BenchError> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.buffer.split_to(end + 4);
                if head.starts_with(b"HTTP/1.1 101 ") {
                    return Ok(());
                }
                let line = head[..].split(|byte| *byte == b'\r').next().unwrap_or_default();
                return Err(BenchError::Other(format!("refused: {}", String::from_utf8_lossy(line))));
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), BenchError> {
        self.buffer.reserve(4096);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(BenchError::Other("the server closed the connection".into())),
            _ => Ok(()),
        }
    }

    /// The next text. Pings are not answered: no connection is as old as that.
    pub(super) async fn next(&mut self) -> Result<Bytes, BenchError> {
        loop {
            if let Some(text) = self.buffered()? {
                return Ok(text);
            }
            self.read().await?;
        }
    }

    /// A text that was read already.
    pub(super) fn buffered(&mut self) -> Result<Option<Bytes>, BenchError> {
        while let Some(header) = Header::read(&self.buffer) {
            if self.buffer.len() < header.bytes + header.payload {
                return Ok(None);
            }
            self.buffer.advance(header.bytes);
            let payload = self.buffer.split_to(header.payload).freeze();
            match header.opcode {
                TEXT => return Ok(Some(payload)),
                CLOSE => {
                    let why = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                    return Err(BenchError::Other(format!("the server closes: {why}")));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    async fn ask(&mut self, text: &str) -> Result<(), BenchError> {
        let mut out = BytesMut::new();
        frame(text.as_bytes(), &mut out);
        self.stream.write_all(&out).await?;
        let answer = tokio::time::timeout(PATIENCE, self.next()).await;
        let answer = answer.map_err(|_| BenchError::Other("the server does not answer".into()))??;
        match &answer[..] {
            br#"{"result":true}"# => Ok(()),
            other => Err(BenchError::Other(format!("refused: {}", String::from_utf8_lossy(other)))),
        }
    }

    /// A connection that publishes.
    pub(super) async fn publisher(
        common: &Common,
        broker: &Broker,
        number: usize,
        name: &str,
    ) -> Result<Self, BenchError> {
        match broker.wire {
            Wire::Connmix => Self::open(broker.address, number, &with_token(common, "/ws/v1")).await,
            _ => Self::room(common, broker, number, name).await,
        }
    }

    /// A connection that receives what is published under this name.
    pub(super) async fn subscriber(
        common: &Common,
        broker: &Broker,
        number: usize,
        name: &str,
    ) -> Result<Self, BenchError> {
        if broker.wire != Wire::Connmix {
            return Self::room(common, broker, number, name).await;
        }
        let mut web = Self::open(broker.address, number, "/message-center").await?;
        let token = common.password.as_deref().unwrap_or("bench");
        web.ask(&serde_json::json!({"op": "auth", "token": token}).to_string()).await?;
        let channel = format!("{name}@{}", common.prefix);
        web.ask(&serde_json::json!({"op": "subscribe", "channel": channel}).to_string()).await?;
        Ok(web)
    }

    async fn room(common: &Common, broker: &Broker, number: usize, name: &str) -> Result<Self, BenchError> {
        let path = with_token(common, &format!("/{}/{name}", common.prefix));
        Self::open(broker.address, number, &path).await
    }
}

fn with_token(common: &Common, path: &str) -> String {
    match &common.password {
        Some(token) => {
            let token = percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC);
            format!("{path}?token={token}")
        }
        None => path.to_owned(),
    }
}

/// What a publisher sends.
pub(super) struct Sends {
    wire: Wire,
    channel: String,
    /// Begins every uuid, so that none comes twice.
    begins: String,
    next: u64,
    text: Vec<u8>,
}

impl Sends {
    pub(super) fn new(common: &Common, wire: Wire, name: &str) -> Self {
        let since = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
        Self {
            wire,
            channel: format!("{}:{name}", common.prefix),
            begins: format!("{since:x}-{name}"),
            next: 0,
            text: Vec::new(),
        }
    }

    /// Writes a frame with this payload, which is a JSON string; its answer will name the slot.
    pub(super) fn write(&mut self, payload: &[u8], slot: u16, out: &mut BytesMut) {
        use std::io::Write as _;
        if matches!(self.wire, Wire::Mqtt | Wire::Room) {
            return frame(payload, out);
        }
        self.next += 1;
        self.text.clear();
        let text = &mut self.text;
        // Writing to memory does not fail.
        let _ = match self.wire {
            Wire::Connmix => write!(text, r#"{{"m":"mesh.publish","p":{{"c":"{}","d":"#, self.channel),
            _ => write!(text, r#"{{"body":{{"sent":false,"data":"#),
        };
        text.extend_from_slice(payload);
        let _ = match self.wire {
            Wire::Connmix => write!(text, r#"}},"i":{slot}}}"#),
            _ => write!(text, r#","hash":""}},"type":2,"uuid":"{}-{}"}}"#, self.begins, self.next),
        };
        frame(text, out);
    }

    /// The slot that an answer is of; `None` for what is no acknowledgement. Packets do not name it, but are answered in
    /// their order: `oldest` is the one that waits longest.
    pub(super) fn answered(&self, text: &[u8], oldest: Option<u16>) -> Result<u16, BenchError> {
        let refused = || BenchError::Other(format!("refused: {}", String::from_utf8_lossy(text)));
        let has = |part: &[u8]| text.windows(part.len()).any(|bytes| bytes == part);
        let slot =
            match self.wire {
                Wire::Connmix if has(br#""E":null"#) => {
                    let at = text.windows(4).rposition(|bytes| bytes == br#""i":"#).ok_or_else(refused)?;
                    let digits = text[at + 4..].iter().take_while(|byte| byte.is_ascii_digit());
                    Some(digits.fold(0, |sum: u16, digit| {
                        sum.wrapping_mul(10).wrapping_add(u16::from(digit - b'0'))
                    }))
                }
                Wire::Packet if has(br#""command":1,"#) || has(br#""command":1}"#) => oldest,
                _ => None,
            };
        slot.ok_or_else(refused)
    }
}

/// RFC 6455 §11.8.
const TEXT: u8 = 1;
const CLOSE: u8 = 8;

/// A text frame, masked with zeros, which changes nothing.
fn frame(text: &[u8], out: &mut BytesMut) {
    out.put_u8(0x80 | TEXT);
    match text.len() {
        short @ 0..=125 => out.put_u8(0x80 | short as u8),
        middle @ 126..=0xffff => {
            out.put_u8(0x80 | 126);
            out.put_u16(middle as u16);
        }
        long => {
            out.put_u8(0x80 | 127);
            out.put_u64(long as u64);
        }
    }
    out.put_u32(0);
    out.put_slice(text);
}

/// The beginning of a frame of the server.
struct Header {
    opcode: u8,
    bytes: usize,
    payload: usize,
}

impl Header {
    /// `None` when more bytes are needed.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (opcode, length) = (bytes.first()? & 0x0f, bytes.get(1)? & 0x7f);
        let (header, payload) = match length {
            126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
            127 => (10, usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).ok()?),
            short => (2, usize::from(short)),
        };
        Some(Self { opcode, bytes: header, payload })
    }
}

/// Counts the texts of a stream without copying them.
#[derive(Debug, Default)]
pub(super) struct WebSkim {
    /// Of a header that is not whole.
    start: Vec<u8>,
    opcode: u8,
    left: usize,
}

impl WebSkim {
    /// Returns how many texts ended within `bytes`.
    pub(super) fn texts(&mut self, mut bytes: &[u8]) -> u64 {
        let mut ended = 0;
        loop {
            let here = self.left.min(bytes.len());
            bytes = bytes.get(here..).unwrap_or_default();
            self.left -= here;
            if self.left > 0 {
                return ended;
            }
            ended += u64::from(std::mem::take(&mut self.opcode) == TEXT);
            // A whole header is read where it stands, one that is cut is put together.
            let header = if self.start.is_empty() { Header::read(bytes) } else { None };
            let header = match header {
                Some(header) => {
                    bytes = bytes.get(header.bytes..).unwrap_or_default();
                    header
                }
                None => loop {
                    if let Some(header) = Header::read(&self.start) {
                        self.start.clear();
                        break header;
                    }
                    let Some((byte, rest)) = bytes.split_first() else { return ended };
                    self.start.push(*byte);
                    bytes = rest;
                },
            };
            (self.opcode, self.left) = (header.opcode, header.payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(opcode: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![0x80 | opcode];
        match payload {
            short @ 0..=125 => bytes.push(short as u8),
            middle @ 126..=0xffff => {
                bytes.push(126);
                bytes.extend((middle as u16).to_be_bytes());
            }
            long => {
                bytes.push(127);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        bytes.resize(bytes.len() + payload, 0x81);
        bytes
    }

    #[test]
    fn texts_are_counted_wherever_the_stream_is_cut() {
        let frames = [(1, 0), (1, 125), (9, 3), (1, 126), (2, 200), (1, 70_000), (1, 1)];
        let stream: Vec<u8> = frames.iter().flat_map(|(opcode, size)| server_frame(*opcode, *size)).collect();
        for cut in (1..600).chain([stream.len()]) {
            let mut skim = WebSkim::default();
            let count: u64 = stream.chunks(cut).map(|part| skim.texts(part)).sum();
            assert_eq!(count, 5, "cut every {cut} bytes");
        }
    }

    #[test]
    fn answers_name_their_slot() {
        let sends = |wire| Sends {
            wire,
            channel: "bench:1".to_owned(),
            begins: "b".to_owned(),
            next: 0,
            text: Vec::new(),
        };
        let connmix = sends(Wire::Connmix);
        let done = br#"{"E":null,"r":{"s":0,"f":0,"seq_id":4},"i":12}"#;
        assert_eq!(connmix.answered(done, None).unwrap(), 12);
        assert!(connmix.answered(br#"{"E":{"c":101,"m":"no"},"i":12}"#, None).is_err());
        let packet = sends(Wire::Packet);
        let ack =
            br#"{"uuid":"b-1","body":{"data":null,"sent":false,"hash":""},"type":1,"command":1,"x":{}}"#;
        assert_eq!(packet.answered(ack, Some(3)).unwrap(), 3);
        assert!(packet.answered(ack, None).is_err());
        let mut out = BytesMut::new();
        sends(Wire::Packet).write(b"\"hi\"", 0, &mut out);
        assert_eq!(&out[6..], br#"{"body":{"sent":false,"data":"hi","hash":""},"type":2,"uuid":"b-1"}"#);
        assert_eq!(out[..6], [0x81, 0x80 | 67, 0, 0, 0, 0]);
    }
}
