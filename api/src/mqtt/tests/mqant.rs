//! Requests on URIs and in the default form, pushes without a subscription.

use serde_json::{Value, json};

use super::super::config::{Impush, MqttConfig};
use super::super::wire::{Level, Packet, Publish, Qos};
use super::world::{Client, World, publish, sent};

const LEVELS: [Level; 3] = [Level::V31, Level::V311, Level::V5];
const NEWS: &str = "impush://modulus/news";

/// A world whose clients get pushes once they have asked for something.
fn on_use() -> World {
    World::with(MqttConfig { free_topics: true, impush: Impush::OnUse, ..MqttConfig::default() })
}

/// A request at QoS 1: the reply and then the PUBACK, as they come.
async fn ask(client: &mut Client, topic: &str, body: &str) -> Value {
    client.send(Packet::Publish(publish(topic, body, Qos::AtLeastOnce, 1))).await;
    let mut reply = client.message().await;
    // What happens in a feed besides messages is news to whoever made it happen as well.
    while reply.topic.as_str() == NEWS {
        reply = client.message().await;
    }
    assert_eq!((reply.topic.as_str(), reply.qos, reply.retain), (topic, Qos::AtMostOnce, false));
    assert!(matches!(client.next().await, Some(Packet::Puback(ack)) if ack.reason == 0));
    envelope(&reply)
}

