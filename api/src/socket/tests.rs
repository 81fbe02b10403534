use feedlog_core::command::{CreateFeed, Draft};
use feedlog_core::event::{FeedKind, MessageKind};
use feedlog_core::ids::FeedId;
use feedlog_service::auth::{AuthConfig, Credential};
use feedlog_service::views::After;
use feedlog_service::{Store, StoreConfig};
use futures_util::SinkExt as _;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use tungstenite::protocol::Role;

use super::*;

/// Repeats text; a binary message is done beside the connection, and nothing is read meanwhile.
#[derive(Default)]
pub(super) struct Echo {
    busy: bool,
    ended: Arc<std::sync::Mutex<bool>>,
    told: Arc<std::sync::Mutex<Option<Arc<Inbox<String>>>>>,
}

impl Talk for Echo {
    type Told = String;
    type Done = Vec<u8>;

    async fn opened(&mut self, line: &mut Line<Self>) {
        *self.told.lock().unwrap() = Some(line.inbox());
        line.text(b"hello");
    }

    async fn frame(&mut self, line: &mut Line<Self>, frame: Frame) {
        match frame {
            Frame::Text(text) if text.as_str() == "quit" => line.close(close::POLICY, "asked"),
            Frame::Text(text) => line.text(text.as_bytes()),
            Frame::Binary(bytes) => {
                self.busy = true;
                line.work(async move {
                    tokio::task::yield_now().await;
                    bytes.to_vec()
                });
            }
        }
    }

    fn answered(&mut self, _line: &mut Line<Self>, _outcome: Result<Receipt, SubmitError>) {
        unreachable!("nothing is submitted")
    }

    async fn delivered(&mut self, _line: &mut Line<Self>, _delivery: Delivery) {
        unreachable!("nothing is followed")
    }

    async fn told(&mut self, line: &mut Line<Self>, told: String) {
        line.text(told.as_bytes());
    }

    async fn done(&mut self, line: &mut Line<Self>, done: Vec<u8>) {
        self.busy = false;
        line.binary(&done);
    }

    fn wants_frames(&self) -> bool {
        !self.busy
    }

    async fn ended(self, _line: Line<Self>) {
        *self.ended.lock().unwrap() = true;
    }
}

fn bounds() -> Bounds {
    Bounds {
        message_bytes_max: 1000,
        pending_max: 4,
        pending_bytes_max: 1000,
        out_bytes_max: 4096,
        keep_alive: Duration::from_secs(25),
        idle: Duration::from_secs(60),
        stalled: Duration::from_secs(30),
        drain: Duration::from_secs(5),
    }
}

struct World {
    client: WebSocketStream<DuplexStream>,
    drain: watch::Sender<bool>,
    inbox: Arc<Inbox<String>>,
    ended: Arc<std::sync::Mutex<bool>>,
    server: JoinHandle<()>,
}

/// A served connection that has said hello; the pipe between holds so many bytes.
async fn world(pipe: usize) -> World {
    let (server, client) = tokio::io::duplex(pipe);
    let (drain, draining) = watch::channel(false);
    let echo = Echo::default();
    let (ended, told) = (echo.ended.clone(), echo.told.clone());
    let server = tokio::spawn(run(server, echo, bounds(), draining));
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("hello"));
    let inbox = told.lock().unwrap().clone().unwrap();
    World { client, drain, inbox, ended, server }
}

