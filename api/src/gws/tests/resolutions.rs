//! Every row of the ambiguities and their resolutions, and scenes of two and more connections.

use std::time::Duration;

use feedlog_core::command::{Action, Command, CreateFeed, Draft, RecallTarget};
use feedlog_core::event::{FeedKind, JoinMode, MessageKind};
use feedlog_core::ids::{ClientMsgId, FeedId, SeqId};
use feedlog_service::Gate;
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::world::*;
use crate::gws::GwsConfig;
use crate::http::HttpConfig;

fn room(name: &str) -> FeedId {
    FeedId::parse(name).unwrap()
}

fn new_open_feed() -> CreateFeed {
    CreateFeed::new(FeedKind::Open)
}

/// A message that another wire brings; its place.
async fn say(gate: &Gate, name: &str, content_type: &str, text: &str, id: Option<&str>) -> SeqId {
    let draft = Draft {
        client_msg_id: id.map(|id| ClientMsgId::parse(id).unwrap()),
        create: Some(new_open_feed()),
        ..Draft::new(MessageKind::Text, content_type.into(), text.to_owned().into())
    };
    let command = Command { feed: room(name), action: Action::SendMessage(Box::new(draft)) };
    gate.submit(command).await.unwrap().done().seq
}

async fn recall(gate: &Gate, name: &str, target: RecallTarget) {
    let action = Action::RecallMessage { target, reason: None };
    gate.submit(Command { feed: room(name), action }).await.unwrap();
}

#[tokio::test]
async fn raw_frames_are_kept_in_the_log_or_handed_on_and_forgotten() {
    let world = World::with(GwsConfig { store_raw: false, ..GwsConfig::default() }).await;
    let (mut ann, mut bob) = (world.join("/room").await, world.join("/room").await);
    let mut elsewhere = world.join("/room/").await;
    for frame in ["hello", ""] {
        ann.send(frame).await;
        bob.gets(frame).await;
    }
    ann.send_binary(b"\xff").await;
    assert_eq!(bob.message().await, Message::binary(vec![0xff]));
    ann.send_binary(b"text").await;
    bob.gets("text").await;
    // By HTTP it reaches everybody.
    world.post("/room", "posted").await;
    ann.gets("posted").await;
    bob.gets("posted").await;
    elsewhere.is_quiet("1").await;
    ann.is_quiet("2").await;
    assert_eq!(world.log("/room").await, ["FeedCreated", "MessageSent"], "packets are always stored");
}

#[tokio::test]
async fn a_packet_that_comes_again_is_acknowledged_again_and_nothing_else() {
    let world = World::new().await;
    let mut bob = world.join("/room").await;
    let mut ann = world.join("/room").await;
    ann.send(&packet("u1", "x")).await;
    ann.gets(ack("u1")).await;
    // After 3 s without one the client sends the identical packet; here over a connection of its own.
    drop(ann);
    let mut ann = world.join("/room").await;
    ann.send(&packet("u1", "x")).await;
    ann.gets(ack("u1")).await;
    let got = world.post("/room", &packet("u1", "x")).await;
    assert_eq!((got.status, got.json()), (200, json!({"code": 200, "group": "/room"})));
    // The same uuid with other bytes: no acknowledgement, 409 by HTTP.
    ann.send(&packet("u1", "other")).await;
    ann.send(&packet("u2", "y")).await;
    ann.gets(ack("u2")).await;
    let got = world.post("/room", &packet("u1", "other")).await;
    assert_eq!(got.said(), (409, 409, "this client_msg_id was used before with another body".into()));
    bob.gets(packet("u1", "x")).await;
    bob.gets(packet("u2", "y")).await;
    assert_eq!(world.history("/room", 0, 0).await, [packet("u2", "y"), packet("u1", "x")]);
    // Another room has uuids of its own.
    let mut other = world.join("/room2").await;
    other.send(&packet("u1", "other")).await;
    other.gets(ack("u1")).await;
}

