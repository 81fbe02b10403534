//! From request to answer: rates, credentials, parameters, body, handler — in this order, on every route.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter};
use bytes::Bytes;
use feedlog_core::command::Principal;
use feedlog_core::ids::Uid;
use feedlog_service::auth::Credential;
use feedlog_service::clock::Clock;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::watch;

use super::call::{Call, Values, query_pairs, refuse};
use super::config::HttpConfig;
use super::route::{Access, Pace, Route, Size};
use super::serve::Services;
use super::{admin, docs, entries, feeds, im, members, messages, openapi, ops, outbox, people, stream, ws};
use crate::errors::{ApiError, Kind, unavailable};
use crate::failures::Failures;

/// The header by which a service names the user it acts for.
pub(crate) const ACT_FOR: HeaderName = HeaderName::from_static("x-feedlog-user");

/// Where a request came from; put into its extensions by the server.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// Unique in this process; the name of an anonymous caller.
    pub(crate) connection: Arc<str>,
}

/// What all routes share.
pub(crate) struct App {
    pub(crate) config: HttpConfig,
    pub(crate) services: Services,
    pub(crate) clock: Clock,
    /// When the server started; part of anonymous callers' names.
    pub(crate) started_ms: u64,
    /// Turns true when the server drains.
    pub(crate) draining: watch::Receiver<bool>,
    /// Streams and WebSockets that are open, for the drain.
    pub(crate) streams: watch::Sender<usize>,
    /// Wrong credentials per address.
    failures: Failures,
}

impl App {
    pub(crate) fn new(config: HttpConfig, services: Services, draining: watch::Receiver<bool>) -> Arc<Self> {
        let (streams, _) = watch::channel(0);
        let failures = Failures::new(config.auth_failures_per_address_per_minute);
        let clock = Clock::system();
        let started_ms = clock.now_ms();
        Arc::new(Self { config, services, clock, started_ms, draining, streams, failures })
    }

    fn body_bytes_max(&self, size: Size) -> usize {
        match size {
            Size::Small => 256 * 1024,
            // Base64 is a third larger; the rest is the envelope.
            Size::Payload => self.config.payload_bytes_max / 3 * 4 + 128 * 1024,
            Size::Batch => self.config.batch_bytes_max,
        }
    }

    /// Who asks, and the token that said so: by `Authorization: Bearer`, with `query_token` also by `?token=`, else
    /// anonymous where that is configured. Counts wrong credentials and what the caller and the address ask for.
    pub(crate) fn caller(
        &self,
        parts: &Parts,
        peer: &Peer,
        query_token: bool,
    ) -> Result<(Principal, Option<Arc<str>>), ApiError> {
        let auth = self.services.store.auth();
        auth.check_address(peer.address)?;
        let (principal, token) = self.principal(parts, peer, query_token).map_err(|error| {
            // A caller without any credential guesses nothing; and good ones behind the same address go on.
            if error.kind != Kind::Unauthenticated || !brings_credential(parts, query_token) {
                return error;
            }
            self.failures.count(peer.address).err().unwrap_or(error)
        })?;
        auth.check_principal(&principal)?;
        Ok((principal, token))
    }

    /// Remembers a wrong credential; the error to answer with when there were too many from that address.
    pub(crate) fn failed(&self, address: IpAddr) -> Option<ApiError> {
        self.failures.count(address).err()
    }

