//! One message, one identity: ada in a room of gotapi-ws, bob on MQTT 5 (rumqttc), cem on HTTP, dan at the message center of
//! CONNMIX and a back end on its API. What one of them sends all others see: the same feed, place, id and bytes. What one
//! recalls is recalled for all, and stays so after a `kill -9`.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties};
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::peer::http;
use crate::server::Server;

const ENGINE: &str = if cfg!(feature = "rocksdb") { "rocksdb" } else { "sled" };
/// What does not come in this time does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The feed: a path for gotapi-ws, and for CONNMIX the id `tea` of the type `/scene`.
const ROOM: &str = "/scene:tea";
const CHANNEL: &str = "tea@/scene";
/// The same in URLs.
const ENCODED: &str = "%2Fscene%3Atea";
/// The feed topic of MQTT, encoded no more than it must be: so it comes back on messages.
const FEED_TOPIC: &str = "feeds/%2Fscene:tea";

/// A WebSocket of texts.
struct Web(tungstenite::WebSocket<std::net::TcpStream>);

impl Web {
    fn open(server: &Server, path: &str) -> Self {
        let host = server.url.strip_prefix("http://").unwrap();
        let stream = std::net::TcpStream::connect(host).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(tungstenite::client(format!("ws://{host}{path}"), stream).unwrap().0)
    }

    fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap();
    }

    #[track_caller]
    fn text(&mut self) -> String {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[track_caller]
    fn json(&mut self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    #[track_caller]
    fn ask(&mut self, request: &Value) -> Value {
        self.send(&request.to_string());
        self.json()
    }

    /// dan, who wants to know places.
    fn dan(server: &Server, uid: &str, channel: &str, since: u64) -> Self {
        let mut dan = Self::open(server, "/message-center");
        assert_eq!(dan.ask(&json!({"op": "auth", "token": uid})), json!({"result": true}));
        let subscribe = json!({"op": "subscribe", "channel": channel, "since": since});
        assert_eq!(dan.ask(&subscribe), json!({"result": true, "seq_id": since}));
        dan
    }
}

/// bob, with rumqttc.
struct Bob {
    client: Client,
    came: Receiver<Packet>,
    inbox: Vec<Publish>,
    asked: u64,
}

impl Bob {
    fn connect(server: &Server) -> Self {
        let mut options = MqttOptions::new("bob-1", server.mqtt.ip().to_string(), server.mqtt.port());
        options.set_credentials("bob", "bob").set_keep_alive(Duration::from_secs(30));
        let (client, mut connection) = Client::new(options, 64);
        let (told, came) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // Ends with the server, or with bob.
            for event in connection.iter().map_while(Result::ok) {
                let Event::Incoming(packet) = event else { continue };
                if told.send(packet).is_err() {
                    return;
                }
            }
        });
        let mut bob = Self { client, came, inbox: Vec::new(), asked: 0 };
        bob.until(|packet| matches!(packet, Packet::ConnAck(_)).then_some(()));
        for topic in [ROOM, FEED_TOPIC] {
            bob.client.subscribe(topic, QoS::AtLeastOnce).unwrap();
            bob.until(|packet| matches!(packet, Packet::SubAck(_)).then_some(()));
        }
        bob
    }

    /// The first packet that is meant; messages are kept.
    #[track_caller]
    fn until<T>(&mut self, meant: impl Fn(&Packet) -> Option<T>) -> T {
        loop {
            let packet = self.came.recv_timeout(PATIENCE).expect("a packet, in time");
            if let Some(found) = meant(&packet) {
                return found;
            }
            if let Packet::Publish(message) = packet {
                self.inbox.push(message);
            }
        }
    }

    /// The first message, of those that came and those to come, that is meant.
    #[track_caller]
    fn message<T>(&mut self, meant: impl Fn(&str, &[u8]) -> Option<T>) -> T {
        let meant = |one: &Publish| meant(std::str::from_utf8(&one.topic).ok()?, &one.payload);
        if let Some((at, found)) =
            self.inbox.iter().enumerate().find_map(|(at, one)| meant(one).map(|found| (at, found)))
        {
            self.inbox.remove(at);
            return found;
        }
        self.until(|packet| match packet {
            Packet::Publish(message) => meant(message),
            _ => None,
        })
    }

    /// Publishes; the place, from the acknowledgement.
    fn publish(&mut self, topic: &str, id: &str, payload: &[u8]) -> u64 {
        let user_properties = vec![("client_msg_id".to_owned(), id.to_owned())];
        let properties = PublishProperties { user_properties, ..PublishProperties::default() };
        self.client
            .publish_with_properties(topic, QoS::AtLeastOnce, false, payload.to_vec(), properties)
            .unwrap();
        let acked = self.until(|packet| match packet {
            Packet::PubAck(ack) => Some(ack.clone()),
            _ => None,
        });
        let told = acked.properties.unwrap().user_properties;
        told.iter().find(|(name, _)| name == "seq_id").unwrap().1.parse().unwrap()
    }

    /// A request by one of mqant's methods: its result.
    fn ask(&mut self, method: &str, body: &Value) -> Value {
        self.asked += 1;
        let topic = format!("im://modulus/{method}?msg_id={}", self.asked);
        self.client.publish(&topic, QoS::AtLeastOnce, false, body.to_string()).unwrap();
        let reply = self
            .message(|on, payload| (on == topic).then(|| serde_json::from_slice::<Value>(payload).unwrap()));
        assert_eq!(reply["Error"], "", "{method}: {reply}");
        reply["Result"].clone()
    }
}

