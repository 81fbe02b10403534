//! CONNMIX: the WebSocket user message center.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use feedlog_service::Store;

use crate::http::app::App;

/// Settings of the CONNMIX front end.
#[derive(Debug, Clone, Default)]
pub struct ConnmixConfig {}

/// Why the front end did not start.
#[derive(Debug, thiserror::Error)]
pub enum ConnmixError {}

/// The CONNMIX front end. Cheap to clone.
#[derive(Clone)]
pub struct Connmix {}

impl Connmix {
    /// A front end over a store.
    pub fn new(_config: ConnmixConfig, _store: Store) -> Result<Self, ConnmixError> {
        Ok(Self {})
    }

    /// Whether a path of the shared port is the one of clients.
    pub(crate) fn is_client_path(&self, _path: &str) -> bool {
        false
    }

    /// What is done beside all connections, for ever.
    pub(crate) async fn keep(self) {
        std::future::pending().await
    }
}

/// Answers a client of the message center.
pub(crate) async fn client(_connmix: &Connmix, _app: &Arc<App>, _request: Request<Body>) -> Response {
    StatusCode::NOT_FOUND.into_response()
}

/// Answers a back end; `own_listener`: on the listener that serves nothing else.
pub(crate) async fn api(
    _connmix: &Connmix,
    _app: &Arc<App>,
    _request: Request<Body>,
    _own_listener: bool,
) -> Response {
    StatusCode::NOT_FOUND.into_response()
}

/// Answers those who look for the nodes.
pub(crate) async fn center(_connmix: &Connmix, _app: &Arc<App>, _request: Request<Body>) -> Response {
    StatusCode::NOT_FOUND.into_response()
}
