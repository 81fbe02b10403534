//! Calls to other servers, as an operator allows them: the proxy of mqant's clients, webhooks.
//!
//! Nowhere unless hosts are listed. A name is resolved here and the address that was checked is the one connected to, so that
//! a name cannot lead to one address when it is checked and to another when it is used. Redirects are answers like
//! others: nothing is followed. Every call has a connection of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// Header bytes of an answer.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

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

/// Which servers may be called, and how much of them is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideConfig {
    /// `name` or `address`: that host on the scheme's own port. `name:port`, `address:port`, `[address]:port`: that port
    /// of it. A listed name may lead to a private or loopback address only with its port; an address may be one. Empty =
    /// none. Default empty.
    pub hosts: Vec<String>,
    /// From the request to the end of its answer. Default 10,000.
    pub timeout_ms: u64,
    /// Largest answer; a larger one is an error. Default 1 MiB.
    pub body_bytes_max: usize,
    /// Calls under way at a time; more are refused. Default 64.
    pub calls_max: usize,
}

impl Default for OutsideConfig {
    fn default() -> Self {
        Self { hosts: Vec::new(), timeout_ms: 10_000, body_bytes_max: 1 << 20, calls_max: 64 }
    }
}

/// An entry of `hosts` that names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host or host:port")]
pub struct BadHost(pub String);

/// A text that is no `http:` or `https:` URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a URL such as https://host:port/path")]
pub struct BadUrl;

/// A place on another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `https` instead of `http`.
    pub tls: bool,
    /// Host name or address, lower case, without brackets.
    pub host: String,
    /// The port, when one is named.
    pub port: Option<u16>,
    /// Path and query.
    pub path_and_query: String,
}

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Bytes,
}

/// Why there is no answer. No text of the other server's is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the texts say it
pub enum CallError {
    #[error("calls are off")]
    Off,
    #[error("the host is not on the list")]
    NotListed,
    #[error("the work queue is full!")]
    Busy,
    #[error("the path is not one of a URL")]
    BadPath,
    #[error("the host is not a name")]
    BadHost,
    #[error("the host has no address")]
    NoAddress,
    #[error("the address is private")]
    Private,
    #[error("no connection to that server")]
    NoConnection,
    #[error("no TLS with that server")]
    NoTls,
    #[error("the connection to that server broke")]
    Broken,
    #[error("the answer is too large")]
    TooLarge { status: u16 },
    #[error("the server did not answer in time")]
    Timeout,
}

/// Calls other servers. Cheap to clone.
#[derive(Clone)]
pub struct Outside(Arc<Inner>);

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

impl Outside {
    /// Calls to these hosts, trusting the certificate authorities that Mozilla trusts.
    ///
    /// # Errors
    /// When an entry of `hosts` is none.
    pub fn new(config: &OutsideConfig) -> Result<Self, BadHost> {
        Self::trusting(config, RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
    }

    pub(crate) fn trusting(config: &OutsideConfig, roots: RootCertStore) -> Result<Self, BadHost> {
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
            places: Semaphore::new(config.calls_max),
        })))
    }

    /// Whether calls to a place are allowed, as far as its name tells; its addresses are looked at with each call.
    ///
    /// # Errors
    /// When it is not listed.
    pub fn check(&self, to: &Place) -> Result<(), CallError> {
        self.0.allowed(to).map(|_| ())
    }

    /// Makes a request and waits for its whole answer. `Host` and what belongs to the connection are added here.
    ///
    /// # Errors
    /// When there is no answer. Unless the host was refused, the other server may have done what was asked.
    pub async fn call(
        &self,
        method: Method,
        to: &Place,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, CallError> {
        let asking = self.0.ask(method, to, headers, body);
        tokio::time::timeout(self.0.timeout, asking).await.unwrap_or(Err(CallError::Timeout))
    }
}

