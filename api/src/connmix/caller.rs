//! Which back ends may call the API.
//!
//! | there is | who |
//! |---|---|
//! | an access list | those on it, by HTTP Basic, with their roles |
//! | always | who has a feedlog token with the scope `send_as` |
//! | no access list, and development mode or an own listener on loopback | everybody who brings no credential |
//!
//! A browser sends credentials of its own accord, and reaches loopback for any page: what a page of another origin asks is
//! refused, unless it brings a token. A proxy in front makes everybody loopback: what came by one needs a credential.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use feedlog_core::command::Principal;
use feedlog_service::Gate;

use super::Connmix;
use super::access::{self, Roles};
use super::asked::{Fault, Reply, code};
use crate::http::app::{App, Peer};

/// Under this name back ends write who bring no credential.
const NOBODY: &str = "connmix";

/// A back end that may call.
pub(crate) struct Caller {
    pub(crate) gate: Gate,
    pub(crate) roles: Roles,
    /// The token it came with, to be looked at again.
    pub(crate) token: Option<Arc<str>>,
}

impl Caller {
    /// Who asks; the answer to send when nobody who may.
    pub(crate) fn of(
        connmix: &Connmix,
        app: &App,
        parts: &Parts,
        peer: &Peer,
        own_listener: bool,
    ) -> Result<Self, Box<Response>> {
        let inner = &*connmix.0;
        let brings = |scheme: &str| {
            let value = parts.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
            value.is_some_and(|value| {
                value.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
            })
        };
        let has_token = parts.uri.query().is_some_and(|query| query.contains("token="));
        if brings("bearer ") || (has_token && !parts.headers.contains_key(header::AUTHORIZATION)) {
            return Self::by_token(connmix, app, parts, peer);
        }
        let credential = parts.headers.contains_key(header::AUTHORIZATION);
        if !is_same_origin(app, parts, credential) {
            return Err(refuse(StatusCode::FORBIDDEN, "pages of other origins may not call", None).into());
        }
        if app.services.store.auth().check_address(peer.address).is_err() {
            return Err(refuse(StatusCode::TOO_MANY_REQUESTS, "too many requests", None).into());
        }
        if brings("basic ") {
            let credential = access::basic(&parts.headers);
            let found = credential.and_then(|text| {
                inner.access.find(&text, peer.address).map(|(name, roles)| (name.to_owned(), roles))
            });
            return match found {
                Some((name, roles)) => Self::named(connmix, &name, roles),
                None => match app.failed(peer.address) {
                    Some(_) => {
                        Err(refuse(StatusCode::TOO_MANY_REQUESTS, "too many wrong credentials", None).into())
                    }
                    None => Err(unauthenticated(inner.access.is_on())),
                },
            };
        }
        let config = &inner.config;
        let open = config.dev || own_listener && config.api_is_loopback;
        if open && !credential && !inner.access.is_on() && !came_by_proxy(parts) {
            return Self::named(connmix, NOBODY, Roles::BOTH);
        }
        Err(unauthenticated(inner.access.is_on()))
    }

    fn by_token(connmix: &Connmix, app: &App, parts: &Parts, peer: &Peer) -> Result<Self, Box<Response>> {
        let (principal, token) = app.caller(parts, peer, true).map_err(|error| {
            let status = StatusCode::from_u16(error.kind.row().http).unwrap_or(StatusCode::UNAUTHORIZED);
            let scheme = (status == StatusCode::UNAUTHORIZED).then_some("Bearer");
            Box::new(refuse(status, &error.message, scheme))
        })?;
        if !may_serve(&principal) {
            return Err(refuse(StatusCode::FORBIDDEN, "the token has not the scope send_as", None).into());
        }
        Ok(Self { gate: connmix.0.store.gate(principal), roles: Roles::BOTH, token })
    }

    fn named(connmix: &Connmix, name: &str, roles: Roles) -> Result<Self, Box<Response>> {
        let store = &connmix.0.store;
        let service = store.auth().configured_service(name).map_err(|_| unauthenticated(true))?;
        Ok(Self { gate: store.gate(service), roles, token: None })
    }
}

/// A service under its own name.
fn may_serve(principal: &Principal) -> bool {
    principal.scopes.send_as && principal.via.is_none() && !principal.anonymous
}

/// Whether somebody else handed the request on: then the address that it comes from says nothing.
fn came_by_proxy(parts: &Parts) -> bool {
    let names = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];
    names.iter().any(|name| parts.headers.contains_key(*name))
}

/// Whether a browser says that the request is of a page of our own, or of one that CORS allows; others say nothing, or where
/// they connect to.
fn is_same_origin(app: &App, parts: &Parts, credential: bool) -> bool {
    let Some(origin) = parts.headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let allowed = &app.config.cors_origins;
    if allowed.iter().any(|one| one == origin) {
        return true;
    }
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let (Some(host), Some((scheme, of_origin))) = (host, origin.split_once("://")) else { return false };
    // A name that leads to loopback is some page's own: without a credential only an address or localhost is this server.
    let name =
        host.rsplit_once(':').map_or(host, |(name, port)| if port.contains(']') { host } else { name });
    let is_here = name == "localhost" || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    let port = if matches!(scheme, "https" | "wss") { ":443" } else { ":80" };
    let bare = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
    (credential || is_here) && bare(of_origin) == bare(host)
}

fn unauthenticated(basic: bool) -> Box<Response> {
    let scheme = if basic { "Basic realm=\"feedlog\", charset=\"UTF-8\"" } else { "Bearer" };
    refuse(StatusCode::UNAUTHORIZED, "authentication is required", Some(scheme)).into()
}

/// An answer without 200: only for what is no call at all.
pub(crate) fn refuse(status: StatusCode, why: &str, challenge: Option<&'static str>) -> Response {
    let body = Reply::Failed(Fault::new(code::PARAMETER, why)).write(None);
    let mut response = (status, Body::from(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(challenge) = challenge {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}