/// All of the room's packets as gotapi-ws shows them, the newest first.
fn history(server: &Server) -> Vec<String> {
    let url = format!("{}/__/history/?groupName={}", server.url, ENCODED);
    let answer: Value = ureq::post(url).send_empty().unwrap().body_mut().read_json().unwrap();
    let texts = answer["data"].as_array().unwrap().iter();
    texts.map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// An entry as HTTP shows it, and the bytes of its payload.
fn entry(server: &Server, seq: u64) -> (Value, Option<Vec<u8>>) {
    #[derive(serde::Deserialize)]
    struct Payload {
        payload: Option<Box<RawValue>>,
        payload_base64: Option<String>,
    }
    let url = format!("{}/v1/feeds/{ENCODED}/entries/{seq}", server.url);
    let mut answer = ureq::get(url).header("authorization", "Bearer cem").call().unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    let payload: Payload = serde_json::from_str(&text).unwrap();
    let bytes = match (payload.payload, payload.payload_base64) {
        (Some(json), _) => Some(json.get().as_bytes().to_vec()),
        (_, Some(base64)) => Some(STANDARD.decode(base64).unwrap()),
        (None, None) => None,
    };
    (serde_json::from_str(&text).unwrap(), bytes)
}

fn head(server: &Server) -> u64 {
    let page = http(&server.url, "cem", "GET", &format!("/v1/feeds/{ENCODED}/entries?limit=1"), None);
    page["head_seq_id"].as_u64().unwrap()
}

struct Scene {
    server: Server,
    /// ada, who sends, and eve, who only listens.
    ada: Web,
    eve: Web,
    bob: Bob,
    dan: Web,
    shop: Web,
}

impl Scene {
    fn open(server: Server, since: u64) -> Self {
        let ada = Web::open(&server, &format!("{ROOM}?token=ada"));
        let eve = Web::open(&server, &format!("{ROOM}?token=eve"));
        let bob = Bob::connect(&server);
        let dan = Web::dan(&server, "dan", CHANNEL, since);
        let shop = Web::open(&server, "/ws/v1");
        Self { server, ada, eve, bob, dan, shop }
    }

    /// All of them see the message at this place with this id and these bytes.
    #[track_caller]
    fn all_see(&mut self, seq: u64, id: &str, bytes: &[u8], sender: &str) {
        let (entry, payload) = entry(&self.server, seq);
        assert_eq!((&entry["feed_id"], &entry["seq_id"]), (&json!(ROOM), &json!(seq)));
        assert_eq!((&entry["client_msg_id"], &entry["sender"]), (&json!(id), &json!(sender)));
        assert_eq!(payload.as_deref(), Some(bytes), "on HTTP");

        // MQTT: the bytes on the topic that is called like the feed, the whole entry on its feed topic.
        self.bob.message(|topic, payload| (topic == ROOM && payload == bytes).then_some(()));
        let shown = self.entry_on_mqtt(seq);
        assert_eq!(shown, entry, "on a feed topic");

        // CONNMIX: the bytes as a frame, then the place.
        assert_eq!(self.dan.text().as_bytes(), bytes, "on CONNMIX");
        assert_eq!(self.dan.json(), json!({"op": "cursor", "channel": CHANNEL, "seq_id": seq}));

        // gotapi-ws: packets are the bytes; what came on other wires is shown as a packet with the same id.
        let packet = self.eve.text();
        self.is_packet(&packet, id, bytes);
        if sender != "ada" {
            assert_eq!(self.ada.text(), packet, "in every connection to the room");
        }
        assert_eq!(history(&self.server)[0], packet, "and in its history");
    }

    #[track_caller]
    fn is_packet(&self, packet: &str, id: &str, bytes: &[u8]) {
        if packet.as_bytes() == bytes {
            return;
        }
        let packet: Value = serde_json::from_str(packet).unwrap();
        assert_eq!((&packet["uuid"], &packet["type"]), (&json!(id), &json!(2)));
        let text = std::str::from_utf8(bytes).unwrap();
        let data = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
        assert_eq!(packet["body"]["data"], data);
    }

    #[track_caller]
    fn entry_on_mqtt(&mut self, seq: u64) -> Value {
        self.bob.message(|topic, payload| {
            let shown: Value = (topic == FEED_TOPIC).then(|| serde_json::from_slice(payload).unwrap())?;
            (shown["seq_id"] == seq).then_some(shown)
        })
    }

    /// The message at this place was just recalled by somebody; all of them learn it, and none is shown it any more.
    #[track_caller]
    fn all_miss(&mut self, seq: u64, id: &str, by: &str) {
        let recall = head(&self.server);
        let (shown, payload) = entry(&self.server, seq);
        assert_eq!((&shown["recalled"]["seq_id"], &shown["recalled"]["by"]), (&json!(recall), &json!(by)));
        assert_eq!(payload, None, "on HTTP");
        let told = self.entry_on_mqtt(recall);
        assert_eq!((&told["type"], &told["target"]), (&json!("recall"), &json!(seq)));
        assert_eq!(self.dan.json(), json!({"op": "recalled", "channel": CHANNEL, "seq_id": seq}));
        assert_eq!(self.dan.json(), json!({"op": "cursor", "channel": CHANNEL, "seq_id": recall}));
        for room in [&mut self.ada, &mut self.eve] {
            assert_eq!(room.json(), json!({"uuid": id, "type": 1, "command": 6}));
        }
        assert!(history(&self.server).iter().all(|packet| !packet.contains(id)));
    }
}

#[test]
fn one_message_has_one_identity_on_every_wire() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, ENGINE);
    http(&server.url, "cem", "POST", "/v1/feeds", Some(json!({"feed_id": ROOM, "kind": "open"})));
    let mut scene = Scene::open(server, 0);
    // The room itself is an entry, and dan asked for all of them.
    assert_eq!(scene.dan.json(), json!({"op": "cursor", "channel": CHANNEL, "seq_id": 1}));

    // Each sends one. Spaces and the order of keys are part of a packet.
    let packet = r#"{ "type":2, "uuid":"ada-1","body":{"hash":"","data":"from ada","sent":false} }"#;
    scene.ada.send(packet);
    let ack = scene.ada.json();
    assert_eq!((&ack["uuid"], &ack["type"], &ack["command"]), (&json!("ada-1"), &json!(1), &json!(1)));
    let by_ada = head(&scene.server);
    scene.all_see(by_ada, "ada-1", packet.as_bytes(), "ada");

    let body = json!({"client_msg_id": "cem-1", "payload": {"text": "from cem"}});
    let sent = http(&scene.server.url, "cem", "POST", &format!("/v1/feeds/{ENCODED}/messages"), Some(body));
    let by_cem = sent["seq_id"].as_u64().unwrap();
    scene.all_see(by_cem, "cem-1", br#"{"text":"from cem"}"#, "cem");

    let by_bob = scene.bob.publish(ROOM, "bob-1", b"from bob");
    scene.all_see(by_bob, "bob-1", b"from bob", "bob");

    let event = r#"{"event":"offer","data":{"n":1}}"#;
    let publish = json!({"m": "mesh.publish", "p": {"c": ROOM, "d": event, "id": "shop-1"}, "i": 7});
    let done = scene.shop.ask(&publish);
    assert_eq!((&done["E"], &done["i"], &done["r"]["s"]), (&Value::Null, &json!(7), &json!(1)), "{done}");
    let by_shop = done["r"]["seq_id"].as_u64().unwrap();
    let (shown, _) = entry(&scene.server, by_shop);
    scene.all_see(by_shop, "shop-1", event.as_bytes(), shown["sender"].as_str().unwrap());

    // The same once more, on every wire: the same entry, and nobody is told again.
    let before = head(&scene.server);
    scene.ada.send(packet);
    assert_eq!(scene.ada.json(), ack);
    let body = json!({"client_msg_id": "cem-1", "payload": {"text": "from cem"}});
    let again = http(&scene.server.url, "cem", "POST", &format!("/v1/feeds/{ENCODED}/messages"), Some(body));
    assert_eq!((&again["seq_id"], &again["duplicate"]), (&json!(by_cem), &json!(true)));
    assert_eq!(scene.bob.publish(ROOM, "bob-1", b"from bob"), by_bob);
    assert_eq!(scene.shop.ask(&publish)["r"]["seq_id"], by_shop);
    assert_eq!(head(&scene.server), before);

    // Each recalls: ada in the room, cem over HTTP, bob over MQTT. The API of CONNMIX has no word for it.
    let cancel = [("groupName", ROOM), ("uuid", "ada-1")];
    let url = format!("{}/__/cancel/?token=ada", scene.server.url);
    let answer: Value = ureq::post(url).send_form(cancel).unwrap().body_mut().read_json().unwrap();
    assert_eq!(answer["code"], 200, "{answer}");
    scene.all_miss(by_ada, "ada-1", "ada");

    let recall = format!("/v1/feeds/{ENCODED}/recall");
    http(&scene.server.url, "cem", "POST", &recall, Some(json!({"client_msg_id": "cem-1"})));
    scene.all_miss(by_cem, "cem-1", "cem");

    scene.bob.ask("recall", &json!({"feeds": ROOM, "msg_id": "bob-1"}));
    scene.all_miss(by_bob, "bob-1", "bob");

    // Killed, and all come back: dan from before it all.
    let Scene { mut server, .. } = scene;
    server.kill();
    let mut scene = Scene::open(Server::start(&data, ENGINE), by_ada - 1);
    assert_eq!(scene.dan.text(), event, "of all messages one is left");
    for seq in [by_ada, by_cem, by_bob] {
        assert_eq!(scene.dan.json(), json!({"op": "recalled", "channel": CHANNEL, "seq_id": seq}));
        assert_eq!(entry(&scene.server, seq).1, None);
    }
    let last = head(&scene.server);
    assert_eq!(scene.dan.json(), json!({"op": "cursor", "channel": CHANNEL, "seq_id": last}));
    let left = history(&scene.server);
    assert_eq!(left.len(), 1, "{left:?}");
    scene.is_packet(&left[0], "shop-1", event.as_bytes());
    scene.server.terminate();
}

