//! The real server over a store in memory, and clients of it.
//!
//! `node-gotapi-ws` can no longer be installed from the npm registry: these clients send the frames that 1.0.12 sends, which
//! were written down while it still ran.

use std::net::SocketAddr;
use std::time::Duration;

use feedlog_core::command::{Principal, Scopes};
use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_core::views::HistoryQuery;
use feedlog_service::auth::{AuthConfig, Secret};
use feedlog_service::clock::{Clock, ManualClock};
use feedlog_service::{Gate, Store, StoreConfig};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::gws::{Gws, GwsConfig};
use crate::http::{Face, HttpConfig, Listener, Services, serve};

/// Longest time that a test waits: a failure, never a way to pass.
const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const START_MS: u64 = 1_700_000_000_000;
/// The administrator's token in closed worlds.
pub(super) const ADMIN: &str = "the-first-token-of-these-tests-0123456789";

/// A packet as node-gotapi-ws 1.0.12 sends it [gws: data packet].
pub(super) fn packet(uuid: &str, text: &str) -> String {
    let hash = crate::gws::packet::hash(text.as_bytes());
    format!(r#"{{"body":{{"sent":false,"data":"{text}","hash":"{hash}"}},"type":2,"uuid":"{uuid}"}}"#)
}

/// Its acknowledgement [gws: ack].
pub(super) fn ack(uuid: &str) -> String {
    format!(
        r#"{{"uuid":"{uuid}","body":{{"data":null,"sent":false,"hash":""}},"type":1,"command":1,"queryArgs":{{"uuid":""}},"pullargs":{{"offset":0,"size":0}}}}"#
    )
}

/// A server, and what it works on.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) clock: ManualClock,
    /// The shared port.
    pub(super) shared: SocketAddr,
    /// The port of gotapi-ws alone.
    pub(super) own: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    done: tokio::task::JoinHandle<()>,
}

/// An answer to a request.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Got {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Status, and `code` and `msg` of the body.
    pub(super) fn said(&self) -> (u16, u64, String) {
        let json = self.json();
        (self.status, json["code"].as_u64().unwrap(), json["msg"].as_str().unwrap().to_owned())
    }
}

pub(super) fn open_auth() -> AuthConfig {
    AuthConfig { dev: true, anonymous: true, ..AuthConfig::default() }
}

