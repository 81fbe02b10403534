//! The proxy against servers on this machine.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::*;
use crate::im::uri::{Target, parse};

type Seen = Arc<Mutex<Vec<String>>>;

/// Answers every request with these bytes and remembers what was asked.
async fn server(answer: &'static [u8], tls: Option<TlsAcceptor>) -> (u16, Seen) {
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &[u8], seen: &Seen) {
        let mut buffer = vec![0; 64 * 1024];
        let count = stream.read(&mut buffer).await.unwrap_or(0);
        seen.lock().unwrap().push(String::from_utf8_lossy(&buffer[..count]).into_owned());
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let remembered = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match &tls {
                None => talk(stream, answer, &remembered).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        talk(stream, answer, &remembered).await;
                    }
                }
            }
        }
    });
    (port, seen)
}

fn proxy(hosts: &[&str]) -> Proxy {
    let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    Proxy::new(&ProxyConfig { hosts, body_bytes_max: 64, ..ProxyConfig::default() }).unwrap()
}

async fn ask(proxy: &Proxy, topic: &str, body: &Value) -> Value {
    let Target::Proxy(to) = parse(topic, "n").unwrap().target else { panic!("{topic}") };
    serde_json::from_slice(&proxy.forward(&to, body.to_string().as_bytes()).await).unwrap()
}