#[test]
fn a_user_who_was_away_finds_what_a_back_end_published() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), ENGINE);
    let mut shop = Web::open(&server, "/ws/v1");
    let event = r#"{"event":"@user","data":{"uid":42,"msg":"Hello,World!"}}"#;
    let publish = json!({"m": "mesh.publish", "p": {"c": "user:42", "d": event}, "i": 1});
    let done = shop.ask(&publish);
    assert_eq!(
        (&done["E"], &done["r"]["s"], &done["r"]["f"]),
        (&Value::Null, &json!(0), &json!(0)),
        "nobody was there"
    );
    let seq = done["r"]["seq_id"].as_u64().unwrap();

    let unread = |server: &Server| http(&server.url, "42", "GET", "/v1/unread", None);
    let told = unread(&server);
    assert_eq!((&told["total"], &told["feeds"][0]["feed_id"]), (&json!(1), &json!("user:42")));
    let shown = http(&server.url, "42", "GET", &format!("/v1/feeds/user%3A42/entries/{seq}"), None);
    assert_eq!(shown["payload"], serde_json::from_str::<Value>(event).unwrap());

    // The message center has it too, for who says where to go on.
    let mut center = Web::dan(&server, "42", "@user", 0);
    assert_eq!(center.text(), event);
    assert_eq!(center.json(), json!({"op": "cursor", "channel": "@user", "seq_id": seq}));
    // And what is published now comes at once.
    let done = shop.ask(&publish);
    assert_eq!(done["r"]["s"], 1);
    assert_eq!(center.text(), event);
    assert_eq!(unread(&server)["total"], 2);

    http(
        &server.url,
        "42",
        "PUT",
        "/v1/feeds/user%3A42/marks",
        Some(json!({"read_seq_id": done["r"]["seq_id"]})),
    );
    assert_eq!(unread(&server)["total"], 0);
    server.terminate();
}