/// Only the administrator's token opens.
pub(super) fn closed_auth() -> AuthConfig {
    AuthConfig { admin_token: Some(Secret::new(ADMIN)), ..AuthConfig::default() }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(GwsConfig::default()).await
    }

    pub(super) async fn with(config: GwsConfig) -> Self {
        Self::configured(config, HttpConfig::default(), open_auth()).await
    }

    pub(super) async fn configured(config: GwsConfig, http: HttpConfig, auth: AuthConfig) -> Self {
        let (clock, hand) = Clock::manual(START_MS);
        let config_of_store = StoreConfig {
            shards: 2,
            auth,
            clock,
            payload_bytes_max: http.payload_bytes_max,
            ..StoreConfig::default()
        };
        let store = Store::in_memory(config_of_store).unwrap();
        Self::over(store, hand, config, http).await
    }

    pub(super) async fn over(store: Store, clock: ManualClock, config: GwsConfig, http: HttpConfig) -> Self {
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for face in [Face::Shared, Face::Gws] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            listeners.push(Listener { listener, face });
        }
        let services = Services {
            store: store.clone(),
            metrics: std::sync::Arc::new(String::new),
            mqtt: None,
            gws: Some(Gws::new(config, store.clone()).unwrap()),
            connmix: None,
        };
        let (stop, stopped) = oneshot::channel();
        let done = tokio::spawn(async move {
            let shutdown = async move {
                let _ = stopped.await;
            };
            serve(http, listeners, services, shutdown).await.unwrap();
        });
        Self { store, clock, shared: addresses[0], own: addresses[1], stop: Some(stop), done }
    }

    /// Ends the server and waits until it has; the store goes on.
    pub(super) async fn stop(mut self) -> (Store, ManualClock) {
        let _ = self.stop.take().unwrap().send(());
        tokio::time::timeout(PATIENCE, &mut self.done).await.unwrap().unwrap();
        (self.store.clone(), self.clock.clone())
    }

    pub(super) fn gate(&self, uid: &str) -> Gate {
        self.store.gate(Principal {
            uid: Uid::parse(uid).unwrap(),
            scopes: Scopes { user: true, ..Scopes::default() },
            anonymous: false,
            via: None,
        })
    }

    /// A connection to a room, without a token.
    pub(super) async fn join(&self, path: &str) -> Client {
        self.try_join(path).await.unwrap()
    }

    pub(super) async fn try_join(&self, path: &str) -> Result<Client, Error> {
        let request = format!("ws://{}{path}", self.own).into_client_request()?;
        let (stream, _) = tokio::time::timeout(PATIENCE, connect_async(request)).await.unwrap()?;
        Ok(Client { stream })
    }

    /// The status with which a connection is refused.
    pub(super) async fn refused(&self, path: &str) -> u16 {
        match self.try_join(path).await {
            Err(Error::Http(response)) => response.status().as_u16(),
            Err(error) => panic!("{error}"),
            Ok(_) => 101,
        }
    }

    /// A request as it stands, on a connection of its own.
    pub(super) async fn ask(&self, line: &str, headers: &str, body: &[u8]) -> Got {
        ask(self.own, line, headers, body).await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> Got {
        self.ask(&format!("POST {path}"), "", body.as_bytes()).await
    }

    /// A form, as curl's `-d` sends it.
    pub(super) async fn form(&self, path: &str, body: &str) -> Got {
        let headers = "content-type: application/x-www-form-urlencoded\r\n";
        self.ask(&format!("POST {path}"), headers, body.as_bytes()).await
    }

    /// A history as the client asks for it: parameters in the query of a POST with an empty body. Packets, newest first.
    pub(super) async fn history(&self, room: &str, position: i64, size: i64) -> Vec<String> {
        let room = room.replace('/', "%2F");
        let got =
            self.post(&format!("/__/history/?groupName={room}&size={size}&position={position}"), "").await;
        assert_eq!(got.status, 200, "{got:?}");
        let json = got.json();
        assert_eq!((&json["code"], &json["position"]), (&200.into(), &position.into()));
        let data = json["data"].as_array().unwrap_or_else(|| panic!("data is an array: {got:?}"));
        data.iter().map(|packet| packet.as_str().unwrap().to_owned()).collect()
    }

    /// Everything in the log of a room: the kinds of entries.
    pub(super) async fn log(&self, room: &str) -> Vec<String> {
        let room = FeedId::parse(room).unwrap();
        let page = self.gate("reader").history(&room, HistoryQuery::After(SeqId(0)), 1000, 0).await.unwrap();
        let word = |text: String| text.split([' ', '(', '{']).next().unwrap().to_owned();
        page.entries.iter().map(|view| word(format!("{:?}", view.entry.event))).collect()
    }
}

pub(super) async fn ask(address: SocketAddr, line: &str, headers: &str, body: &[u8]) -> Got {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}{length}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(body).await;
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the server answers");
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = if head.contains("transfer-encoding: chunked") { unchunked(body) } else { body.to_owned() };
    Got { status, head: head.to_owned(), body }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
        if size == 0 {
            return whole;
        }
    }
    panic!("cut short: {whole}");
}

/// A connection to a room.
pub(super) struct Client {
    pub(super) stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    pub(super) async fn send(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    pub(super) async fn send_binary(&mut self, bytes: &[u8]) {
        self.stream.send(Message::binary(bytes.to_vec())).await.unwrap();
    }

    /// The next message, pings aside.
    pub(super) async fn message(&mut self) -> Message {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.stream.next()).await;
            match next.expect("a message in time").expect("an open connection").unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// The next text frame.
    pub(super) async fn text(&mut self) -> String {
        match self.message().await {
            Message::Text(text) => text.to_string(),
            other => panic!("text, not {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn gets(&mut self, expected: impl Into<String>) -> impl Future<Output = ()> {
        let (expected, place) = (expected.into(), std::panic::Location::caller());
        async move { assert_eq!(self.text().await, expected, "{place}") }
    }

    pub(super) async fn closed(&mut self) -> Option<CloseFrame> {
        match self.message().await {
            Message::Close(frame) => frame,
            other => panic!("a close, not {other:?}"),
        }
    }

    pub(super) async fn close_code(&mut self) -> u16 {
        self.closed().await.expect("a close says why").code.into()
    }

    /// Nothing waits for this connection: what it sends itself is the next that it and a peer see.
    pub(super) async fn is_quiet(&mut self, mark: &str) {
        self.send(&packet(mark, "mark")).await;
        self.gets(ack(mark)).await;
    }
}
