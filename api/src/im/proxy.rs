//! Requests that a client has passed on to another server: `http://…` and `https://…` topics.
//!
//! Off unless hosts are listed. A name is resolved here and the address that was checked is the one connected to, so that
//! a name cannot lead to one address when it is checked and to another when it is used. Redirects are answers like
//! others: nothing is followed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::uri::Outside;
use crate::http::wire::input::is_json_type;

/// Which servers clients may reach through us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// `name` or `address`: that host on the scheme's own port. `name:port`, `address:port`, `[address]:port`: that port
    /// of it. A listed name may lead to a private or loopback address only with its port; an address may be one. Empty =
    /// the proxy is off. Default empty.
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

/// An entry of `hosts` that names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host or host:port")]
pub struct BadHost(pub String);

/// Passes requests on. Cheap to clone.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    listed: Vec<Listed>,
    timeout: Duration,
    body_bytes_max: usize,
    tls: TlsConnector,
    places: Semaphore,
}

struct Listed {
    host: String,
    port: Option<u16>,
}

/// Requests under way at a time.
const REQUESTS_MAX: usize = 64;
/// Header bytes of an answer.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// What cannot stand in a request line; everything else goes out as it came.
const UNFIT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

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
    err: Option<&'static str>,
    status_code: u16,
}

impl Proxy {
    /// A proxy for these hosts, trusting the certificate authorities that Mozilla trusts.
    pub fn new(config: &ProxyConfig) -> Result<Self, BadHost> {
        Self::trusting(config, RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
    }

    fn trusting(config: &ProxyConfig, roots: RootCertStore) -> Result<Self, BadHost> {
        let listed = config.hosts.iter().map(|host| Listed::parse(host)).collect::<Result<_, _>>()?;
        let mut tls = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("INVARIANT: the provider is built with the versions that we turn on")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(Inner {
            listed,
            timeout: Duration::from_millis(config.timeout_ms),
            body_bytes_max: config.body_bytes_max,
            tls: TlsConnector::from(Arc::new(tls)),
            places: Semaphore::new(REQUESTS_MAX),
        })))
    }

    /// Passes a request on and gives the body of its answer, whatever happens.
    pub async fn forward(&self, to: &Outside, body: &[u8]) -> Vec<u8> {
        let answer = match tokio::time::timeout(self.0.timeout, self.0.ask(to, body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(problem)) => Answer::failed(problem),
            Err(_) => Answer::failed("the server did not answer in time"),
        };
        serde_json::to_vec(&answer).expect("INVARIANT: text, numbers and JSON that was read before are JSON")
    }
}

impl Listed {
    fn parse(text: &str) -> Result<Self, BadHost> {
        let bad = || BadHost(text.to_owned());
        let (host, port) = if let Some(inner) = text.strip_prefix('[') {
            let (host, after) = inner.split_once(']').ok_or_else(bad)?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or_else(bad)?) })
        } else if text.parse::<Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let port = port.map(|port| port.parse::<u16>().map_err(|_| bad())).transpose()?;
        let fit = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        if host.is_empty() || !host.chars().all(fit) || port == Some(0) {
            return Err(bad());
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }

    /// Whether the operator named this very place, so that it may be a private one.
    fn may_be_private(&self) -> bool {
        self.port.is_some() || self.host.parse::<IpAddr>().is_ok()
    }
}

impl Inner {
    async fn ask(&self, to: &Outside, body: &[u8]) -> Result<Answer, &'static str> {
        let port = to.port.unwrap_or(if to.tls { 443 } else { 80 });
        let private = self.allowed(to, port)?;
        let _place = self.places.try_acquire().map_err(|_| "the work queue is full!")?;
        let request = request(to, body)?;
        let stream = connect(&to.host, port, private).await?;
        if !to.tls {
            return self.talk(stream, request).await;
        }
        let name =
            ServerName::try_from(to.host.clone()).map_err(|_| "the host is not a name that TLS knows")?;
        let stream = self.tls.connect(name, stream).await.map_err(|_| "no TLS with that server")?;
        self.talk(stream, request).await
    }

    /// Whether private addresses are fine there; an error when the host is not listed.
    fn allowed(&self, to: &Outside, port: u16) -> Result<bool, &'static str> {
        if self.listed.is_empty() {
            return Err("the proxy is off");
        }
        let own = if to.tls { 443 } else { 80 };
        let fits = |listed: &&Listed| listed.host == to.host && listed.port.unwrap_or(own) == port;
        let mut fitting = self.listed.iter().filter(fits).peekable();
        if fitting.peek().is_none() {
            return Err("the host is not on the list");
        }
        Ok(fitting.any(Listed::may_be_private))
    }

    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, &'static str> {
        const BROKEN: &str = "the connection to that server broke";
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(HEADER_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| BROKEN)?;
        let work = async {
            let (parts, body) = sender.send_request(request).await.map_err(|_| BROKEN)?.into_parts();
            let body = Limited::new(body, self.body_bytes_max).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() { "the answer is too large" } else { BROKEN }
            })?;
            Ok(Answer::of(parts.status.as_u16(), &parts.headers, &body.to_bytes()))
        };
        let (mut work, mut connection) = (pin!(work), pin!(connection));
        let mut open = true;
        loop {
            tokio::select! {
                answer = &mut work => return answer,
                _ = &mut connection, if open => open = false,
            }
        }
    }
}

fn request(to: &Outside, body: &[u8]) -> Result<Request<Full<Bytes>>, &'static str> {
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
    let path = utf8_percent_encode(&to.path_and_query, UNFIT).to_string();
    let uri = path.parse::<Uri>().map_err(|_| "the path is not one of a URL")?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    for (name, value) in asked.header.unwrap_or_default() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "a header's name is not one")?;
        let value = HeaderValue::from_str(&value).map_err(|_| "a header's value is not one")?;
        if !is_ours(&name) {
            headers.insert(name, value);
        }
    }
    let literal = if to.host.contains(':') { format!("[{}]", to.host) } else { to.host.clone() };
    let host = to.port.map_or(literal.clone(), |port| format!("{literal}:{port}"));
    headers.insert(header::HOST, HeaderValue::from_str(&host).map_err(|_| "the host is not a name")?);
    Ok(request)
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

async fn connect(host: &str, port: u16, private: bool) -> Result<TcpStream, &'static str> {
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![(address, port).into()],
        Err(_) => {
            tokio::net::lookup_host((host, port)).await.map_err(|_| "the host has no address")?.collect()
        }
    };
    let mut problem = "the address is private";
    for address in found.into_iter().filter(|address| private || is_public(address.ip())).take(4) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(_) => problem = "no connection to that server",
        }
    }
    Err(problem)
}

/// Whether an address belongs to the public Internet (IANA's special-purpose registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_public_v4(v4),
            None => is_public_v6(v6),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Only 2000::/3 is global unicast; in it, protocol assignments (Teredo among them), documentation and 6to4, which
    // holds an IPv4 address of anybody's choice, are not.
    (0x2000..0x4000).contains(&a)
        && !(a == 0x2001 && b < 0x200)
        && !(a == 0x2001 && b == 0xdb8)
        && a != 0x2002
        && !(a == 0x3fff && b < 0x1000)
}

impl Answer {
    fn failed(problem: &'static str) -> Self {
        Self { header: BTreeMap::new(), body: None, err: Some(problem), status_code: 0 }
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