    fn principal(
        &self,
        parts: &Parts,
        peer: &Peer,
        query_token: bool,
    ) -> Result<(Principal, Option<Arc<str>>), ApiError> {
        let auth = self.services.store.auth();
        let unauthenticated = || ApiError::new(Kind::Unauthenticated, "authentication is required");
        let mut from_query = None;
        let credential = match parts.headers.get(header::AUTHORIZATION) {
            Some(value) => {
                let text = value.to_str().map_err(|_| unauthenticated())?;
                let (scheme, token) = text.split_once(' ').ok_or_else(unauthenticated)?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(unauthenticated());
                }
                Credential::Token(token.trim())
            }
            None => {
                if query_token {
                    let pairs = query_pairs(parts.uri.query().unwrap_or_default())?;
                    from_query = pairs.into_iter().find(|(name, _)| name == "token").map(|(_, token)| token);
                }
                match &from_query {
                    Some(token) => Credential::Token(token),
                    None => Credential::None { connection: &peer.connection },
                }
            }
        };
        let token = match credential {
            Credential::Token(token) => Some(Arc::from(token)),
            Credential::None { .. } => None,
        };
        let principal = auth.authenticate(credential)?;
        let principal = match parts.headers.get(ACT_FOR) {
            None => principal,
            Some(value) => {
                let uid = std::str::from_utf8(value.as_bytes())
                    .map_err(|_| ApiError::field("X-Feedlog-User", "is not UTF-8"))?;
                let uid = Uid::parse(uid).map_err(|error| ApiError::field("X-Feedlog-User", error))?;
                auth.act_for(&principal, uid)?
            }
        };
        Ok((principal, token))
    }

    async fn body(&self, route: &Route, headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
        let Some(spec) = &route.body else { return Ok(Bytes::new()) };
        let max = self.body_bytes_max(spec.size);
        let too_large = || {
            ApiError::new(Kind::TooLarge, format!("the body is larger than {max} bytes"))
                .with("bytes_max", max)
        };
        let declared =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|length| length > max as u64) {
            return Err(too_large());
        }
        let reading = Limited::new(body, max).collect();
        let within = Duration::from_millis(self.config.body_read_ms_max);
        let bytes = match tokio::time::timeout(within, reading).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Err(_)) => return Err(ApiError::new(Kind::BadRequest, "the body ended early")),
            Err(_) => return Err(ApiError::new(Kind::Timeout, "the body did not arrive in time")),
        };
        if bytes.is_empty() {
            return if spec.optional { Ok(bytes) } else { Err(ApiError::field("body", "is missing")) };
        }
        let encoded = headers.get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity");
        let json =
            headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(is_json);
        if encoded || !json {
            return Err(ApiError::new(Kind::UnsupportedMediaType, "the body must be plain application/json"));
        }
        Ok(bytes)
    }

    async fn dispatch(self: Arc<Self>, route: Arc<Route>, request: Request<Body>) -> Response {
        let started = Instant::now();
        let work = AssertUnwindSafe(self.clone().answer(route.clone(), request)).catch_unwind();
        let response = match work.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => route.refuse(&error),
            Err(_) => {
                tracing::error!(front_end = "http", route = route.id, "a handler panicked");
                route.refuse(&ApiError::new(Kind::Internal, "an internal error; it was logged"))
            }
        };
        let status = response.status();
        metrics::counter!("feedlog_http_requests_total", "route" => route.id, "status" => status.as_str().to_owned())
            .increment(1);
        metrics::histogram!("feedlog_http_answer_seconds", "route" => route.id)
            .record(started.elapsed().as_secs_f64());
        tracing::debug!(front_end = "http", route = route.id, status = status.as_u16(), "answered");
        response
    }

    async fn answer(
        self: Arc<Self>,
        route: Arc<Route>,
        request: Request<Body>,
    ) -> Result<Response, ApiError> {
        let (parts, body) = request.into_parts();
        let peer = parts.extensions.get::<Peer>().cloned().unwrap_or_else(local_peer);
        let (gate, token) = if route.access == Access::Public {
            (None, None)
        } else {
            let (principal, token) = self.caller(&parts, &peer, route.query_token())?;
            (Some(self.services.store.gate(principal)), token)
        };
        let values = Values::check(&route, &parts)?;
        let body = self.body(&route, &parts.headers, body).await?;
        let waits = values.int("wait_ms").map_or(0, i64::unsigned_abs);
        let call = Call { app: self.clone(), gate, token, parts, body, values };
        let work = (route.handler)(call);
        if route.pace == Pace::Open {
            return work.await;
        }
        let within = Duration::from_millis(self.config.answer_ms_max.saturating_add(waits));
        match tokio::time::timeout(within, work).await {
            Ok(answer) => answer,
            Err(_) if route.pace == Pace::Read => Err(unavailable("overloaded")),
            Err(_) => Err(feedlog_service::SubmitError::Unknown.into()),
        }
    }
}