impl Place {
    /// A place by its URL; user names and fragments are refused.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(url: &str) -> Result<Self, BadUrl> {
        let uri: Uri = url.parse().map_err(|_| BadUrl)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(BadUrl),
        };
        let authority = uri.authority().ok_or(BadUrl)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() || authority.as_str().contains('@') || url.contains('#') {
            return Err(BadUrl);
        }
        let port = match authority.port() {
            Some(port) => Some(port.as_str().parse::<u16>().ok().filter(|port| *port != 0).ok_or(BadUrl)?),
            None if authority.as_str().len() > authority.host().len() => return Err(BadUrl),
            None => None,
        };
        let path_and_query = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { tls, host, port, path_and_query })
    }

    /// Where it listens.
    fn port_or_own(&self) -> u16 {
        self.port.unwrap_or(if self.tls { 443 } else { 80 })
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
    async fn ask(
        &self,
        method: Method,
        to: &Place,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, CallError> {
        let private = self.allowed(to)?;
        let _place = self.places.try_acquire().map_err(|_| CallError::Busy)?;
        let request = request(method, to, headers, body)?;
        let stream = connect(&to.host, to.port_or_own(), private, self.timeout / 3).await?;
        if !to.tls {
            return self.talk(stream, request).await;
        }
        let name = ServerName::try_from(to.host.clone()).map_err(|_| CallError::BadHost)?;
        let stream = self.tls.connect(name, stream).await.map_err(|_| CallError::NoTls)?;
        self.talk(stream, request).await
    }

    /// Whether private addresses are fine there; an error when the host is not listed.
    fn allowed(&self, to: &Place) -> Result<bool, CallError> {
        if self.listed.is_empty() {
            return Err(CallError::Off);
        }
        let (port, own) = (to.port_or_own(), if to.tls { 443 } else { 80 });
        let fits = |listed: &&Listed| listed.host == to.host && listed.port.unwrap_or(own) == port;
        let mut fitting = self.listed.iter().filter(fits).peekable();
        if fitting.peek().is_none() {
            return Err(CallError::NotListed);
        }
        Ok(fitting.any(Listed::may_be_private))
    }

    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, CallError> {
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(HEADER_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| CallError::Broken)?;
        let work = async {
            let answer = sender.send_request(request).await.map_err(|_| CallError::Broken)?;
            let (parts, body) = answer.into_parts();
            let status = parts.status.as_u16();
            let body = Limited::new(body, self.body_bytes_max).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    CallError::TooLarge { status }
                } else {
                    CallError::Broken
                }
            })?;
            Ok(Answer { status, headers: parts.headers, body: body.to_bytes() })
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

fn request(
    method: Method,
    to: &Place,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, CallError> {
    let path = utf8_percent_encode(&to.path_and_query, UNFIT).to_string();
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| CallError::BadPath)?;
    *request.headers_mut() = headers;
    let literal = if to.host.contains(':') { format!("[{}]", to.host) } else { to.host.clone() };
    let host = to.port.map_or(literal.clone(), |port| format!("{literal}:{port}"));
    let host = HeaderValue::from_str(&host).map_err(|_| CallError::BadHost)?;
    request.headers_mut().insert(header::HOST, host);
    Ok(request)
}

/// `each`: for one address, so that one that swallows everything leaves time for the next.
async fn connect(host: &str, port: u16, private: bool, each: Duration) -> Result<TcpStream, CallError> {
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![(address, port).into()],
        Err(_) => tokio::net::lookup_host((host, port)).await.map_err(|_| CallError::NoAddress)?.collect(),
    };
    let mut problem = CallError::Private;
    for address in found.into_iter().filter(|address| private || is_public(address.ip())).take(ADDRESSES_MAX)
    {
        match tokio::time::timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(_)) | Err(_) => problem = CallError::NoConnection,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_places() {
        let place = Place::parse("https://Hook.example:8443/a/b?c=d").unwrap();
        assert_eq!((place.tls, place.host.as_str(), place.port), (true, "hook.example", Some(8443)));
        assert_eq!(place.path_and_query, "/a/b?c=d");
        assert_eq!(Place::parse("http://[::1]:80").unwrap().host, "::1");
        assert_eq!(Place::parse("http://h").unwrap().path_and_query, "/");
        for bad in [
            "",
            "h",
            "/a",
            "ftp://h/",
            "http://",
            "http://u:p@h/",
            "http://h:0/",
            "http://h:65536/",
            "http://h/#f",
        ] {
            assert_eq!(Place::parse(bad), Err(BadUrl), "{bad}");
        }
    }

    #[test]
    fn addresses_of_the_public_internet() {
        for public in ["1.1.1.1", "172.32.0.1", "193.0.2.1", "2606:4700::1111"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2001:0:1::",
            "2001:db8::1",
            "2002:7f00:1::",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn hosts_are_read_or_refused() {
        for (text, host, port) in [
            ("Example.com", "example.com", None),
            ("example.com:8080", "example.com", Some(8080)),
            ("10.0.0.1", "10.0.0.1", None),
            ("::1", "::1", None),
            ("[::1]:80", "::1", Some(80)),
            ("[::1]", "::1", None),
        ] {
            let listed = Listed::parse(text).unwrap();
            assert_eq!((listed.host.as_str(), listed.port), (host, port), "{text}");
        }
        for bad in ["", "a b", "http://x", "x:", "x:0", "x:70000", "[::1", "[::1]80", "x/y", "*"] {
            assert!(Listed::parse(bad).is_err(), "{bad}");
        }
    }
}
