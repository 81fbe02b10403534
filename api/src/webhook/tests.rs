//! Webhooks against servers on this machine.

use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feedlog_core::event::FeedKind;
use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_service::outbox::{Item, To, What, Withdrawal};
use ring::hmac;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const SECRET: [u8; 32] = [7; 32];

type Seen = Arc<Mutex<Vec<String>>>;

/// Answers every request with these bytes, or hangs when there are none, and remembers what was asked.
async fn server(answer: Vec<u8>) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let remembered = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 64 * 1024];
            let mut count = 0;
            while !is_whole(&buffer[..count]) {
                match stream.read(&mut buffer[count..]).await {
                    Ok(more) if more > 0 => count += more,
                    _ => break,
                }
            }
            remembered.lock().unwrap().push(String::from_utf8_lossy(&buffer[..count]).into_owned());
            if answer.is_empty() {
                let _ = stream.read(&mut buffer).await;
            }
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, seen)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    body.len() >= length.unwrap_or(0)
}

fn keys() -> Keys {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, format!("whsec_{}", STANDARD.encode(SECRET))).unwrap();
    Keys::read(Some(&path), None).unwrap()
}

fn config(url: &str, hosts: &[&str]) -> WebhookConfig {
    WebhookConfig {
        name: "e".into(),
        url: url.to_owned(),
        keys: keys(),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        timeout_ms: 10_000,
        calls_max: 8,
    }
}

fn call() -> Call {
    let to =
        To { uid: Uid::parse("bob").unwrap(), badge: 1, badge_unmuted: 1, last_seq: SeqId(0), items: None };
    Call {
        endpoint: "e".into(),
        id: "e:g:3-3".into(),
        feed: FeedId::parse("g").unwrap(),
        kind: FeedKind::Group,
        items: vec![Item {
            seq: SeqId(3),
            what: What::Withdrawn { target: SeqId(2), reason: Withdrawal::Recalled },
        }],
        to: vec![to],
        attempt: 2,
        replay: false,
        time_ms: 1_700_000_000_999,
    }
}

async fn carry(port: u16, timeout_ms: u64) -> Result<(), CarryError> {
    let address = format!("127.0.0.1:{port}");
    let config = WebhookConfig { timeout_ms, ..config(&format!("http://{address}/hook?a=b"), &[&address]) };
    Webhooks::new(vec![config]).unwrap().carry(call()).await
}

fn status(status: u16, retry_after_ms: Option<u64>) -> Result<(), CarryError> {
    Err(CarryError::Status { status, retry_after_ms })
}

/// A receiver checks what it got with nothing but the secret and the standard.
#[tokio::test]
async fn a_call_is_a_signed_post() {
    let (port, seen) = server(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()).await;
    carry(port, 10_000).await.unwrap();
    let request = seen.lock().unwrap()[0].clone();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{head}");
    let header = |name: &str| {
        let found = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        found.unwrap_or_else(|| panic!("{name} in {head}"))
    };
    assert_eq!(header("webhook-id"), "e:g:3-3");
    assert_eq!(header("webhook-timestamp"), "1700000000");
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("feedlog-attempt"), "2");
    let signature = STANDARD.decode(header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &SECRET);
    hmac::verify(&key, format!("e:g:3-3.1700000000.{body}").as_bytes(), &signature).unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["items"][0]["id"], "g:3:2");
}

#[tokio::test]
async fn what_is_taken_and_what_is_not() {
    let large = |head: &str| {
        let mut answer = format!("{head}\r\ncontent-length: 10000000\r\n\r\n").into_bytes();
        answer.resize(answer.len() + 2 * ANSWER_BYTES_MAX, b'x');
        answer
    };
    for (answer, expected) in [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec(), Ok(())),
        (large("HTTP/1.1 200 OK"), Ok(())),
        (large("HTTP/1.1 500 Oh"), status(500, None)),
        (b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n".to_vec(), status(410, None)),
        (
            b"HTTP/1.1 429 No\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n".to_vec(),
            status(429, Some(7_000)),
        ),
        (b"HTTP/1.1 503 No\r\nretry-after: soon\r\ncontent-length: 0\r\n\r\n".to_vec(), status(503, None)),
        // Not followed.
        (
            b"HTTP/1.1 307 There\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n".to_vec(),
            status(307, None),
        ),
        (b"SSH-2.0-nothing to see\r\n\r\n".to_vec(), Err(CarryError::BadAnswer)),
        (b"HTTP/1.1 2".to_vec(), Err(CarryError::BadAnswer)),
    ] {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(40)]).into_owned();
        let (port, _) = server(answer).await;
        assert_eq!(carry(port, 10_000).await, expected, "{shown}");
    }
    let (port, _) = server(Vec::new()).await;
    assert_eq!(carry(port, 50).await, Err(CarryError::TimedOut));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    assert_eq!(carry(port, 10_000).await, Err(CarryError::Unreachable));
}

#[tokio::test]
async fn only_allowed_hosts_are_called() {
    let (port, seen) = server(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()).await;
    let problem = |config| Webhooks::new(vec![config]).unwrap_err().1.to_string();
    let url = format!("http://localhost:{port}/");
    assert!(problem(config(&url, &[])).contains("outbox.hosts"));
    assert!(problem(config(&url, &["elsewhere"])).contains("not on the list"));
    assert!(problem(config("ftp://h/", &["h"])).contains("URL"));
    assert!(problem(config(&url, &["a b"])).contains("hosts"));
    let unsigned = WebhookConfig { keys: Keys::read(None, None).unwrap(), ..config(&url, &["localhost"]) };
    assert!(problem(unsigned).contains("signed"));
    // A listed name that leads to a private address, without its port.
    let webhooks = Webhooks::new(vec![config("http://localhost/", &["localhost"])]).unwrap();
    assert_eq!(webhooks.carry(call()).await, Err(CarryError::NotAllowed));
    assert!(seen.lock().unwrap().is_empty());
    // I-8: neither keys nor paths, which may hold secrets, are shown.
    let debug = format!("{:?}", Webhooks::new(vec![config("http://h/secret-path", &["h"])]).unwrap());
    assert!(!debug.contains("secret-path"), "{debug}");
}
