//! Requests that a client has passed on to another server: `http://…` and `https://…` topics. Off unless hosts are listed.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
#[cfg(test)]
use tokio_rustls::rustls::RootCertStore;

use crate::http::wire::input::is_json_type;
use crate::outside::{self, BadHost, CallError, Outside, OutsideConfig, Place};

/// Which servers clients may reach through us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// As [`OutsideConfig::hosts`]. Empty = the proxy is off. Default empty.
    pub hosts: Vec<String>,
    /// From the request to the end of its answer. Default 10,000.
    pub timeout_ms: u64,
    /// Largest answer; a larger one is an error. Default 1 MiB.
    pub body_bytes_max: usize,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self { hosts: Vec::new(), timeout_ms: 10_000, body_bytes_max: 1 << 20 }
    }
}

/// Passes requests on. Cheap to clone.
#[derive(Clone)]
pub struct Proxy(Outside);

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Asked<'a> {
    header: Option<BTreeMap<String, String>>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    method: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    header: BTreeMap<String, Vec<String>>,
    body: Option<Box<RawValue>>,
    err: Option<String>,
    status_code: u16,
}

impl Proxy {
    /// A proxy for these hosts, trusting the certificate authorities that Mozilla trusts.
    pub fn new(config: &ProxyConfig) -> Result<Self, BadHost> {
        Ok(Self(Outside::new(&calls(config))?))
    }

    #[cfg(test)]
    fn trusting(config: &ProxyConfig, roots: RootCertStore) -> Result<Self, BadHost> {
        Ok(Self(Outside::trusting(&calls(config), roots)?))
    }

    /// Passes a request on and gives the body of its answer, whatever happens.
    pub async fn forward(&self, to: &Place, body: &[u8]) -> Vec<u8> {
        let answer = match self.ask(to, body).await {
            Ok(answer) => Answer::of(answer.status, &answer.headers, &answer.body),
            Err(problem) => Answer::failed(&problem),
        };
        serde_json::to_vec(&answer).expect("INVARIANT: text, numbers and JSON that was read before are JSON")
    }

    async fn ask(&self, to: &Place, body: &[u8]) -> Result<outside::Answer, String> {
        self.0.check(to).map_err(problem)?;
        let (method, headers, body) = request(body)?;
        self.0.call(method, to, headers, body).await.map_err(problem)
    }
}

fn calls(config: &ProxyConfig) -> OutsideConfig {
    OutsideConfig {
        hosts: config.hosts.clone(),
        timeout_ms: config.timeout_ms,
        body_bytes_max: config.body_bytes_max,
        ..OutsideConfig::default()
    }
}

fn problem(error: CallError) -> String {
    match error {
        CallError::Off => "the proxy is off".to_owned(),
        error => error.to_string(),
    }
}

/// The method, headers and body that a client asks for.
fn request(body: &[u8]) -> Result<(Method, HeaderMap, Bytes), &'static str> {
    let asked: Asked<'_> = match body.trim_ascii() {
        [] => Asked::default(),
        // Derived code alone would also take an array, as the fields in their order.
        [b'{', ..] => serde_json::from_slice(body).map_err(|_| "The JSON format is incorrect")?,
        _ => return Err("The JSON format is incorrect"),
    };
    let body = match asked.body.map(RawValue::get) {
        None | Some("null") => Bytes::new(),
        Some(json) => match serde_json::from_str::<String>(json) {
            Ok(text) => Bytes::from(text),
            // A client that gives JSON means JSON.
            Err(_) => Bytes::copy_from_slice(json.as_bytes()),
        },
    };
    let method = match asked.method.as_deref().map(str::to_ascii_uppercase).as_deref() {
        None | Some("") => {
            if body.is_empty() {
                Method::GET
            } else {
                Method::POST
            }
        }
        Some("GET") => Method::GET,
        Some("HEAD") => Method::HEAD,
        Some("POST") => Method::POST,
        Some("PUT") => Method::PUT,
        Some("PATCH") => Method::PATCH,
        Some("DELETE") => Method::DELETE,
        Some("OPTIONS") => Method::OPTIONS,
        Some(_) => return Err("the method is not one that is passed on"),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in asked.header.unwrap_or_default() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "a header's name is not one")?;
        let value = HeaderValue::from_str(&value).map_err(|_| "a header's value is not one")?;
        if !is_ours(&name) {
            headers.insert(name, value);
        }
    }
    Ok((method, headers, body))
}

/// Headers that belong to our connection to that server and not to the request (RFC 9110 §7.6.1); and no compression is
/// asked for, because the answer travels as text.
fn is_ours(name: &HeaderName) -> bool {
    [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::EXPECT,
        header::ACCEPT_ENCODING,
    ]
    .contains(name)
        || name == "keep-alive"
        || name.as_str().starts_with("proxy-")
}

impl Answer {
    fn failed(problem: &str) -> Self {
        Self { header: BTreeMap::new(), body: None, err: Some(problem.to_owned()), status_code: 0 }
    }

    fn of(status: u16, headers: &HeaderMap, body: &Bytes) -> Self {
        let mut header: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            header.entry(canonical(name.as_str())).or_default().push(value);
        }
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let json = content_type.is_some_and(is_json_type);
        let body = match serde_json::from_slice::<Box<RawValue>>(body) {
            Ok(value) if json => value,
            _ => {
                let value = match std::str::from_utf8(body) {
                    Ok(text) => json!(text),
                    Err(_) => json!({"base64": STANDARD.encode(body)}),
                };
                to_raw_value(&value).expect("INVARIANT: a JSON value is JSON")
            }
        };
        Self { header, body: Some(body), err: None, status_code: status }
    }
}

/// The name as Go's `http.Header` spells it: `Content-Type`.
fn canonical(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut letters = word.chars();
        letters.next().map_or(String::new(), |first| {
            first.to_ascii_uppercase().to_string() + &letters.as_str().to_ascii_lowercase()
        })
    });
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests;
