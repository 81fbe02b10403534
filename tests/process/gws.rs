//! A light client of the rooms: frames in, frames out. What they mean is the test's business.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

/// Longest time that a test waits for a frame: a failure, never a way to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a room sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// Our packet with this uuid is durable.
    Ack(String),
    /// Somebody's packet, and its uuid.
    Packet(String, String),
    /// Any other text.
    Raw(String),
    /// The server closed, with its code when it said one.
    Closed(Option<u16>),
}

/// A connection to a room.
pub(crate) struct Room {
    socket: WebSocket<TcpStream>,
}

impl Room {
    /// Connects; `None` when the server is not there.
    pub(crate) fn connect(server: &str, room: &str) -> Option<Self> {
        let stream = TcpStream::connect(server).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        // What waits to leave is never more than one frame.
        let config = WebSocketConfig::default().max_message_size(Some(16 << 20));
        let url = format!("ws://{server}{room}");
        let (socket, _) = tungstenite::client::client_with_config(url, stream, Some(config)).ok()?;
        Some(Self { socket })
    }

    /// Sends a text; `None` when the server is gone.
    pub(crate) fn send(&mut self, text: impl Into<String>) -> Option<()> {
        self.socket.send(Message::text(text.into())).ok()
    }

    /// The next thing the room sends; `None` when the server is gone without a word.
    pub(crate) fn next(&mut self) -> Option<Got> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Some(got(text.as_str())),
                Ok(Message::Close(frame)) => return Some(Got::Closed(frame.map(|frame| frame.code.into()))),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Binary(bytes)) => panic!("a binary frame of {} bytes", bytes.len()),
                Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("nothing comes within {PATIENCE:?}")
                }
                Err(_) => return None,
            }
        }
    }
}

fn got(text: &str) -> Got {
    let packet = serde_json::from_str::<Value>(text).unwrap_or_default();
    let uuid = || packet["uuid"].as_str().unwrap_or_default().to_owned();
    match (packet["type"].as_u64(), packet["command"].as_u64()) {
        (Some(2), _) => Got::Packet(uuid(), text.to_owned()),
        (Some(1), Some(1)) => Got::Ack(uuid()),
        _ => Got::Raw(text.to_owned()),
    }
}

/// A data packet as the original client makes it.
pub(crate) fn packet(uuid: &str, data: &str) -> String {
    format!(r#"{{"body":{{"sent":false,"data":"{data}","hash":""}},"type":2,"uuid":"{uuid}"}}"#)
}

/// All packets of a room, the oldest first, byte for byte.
pub(crate) fn history(url: &str, room: &str) -> Vec<String> {
    const PAGE: usize = 1000;
    let mut newest_first = Vec::new();
    loop {
        let asked = [
            ("groupName", room.to_owned()),
            ("size", PAGE.to_string()),
            ("position", newest_first.len().to_string()),
        ];
        let mut answer = ureq::post(format!("{url}/__/history/")).send_form(asked).expect("a history");
        let body = answer.body_mut().with_config().limit(64 << 20).read_to_string().expect("a text");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["code"], json!(200), "{body}");
        let data = body["data"].as_array().expect("a list");
        newest_first.extend(data.iter().map(|item| item.as_str().expect("a string").to_owned()));
        if data.len() < PAGE {
            newest_first.reverse();
            return newest_first;
        }
    }
}

/// The opening handshake alone, and a socket that is small on our side too.
pub(crate) fn open(server: &str, room: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    stream.write_all(handshake(server, room).as_bytes()).expect("the server reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut some = [0; 512];
        let count = stream.read(&mut some).expect("an answer");
        assert!(count > 0, "closed: {}", String::from_utf8_lossy(&head));
        head.extend_from_slice(&some[..count]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

/// The request that opens a WebSocket.
pub(crate) fn handshake(server: &str, room: &str) -> String {
    format!(
        "GET {room} HTTP/1.1\r\nHost: {server}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}