async fn problem(proxy: &Proxy, topic: &str, body: &Value) -> String {
    let answer = ask(proxy, topic, body).await;
    assert_eq!(
        (&answer["StatusCode"], &answer["Body"], &answer["Header"]),
        (&json!(0), &json!(null), &json!({}))
    );
    answer["Err"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_request_is_passed_on_and_its_answer_comes_back() {
    let json_answer = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nx-a: 1\r\nx-a: 2\r\n\
        content-length: 13\r\n\r\n{\"paid\": 1.0}";
    let (port, seen) = server(json_answer, None).await;
    let proxy = proxy(&[&format!("127.0.0.1:{port}")]);
    let topic = format!("http://127.0.0.1:{port}/pay/one.json?b=%20&msg_id=7&a=1");
    let body = json!({
        "Header": {"k": "v", "Host": "evil", "Connection": "close", "Content-Length": "9", "Accept-Encoding": "gzip"},
        "Body": "x=1",
        "Method": "POST",
    });
    let to = parse(&topic, "n").unwrap();
    let Target::Proxy(to) = to.target else { panic!() };
    let text = String::from_utf8(proxy.forward(&to, body.to_string().as_bytes()).await).unwrap();
    assert_eq!(
        text,
        r#"{"Header":{"Content-Length":["13"],"Content-Type":["application/json"],"X-A":["1","2"]},"Body":{"paid": 1.0},"Err":null,"StatusCode":201}"#
    );
    let seen = seen.lock().unwrap()[0].to_ascii_lowercase();
    assert!(seen.starts_with("post /pay/one.json?b=%20&a=1 http/1.1\r\n"), "msg_id stays here: {seen}");
    assert!(seen.contains(&format!("\r\nhost: 127.0.0.1:{port}\r\n")), "{seen}");
    assert!(seen.contains("\r\nk: v\r\n") && seen.ends_with("\r\n\r\nx=1"), "{seen}");
    for ours in ["evil", "connection", "gzip", "content-length: 9"] {
        assert!(!seen.contains(ours), "{ours}: {seen}");
    }
}

#[tokio::test]
async fn bodies_are_json_text_or_base64() {
    let cases: [(&'static [u8], Value); 4] = [
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi", json!("hi")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\x00", json!({"base64": "/wA="})),
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{x", json!("{x")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", json!("")),
    ];
    for (answer, body) in cases {
        let (port, seen) = server(answer, None).await;
        let proxy = proxy(&[&format!("127.0.0.1:{port}")]);
        let got = ask(&proxy, &format!("http://127.0.0.1:{port}"), &json!({})).await;
        assert_eq!((&got["Body"], &got["Err"]), (&body, &json!(null)));
        assert!(seen.lock().unwrap()[0].starts_with("GET / HTTP/1.1"));
    }
}

#[tokio::test]
async fn redirects_are_answers_and_are_not_followed() {
    let answer = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let (port, seen) = server(answer, None).await;
    let proxy = proxy(&[&format!("127.0.0.1:{port}"), "127.0.0.1:1"]);
    let got = ask(&proxy, &format!("http://127.0.0.1:{port}/"), &json!({})).await;
    assert_eq!(
        (&got["StatusCode"], &got["Header"]["Location"]),
        (&json!(302), &json!(["http://127.0.0.1:1/"]))
    );
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn only_listed_places_are_reached_and_private_ones_only_by_name() {
    let (port, seen) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", None).await;
    let none = json!({});
    assert_eq!(problem(&proxy(&[]), "http://h/", &none).await, "the proxy is off");
    let listed = proxy(&["example.com", "localhost", &format!("LOCALHOST:{port}")]);
    for topic in ["http://example.org/", "http://example.com:81/", "http://sub.example.com/"] {
        assert_eq!(problem(&listed, topic, &none).await, "the host is not on the list", "{topic}");
    }
    // `localhost` is a name that leads to a private address: only with its port.
    assert_eq!(problem(&listed, "http://localhost/", &none).await, "the address is private");
    assert_eq!(ask(&listed, &format!("http://localhost:{port}/"), &none).await["StatusCode"], 200);
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn answers_have_bounds_and_broken_ones_are_told() {
    let long = b"HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n\
        xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    for (answer, told) in [
        (&long[..], "the answer is too large"),
        (b"SSH-2.0-x\r\n", "the connection to that server broke"),
        (b"", "the connection to that server broke"),
    ] {
        let (port, _) = server(answer, None).await;
        let listed = proxy(&[&format!("127.0.0.1:{port}")]);
        assert_eq!(problem(&listed, &format!("http://127.0.0.1:{port}/"), &json!({})).await, told);
    }
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = silent.local_addr().unwrap().to_string();
    let config = ProxyConfig { hosts: vec![place.clone()], timeout_ms: 20, ..ProxyConfig::default() };
    let impatient = Proxy::new(&config).unwrap();
    assert_eq!(
        problem(&impatient, &format!("http://{place}/"), &json!({})).await,
        "the server did not answer in time"
    );
    for (body, told) in [
        (json!({"Method": "CONNECT"}), "the method is not one that is passed on"),
        (json!({"Header": {"a b": "c"}}), "a header's name is not one"),
        (json!({"Header": {"a": "b\r\nc: d"}}), "a header's value is not one"),
        (json!([]), "The JSON format is incorrect"),
    ] {
        assert_eq!(problem(&impatient, &format!("http://{place}/"), &body).await, told, "{body}");
    }
}

#[tokio::test]
async fn https_asks_for_a_certificate_of_that_name() {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = issued.signing_key.serialize_der().try_into().unwrap();
    let config =
        ServerConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key)
            .unwrap();
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (port, _) = server(answer, Some(TlsAcceptor::from(Arc::new(config)))).await;
    let hosts = vec![format!("localhost:{port}"), format!("127.0.0.1:{port}")];
    let config = ProxyConfig { hosts, ..ProxyConfig::default() };
    let mut roots = RootCertStore::empty();
    roots.add(issued.cert.der().clone()).unwrap();
    let trusting = Proxy::trusting(&config, roots).unwrap();
    assert_eq!(ask(&trusting, &format!("https://localhost:{port}/"), &json!({})).await["Body"], "ok");
    let other_name = format!("https://127.0.0.1:{port}/");
    assert_eq!(problem(&trusting, &other_name, &json!({})).await, "no TLS with that server");
    let strict = Proxy::new(&config).unwrap();
    assert_eq!(
        problem(&strict, &format!("https://localhost:{port}/"), &json!({})).await,
        "no TLS with that server",
        "a certificate that nobody vouches for"
    );
}
