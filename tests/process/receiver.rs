//! A server that receives webhooks and is bad at it: fails half the time, hangs, breaks off, is gone for a while.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, SigningKey, Verifier as _};
use hmac::Mac as _;
use serde_json::Value;

use crate::ledger::Random;

pub(crate) const SECRET: [u8; 32] = [9; 32];
pub(crate) const SEED: [u8; 32] = [5; 32];

/// What a receiver keeps across its restarts.
#[derive(Default)]
pub(crate) struct Book {
    /// Every call that was taken, by id: the ids of its items, and how often it came in all.
    pub(crate) taken: HashMap<String, (Vec<String>, usize)>,
    /// Messages by feed in the order in which they were taken first.
    pub(crate) messages: BTreeMap<String, Vec<(u64, Value)>>,
    /// The newest call for each user.
    pub(crate) newest: HashMap<String, Value>,
    pub(crate) tries: usize,
}

/// How it behaves.
struct Mood {
    healthy: AtomicBool,
    random: Mutex<Random>,
}

/// A receiver that runs.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    pub(crate) book: Arc<(Mutex<Book>, Condvar)>,
    mood: Arc<Mood>,
    running: Option<(Arc<AtomicBool>, std::thread::JoinHandle<()>)>,
}

impl Receiver {
    pub(crate) fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let mood = Mood { healthy: AtomicBool::new(false), random: Mutex::new(Random::new(seed)) };
        let mut receiver = Self { address, book: Arc::default(), mood: Arc::new(mood), running: None };
        receiver.run(listener);
        receiver
    }

    fn run(&mut self, listener: TcpListener) {
        let stopped = Arc::new(AtomicBool::new(false));
        let (book, mood, told) = (self.book.clone(), self.mood.clone(), stopped.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if told.load(Ordering::SeqCst) {
                    return;
                }
                let (book, mood, told) = (book.clone(), mood.clone(), told.clone());
                if let Ok(stream) = stream {
                    std::thread::spawn(move || receive(stream, &book, &mood, &told));
                }
            }
        });
        self.running = Some((stopped, thread));
    }

    /// Nobody listens any more; calls under way break.
    pub(crate) fn stop(&mut self) {
        let Some((stopped, thread)) = self.running.take() else { return };
        stopped.store(true, Ordering::SeqCst);
        // Wakes it up.
        let _ = TcpStream::connect(self.address);
        thread.join().expect("the receiver does not panic");
    }

    /// At the same address again, with its book.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let deadline = Instant::now() + Duration::from_secs(10);
        let listener = loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{}: {error}", self.address),
            }
            std::thread::park_timeout(Duration::from_millis(5));
        };
        self.run(listener);
    }

    /// From now on it takes everything.
    pub(crate) fn heal(&self) {
        self.mood.healthy.store(true, Ordering::SeqCst);
    }

    /// Waits until the book is as wanted.
    pub(crate) fn wait(&self, what: &str, wanted: impl Fn(&Book) -> bool) {
        let (book, bell) = &*self.book;
        let guard = book.lock().unwrap();
        let (guard, late) = bell
            .wait_timeout_while(guard, Duration::from_secs(60), |book| !wanted(book))
            .expect("nobody panics with the book");
        let seen: Vec<_> = guard.messages.iter().map(|(feed, list)| (feed, list.len())).collect();
        assert!(!late.timed_out(), "{what} never came; there is {seen:?}");
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

fn receive(mut stream: TcpStream, book: &(Mutex<Book>, Condvar), mood: &Mood, stopped: &AtomicBool) {
    let Some((head, body)) = read(&mut stream) else { return };
    let Some(id) = check(&head, &body) else { return };
    let healthy = mood.healthy.load(Ordering::SeqCst);
    let dice = mood.random.lock().unwrap().below(10);
    book.0.lock().unwrap().tries += 1;
    // 0–4 take it; of these, 4 dies before it has said so. 5 hangs, 6 breaks off, the others refuse.
    let takes = healthy || dice <= 4;
    if takes {
        enter(&mut book.0.lock().unwrap(), &id, &serde_json::from_slice(&body).expect("a call is JSON"));
        book.1.notify_all();
    }
    let answer = match dice {
        _ if healthy => "200 OK",
        0..=3 => "204 No Content",
        4 | 6 => return,
        5 => {
            // Until its caller gives up, or it is stopped.
            let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
            while !stopped.load(Ordering::SeqCst) {
                match stream.read(&mut [0; 16]) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
            return;
        }
        7 => "503 Later\r\nretry-after: 0",
        8 => "307 Elsewhere\r\nlocation: http://169.254.169.254/",
        _ => "500 Oh",
    };
    let _ = stream.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes());
}

/// Head and body of a request.
fn read(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is text");
            let length = header(&head, "content-length").and_then(|text| text.parse::<usize>().ok());
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                return Some((head, bytes.split_off(end + 4)));
            }
        }
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    let named = |line: &&str| line.split_once(": ").is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
    head.lines().find(named).and_then(|line| Some(line.split_once(": ")?.1.to_owned()))
}

/// The id, when both signatures are right (Standard Webhooks); with other libraries than the server's.
fn check(head: &str, body: &[u8]) -> Option<String> {
    let id = header(head, "webhook-id")?;
    assert_eq!(serde_json::from_slice::<Value>(body).ok()?["id"], id.as_str());
    let mut signed = format!("{id}.{}.", header(head, "webhook-timestamp")?).into_bytes();
    signed.extend_from_slice(body);
    let signatures = header(head, "webhook-signature")?;
    let (v1, v1a) = signatures.split_once(' ').expect("two signatures");
    let bytes = |text: &str, version: &str| {
        STANDARD.decode(text.strip_prefix(version).expect("a version")).expect("base64")
    };
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&SECRET).expect("any length will do");
    mac.update(&signed);
    mac.verify_slice(&bytes(v1, "v1,")).expect("the signature is right");
    let public = SigningKey::from_bytes(&SEED).verifying_key();
    let signature = Signature::from_slice(&bytes(v1a, "v1a,")).expect("64 bytes");
    public.verify(&signed, &signature).expect("the signature is right");
    Some(id)
}

/// Takes a call once, as receivers should: by its id.
fn enter(book: &mut Book, id: &str, call: &Value) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let items: Vec<String> = list(&call["items"]).iter().map(|item| text(&item["id"])).collect();
    for to in list(&call["to"]) {
        book.newest.insert(text(&to["uid"]), to);
    }
    if let Some((first, times)) = book.taken.get_mut(id) {
        assert_eq!(*first, items, "{id} came again with other items");
        *times += 1;
        return;
    }
    book.taken.insert(id.to_owned(), (items, 1));
    let feed = text(&call["feed_id"]);
    for item in list(&call["items"]).iter().filter(|item| item["type"] == "message") {
        let seq = item["seq_id"].as_u64().expect("a place");
        book.messages.entry(feed.clone()).or_default().push((seq, item["payload"].clone()));
    }
}
