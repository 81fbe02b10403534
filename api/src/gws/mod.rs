//! gotapi-ws: WebSocket rooms with history and recall.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use feedlog_service::Store;

use crate::http::app::App;

/// Settings of the gotapi-ws front end.
#[derive(Debug, Clone, Default)]
pub struct GwsConfig {}

/// Why the front end did not start.
#[derive(Debug, thiserror::Error)]
pub enum GwsError {}

/// The gotapi-ws front end. Cheap to clone.
#[derive(Clone)]
pub struct Gws {}

impl Gws {
    /// A front end over a store.
    pub fn new(_config: GwsConfig, _store: Store) -> Result<Self, GwsError> {
        Ok(Self {})
    }

    /// What is done beside all connections, for ever.
    pub(crate) async fn keep(self) {
        std::future::pending().await
    }
}

/// Whether a path of the shared port names a room or a service of gotapi-ws: our own first segments do not.
pub(crate) fn is_room(path: &str) -> bool {
    let own = [
        "v1",
        "im",
        "ws",
        "docs",
        "openapi.json",
        "livez",
        "readyz",
        "metrics",
        "admin",
        "version",
        "mqtt",
        "mqtt64",
        "mqant",
        "xmpp-websocket",
    ];
    !own.contains(&path.trim_start_matches('/').split('/').next().unwrap_or_default())
}

/// Answers a request to a room, or to one of the services beside them.
pub(crate) async fn answer(_gws: &Gws, _app: &Arc<App>, _request: Request<Body>) -> Response {
    StatusCode::NOT_FOUND.into_response()
}