async fn closed(client: &mut WebSocketStream<DuplexStream>) -> (u16, String) {
    loop {
        match client.next().await.unwrap().unwrap() {
            Message::Close(Some(frame)) => return (frame.code.into(), frame.reason.to_string()),
            Message::Close(None) => panic!("closed without a code"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn messages_are_taken_in_order_also_those_that_wait() {
    let mut world = world(1 << 16).await;
    for message in [Message::text("1"), Message::binary(vec![2]), Message::text("3"), Message::text("4")] {
        world.client.feed(message).await.unwrap();
    }
    world.client.flush().await.unwrap();
    for expected in [Message::text("1"), Message::binary(vec![2]), Message::text("3"), Message::text("4")] {
        assert_eq!(world.client.next().await.unwrap().unwrap(), expected);
    }
    assert!(world.inbox.tell("told".to_owned(), 4));
    assert_eq!(world.client.next().await.unwrap().unwrap(), Message::text("told"));
}

#[tokio::test]
async fn each_end_has_its_code() {
    let mut first = world(1 << 16).await;
    first.client.send(Message::text("quit")).await.unwrap();
    assert_eq!(closed(&mut first.client).await, (1008, "asked".to_owned()));
    drop(first.client);
    first.server.await.unwrap();
    assert!(*first.ended.lock().unwrap());
    assert!(!first.inbox.tell(String::new(), 0), "the inbox went with the connection");

    let mut large = world(1 << 16).await;
    large.client.send(Message::text("x".repeat(1000))).await.unwrap();
    assert_eq!(large.client.next().await.unwrap().unwrap(), Message::text("x".repeat(1000)));
    large.client.send(Message::text("x".repeat(1001))).await.unwrap();
    assert_eq!(closed(&mut large.client).await.0, 1009);

    let mut drained = world(1 << 16).await;
    drained.drain.send(true).unwrap();
    assert_eq!(closed(&mut drained.client).await.0, 1001);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_asked_and_then_closed() {
    let mut world = world(1 << 16).await;
    let start = Instant::now();
    // A client that reads answers pings: it is not silent.
    let quiet = timeout(Duration::from_secs(300), world.client.next()).await;
    assert!(matches!(quiet, Ok(Some(Ok(Message::Ping(_))))), "{quiet:?}");
    assert_eq!(start.elapsed().as_secs(), 25);
    // One that does not read does not answer.
    timeout(Duration::from_secs(100), &mut world.server).await.expect("closed after 60 s").unwrap();
    assert!(*world.ended.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_holds_little_and_is_closed() {
    let mut world = world(4096).await;
    // Twice what may wait for it, and what the pipe holds.
    for number in 0..100 {
        world.client.feed(Message::text(format!("{number:0>500}"))).await.unwrap();
        if timeout(Duration::from_secs(1), world.client.flush()).await.is_err() {
            break;
        }
    }
    timeout(Duration::from_secs(40), &mut world.server).await.expect("closed after 30 s").unwrap();
    assert!(*world.ended.lock().unwrap());
}

/// Numbers of what came by the attachment, as text; the first waits until it may go on.
struct Follower {
    gate: Gate,
    go_on: Arc<tokio::sync::Notify>,
    first: bool,
}

impl Talk for Follower {
    type Told = ();
    type Done = ();

    async fn opened(&mut self, line: &mut Line<Self>) {
        let mut attachment = self.gate.follow(None).await.unwrap();
        attachment.add_coming(FeedId::parse("room").unwrap(), After::Head).await.unwrap();
        line.attachment = Some(Box::new(attachment));
        line.text(b"follows");
    }

    async fn frame(&mut self, _line: &mut Line<Self>, _frame: Frame) {}

    fn answered(&mut self, _line: &mut Line<Self>, _outcome: Result<Receipt, SubmitError>) {}

    async fn delivered(&mut self, line: &mut Line<Self>, delivery: Delivery) {
        if let Delivery::Entry(view) = delivery {
            if std::mem::take(&mut self.first) {
                self.go_on.notified().await;
            }
            line.text(view.entry.seq.to_string().as_bytes());
        }
    }

    async fn told(&mut self, _line: &mut Line<Self>, (): ()) {}

    async fn done(&mut self, _line: &mut Line<Self>, (): ()) {}
}

/// More deliveries than one round takes lie ready: none is lost between two rounds (P4).
#[tokio::test]
async fn all_that_lies_ready_is_handed_on() {
    let count = 3 * ROUND_MAX as u64 + 7;
    let auth = AuthConfig { dev: true, ..AuthConfig::default() };
    let config = StoreConfig { shards: 1, attach_queue_max: 10_000, auth, ..StoreConfig::default() };
    let store = Store::in_memory(config).unwrap();
    let principal = store.auth().authenticate(Credential::Token("ada")).unwrap();
    let gate = store.gate(principal);
    let go_on = Arc::new(tokio::sync::Notify::new());
    let (server, client) = tokio::io::duplex(1 << 20);
    let (_drain, draining) = watch::channel(false);
    let talk = Follower { gate: gate.clone(), go_on: go_on.clone(), first: true };
    tokio::spawn(run(server, talk, Bounds { out_bytes_max: 1 << 20, ..bounds() }, draining));
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("follows"));
    let create = CreateFeed::new(FeedKind::Open);
    // The feed's creation is the first entry.
    for _ in 1..count {
        let draft = Draft {
            create: Some(create.clone()),
            ..Draft::new(MessageKind::Text, "text/plain".into(), "x".into())
        };
        let action = Action::SendMessage(Box::new(draft));
        gate.submit(Command { feed: FeedId::parse("room").unwrap(), action }).await.unwrap();
    }
    go_on.notify_one();
    for seq in 1..=count {
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text(seq.to_string()));
    }
}
