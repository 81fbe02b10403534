//! CONNMIX: the WebSocket user message center.
//!
//! | file | what |
//! |---|---|
//! | `ops.rs` | what clients say, the table of channels; pure |
//! | `follows.rs` | what a client subscribes to, and the frames for what comes; no IO |
//! | `client.rs` | a client's connection: log in, subscribe |
//! | `login.rs` | the webhook that says whose a token is |
//! | `asked.rs` | what back ends ask and are answered; pure |
//! | `caller.rs`, `access.rs` | which back ends may ask |
//! | `api.rs`, `publish.rs` | `/v1/mesh/…` and `/ws/v1` |
//! | `queue.rs` | topics and their workers |
//! | `registry.rs` | who is connected: counts, and frames for one connection |
//! | `center.rs` | `/version`, `/v1/nodes` |
//!
//! Every publish is a message of its channel's feed before anybody gets it; what is delivered comes from the log.

mod access;
mod api;
mod asked;
mod caller;
mod carried;
mod center;
mod client;
mod config;
mod follows;
mod login;
mod ops;
mod publish;
mod queue;
mod registry;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use feedlog_core::ids::FeedId;
use feedlog_service::{Gate, Store};

use crate::http::app::{App, Peer};
use crate::socket::upgrade;
use access::AccessList;
pub use asked::fuzz as fuzz_api;
use caller::{Caller, refuse};
pub use config::{ConnmixConfig, ConnmixError};
use login::Webhook;
use ops::Types;
pub use ops::fuzz as fuzz_client;
use queue::Queues;
use registry::Registry;

/// What a client may send: an op is small. Where its frames go to workers, so much and a payload.
const FRAME_BYTES: usize = 64 * 1024;

/// The CONNMIX front end. Cheap to clone.
#[derive(Clone)]
pub struct Connmix(Arc<Inner>);

struct Inner {
    config: ConnmixConfig,
    store: Store,
    types: Types,
    registry: Arc<Registry<client::Told>>,
    webhook: Option<Arc<Webhook>>,
    access: AccessList,
    queues: Queues,
    topic: Option<ClientTopic>,
}

/// Where frames of clients with an unknown op go: the personal feed of a service that is nobody, so that no user reads what
/// others sent, or writes what seems to come from a client.
pub(crate) struct ClientTopic {
    pub(crate) name: String,
    pub(crate) feed: FeedId,
    pub(crate) gate: Gate,
}

impl ClientTopic {
    fn new(name: &str, store: &Store) -> Result<Self, ConnmixError> {
        if name.is_empty() {
            return Err(ConnmixError::BadTopic);
        }
        let service = store.auth().configured_service(&format!("{}{name}", ops::TOPIC_PREFIX));
        let service = service.map_err(|_| ConnmixError::BadTopic)?;
        let feed = FeedId::personal(&service.uid);
        Ok(Self { name: name.to_owned(), feed, gate: store.gate(service) })
    }
}

impl Connmix {
    /// A front end over a store.
    ///
    /// # Errors
    /// When the configuration is not one.
    pub fn new(config: ConnmixConfig, store: Store) -> Result<Self, ConnmixError> {
        if !config.path.starts_with('/') || config.path.contains(['?', '#', ' ']) {
            return Err(ConnmixError::BadPath(config.path));
        }
        let types = |types: &[String]| {
            let bad = |kind: &&String| {
                kind.is_empty() || *kind == "user" || kind.contains('@') || kind.contains(char::is_whitespace)
            };
            match types.iter().find(bad) {
                Some(bad) => Err(ConnmixError::BadType(bad.clone())),
                None => Ok(types.iter().map(|kind| Arc::from(kind.as_str())).collect::<Vec<_>>()),
            }
        };
        let topic =
            config.client_topic.as_deref().map(|topic| ClientTopic::new(topic, &store)).transpose()?;
        Ok(Self(Arc::new(Inner {
            types: Types { private: types(&config.private_types)?, public: types(&config.public_types)? },
            registry: Arc::new(Registry::new(store.now_ms())),
            webhook: Webhook::new(&config)?.map(Arc::new),
            access: AccessList::load(&config)?,
            queues: Queues::new(config.topics_max),
            topic,
            store,
            // The rules are not needed any more, and hold secrets.
            config: ConnmixConfig { access: Vec::new(), ..config },
        })))
    }

    /// Whether a path of the shared port is the one of clients.
    pub(crate) fn is_client_path(&self, path: &str) -> bool {
        path == self.0.config.path
    }

    /// What is done beside all connections, for ever.
    pub(crate) async fn keep(self) {
        std::future::pending().await
    }
}

fn peer(request: &axum::http::request::Parts) -> Peer {
    request.extensions.get::<Peer>().cloned().unwrap_or_else(crate::http::app::local_peer)
}

/// Answers a client of the message center.
pub(crate) async fn client(connmix: &Connmix, app: &Arc<App>, request: Request<Body>) -> Response {
    let (mut parts, _) = request.into_parts();
    match upgrade(app, &mut parts) {
        Ok(upgrade) => {
            let client = client::Client::new(connmix.clone(), app.clone(), peer(&parts));
            let payload = if connmix.0.topic.is_some() { connmix.0.config.payload_bytes_max } else { 0 };
            upgrade.talk_up_to(client, payload.saturating_add(FRAME_BYTES))
        }
        Err(response) => response,
    }
}

/// Answers a back end; `own_listener`: on the listener that serves nothing else.
pub(crate) async fn api(
    connmix: &Connmix,
    app: &Arc<App>,
    request: Request<Body>,
    own_listener: bool,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path();
    let calls = matches!(path, "/v1/mesh/publish" | "/v1/mesh/send");
    if !calls && path != "/ws/v1" {
        return refuse(StatusCode::NOT_FOUND, "there is nothing here", None);
    }
    let caller = match Caller::of(connmix, app, &parts, &peer(&parts), own_listener) {
        Ok(caller) => caller,
        Err(response) => return *response,
    };
    if calls {
        return api::post(connmix, app, caller, &parts, body).await;
    }
    match upgrade(app, &mut parts) {
        Ok(upgrade) => {
            let talk = api::Api::new(connmix.clone(), app.clone(), caller);
            upgrade.talk_up_to(talk, api::message_bytes_max(connmix))
        }
        Err(response) => response,
    }
}

/// Answers those who look for the nodes; `own_listener`: on the listener that serves nothing else.
pub(crate) async fn center(
    connmix: &Connmix,
    app: &Arc<App>,
    request: Request<Body>,
    own_listener: bool,
) -> Response {
    let (parts, _) = request.into_parts();
    // Which port the API has is no secret, and connmix-php has no credential; a list means that nobody else is to ask.
    if connmix.0.access.is_on()
        && parts.uri.path() != "/version"
        && let Err(response) = Caller::of(connmix, app, &parts, &peer(&parts), false)
    {
        return *response;
    }
    let config = &connmix.0.config;
    let port = config.api_port.or(config.shared_port.filter(|_| own_listener));
    match center::answer(&parts, port) {
        Some(answer) => {
            let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
            (json, answer.to_string()).into_response()
        }
        None => refuse(StatusCode::NOT_FOUND, "there is nothing here", None),
    }
}
