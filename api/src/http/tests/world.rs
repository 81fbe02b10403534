//! The real router and the real server over a store in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request};
use feedlog_service::auth::{AuthConfig, Secret};
use feedlog_service::{Store, StoreConfig};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tower::ServiceExt as _;

use crate::http::app::{App, router};
use crate::http::{HttpConfig, Services, serve};

/// The administrator's token in these tests.
pub(super) const ADMIN: &str = "the-first-token-of-these-tests-0123456789";

/// Everything opens in development mode: any uid is its own token.
pub(super) fn store() -> Store {
    let auth = AuthConfig { dev: true, anonymous: true, ..AuthConfig::default() };
    Store::in_memory(StoreConfig { shards: 2, auth, ..StoreConfig::default() }).unwrap()
}

/// Only the administrator's token opens.
pub(super) fn closed_store() -> Store {
    let auth = AuthConfig { admin_token: Some(Secret::new(ADMIN)), ..AuthConfig::default() };
    Store::in_memory(StoreConfig { shards: 2, auth, ..StoreConfig::default() }).unwrap()
}

pub(super) fn services(store: Store) -> Services {
    Services {
        store,
        metrics: Arc::new(|| "feedlog_test 1\n".to_owned()),
        mqtt: None,
        gws: None,
        connmix: None,
    }
}

/// The router without a server.
pub(super) struct World {
    pub(super) router: Router,
    pub(super) store: Store,
    pub(super) drain: watch::Sender<bool>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Got {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Status, error code and the field that the error names.
    pub(super) fn error(&self) -> (u16, String, String) {
        let error = &self.json()["error"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        assert!(error["message"].is_string() && error["details"].is_object(), "{self:?}");
        (self.status, text(&error["code"]), text(&error["details"]["field"]))
    }

    #[track_caller]
    pub(super) fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    #[track_caller]
    pub(super) fn fails(self, status: u16, code: &str) -> Value {
        assert_eq!(self.error().0, status, "{self:?}");
        assert_eq!(self.error().1, code, "{self:?}");
        self.json()["error"]["details"].clone()
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(store(), HttpConfig::default())
    }

    pub(super) fn with(store: Store, config: HttpConfig) -> Self {
        let (drain, draining) = watch::channel(false);
        let app = App::new(config, services(store.clone()), draining);
        Self { router: router(&app), store, drain }
    }

    pub(super) async fn raw(&self, request: Request<Body>) -> Got {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Got { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    /// A call of `who` with a body as it stands.
    pub(super) async fn text(&self, who: &str, method: &str, path: &str, body: &str) -> Got {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        if !who.is_empty() {
            request = request.header("authorization", format!("Bearer {who}"));
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        self.raw(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(super) async fn get(&self, who: &str, path: &str) -> Got {
        self.text(who, "GET", path, "").await
    }

    pub(super) async fn post(&self, who: &str, path: &str, body: Value) -> Got {
        self.text(who, "POST", path, &body.to_string()).await
    }

    pub(super) async fn put(&self, who: &str, path: &str, body: Value) -> Got {
        self.text(who, "PUT", path, &body.to_string()).await
    }

    pub(super) async fn patch(&self, who: &str, path: &str, body: Value) -> Got {
        self.text(who, "PATCH", path, &body.to_string()).await
    }

    pub(super) async fn delete(&self, who: &str, path: &str) -> Got {
        self.text(who, "DELETE", path, "").await
    }

    /// A group of ann's.
    pub(super) async fn group(&self, feed: &str, members: &[&str]) {
        let body = json!({"feed_id": feed, "kind": "group", "members": members});
        self.post("ann", "/v1/feeds", body).await.is(201);
    }

    /// Sends a text and gives its place.
    pub(super) async fn say(&self, who: &str, feed: &str, text: &str) -> u64 {
        let path = format!("/v1/feeds/{feed}/messages");
        self.post(who, &path, json!({"payload": text})).await.is(201)["seq_id"].as_u64().unwrap()
    }
}

/// A server on a real socket.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    pub(super) store: Store,
    stop: Option<oneshot::Sender<()>>,
    done: tokio::task::JoinHandle<()>,
}

impl Served {
    pub(super) async fn new(config: HttpConfig) -> Self {
        let store = store();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let services = services(store.clone());
        let done = tokio::spawn(async move {
            let shutdown = async move {
                let _ = stopped.await;
            };
            serve(config, vec![listener.into()], services, shutdown).await.unwrap();
        });
        Self { address, store, stop: Some(stop), done }
    }

    /// Asks the server to end.
    pub(super) fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits for the server's end.
    pub(super) async fn ended(self) {
        tokio::time::timeout(Duration::from_secs(20), self.done).await.unwrap().unwrap();
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// One HTTP/1.1 request on its own connection; everything until the server closes.
    pub(super) async fn ask(&self, head: &str, body: &str) -> String {
        let mut stream = self.connect().await;
        let length =
            if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let request = format!("{head}\r\nhost: x\r\nconnection: close\r\n{length}\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        until_closed(&mut stream).await
    }

    /// As ann, with a JSON body.
    pub(super) async fn ann(&self, line: &str, body: &Value) -> String {
        let head = format!("{line} HTTP/1.1\r\nauthorization: Bearer ann\r\ncontent-type: application/json");
        self.ask(&head, &body.to_string()).await
    }
}

/// Reads until the other side closes; fails after a while, so that no test hangs.
pub(super) async fn until_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the server closes the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `wanted` was seen.
pub(super) async fn until(stream: &mut (impl tokio::io::AsyncRead + Unpin), wanted: &str) -> String {
    let mut seen = String::new();
    let mut buffer = vec![0; 64 * 1024];
    while !seen.contains(wanted) {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer)).await;
        let count = read.unwrap_or_else(|_| panic!("{wanted:?} did not come: {seen}")).unwrap();
        assert!(count > 0, "closed before {wanted:?}: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    seen
}