/// The envelope: its keys in their order, the trace 16 hexadecimal digits.
fn envelope(reply: &Publish) -> Value {
    let text = std::str::from_utf8(&reply.payload).unwrap();
    let trace = text.strip_prefix(r#"{"Trace":""#).and_then(|rest| rest.get(..16)).unwrap();
    assert!(trace.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert!(text[26..].starts_with(r#"","Error":""#), "{text}");
    let value: Value = serde_json::from_str(text).unwrap();
    assert_eq!(value.as_object().unwrap().len(), 3);
    value
}

async fn news(client: &mut Client) -> Value {
    let push = client.message().await;
    assert_eq!(push.topic.as_str(), NEWS);
    if let Some(id) = push.packet_id {
        client.puback(id).await;
    }
    serde_json::from_slice(&push.payload).unwrap()
}

/// The literal examples of the page.
#[tokio::test]
async fn the_reply_comes_on_the_identical_topic_before_the_acknowledgement() {
    for level in LEVELS {
        let world = on_use();
        world.group("f1", &["u1", "u2"]).await;
        let mut client = world.connect(level, "u1", "111").await;
        let reply = ask(
            &mut client,
            "im://modulus/remove_feeds_member?msg_id=1002",
            r#"{"member":"u2","feeds":"f1"}"#,
        )
        .await;
        assert_eq!((&reply["Error"], &reply["Result"]), (&json!(""), &json!("success")));
        // mqantlib appends a number instead; node rules, our own name, upper case; never normalised.
        for topic in [
            "im://modulus/feeds_info/2",
            "im://cache/feeds_info?msg_id=a%20b",
            "IM://Random/feeds_info?x=1&msg_id=",
            "im://feedlog/feeds_info/00?msg_id=7",
        ] {
            let reply = ask(&mut client, topic, r#"{"feeds":"f1"}"#).await;
            assert_eq!(reply["Result"]["feed_id"], "f1", "{topic}");
        }
        for (topic, body, error) in [
            ("im://nobody/send?msg_id=1", "{}", "Service(type:im@nobody) not found"),
            ("chat://modulus/say?msg_id=1", "{}", "Service(type:chat) not found"),
            ("im://modulus/send?msg_id=%zz", "{}", "parse query error"),
            ("im://mod ulus/send", "{}", "topic is not uri"),
            ("im://modulus/send?msg_id=1", "{no}", "The JSON format is incorrect"),
            ("im://modulus/nothing?msg_id=1", "{}", "not_found"),
            ("http://example.org/x", "{}", "the proxy is off"),
        ] {
            let reply = ask(&mut client, topic, body).await;
            assert!(reply["Error"].as_str().unwrap().starts_with(error), "{topic}: {reply}");
            assert_eq!(reply["Result"], Value::Null);
        }
        client.quiet().await;
    }
}

/// Without a correlation: done, acknowledged, never answered.
#[tokio::test]
async fn a_request_without_msg_id_is_done_and_not_answered() {
    let world = on_use();
    for level in LEVELS {
        let feed = format!("f-{level:?}");
        world.group(&feed, &["u1", "anybody"]).await;
        let mut client = world.connect(level, "u1", "111").await;
        for (qos, id) in [(Qos::AtMostOnce, 0), (Qos::AtLeastOnce, 1), (Qos::ExactlyOnce, 2)] {
            let body = json!({"feeds": feed, "payload": qos as u8}).to_string();
            client.send(Packet::Publish(publish("im://modulus/send", &body, qos, id))).await;
            match (qos, client_next(&mut client, qos).await) {
                (Qos::AtMostOnce, None)
                | (Qos::AtLeastOnce, Some(Packet::Puback(_)))
                | (Qos::ExactlyOnce, Some(Packet::Pubrec(_))) => {}
                other => panic!("{other:?}"),
            }
        }
        client.put("im://modulus/send", "{bad").await;
        client.quiet().await;
        assert_eq!(sent(&world, &feed).await, ["0", "1", "2"]);
    }
}

async fn client_next(client: &mut Client, qos: Qos) -> Option<Packet> {
    if qos == Qos::AtMostOnce { None } else { client.next().await }
}

/// QoS 2 requests are done once, from PUBLISH to PUBREL.
#[tokio::test]
async fn a_repeated_request_at_qos_2_is_done_once() {
    let mut world = on_use();
    world.group("f1", &["u1", "anybody"]).await;
    let (mut client, _) = world.resume(Level::V311, "u1", "111").await;
    let request = publish("im://modulus/send?msg_id=1", r#"{"feeds":"f1","payload":1}"#, Qos::ExactlyOnce, 4);
    client.send(Packet::Publish(request.clone())).await;
    assert_eq!(envelope(&client.message().await)["Error"], "");
    assert!(matches!(client.next().await, Some(Packet::Pubrec(_))));
    let again = Publish { dup: true, ..request };
    client.put_packet(again.clone()).await;
    client.vanish().await;
    world.restart().await;
    let (mut client, _) = world.resume(Level::V311, "u1", "111").await;
    client.put_packet(again).await;
    assert_eq!(sent(&world, "f1").await, ["1"]);
}

/// Before login only login is allowed; it binds the connection.
#[tokio::test]
async fn a_login_binds_the_connection() {
    let world = on_use();
    world.group("f1", &["u1", "u2"]).await;
    for level in LEVELS {
        let mut client = world.connect(level, "", "111").await;
        let reply = ask(&mut client, "im://modulus/feeds_list?msg_id=1", "{}").await;
        assert_eq!((&reply["Error"], &reply["Result"]), (&json!("Not Logined"), &Value::Null));
        let reply = ask(&mut client, "im://modulus/login?msg_id=2", r#"{"token":"u1"}"#).await;
        assert_eq!((&reply["Error"], &reply["Result"]), (&json!(""), &json!("success")));
        let reply = ask(&mut client, "im://modulus/feeds_info?msg_id=3", r#"{"feeds":"f1"}"#).await;
        assert_eq!(reply["Result"]["feed_id"], "f1");
        // From now on it gets what its feeds get.
        world.say("u2", "f1", "hi").await;
        assert_eq!(news(&mut client).await["message"]["From"], "u2");

        let mut client = world.connect(level, "", "112").await;
        let body = r#"{"userName":"u2","passWord":"Hello123@nat"}"#;
        let reply = ask(&mut client, "Login/HD_Login/1", body).await;
        assert_eq!((&reply["Error"], &reply["Result"]), (&json!(""), &json!("login success u2")));
        let reply = ask(&mut client, "im/HD_feeds_info/2", r#"{"feeds":"f1"}"#).await;
        assert_eq!(reply["Result"]["feed_id"], "f1");
        let reply = ask(&mut client, "Login/HD_Other/3", "{}").await;
        assert_eq!(reply["Error"], "Service(type:Login) not found");
        let reply = ask(&mut client, "im://modulus/login?msg_id=4", r#"{"token":""}"#).await;
        assert_ne!(reply["Error"], "", "a login that fails changes nothing");
        let reply = ask(&mut client, "im/HD_feeds_info/5", r#"{"feeds":"f1"}"#).await;
        assert_eq!(reply["Error"], "");
        client.quiet().await;
    }
}

/// To every connection of every member, and not to the one that sent it.
#[tokio::test]
async fn pushes_go_to_all_other_connections_of_the_members() {
    let world = World::new();
    world.group("f1", &["u1", "u2"]).await;
    // Clients of MQTT 3.1 that are logged in get them at once.
    let mut sender = world.connect(Level::V31, "u1", "a").await;
    let mut same_user = world.connect(Level::V31, "u1", "b").await;
    let mut member = world.connect(Level::V31, "u2", "a").await;
    let mut other = world.connect(Level::V31, "u3", "a").await;
    let mut newer = world.connect(Level::V311, "u2", "c").await;
    for client in [&mut sender, &mut same_user, &mut member, &mut other, &mut newer] {
        client.quiet().await;
    }
    let body = r#"{"feeds":"f1","msg_id":"m-9","msg_type":"text","payload":{"text":"hi"}}"#;
    let reply = ask(&mut sender, "im://modulus/send?msg_id=5", body).await;
    let seq = reply["Result"]["SeqId"].as_u64().unwrap();
    assert_eq!(reply["Result"]["MsgId"], "m-9");
    for client in [&mut same_user, &mut member] {
        let push = news(client).await;
        assert_eq!((&push["feeds"], &push["last_seq_id"]), (&json!("f1"), &json!(seq)));
        let message = &push["message"];
        assert_eq!(
            *message,
            json!({
                "MsgId": "m-9", "Feeds": "f1", "SeqId": seq, "MsgType": "text", "From": "u1",
                "Payload": {"text": "hi"}, "TimeCreate": super::world::START_MS,
            })
        );
        client.quiet().await;
    }
    for client in [&mut sender, &mut other, &mut newer] {
        client.quiet().await;
    }
    // A newer client gets them once it has used a URI.
    ask(&mut newer, "im://modulus/unread?msg_id=1", "{}").await;
    world.say("u1", "f1", "again").await;
    for client in [&mut sender, &mut same_user, &mut member, &mut newer] {
        assert_eq!(news(client).await["message"]["Payload"], "again");
    }
    other.quiet().await;
}

/// At QoS 1 to a session that stays, where nothing is lost; at QoS 0 else.
#[tokio::test]
async fn a_session_that_stays_gets_pushes_that_it_missed() {
    let mut world = World::new();
    world.group("f1", &["u1", "u2"]).await;
    let (mut client, _) = world.resume(Level::V31, "u1", "a").await;
    client.quiet().await;
    world.say("u2", "f1", "1").await;
    let push = client.message().await;
    assert_eq!((push.topic.as_str(), push.qos), (NEWS, Qos::AtLeastOnce));
    client.vanish().await;
    world.say("u2", "f1", "2").await;
    world.restart().await;
    let (mut client, _) = world.resume(Level::V31, "u1", "a").await;
    let again = client.message().await;
    assert_eq!((again.dup, again.packet_id, &again.payload), (true, push.packet_id, &push.payload));
    client.puback(again.packet_id.unwrap()).await;
    assert_eq!(news(&mut client).await["message"]["Payload"], "2");
    client.quiet().await;
}

/// A topic of the client's choice beside the one of the page, for libraries that drop a callback after its first push.
#[tokio::test]
async fn pushes_come_on_the_alias_topic_as_well() {
    let world = on_use();
    world.group("f1", &["u1", "u2"]).await;
    for persistent in [false, true] {
        let mut client = match persistent {
            false => world.connect(Level::V31, "u1", "a").await,
            true => world.resume(Level::V31, "u1", "a").await.0,
        };
        let body = r#"{"token":"u1","push_topic":"im/news"}"#;
        assert_eq!(ask(&mut client, "im://modulus/login/1", body).await["Result"], "success");
        for _ in 0..3 {
            world.say("u2", "f1", "hi").await;
            let first = client.message().await;
            let second = client.message().await;
            assert_eq!((first.topic.as_str(), second.topic.as_str()), (NEWS, "im/news"));
            assert_eq!(first.payload, second.payload);
            assert_eq!(second.qos, Qos::AtMostOnce);
            assert_eq!(first.packet_id.is_some(), persistent);
            if let Some(id) = first.packet_id {
                client.puback(id).await;
            }
        }
        client.quiet().await;
        client.leave().await;
    }
}
