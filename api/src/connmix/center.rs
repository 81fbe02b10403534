//! The center: which versions of the API there are, and where. connmix-php asks it before anything else.

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{Method, header};
use serde_json::{Value, json};

use super::queue::NODE;

/// The answer to `GET /version` and `GET /v1/nodes`; `None` for another path. `api_port`: where the API listens, when not
/// where this was asked.
pub(crate) fn answer(parts: &Parts, api_port: Option<u16>) -> Option<Value> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return None;
    }
    match parts.uri.path() {
        "/version" => Some(json!({"apis": ["v1"]})),
        "/v1/nodes" => Some(json!({"nodes": [{"id": NODE, "api_server": api_server(parts, api_port)}]})),
        _ => None,
    }
}

/// `host:port`, the host as the caller calls it.
fn api_server(parts: &Parts, api_port: Option<u16>) -> String {
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = host.or(parts.uri.authority().map(Authority::as_str)).and_then(|text| text.parse().ok());
    let (host, port) = match &authority {
        Some(authority) => (Authority::host(authority), authority.port_u16()),
        None => ("127.0.0.1", None),
    };
    let port = api_port.or(port).unwrap_or(80);
    format!("{host}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, host: &str, api_port: Option<u16>) -> Option<Value> {
        let request = axum::http::Request::builder().method(method).uri(path).header("host", host);
        answer(&request.body(()).unwrap().into_parts().0, api_port)
    }

    #[test]
    fn the_center_knows_one_version_and_one_node() {
        assert_eq!(ask("GET", "/version", "x:6787", None), Some(json!({"apis": ["v1"]})));
        let node = |server: &str| Some(json!({"nodes": [{"id": 1, "api_server": server}]}));
        assert_eq!(ask("GET", "/v1/nodes", "10.0.0.7:6787", Some(6789)), node("10.0.0.7:6789"));
        assert_eq!(ask("GET", "/v1/nodes", "[::1]:6787", Some(6789)), node("[::1]:6789"));
        assert_eq!(ask("GET", "/v1/nodes", "chat.example.org", Some(6789)), node("chat.example.org:6789"));
        assert_eq!(ask("GET", "/v1/nodes", "chat.example.org:7171", None), node("chat.example.org:7171"));
        assert_eq!(ask("GET", "/v1/nodes", "", Some(6789)), node("127.0.0.1:6789"));
        assert_eq!(ask("POST", "/version", "x", None), None);
        assert_eq!(ask("GET", "/v2/nodes", "x", None), None);
    }
}
