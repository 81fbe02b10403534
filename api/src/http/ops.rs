//! For those who run the server: liveness, readiness, metrics.

use axum::body::Body;
use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use serde_json::json;

use super::call::{Call, answer};
use super::route::{Access, Answer, Route};

pub(crate) fn routes() -> Vec<Route> {
    let alive = json!({
        "type": "object", "required": ["alive"], "additionalProperties": false,
        "properties": {"alive": {"type": "boolean"}},
    });
    let ready = json!({
        "type": "object", "required": ["ready", "reasons"], "additionalProperties": false,
        "properties": {
            "ready": {"type": "boolean"},
            "reasons": {"type": "array", "items": {"type": "string"}},
        },
    });
    vec![
        Route::new(Method::GET, "/livez", "livez", livez)
            .tag("operation", "Whether the process answers.")
            .access(Access::Public)
            .gives_other(200, "It does.", Some(("application/json", alive))),
        Route::new(Method::GET, "/readyz", "readyz", readyz)
            .tag("operation", "Whether new commands would be taken.")
            .access(Access::Public)
            .gives_other(200, "They would.", Some(("application/json", ready.clone())))
            .gives_other(503, "They would not, and why.", Some(("application/json", ready))),
        Route::new(Method::GET, "/metrics", "metrics", metrics)
            .tag("operation", "Figures for Prometheus.")
            .access(Access::Public)
            .gives_other(200, "Prometheus text format.", Some(("text/plain", json!({"type": "string"})))),
    ]
}

async fn livez(_: Call) -> Answer {
    answer(200, &json!({"alive": true}))
}

async fn readyz(call: Call) -> Answer {
    let mut reasons = call.app.services.store.status().not_ready();
    if *call.app.draining.borrow() && !reasons.contains(&"draining") {
        reasons.push("draining");
    }
    let status = if reasons.is_empty() { 200 } else { 503 };
    answer(status, &json!({"ready": reasons.is_empty(), "reasons": reasons}))
}

async fn metrics(call: Call) -> Answer {
    let mut response = Response::new(Body::from((call.app.services.metrics)()));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    Ok(response)
}
