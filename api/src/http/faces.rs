//! What a listener serves: everything, or one of the emulated systems at its usual port.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use tokio::net::TcpListener;

use super::app::{App, harden, layers, not_here, router};
use crate::socket::{has_token, is_asked};
use crate::{connmix, gws};

/// What a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// Everything that begins as HTTP, told apart by subprotocol and path.
    Shared,
    /// gotapi-ws alone: every path is a room but its reserved ones.
    Gws,
    /// Clients of the CONNMIX message center.
    ConnmixClients,
    /// Back ends of CONNMIX.
    ConnmixApi,
    /// The CONNMIX center.
    ConnmixCenter,
}

/// A socket that listens, and what it serves.
pub struct Listener {
    /// The socket.
    pub listener: TcpListener,
    /// What it serves.
    pub face: Face,
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self { listener, face: Face::Shared }
    }
}

/// The routers of all faces.
pub(super) struct Faces {
    shared: Router,
    gws: Router,
    connmix_clients: Router,
    connmix_api: Router,
    connmix_center: Router,
}

impl Faces {
    pub(super) fn new(app: &Arc<App>) -> Self {
        let of = |face| {
            let shared = app.clone();
            let router = Router::new()
                .fallback(move |request| alone(face, shared.clone(), request))
                .layer(axum::middleware::map_response(harden));
            layers(router, &app.config)
        };
        Self {
            shared: router(app),
            gws: of(Face::Gws),
            connmix_clients: of(Face::ConnmixClients),
            connmix_api: of(Face::ConnmixApi),
            connmix_center: of(Face::ConnmixCenter),
        }
    }

    pub(super) fn get(&self, face: Face) -> &Router {
        match face {
            Face::Shared => &self.shared,
            Face::Gws => &self.gws,
            Face::ConnmixClients => &self.connmix_clients,
            Face::ConnmixApi => &self.connmix_api,
            Face::ConnmixCenter => &self.connmix_center,
        }
    }
}

/// A request to a listener of one system.
async fn alone(face: Face, app: Arc<App>, request: Request<Body>) -> Response {
    let services = &app.services;
    match (face, &services.gws, &services.connmix) {
        (Face::Gws, Some(gws), _) => gws::answer(gws, &app, request).await,
        (Face::ConnmixClients, _, Some(connmix)) => connmix::client(connmix, &app, request).await,
        (Face::ConnmixApi, _, Some(connmix)) => connmix::api(connmix, &app, request, true).await,
        (Face::ConnmixCenter, _, Some(connmix)) => connmix::center(connmix, &app, request, true).await,
        _ => not_here(request.uri().path()),
    }
}

/// A request to the shared port that is none of our own routes.
pub(super) async fn elsewhere(app: Arc<App>, request: Request<Body>) -> Response {
    let path = request.uri().path();
    // Who opens the address in a browser wants to know what is here, as with the original [gws: legacy].
    if path == "/" && request.method() == Method::GET && !is_asked(request.headers()) && app.config.docs {
        return Redirect::temporary("/docs").into_response();
    }
    // A client of XMPP is no guest of a room, and XMPP is not served yet [gws: cross-protocol path clash].
    if has_token(request.headers(), &header::SEC_WEBSOCKET_PROTOCOL, "xmpp") {
        return not_here(path);
    }
    if let Some(connmix) = &app.services.connmix {
        match path {
            "/v1/mesh/publish" | "/v1/mesh/send" | "/ws/v1" => {
                return connmix::api(connmix, &app, request, false).await;
            }
            "/version" | "/v1/nodes" => return connmix::center(connmix, &app, request, false).await,
            path if connmix.is_client_path(path) => return connmix::client(connmix, &app, request).await,
            _ => {}
        }
    }
    match &app.services.gws {
        Some(gws) if gws::is_room(path) => gws::answer(gws, &app, request).await,
        _ => not_here(path),
    }
}