fn brings_credential(parts: &Parts, query_token: bool) -> bool {
    parts.headers.contains_key(header::AUTHORIZATION)
        || query_token && parts.uri.query().is_some_and(|query| query.contains("token="))
}

pub(crate) fn local_peer() -> Peer {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let connection = format!("local-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    Peer { address: IpAddr::V4(Ipv4Addr::LOCALHOST), connection: connection.into() }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// Every route of this wire.
pub(crate) fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    routes.extend(feeds::routes());
    routes.extend(members::routes());
    routes.extend(messages::routes());
    routes.extend(entries::routes());
    routes.extend(stream::routes());
    routes.extend(ws::routes());
    routes.extend(people::routes());
    routes.extend(im::routes());
    routes.extend(admin::routes());
    routes.extend(outbox::routes());
    routes.extend(ops::routes());
    routes
}

/// The router with everything but the connection's own limits.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let routes = routes();
    let document = openapi::document(&routes);
    let mut paths: BTreeMap<&'static str, Vec<Arc<Route>>> = BTreeMap::new();
    for route in routes {
        paths.entry(route.path).or_default().push(Arc::new(route));
    }
    let mut router = Router::new();
    for (path, routes) in paths {
        let mut allowed: Vec<&str> = Vec::new();
        let mut methods = MethodRouter::new();
        for route in routes {
            allowed.push(method_name(&route.method));
            if route.method == Method::GET {
                allowed.push("HEAD");
            }
            let filter = MethodFilter::try_from(route.method.clone())
                .expect("the table uses methods that the router knows");
            let app = app.clone();
            methods = methods
                .on(filter, move |request: Request<Body>| app.clone().dispatch(route.clone(), request));
        }
        let allow = allowed.join(", ");
        let methods = methods.fallback(move || {
            let mut error = ApiError::new(Kind::MethodNotAllowed, "this method is not allowed here");
            error.allow = Some(allow.clone());
            std::future::ready(if im::is_here(path) { im::refuse_enveloped(&error) } else { refuse(&error) })
        });
        router = router.route(path, methods);
    }
    if app.config.docs {
        router = router.merge(docs::router(document));
    }
    let elsewhere = app.clone();
    let router = router
        .fallback(move |request: Request<Body>| super::faces::elsewhere(elsewhere.clone(), request))
        .layer(axum::middleware::map_response(harden));
    layers(router, &app.config)
}

/// The answer where nothing is.
pub(super) fn not_here(path: &str) -> Response {
    let error = ApiError::new(Kind::NotFound, "there is nothing here");
    if im::is_here(path) { im::refuse_enveloped(&error) } else { refuse(&error) }
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => unreachable!("the table uses these five"),
    }
}

/// Answers are for their caller alone and are what they say they are.
pub(super) async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What all answers go through: compression and CORS, where configured.
pub(super) fn layers(router: Router, config: &HttpConfig) -> Router {
    use tower_http::compression::CompressionLayer;
    use tower_http::cors::{AllowOrigin, CorsLayer};

    let mut router = router;
    if config.compression {
        router = router.layer(CompressionLayer::new().gzip(true).zstd(true).compress_when(
            // Never event streams: a compressor holds bytes back.
            |_: axum::http::StatusCode,
             _: axum::http::Version,
             headers: &HeaderMap,
             _: &axum::http::Extensions| {
                headers.get(header::CONTENT_TYPE).is_some_and(|value| value == "application/json")
            },
        ));
    }
    if config.cors_origins.is_empty() {
        return router;
    }
    let origin = if config.cors_origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(config.cors_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    router.layer(
        CorsLayer::new()
            .allow_origin(origin)
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                ACT_FOR,
                HeaderName::from_static("last-event-id"),
            ])
            .expose_headers([header::RETRY_AFTER, header::ALLOW])
            .max_age(Duration::from_secs(600)),
    )
}

/// Completes when the flag turns true, or nobody is left who could turn it.
pub(crate) async fn drained(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|on| *on).await;
}