#[tokio::test]
async fn strict_gotapi_ws_stores_each_time() {
    let world = World::with(GwsConfig { dedup: false, ..GwsConfig::default() }).await;
    let (mut ann, mut bob) = (world.join("/room").await, world.join("/room").await);
    for _ in 0..2 {
        ann.send(&packet("u1", "x")).await;
        ann.gets(ack("u1")).await;
        bob.gets(packet("u1", "x")).await;
    }
    ann.send(&packet("u1", "other")).await;
    ann.gets(ack("u1")).await;
    bob.gets(packet("u1", "other")).await;
    assert_eq!(world.post("/room", &packet("u1", "x")).await.status, 200);
    for client in [&mut ann, &mut bob] {
        client.gets(packet("u1", "x")).await;
    }
    let (x, other) = (packet("u1", "x"), packet("u1", "other"));
    let all = [&x, &other, &x, &x].map(Clone::clone);
    assert_eq!(world.history("/room", 0, 0).await, all);
    // Many at once are stored each, and acknowledged each.
    for n in 0..200 {
        ann.stream.feed(Message::text(packet("u1", &n.to_string()))).await.unwrap();
    }
    ann.stream.flush().await.unwrap();
    for n in 0..200 {
        ann.gets(ack("u1")).await;
        bob.gets(packet("u1", &n.to_string())).await;
    }
    let page = world.history("/room", 200, 4).await;
    assert_eq!(page, all);
    // A cancel means the first.
    assert_eq!(world.form("/__/cancel", "groupName=/room&uuid=u1").await.said().1, 200);
    bob.gets(r#"{"uuid":"u1","type":1,"command":6}"#).await;
    assert_eq!(world.history("/room", -4, 4).await, all[..3]);
}

#[tokio::test]
async fn without_a_fit_uuid_packets_are_stored_and_cannot_be_recalled_by_it() {
    let world = World::new().await;
    let (mut ann, mut bob) = (world.join("/room").await, world.join("/room").await);
    let long = "x".repeat(129);
    for uuid in ["", &long, r"a\nb", r"\ud800"] {
        for _ in 0..2 {
            ann.send(&packet(uuid, "x")).await;
            ann.gets(ack(uuid)).await;
            bob.gets(packet(uuid, "x")).await;
        }
    }
    ann.send(r#"{"type":2,"body":{"data":1}}"#).await;
    ann.gets(ack("")).await;
    assert_eq!(world.history("/room", 0, 0).await.len(), 9);
    let got = world.form("/__/cancel", &format!("groupName=/room&uuid={long}")).await;
    assert_eq!(got.said().1, 404);
    // By its place its sender may: nobody else is told a name that nobody knows.
    let gate = world.gate("ann");
    let mut eve = world.join("/room2?token=ann").await;
    eve.send(r#"{"type":2}"#).await;
    eve.gets(ack("")).await;
    recall(&gate, "/room2", RecallTarget::Seq(SeqId(2))).await;
    eve.is_quiet("1").await;
}

#[tokio::test]
async fn a_cancel_is_told_live_hidden_from_the_history_and_seen_on_every_wire() {
    let world = World::with(GwsConfig { rollback_packets: true, ..GwsConfig::default() }).await;
    let (mut ann, mut bob) = (world.join("/room").await, world.join("/room").await);
    for uuid in ["u1", "u2"] {
        ann.send(&packet(uuid, uuid)).await;
        ann.gets(ack(uuid)).await;
        bob.gets(packet(uuid, uuid)).await;
    }
    // Whoever may write the room and names the uuid, at any time.
    world.clock.advance(1_000_000_000);
    assert_eq!(world.form("/__/cancel", "groupName=/room&uuid=u1").await.said().1, 200);
    for client in [&mut ann, &mut bob] {
        client.gets(r#"{"uuid":"u1","type":1,"command":6}"#).await;
        let told: Value = serde_json::from_str(&client.text().await).unwrap();
        assert_eq!(told["body"]["data"], r#"{"eventType":7,"data":{"uuid":"u1"}}"#);
        assert_eq!((&told["type"], &told["uuid"]), (&2.into(), &"/room:4".into()));
    }
    assert_eq!(world.history("/room", 0, 0).await, [packet("u2", "u2")]);
    let entry = world.gate("reader").entry(&room("/room"), SeqId(2)).await.unwrap();
    assert!(entry.fate.unwrap().recalled.is_some() && entry.entry.payload.bytes().is_none());
    // The uuid stays used: the identical packet is acknowledged, and does not come back.
    ann.send(&packet("u1", "u1")).await;
    ann.gets(ack("u1")).await;
    assert_eq!(world.history("/room", 0, 0).await, [packet("u2", "u2")]);
    // Once: nothing more is told of the second cancel.
    world.form("/__/cancel", "groupName=/room&uuid=u1").await;
    bob.is_quiet("u3").await;
}

#[tokio::test]
async fn messages_of_other_wires_are_packets_here_and_cancelled_by_their_senders() {
    let world = World::new().await;
    let mut bob = world.join("/room?token=bob").await;
    let ann = world.gate("ann");
    let plain = say(&ann, "/room", "text/plain", "hi", None).await;
    say(&ann, "/room", "application/json", r#"{"a" : 1}"#, Some("mine")).await;
    let hash = |text: &str| crate::gws::packet::hash(text.as_bytes());
    let first = format!(
        r#"{{"body":{{"sent":false,"data":"hi","hash":"{}"}},"type":2,"uuid":"/room:{plain}"}}"#,
        hash("hi")
    );
    let second = format!(
        r#"{{"body":{{"sent":false,"data":{{"a" : 1}},"hash":"{}"}},"type":2,"uuid":"mine"}}"#,
        hash(r#"{"a" : 1}"#)
    );
    bob.gets(&first).await;
    bob.gets(&second).await;
    assert_eq!(world.history("/room", 0, 0).await, [second.clone(), first.clone()]);
    // Others' messages are recalled by the normal rules: their senders' in time, by place or by the sender's own id.
    let cancel = |token: &str, uuid: &str| {
        let path = format!("/__/cancel?token={token}");
        let form = format!("groupName=/room&uuid={uuid}");
        let world = &world;
        async move { world.form(&path, &form).await.said() }
    };
    assert_eq!(cancel("bob", &format!("/room:{plain}")).await.0, 403);
    assert_eq!(cancel("bob", "mine").await.1, 404);
    let md5 = hash("hi");
    let said = (200, 200, format!("uuid found and saved in blacklist:{md5}"));
    assert_eq!(cancel("ann", &format!("/room:{plain}")).await, said);
    bob.gets(format!(r#"{{"uuid":"/room:{plain}","type":1,"command":6}}"#)).await;
    world.clock.advance(121_000);
    assert_eq!(cancel("ann", "mine").await.0, 410, "too late for her");
    recall(&ann_as_service(&world), "/room", RecallTarget::Seq(SeqId(3))).await;
    bob.gets(r#"{"uuid":"mine","type":1,"command":6}"#).await;
    assert_eq!(world.history("/room", 0, 0).await, [""; 0]);
}

fn ann_as_service(world: &World) -> Gate {
    use feedlog_core::command::{Principal, Scopes};
    use feedlog_core::ids::Uid;

    let scopes = Scopes { user: true, send_as: true, ..Scopes::default() };
    let uid = Uid::parse("service").unwrap();
    world.store.gate(Principal { uid, scopes, anonymous: false, via: None })
}

/// The exclusion is of a connection, not of its user.
#[tokio::test]
async fn the_sender_s_other_connections_get_what_it_sends() {
    let world = World::new().await;
    let (mut phone, mut laptop) = (world.join("/room?token=ann").await, world.join("/room?token=ann").await);
    // Both at once, many times: each gets all of the other's and none of its own, in the order of the log.
    const EACH: usize = 100;
    let send = async |client: &mut Client, name: &str| {
        for n in 0..EACH {
            client.stream.feed(Message::text(packet(&format!("{name}{n}"), "x"))).await.unwrap();
            client.stream.feed(Message::text(format!("raw {name}{n}"))).await.unwrap();
        }
        client.stream.flush().await.unwrap();
    };
    tokio::join!(send(&mut phone, "p"), send(&mut laptop, "l"));
    for (client, own, other) in [(&mut phone, "p", "l"), (&mut laptop, "l", "p")] {
        let (mut acks, mut got) = (Vec::new(), Vec::new());
        while acks.len() < EACH || got.len() < 2 * EACH {
            let text = client.text().await;
            if text.contains(r#""command":1"#) { acks.push(text) } else { got.push(text) }
        }
        let expected: Vec<String> = (0..EACH).map(|n| ack(&format!("{own}{n}"))).collect();
        assert_eq!(acks, expected);
        let expected: Vec<String> = (0..EACH)
            .flat_map(|n| [packet(&format!("{other}{n}"), "x"), format!("raw {other}{n}")])
            .collect();
        assert_eq!(got, expected);
    }
}

/// Packets that come again have answers without a place: they hold nobody else's entries up.
#[tokio::test]
async fn resends_without_end_do_not_hold_up_the_user_s_other_connections() {
    let world = World::new().await;
    let (phone, mut laptop) = (world.join("/room?token=ann").await, world.join("/room?token=ann").await);
    let (mut sends, mut gets) = futures_util::StreamExt::split(phone.stream);
    sends.send(Message::text(packet("again", "x"))).await.unwrap();
    laptop.gets(packet("again", "x")).await;
    let resending = async {
        loop {
            for _ in 0..64 {
                sends.feed(Message::text(packet("again", "x"))).await.unwrap();
            }
            sends.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let reading = async {
        laptop.is_quiet("news").await;
        while futures_util::StreamExt::next(&mut gets).await.unwrap().unwrap()
            != Message::text(packet("news", "mark"))
        {}
    };
    let news = async {
        tokio::select! {
            () = resending => {}
            () = reading => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(20), news).await.expect("the news come in time");
}

#[tokio::test]
async fn a_room_can_send_frames_back() {
    let echo_rooms = vec!["/echo*".to_owned()];
    let world = World::with(GwsConfig { echo_rooms, ..GwsConfig::default() }).await;
    let mut ann = world.join("/echo/1").await;
    ann.send("hello").await;
    ann.gets("hello").await;
    ann.send_binary(b"\xfe").await;
    assert_eq!(ann.message().await, Message::binary(vec![0xfe]));
    ann.send_binary(b"").await;
    assert_eq!(ann.message().await, Message::binary(Vec::new()));
    ann.send(&packet("1", "x")).await;
    let mut both = [ann.text().await, ann.text().await];
    both.sort_unstable();
    let mut expected = [ack("1"), packet("1", "x")];
    expected.sort_unstable();
    assert_eq!(both, expected);
    // Kept or not.
    let config = GwsConfig { store_raw: false, echo_rooms: vec!["/echo".to_owned()], ..GwsConfig::default() };
    let world = World::with(config).await;
    let mut ann = world.join("/echo").await;
    ann.send("hello").await;
    ann.gets("hello").await;
}

/// Reserved paths and what our own routes have on the shared port [gws: paths].
#[tokio::test]
async fn our_own_routes_win_on_the_shared_port_and_on_no_other() {
    let world = World::new().await;
    for (path, shared, own) in [
        ("/livez", 200, 400),
        ("/v1/nothing", 404, 400),
        ("/%761/nothing", 404, 400),
        ("/room", 400, 400),
        ("/__status", 200, 200),
    ] {
        assert_eq!(ask(world.shared, &format!("GET {path}"), "", b"").await.status, shared, "{path}");
        assert_eq!(ask(world.own, &format!("GET {path}"), "", b"").await.status, own, "{path}");
    }
    let got = ask(world.shared, "POST /room/9527/", "", packet("1", "x").as_bytes()).await;
    assert_eq!(got.json(), json!({"code": 200, "group": "/room/9527/"}));
    let mut feeds = world.join("/v1/feeds").await;
    feeds.is_quiet("1").await;
}

#[tokio::test]
async fn tokens_come_by_query_and_header_and_anonymous_rooms_are_configured() {
    let closed = World::configured(GwsConfig::default(), HttpConfig::default(), closed_auth()).await;
    assert_eq!(closed.refused("/room").await, 401);
    assert_eq!(closed.refused("/room?token=wrong").await, 401);
    for path in ["/room", "/__/history?groupName=/room", "/__/cancel", "/__/ttl", "/timer"] {
        let got = closed.post(path, "x=1").await;
        assert_eq!((got.status, got.json()["code"].as_u64()), (401, Some(401)), "{path}");
        assert!(got.head.contains("www-authenticate"), "{got:?}");
    }
    let mut admin = closed.join(&format!("/room?token={ADMIN}")).await;
    admin.is_quiet("1").await;
    let bearer = format!("authorization: Bearer {ADMIN}\r\n");
    assert_eq!(closed.ask("POST /room", &bearer, packet("2", "x").as_bytes()).await.status, 200);
    // As the unmodified client has it: the token in the URL of the history.
    let path = format!("/__/history/?token={ADMIN}&groupName=%2Froom&size=1&position=0");
    assert_eq!(closed.post(&path, "").await.json()["data"], json!([packet("2", "x")]));
    assert_eq!(closed.ask("GET /__status", "", b"").await.status, 200, "for everybody");
    // A room that nobody has written to is there for anonymous callers, and so is its history.
    let open = World::new().await;
    let mut ann = open.join("/nobody").await;
    assert_eq!(open.history("/nobody", 0, 0).await, [""; 0]);
    open.post("/nobody", "first").await;
    ann.gets("first").await;
}

/// A feed of another kind is no room, whoever asks.
#[tokio::test]
async fn feeds_of_other_kinds_are_no_rooms() {
    let world = World::new().await;
    let gate = world.gate("ann");
    let group = CreateFeed { kind: FeedKind::Group, ..new_open_feed() };
    gate.submit(Command { feed: room("/group"), action: Action::CreateFeed(group) }).await.unwrap();
    for token in ["ann", "bob"] {
        assert_eq!(world.refused(&format!("/group?token={token}")).await, 403);
        assert_eq!(world.post(&format!("/group?token={token}"), "x").await.status, 403);
        for service in ["history", "cancel"] {
            let got = world.form(&format!("/__/{service}?token={token}"), "groupName=/group&uuid=m").await;
            assert_eq!(got.said(), (403, 403, "not allowed".into()), "{service} {token}");
        }
    }
    // A room that becomes one while somebody waits in it ends.
    let mut bob = world.join("/later?token=bob").await;
    let group = CreateFeed { kind: FeedKind::Group, join: JoinMode::Invite, ..new_open_feed() };
    gate.submit(Command { feed: room("/later"), action: Action::CreateFeed(group) }).await.unwrap();
    assert_eq!(bob.close_code().await, 1008);
    // Its members as well: to them it is a feed, and no room.
    let mut ann = world.join("/later1?token=ann").await;
    let group = CreateFeed { kind: FeedKind::Group, join: JoinMode::Invite, ..new_open_feed() };
    gate.submit(Command { feed: room("/later1"), action: Action::CreateFeed(group) }).await.unwrap();
    assert_eq!(ann.close_code().await, 1008);
    let mut anonymous = world.join("/later2").await;
    let group = CreateFeed { kind: FeedKind::Group, join: JoinMode::Invite, ..new_open_feed() };
    gate.submit(Command { feed: room("/later2"), action: Action::CreateFeed(group) }).await.unwrap();
    anonymous.send("x").await;
    assert_eq!(anonymous.close_code().await, 1008);
}

#[tokio::test]
async fn a_room_loses_what_it_held_when_its_time_has_come_also_after_a_restart() {
    let config = || GwsConfig { ttl_check_ms: 5, ttl_rooms_max: 1, ..GwsConfig::default() };
    let auth = feedlog_service::auth::AuthConfig {
        admin_token: Some(feedlog_service::auth::Secret::new(ADMIN)),
        ..open_auth()
    };
    let world = World::configured(config(), HttpConfig::default(), auth).await;
    world.post("/room", &packet("1", "x")).await;
    let ttl = format!("/__/ttl?token={ADMIN}");
    for (form, msg) in [
        ("groupName=/room", "ttl missing"),
        ("groupName=/room&ttl=0", "ttl missing"),
        ("groupName=/room&ttl=-5", "ttl missing"),
        ("groupName=/room&ttl=soon", "ttl missing"),
        ("ttl=60", "groupName missing"),
    ] {
        assert_eq!(world.form(&ttl, form).await.said(), (200, 403, msg.into()), "{form}");
    }
    let got = world.form("/__/ttl/?token=ann", "groupName=/room&ttl=60").await;
    assert_eq!(got.said(), (403, 403, "not allowed".into()));
    // Only rooms: not a group whose name was meant to be another, nor what is not there.
    let group = CreateFeed { kind: FeedKind::Group, ..new_open_feed() };
    let gate = world.gate("ann");
    gate.submit(Command { feed: room("group"), action: Action::CreateFeed(group) }).await.unwrap();
    assert_eq!(world.form(&ttl, "groupName=group&ttl=60").await.said().0, 403);
    assert_eq!(
        world.form(&ttl, "groupName=/nowhere&ttl=60").await.said(),
        (200, 404, "group not found".into())
    );
    // The later one counts.
    assert_eq!(world.form(&ttl, "groupName=/room&ttl=1").await.said().1, 200);
    assert_eq!(world.post(&format!("{ttl}&groupName=%2Froom&ttl=60"), "").await.said().1, 200);
    world.post("/room2", "x").await;
    assert_eq!(world.form(&ttl, "groupName=/room2&ttl=60").await.said().1, 422, "one past the limit");
    world.clock.advance(59_999);
    world.post("/room", &packet("2", "x")).await;
    // A new front end over the same store, as after a restart of the process.
    let (store, clock) = world.stop().await;
    let world = World::over(store, clock, config(), HttpConfig::default()).await;
    assert_eq!(world.history("/room", 0, 0).await, [packet("2", "x"), packet("1", "x")]);
    let mut ann = world.join("/room").await;
    world.clock.advance(1);
    while !world.history("/room", 0, 0).await.is_empty() {
        tokio::task::yield_now().await;
    }
    // What comes later stays, and the time is over: nothing is told to clients.
    world.post("/room", &packet("3", "x")).await;
    ann.gets(packet("3", "x")).await;
    world.clock.advance(1_000_000);
    assert_eq!(world.history("/room", 0, 0).await, [packet("3", "x")]);
    let log = world.log("/room").await;
    assert_eq!(log, ["FeedCreated", "MessagesExpired", "MessageSent"]);
    // Another room may have a time once the first is done.
    let mut said = world.form(&ttl, "groupName=/room2&ttl=60").await.said();
    while said.1 == 422 {
        said = world.form(&ttl, "groupName=/room2&ttl=60").await.said();
    }
    assert_eq!(said.1, 200);
}

/// Durable before visible: nothing is seen that a client could not pull, and nothing falls between pull and live.
#[tokio::test]
async fn nothing_falls_between_history_and_live() {
    let world = World::new().await;
    let writer = async {
        for n in 0..200 {
            world.post("/room", &packet(&n.to_string(), "x")).await;
        }
    };
    let reader = async {
        for _ in 0..20 {
            let mut client = world.join("/room").await;
            let known = world.history("/room", 0, 0).await.len();
            if known == 200 {
                return;
            }
            // The next that comes live is the one after those known, or one of them.
            let next: Value = serde_json::from_str(&client.text().await).unwrap();
            let next: usize = next["uuid"].as_str().unwrap().parse().unwrap();
            assert!(next <= known, "{next} came after {known}");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(writer, reader) }).await.unwrap();
}
