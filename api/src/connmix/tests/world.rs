//! The real server with all faces over a store in memory, WebSocket clients, and a webhook that does as it is told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use feedlog_core::command::{Principal, Scopes};
use feedlog_core::ids::Uid;
use feedlog_service::auth::{AuthConfig, NewToken, Secret};
use feedlog_service::{Gate, Store, StoreConfig};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::connmix::{Connmix, ConnmixConfig};
use crate::http::{Face, HttpConfig, Listener, Services, serve};

/// The administrator's token.
pub(super) const ADMIN: &str = "the-first-token-of-these-tests-0123456789";
/// No test waits longer for what must come.
const SOON: Duration = Duration::from_secs(20);

/// A server with a listener for each face.
pub(super) struct World {
    pub(super) shared: SocketAddr,
    pub(super) clients: SocketAddr,
    pub(super) api: SocketAddr,
    pub(super) center: SocketAddr,
    pub(super) store: Store,
    stop: Option<oneshot::Sender<()>>,
    done: tokio::task::JoinHandle<()>,
}

/// Only tokens that were made are good, and the API trusts loopback.
pub(super) fn config() -> ConnmixConfig {
    ConnmixConfig { api_is_loopback: true, cursor_ms: 1, ..ConnmixConfig::default() }
}

/// Any uid is its own token.
pub(super) fn dev() -> ConnmixConfig {
    ConnmixConfig { dev: true, ..config() }
}

impl World {
    pub(super) async fn new(config: ConnmixConfig) -> Self {
        Self::with(config, HttpConfig::default()).await
    }

    pub(super) async fn with(config: ConnmixConfig, http: HttpConfig) -> Self {
        let auth =
            AuthConfig { dev: config.dev, admin_token: Some(Secret::new(ADMIN)), ..AuthConfig::default() };
        let store = Store::in_memory(StoreConfig {
            shards: 2,
            auth,
            payload_bytes_max: config.payload_bytes_max,
            ..StoreConfig::default()
        })
        .unwrap();
        Self::over(config, http, store).await
    }

