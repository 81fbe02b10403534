//! Bodies both ways over a store in memory.

use bytes::Bytes;
use feedlog_core::command::{Action, Command, CreateFeed, Draft, Principal, RecallTarget, Scopes};
use feedlog_core::event::{FeedKind, HistoryMode, JoinMode, MessageKind};
use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_service::auth::AuthConfig;
use feedlog_service::clock::Clock;
use feedlog_service::views::Receipt;
use feedlog_service::{Gate, Store, StoreConfig};
use prost::Message as _;

use super::wire::*;
use super::*;
use crate::errors::{ApiError, Kind};

/// The example of the page: message 1 of user 2, "hi", at 3, to user 4.
const EXAMPLE: [u8; 12] = [0x08, 0x01, 0x10, 0x02, 0x1a, 0x02, 0x68, 0x69, 0x20, 0x03, 0x28, 0x04];

struct World {
    store: Store,
    ids: Ids,
}

impl World {
    fn new() -> Self {
        let (clock, _) = Clock::manual(1_700_000_000_000);
        let auth = AuthConfig { dev: true, ..AuthConfig::default() };
        let store =
            Store::in_memory(StoreConfig { shards: 2, auth, clock, ..StoreConfig::default() }).unwrap();
        Self { ids: Ids::new(&store), store }
    }

    fn gate(&self, who: &str) -> Gate {
        let scopes = Scopes { user: true, ..Scopes::default() };
        self.store.gate(Principal { uid: uid(who), scopes, anonymous: false, via: None })
    }

    /// Sends a body and gives the receipt with the server's id.
    async fn send(&self, who: &str, place: Place, body: &[u8]) -> Result<(Receipt, u64), ApiError> {
        let gate = self.gate(who);
        let body = Bytes::copy_from_slice(body);
        let incoming = decode(&self.ids, gate.principal(), &place, body, Bytes::new()).await?;
        let receipt = gate.submit_with(incoming.command.clone(), incoming.rows.clone()).await?;
        let id = incoming.settled_id(&self.ids, &gate.principal().uid, &receipt).await?;
        Ok((receipt, id))
    }

    async fn act(&self, who: &str, feed: &FeedId, action: Action) -> SeqId {
        let command = Command { feed: feed.clone(), action };
        self.gate(who).submit(command).await.unwrap().done().seq
    }

    async fn group(&self, name: &str, members: &[&str]) -> FeedId {
        let feed = FeedId::parse(name).unwrap();
        let members = members.iter().map(|name| uid(name)).collect();
        let create = CreateFeed {
            kind: FeedKind::Group,
            title: None,
            members,
            join: JoinMode::Invite,
            history: HistoryMode::All,
            meta: None,
        };
        self.act("2", &feed, Action::CreateFeed(create)).await;
        feed
    }

    async fn say(
        &self,
        who: &str,
        feed: &FeedId,
        kind: MessageKind,
        content_type: &str,
        body: &[u8],
    ) -> SeqId {
        let payload = Bytes::copy_from_slice(body);
        let draft = Draft { to_reply: Some(true), ..Draft::new(kind, content_type.into(), payload) };
        self.act(who, feed, Action::SendMessage(Box::new(draft))).await
    }

    async fn relayed(&self, who: &str, feed: &FeedId, seq: SeqId) -> Option<Down> {
        let gate = self.gate(who);
        let view = gate.entry(feed, seq).await.unwrap();
        relay(&self.ids, &gate, &view).await.unwrap()
    }
}

fn uid(name: &str) -> Uid {
    Uid::parse(name).unwrap()
}

fn example() -> Message {
    Message::decode(&EXAMPLE[..]).unwrap()
}

fn service_example() -> ServiceMessage {
    ServiceMessage {
        message_id: Some(9),
        user_id: Some(2),
        service_type: Some(ServiceType::Customer.into()),
        message_type: Some(MessageType::Image.into()),
        content: Some("hi".into()),
        create_date: Some(3),
        direction: Some(ServiceMessageDirection::UserToAgent.into()),
        agent_id: Some(4),
        post_proc: Some(7),
        to_reply: Some(1),
        extend: Some("x".into()),
        ..ServiceMessage::default()
    }
}

