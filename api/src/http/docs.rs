//! `/openapi.json` and the page at `/docs` that shows it. The page loads nothing from elsewhere.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use serde_json::Value;

use super::call::refuse;
use crate::errors::{ApiError, Kind};

const PAGE: &str = include_str!("docs.html");

/// The routes of the documentation.
pub(crate) fn router(document: Value) -> Router {
    let json = Bytes::from(document.to_string());
    let serve_json = move || std::future::ready(typed("application/json", json.clone()));
    let refused = || {
        let mut error = ApiError::new(Kind::MethodNotAllowed, "this method is not allowed here");
        error.allow = Some("GET, HEAD".into());
        std::future::ready(refuse(&error))
    };
    Router::new()
        .route("/openapi.json", get(serve_json).fallback(refused))
        .route("/docs", get(|| std::future::ready(page())).fallback(refused))
}

fn page() -> Response {
    let mut response = typed("text/html; charset=utf-8", Bytes::from_static(PAGE.as_bytes()));
    // The page's own script and style, calls to this server, and nothing else.
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

fn typed(content_type: &'static str, body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], body).into_response()
}