    pub(super) async fn over(config: ConnmixConfig, http: HttpConfig, store: Store) -> Self {
        let http = HttpConfig { payload_bytes_max: config.payload_bytes_max, ..http };
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for face in [Face::Shared, Face::ConnmixClients, Face::ConnmixApi, Face::ConnmixCenter] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            listeners.push(Listener { listener, face });
        }
        let config = ConnmixConfig { api_port: Some(addresses[2].port()), ..config };
        let connmix = Connmix::new(config, store.clone()).unwrap();
        let services = Services {
            store: store.clone(),
            metrics: Arc::new(String::new),
            mqtt: None,
            gws: None,
            connmix: Some(connmix),
        };
        let (stop, stopped) = oneshot::channel();
        let done = tokio::spawn(async move {
            let shutdown = async move {
                let _ = stopped.await;
            };
            serve(http, listeners, services, shutdown).await.unwrap();
        });
        Self {
            shared: addresses[0],
            clients: addresses[1],
            api: addresses[2],
            center: addresses[3],
            store,
            stop: Some(stop),
            done,
        }
    }

    /// Asks the server to end.
    pub(super) fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits for the server's end.
    pub(super) async fn ended(self) {
        tokio::time::timeout(SOON, self.done).await.unwrap().unwrap();
    }

    /// A client on the listener for clients.
    pub(super) async fn client(&self) -> Peer {
        Peer::connect(self.clients, "/message-center", "").await
    }

    /// A client that logged in.
    pub(super) async fn user(&self, token: &str) -> Peer {
        let mut client = self.client().await;
        client.ask(&json!({"op": "auth", "token": token}).to_string(), r#"{"result":true}"#).await;
        client
    }

    /// A client that logged in and subscribed.
    pub(super) async fn subscriber(&self, token: &str, channel: &str) -> Peer {
        let mut client = self.user(token).await;
        client.ask(&json!({"op": "subscribe", "channel": channel}).to_string(), r#"{"result":true}"#).await;
        client
    }

    /// A back end on `/ws/v1`.
    pub(super) async fn back_end(&self) -> Peer {
        Peer::connect(self.api, "/ws/v1", "").await
    }

    /// A token for a user of the store.
    pub(super) async fn token(&self, uid: &str, scopes: Scopes) -> String {
        let scopes_all = Scopes { user: true, send_as: true, audit: true, admin: true };
        let root =
            Principal { uid: Uid::parse("root").unwrap(), scopes: scopes_all, anonymous: false, via: None };
        let token = NewToken { uid: Uid::parse(uid).unwrap(), scopes, expires_ms: None, note: None };
        self.store.auth().create_token(&root, token).await.unwrap().secret.expose().to_owned()
    }

    /// The store as this user may use it.
    pub(super) fn gate(&self, uid: &str) -> Gate {
        self.store.gate(self.store.auth().vouched(Uid::parse(uid).unwrap()).unwrap())
    }

    /// `POST` to the API; status and body.
    pub(super) async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let answer = ask(self.api, "POST", path, "content-type: application/json\r\n", body).await;
        (answer.status, answer.json())
    }

    /// Publishes over HTTP; the `seq_id`.
    pub(super) async fn publish(&self, channel: &str, text: &str) -> u64 {
        let (status, answer) =
            self.post("/v1/mesh/publish", &json!({"c": channel, "d": text}).to_string()).await;
        assert_eq!((status, &answer["E"]), (200, &Value::Null), "{answer}");
        answer["r"]["seq_id"].as_u64().unwrap()
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

/// One request on its own connection.
pub(super) async fn ask(to: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    ask_at(to, &to.to_string(), method, path, headers, body).await
}

/// As [`ask`], with a `Host` of one's own.
pub(super) async fn ask_at(
    to: SocketAddr,
    host: &str,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Answer {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// A WebSocket client.
pub(super) struct Peer {
    socket: WebSocketStream<TcpStream>,
}

impl Peer {
    pub(super) async fn connect(to: SocketAddr, path: &str, headers: &str) -> Self {
        Self::try_connect(to, path, headers).await.unwrap()
    }

    /// `Err` with the status when it was refused.
    pub(super) async fn try_connect(to: SocketAddr, path: &str, headers: &str) -> Result<Self, u16> {
        let stream = TcpStream::connect(to).await.unwrap();
        let mut request = tungstenite::http::Request::builder()
            .uri(format!("ws://{to}{path}"))
            .header("host", to.to_string())
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        for line in headers.split("\r\n").filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        match tokio_tungstenite::client_async(request.body(()).unwrap(), stream).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub(super) async fn send_binary(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).await.unwrap();
    }

    /// Many frames in one write.
    pub(super) async fn send_all(&mut self, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            self.socket.feed(Message::text(text)).await.unwrap();
        }
        self.socket.flush().await.unwrap();
    }

    /// The next frame that is not a control frame.
    pub(super) async fn next(&mut self) -> Message {
        loop {
            let frame = tokio::time::timeout(SOON, self.socket.next()).await.expect("a frame in time");
            match frame.expect("an open connection").expect("a frame") {
                Message::Ping(_) | Message::Pong(_) => {}
                frame => return frame,
            }
        }
    }

    pub(super) async fn text(&mut self) -> String {
        match self.next().await {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("a text, not {other:?}"),
        }
    }

    pub(super) async fn json(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}"))
    }

    /// Sends, and wants exactly this back.
    #[track_caller]
    pub(super) fn ask<'a>(
        &'a mut self,
        text: &'a str,
        wanted: &'a str,
    ) -> impl Future<Output = ()> + use<'a> {
        let caller = std::panic::Location::caller();
        async move {
            self.send(text).await;
            let got = self.text().await;
            assert_eq!(got, wanted, "{text} at {caller}");
        }
    }

    /// The connection is closed next, without another frame; the close code.
    pub(super) async fn closed(&mut self) -> u16 {
        match self.next().await {
            Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("a close, not {other:?}"),
        }
    }

    /// What was sent was looked at, and nothing else waits: answers come in order.
    pub(super) async fn quiet(&mut self) {
        self.ask(r#"{"op":"subscribe","channel":"x@"}"#, r#"{"code":1,"msg":"Invalid Channel"}"#).await;
    }
}

/// What the webhook does with a question.
#[derive(Clone)]
pub(super) enum Say {
    /// This status and body.
    Answer(u16, String),
    /// These bytes instead of HTTP.
    Raw(Vec<u8>),
    /// Nothing, until told otherwise.
    Hang,
}

/// A webhook.
pub(super) struct Hook {
    pub(super) address: SocketAddr,
    say: Arc<Mutex<Say>>,
    go_on: Arc<Notify>,
    pub(super) asked: Arc<AtomicUsize>,
    pub(super) requests: Arc<Mutex<Vec<String>>>,
}

impl Hook {
    pub(super) async fn new(say: Say) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hook = Self {
            address: listener.local_addr().unwrap(),
            say: Arc::new(Mutex::new(say)),
            go_on: Arc::new(Notify::new()),
            asked: Arc::default(),
            requests: Arc::default(),
        };
        let (say, go_on) = (hook.say.clone(), hook.go_on.clone());
        let (asked, requests) = (hook.asked.clone(), hook.requests.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (say, go_on, asked) = (say.clone(), go_on.clone(), asked.clone());
                tokio::spawn(answer(stream, say, go_on, asked, requests.clone()));
            }
        });
        hook
    }

    pub(super) async fn user(uid: &str) -> Self {
        Self::new(Say::Answer(200, format!(r#"{{"uid":{uid}}}"#))).await
    }

    /// What it says from now on, also to those who wait.
    pub(super) fn says(&self, say: Say) {
        *self.say.lock().unwrap() = say;
        self.go_on.notify_waiters();
    }

    pub(super) fn count(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// With this webhook, and nobody else to ask.
    pub(super) fn config(&self) -> ConnmixConfig {
        ConnmixConfig {
            auth_url: Some(format!("http://{}/websocket_auth", self.address)),
            auth_hosts: vec![self.address.to_string()],
            ..config()
        }
    }
}

async fn answer(
    mut stream: TcpStream,
    say: Arc<Mutex<Say>>,
    go_on: Arc<Notify>,
    asked: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                requests.lock().unwrap().push(text);
                break;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    asked.fetch_add(1, Ordering::SeqCst);
    loop {
        let told = go_on.notified();
        let now = say.lock().unwrap().clone();
        let bytes = match now {
            Say::Hang => {
                told.await;
                continue;
            }
            Say::Raw(bytes) => bytes,
            Say::Answer(status, body) => {
                let length = body.len();
                format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
                    .into_bytes()
            }
        };
        let _ = stream.write_all(&bytes).await;
        return;
    }
}