#[test]
fn the_example_of_the_page_byte_for_byte() {
    let message = Message {
        message_id: Some(1),
        sender_id: Some(2),
        content: Some("hi".into()),
        create_time: Some(3),
        receiver_id: Some(4),
        ..Message::default()
    };
    assert_eq!(message.encode_to_vec(), EXAMPLE);
    assert_eq!(example(), message);
    assert_eq!(
        service_example().encode_to_vec(),
        [
            0x08, 9, 0x10, 2, 0x18, 2, 0x20, 2, 0x2a, 2, b'h', b'i', 0x30, 3, 0x38, 1, 0x40, 4, 0x48, 7,
            0x50, 1, 0x5a, 1, b'x'
        ]
    );
    let statics = BaseUserUnreadStatics { user_id: 0, unread_total: 0, unreplied_total: 0, feeds: vec![] };
    assert_eq!(statics.encode_to_vec(), [0x08, 0, 0x10, 0, 0x18, 0], "required fields are always there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_goes_to_the_direct_feed_and_comes_back_with_the_servers_id() {
    let world = World::new();
    // So that the server's id differs from the client's.
    world
        .send("2", Place::Message, &Message { message_id: Some(7), ..example() }.encode_to_vec())
        .await
        .unwrap();
    let (receipt, id) = world.send("2", Place::Message, &EXAMPLE).await.unwrap();
    let feed = receipt.done().feed.clone();
    assert_eq!((receipt.done().seq, receipt.done().duplicate, id), (SeqId(3), false, 2));
    assert_eq!(feed, FeedId::direct(&uid("4"), &uid("2"), crate::made::digest));
    let text = String::from_utf8(super::receipt(1, id, &receipt)).unwrap();
    assert_eq!(
        text,
        format!(
            r#"{{"client_message_id":1,"message_id":2,"feed_id":"{feed}","seq_id":3,"time_ms":1700000000000,"duplicate":false}}"#
        )
    );
    assert_eq!(receipt_topic(1), "imreceipt://modulus/publish?msg_id=1");

    let entry = world.gate("4").entry(&feed, SeqId(3)).await.unwrap().entry;
    assert_eq!(entry.payload.bytes().unwrap(), &EXAMPLE[..], "the whole body is the payload");
    let message = entry.message().unwrap();
    assert_eq!((&*message.content_type, message.sent_ms), (MESSAGE_TYPE, Some(3)));
    assert_eq!(message.client_msg_id.as_ref().unwrap().as_str(), "1");

    let down = world.relayed("4", &feed, SeqId(3)).await.unwrap();
    assert_eq!(down.topic, "pb/message");
    assert_eq!(&down.body[..12], [0x08, 2, 0x10, 2, 0x1a, 2, b'h', b'i', 0x20, 3, 0x28, 4]);
    let read = Message::decode(&*down.body).unwrap();
    assert_eq!((read.feed_id.as_deref(), read.seq_id), (Some(feed.as_str()), Some(3)));
    assert_eq!(read.time_ms, Some(1_700_000_000_000));

    let (again, same) = world.send("2", Place::Message, &EXAMPLE).await.unwrap();
    assert_eq!((again.done().seq, again.done().duplicate, same), (SeqId(3), true, id), "a retry (P3)");
    let other = Message { content: Some("ho".into()), ..example() }.encode_to_vec();
    assert_eq!(world.send("2", Place::Message, &other).await.unwrap_err().kind, Kind::IdConflict);
    assert_eq!(world.ids.place_of(id).await.unwrap(), Some((feed, SeqId(3))));
    assert_eq!(world.ids.place_of(99).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_message_keeps_its_opaque_fields_and_those_nobody_knows() {
    let world = World::new();
    let mut body = service_example().encode_to_vec();
    body.extend_from_slice(&[0xf8, 0x06, 5]); // field 111, unknown to us
    let (receipt, id) = world.send("2", Place::Service, &body).await.unwrap();
    let done = receipt.done();
    let entry = world.gate("4").entry(&done.feed, done.seq).await.unwrap().entry;
    let message = entry.message().unwrap();
    assert_eq!((message.kind, message.to_reply), (MessageKind::Image, Some(true)));
    let down = world.relayed("4", &done.feed, done.seq).await.unwrap();
    assert_eq!(down.topic, "pb/service");
    assert_eq!(&down.body[..2], [0x08, u8::try_from(id).unwrap()]);
    assert_eq!(down.body[2..body.len()], body[2..], "byte for byte");

    let from_agent = ServiceMessage {
        direction: Some(ServiceMessageDirection::AgentToUser.into()),
        to_reply: Some(0),
        ..service_example()
    };
    let (answer, _) = world.send("4", Place::Service, &from_agent.encode_to_vec()).await.unwrap();
    assert_eq!(answer.done().feed, done.feed, "one feed for the two, whoever writes");
    let opaque = ServiceMessage { message_id: Some(10), to_reply: Some(5), ..service_example() };
    let (opaque, _) = world.send("2", Place::Service, &opaque.encode_to_vec()).await.unwrap();
    let entry = world.gate("2").entry(&done.feed, opaque.done().seq).await.unwrap().entry;
    assert_eq!(entry.message().unwrap().to_reply, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_lack_something_are_refused() {
    let world = World::new();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("m", Message { message_id: None, ..example() }.encode_to_vec(), "message_id: is missing"),
        ("m", Message { sender_id: None, ..example() }.encode_to_vec(), "sender_id: is missing"),
        ("m", Message { content: None, ..example() }.encode_to_vec(), "content: is missing"),
        ("m", Message { create_time: None, ..example() }.encode_to_vec(), "create_time: is missing"),
        ("m", Message { receiver_id: None, ..example() }.encode_to_vec(), "receiver_id: is missing"),
        (
            "m",
            Message { message_id: Some(1 << 53), ..example() }.encode_to_vec(),
            "message_id: is 2^53 or more",
        ),
        (
            "m",
            Message { receiver_id: Some(1 << 52), ..example() }.encode_to_vec(),
            "receiver_id: is nobody's number",
        ),
        ("m", Vec::new(), "content: is missing"),
        ("m", EXAMPLE[..7].to_vec(), "body: is not such a message"),
        ("m", vec![0x1a, 2, 0xff, 0xff], "body: is not such a message"),
        ("m", vec![0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f], "body: is not such a message"),
        ("s", ServiceMessage { agent_id: None, ..service_example() }.encode_to_vec(), "agent_id: is missing"),
        ("s", ServiceMessage { user_id: None, ..service_example() }.encode_to_vec(), "user_id: is missing"),
        (
            "s",
            ServiceMessage { direction: None, ..service_example() }.encode_to_vec(),
            "direction: is missing",
        ),
        (
            "s",
            ServiceMessage { service_type: Some(99), ..service_example() }.encode_to_vec(),
            "service_type: is not one of the known values",
        ),
        (
            "s",
            ServiceMessage { message_type: Some(MessageType::Recall.into()), ..service_example() }
                .encode_to_vec(),
            "message_type: is one that only the server sends",
        ),
        ("s", EXAMPLE.to_vec(), "body: is not such a message"),
    ];
    for (place, body, told) in cases {
        let place = if place == "m" { Place::Message } else { Place::Service };
        let error = world.send("2", place, &body).await.unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (Kind::BadRequest, told));
    }
    let error = world.send("3", Place::Message, &EXAMPLE).await.unwrap_err();
    assert_eq!(error.kind, Kind::Forbidden, "the sender must be whoever is logged in");
}

#[test]
fn topics_lead_to_their_places() {
    assert_eq!(place("pb/message"), Some(Ok(Place::Message)));
    assert_eq!(place("pb/service"), Some(Ok(Place::Service)));
    assert_eq!(place("pb/feeds/a%2Fb"), Some(Ok(Place::Feed(FeedId::parse("a/b").unwrap()))));
    assert_eq!(place("pb/feeds/").unwrap().unwrap_err().kind, Kind::BadRequest);
    assert_eq!(place("pb/feeds/%ff").unwrap().unwrap_err().kind, Kind::BadRequest);
    for other in ["pb/unread", "pb", "pb/messages", "x/pb/message"] {
        assert_eq!(place(other), None, "{other}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feeds_topic_takes_both_messages_and_looks_at_no_receiver() {
    let world = World::new();
    let feed = world.group("g", &["4"]).await;
    let (receipt, _) = world.send("2", Place::Feed(feed.clone()), &EXAMPLE).await.unwrap();
    assert_eq!(receipt.done().feed, feed);
    let body = ServiceMessage { agent_id: None, ..service_example() }.encode_to_vec();
    let (receipt, _) = world.send("2", Place::Feed(feed.clone()), &body).await.unwrap();
    let entry = world.gate("4").entry(&feed, receipt.done().seq).await.unwrap().entry;
    assert_eq!(&*entry.message().unwrap().content_type, SERVICE_TYPE);
    let error = world
        .send("9", Place::Feed(feed), &Message { sender_id: Some(9), ..example() }.encode_to_vec())
        .await;
    assert_eq!(error.unwrap_err().kind, Kind::FeedNotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_other_wires_sent_has_a_text_and_a_number_that_stays() {
    let world = World::new();
    let feed = world.group("g", &["ann"]).await;
    for (content_type, body, content) in [
        ("application/json", &b"\"tea\""[..], "tea"),
        ("application/json", b"{\"text\":\"tea\",\"n\":1}", "tea"),
        ("application/json", b"{\"n\": 1}", "{\"n\": 1}"),
        ("text/plain", b"tea", "tea"),
        ("audio/ogg", b"\xff\x00", "/wA="),
    ] {
        let seq = world.say("ann", &feed, MessageKind::Text, content_type, body).await;
        let down = world.relayed("2", &feed, seq).await.unwrap();
        let read = Message::decode(&*down.body).unwrap();
        assert_eq!((down.topic, read.content.as_deref()), ("pb/message", Some(content)));
        assert_eq!(read.sender_id, Some(1 << 52), "an alias");
        assert_eq!((read.receiver_id, read.create_time), (Some(0), Some(1_700_000_000_000)));
        read.checked().unwrap();
        // Another process over the same store says the same.
        let again = World { ids: Ids::new(&world.store), store: world.store.clone() };
        assert_eq!(again.relayed("2", &feed, seq).await.unwrap(), down);
        let number = read.message_id.unwrap();
        assert_eq!(again.ids.place_of(number).await.unwrap(), Some((feed.clone(), seq)));
    }
    let seq = world.say("ann", &feed, MessageKind::Image, "application/json", b"\"u\"").await;
    let down = world.relayed("2", &feed, seq).await.unwrap();
    let read = ServiceMessage::decode(&*down.body).unwrap();
    assert_eq!((down.topic, read.message_type()), ("pb/service", MessageType::Image));
    assert_eq!((read.to_reply, read.user_id), (Some(1), Some(1 << 52)));
    read.checked().unwrap();
    assert_eq!(world.relayed("2", &feed, SeqId(1)).await, None, "no words for members");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recall_and_an_edit_name_the_message_that_readers_know() {
    let world = World::new();
    let (receipt, id) = world.send("2", Place::Message, &EXAMPLE).await.unwrap();
    let (feed, seq) = (receipt.done().feed.clone(), receipt.done().seq);
    let edit = Action::EditMessage {
        target: seq,
        content_type: "application/json".into(),
        payload: Bytes::from_static(b"\"ho\""),
    };
    let edited = world.act("2", &feed, edit).await;
    let read = ServiceMessage::decode(&*world.relayed("4", &feed, edited).await.unwrap().body).unwrap();
    assert_eq!(
        (read.message_type(), read.content, read.extend),
        (MessageType::Edit, Some(id.to_string()), Some("ho".into()))
    );
    let recall = Action::RecallMessage { target: RecallTarget::Seq(seq), reason: None };
    let recalled = world.act("2", &feed, recall).await;
    // Nothing is remembered: what the recall names comes from the store.
    let fresh = World { ids: Ids::new(&world.store), store: world.store.clone() };
    let down = fresh.relayed("4", &feed, recalled).await.unwrap();
    let read = ServiceMessage::decode(&*down.body).unwrap();
    read.checked().unwrap();
    assert_eq!((read.message_type(), read.content), (MessageType::Recall, Some(id.to_string())));
    assert_eq!(fresh.relayed("4", &feed, seq).await, None, "no content after a recall (P6)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_entry_and_one_user_get_one_number_whoever_asks() {
    let world = World::new();
    let feed = world.group("g", &["ann"]).await;
    let seq = world.say("ann", &feed, MessageKind::Text, "text/plain", b"x").await;
    let view = std::sync::Arc::new(world.gate("2").entry(&feed, seq).await.unwrap());
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (ids, view) = (world.ids.clone(), view.clone());
        asking.spawn(async move {
            (ids.of_view(&view).await.unwrap(), ids.number_of(&uid("ann")).await.unwrap())
        });
    }
    let numbers = asking.join_all().await;
    assert!(numbers.iter().all(|both| *both == numbers[0]), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_have_numbers_both_ways() {
    let world = World::new();
    for own in ["0", "7", "4503599627370495"] {
        let number = own.parse::<u64>().unwrap();
        assert_eq!(world.ids.number_of(&uid(own)).await.unwrap(), number);
        assert_eq!(world.ids.uid_of(number).await.unwrap(), Some(uid(own)));
    }
    for (at, other) in ["ann", "007", "+7", "4503599627370496", "9007199254740993"].iter().enumerate() {
        let alias = (1 << 52) + at as u64;
        assert_eq!(world.ids.number_of(&uid(other)).await.unwrap(), alias, "{other}");
        let again = Ids::new(&world.store);
        assert_eq!(again.number_of(&uid(other)).await.unwrap(), alias, "{other}");
        assert_eq!(again.uid_of(alias).await.unwrap(), Some(uid(other)));
    }
    let last = (1 << 53) - 1;
    assert_eq!(
        world.ids.number_of(&uid("anon:1")).await.unwrap(),
        last,
        "one for all, or they would grow for ever"
    );
    assert_eq!(world.ids.uid_of(last).await.unwrap(), None);
    assert_eq!(world.ids.uid_of((1 << 52) + 99).await.unwrap(), None);
    assert_eq!(world.ids.uid_of(u64::MAX).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_say_where_a_user_stands() {
    let world = World::new();
    let down = unread(&world.ids, &world.gate("4")).await.unwrap();
    assert_eq!((down.topic, down.body), ("pb/unread", vec![0x08, 4, 0x10, 0, 0x18, 0]));
    let feed = world.group("g", &["4"]).await;
    world.say("2", &feed, MessageKind::Text, "text/plain", b"a").await;
    let second = world.say("2", &feed, MessageKind::Text, "text/plain", b"b").await;
    let marks = Action::MoveMarks {
        feed: feed.clone(),
        read: Some(SeqId(second.0 - 1)),
        received: None,
        unread_from: None,
    };
    world.act("4", &FeedId::personal(&uid("4")), marks).await;
    world.send("2", Place::Message, &EXAMPLE).await.unwrap();
    let down = unread(&world.ids, &world.gate("4")).await.unwrap();
    let read = BaseUserUnreadStatics::decode(&*down.body).unwrap();
    assert_eq!((read.user_id, read.unread_total, read.unreplied_total), (4, 2, 3));
    assert_eq!(read.feeds.len(), 2);
    let group = read.feeds.iter().find(|row| row.feed == "g").unwrap();
    let expected = UserUnreadFeed {
        feed: "g".into(),
        unread: 1,
        unreplied: 2,
        last_seq_id: second.0,
        read_seq_id: second.0 - 1,
    };
    assert_eq!(*group, expected);
}

#[test]
fn the_published_format_is_the_one_that_is_spoken() {
    // Every field of the file has a line in wire.rs with the same number, and the other way round.
    let file = include_str!("../../../proto/feedlog.proto");
    let code = include_str!("wire.rs");
    let fields = |text: &str| {
        let lines = text.lines().map(str::trim).filter(|line| {
            ["required ", "optional ", "repeated "].iter().any(|label| line.starts_with(label))
        });
        lines
            .map(|line| {
                let mut words = line.split_whitespace().skip(2);
                let name = words.next().unwrap().to_owned();
                let number = words.nth(1).unwrap().trim_end_matches(';').to_owned();
                (name, number)
            })
            .collect::<Vec<_>>()
    };
    let spoken: Vec<_> = code
        .split("#[prost(")
        .skip(1)
        .filter_map(|text| {
            let (attribute, rest) = text.split_once(")]")?;
            let number = attribute.split("tag = \"").nth(1)?.split('"').next()?.to_owned();
            let name = rest.trim().strip_prefix("pub ")?.split(':').next()?.to_owned();
            Some((name, number))
        })
        .collect();
    assert_eq!(fields(file), spoken);
    assert!(spoken.len() > 20);
    for (name, value) in
        [("MESSAGE_EDIT", MessageType::Edit as i32), ("SERVICE_SYSTEM", ServiceType::System as i32)]
    {
        assert!(file.contains(&format!("{name} = {value};")), "{name}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80), cut in 0_usize..12) {
        fuzz(&bytes);
        let mut near = EXAMPLE[..cut].to_vec();
        near.extend_from_slice(&bytes);
        fuzz(&near);
    }
}
