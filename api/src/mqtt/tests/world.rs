//! A broker over a store in memory, and clients that speak our codec over a pipe: real connections, no sockets.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use feedlog_core::command::{Action, Command, CreateFeed, Draft, Principal, Scopes};
use feedlog_core::event::{FeedKind, HistoryMode, JoinMode, MessageKind};
use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_core::views::{HistoryQuery, View};
use feedlog_service::auth::AuthConfig;
use feedlog_service::clock::{Clock, ManualClock};
use feedlog_service::{Gate, Store, StoreConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::broker::Broker;
use super::super::config::MqttConfig;
use super::super::connection::{Connection, Origins};
use super::super::wire::{
    Ack, Connack, Connect, Decoder, Disconnect, Level, Packet, PacketId, Properties, PropertyWriter, Publish,
    Qos, Role, Subscribe, SubscribeOptions, Text, Unsubscribe, Will, encode,
};

/// Longest time that a test waits for a packet: a failure, never a way to pass.
const PATIENCE: Duration = Duration::from_secs(10);
/// When the clock of a world starts.
pub(super) const START_MS: u64 = 1_700_000_000_000;

/// A broker and what it works on.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) broker: Arc<Broker>,
    pub(super) clock: ManualClock,
    drain: watch::Sender<bool>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(MqttConfig { free_topics: true, ..MqttConfig::default() })
    }

    pub(super) fn with(config: MqttConfig) -> Self {
        Self::with_auth(config, AuthConfig { dev: true, ..AuthConfig::default() })
    }

    pub(super) fn with_auth(config: MqttConfig, auth: AuthConfig) -> Self {
        Self::over(config, StoreConfig { auth, ..StoreConfig::default() })
    }

    pub(super) fn over(config: MqttConfig, store: StoreConfig) -> Self {
        let (clock, hand) = Clock::manual(START_MS);
        let store = Store::in_memory(StoreConfig { shards: 2, clock, ..store }).unwrap();
        let broker = Arc::new(Broker::new(store.clone(), config).unwrap());
        Self { store, broker, clock: hand, drain: watch::Sender::new(false) }
    }

    /// A broker anew over the same store, as after a restart of the process: nothing in memory is kept.
    pub(super) async fn restart(&mut self) {
        self.broker.abort_wills();
        let config = (*self.broker.config).clone();
        self.broker = Arc::new(Broker::new(self.store.clone(), config).unwrap());
        self.broker.publish_left_wills().await.unwrap();
    }

    pub(super) fn drain(&self) {
        self.drain.send_replace(true);
    }

    pub(super) fn undrain(&self) {
        self.drain.send_replace(false);
    }

    pub(super) fn gate(&self, uid: &str) -> Gate {
        self.store.gate(Principal {
            uid: Uid::parse(uid).unwrap(),
            scopes: Scopes { user: true, ..Scopes::default() },
            anonymous: false,
            via: None,
        })
    }

    /// A group of these users, the first its owner.
    pub(super) async fn group(&self, feed: &str, members: &[&str]) {
        let create = CreateFeed {
            kind: FeedKind::Group,
            title: None,
            members: members[1..].iter().map(|uid| Uid::parse(uid).unwrap()).collect(),
            join: JoinMode::Invite,
            history: HistoryMode::All,
            meta: None,
        };
        let command = Command { feed: FeedId::parse(feed).unwrap(), action: Action::CreateFeed(create) };
        self.gate(members[0]).submit(command).await.unwrap();
    }

    /// A text that somebody sends over another front end, to a feed that is made when there is none.
    pub(super) async fn say(&self, uid: &str, feed: &str, text: &str) -> SeqId {
        self.say_as(uid, feed, "text/plain", text).await
    }

    /// The same, of another media type.
    pub(super) async fn say_as(&self, uid: &str, feed: &str, content_type: &str, text: &str) -> SeqId {
        // A group is there already.
        let create = self
            .gate(uid)
            .feed(&FeedId::parse(feed).unwrap())
            .await
            .is_err()
            .then(|| CreateFeed::new(FeedKind::Open));
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let draft = Draft { create, ..Draft::new(MessageKind::Text, content_type.into(), payload) };
        let feed = FeedId::parse(feed).unwrap();
        let command = Command { feed, action: Action::SendMessage(Box::new(draft)) };
        self.gate(uid).submit(command).await.unwrap().done().seq
    }

    /// Somebody does something over another front end.
    pub(super) async fn act(&self, uid: &str, feed: &str, action: Action) {
        self.gate(uid).submit(Command { feed: FeedId::parse(feed).unwrap(), action }).await.unwrap();
    }

    /// A pipe to a new connection.
    pub(super) fn dial(&self) -> (DuplexStream, JoinHandle<()>) {
        self.dial_with(64 * 1024, false)
    }

    pub(super) fn dial_with(&self, room: usize, protobuf: bool) -> (DuplexStream, JoinHandle<()>) {
        let (ours, theirs) = tokio::io::duplex(room);
        let origins = Origins { address: IpAddr::from([127, 0, 0, 1]), certified: None, protobuf };
        let connection = Connection::new(self.broker.clone(), origins);
        let draining = self.drain.subscribe();
        let task = tokio::spawn(connection.run(theirs, draining));
        (ours, task)
    }

    /// A client that has not sent anything.
    pub(super) fn client(&self, level: Level) -> Client {
        let (stream, task) = self.dial();
        Client::over(stream, task, level)
    }

    /// A connected client: clean, as this user (`""` = anonymous).
    pub(super) async fn connect(&self, level: Level, user: &str, id: &str) -> Client {
        let mut client = self.client(level);
        let connack = client.connect(connect(level, user, id)).await;
        assert_eq!(connack.reason, 0, "{connack:?}");
        client
    }

    /// A connected client with a session that stays: whether it was there.
    pub(super) async fn resume(&self, level: Level, user: &str, id: &str) -> (Client, bool) {
        let mut client = self.client(level);
        let connack = client.connect(lasting(level, user, id)).await;
        assert_eq!(connack.reason, 0, "{connack:?}");
        (client, connack.session_present)
    }
}

/// A clean CONNECT.
pub(super) fn connect(level: Level, user: &str, id: &str) -> Connect {
    Connect {
        level,
        clean_start: true,
        keep_alive_s: 0,
        client_id: text(id),
        will: None,
        username: (!user.is_empty()).then(|| text(user)),
        password: (!user.is_empty()).then(|| Bytes::copy_from_slice(user.as_bytes())),
        properties: Properties::default(),
    }
}

/// A CONNECT to a session that stays.
pub(super) fn lasting(level: Level, user: &str, id: &str) -> Connect {
    let mut connect = connect(level, user, id);
    connect.clean_start = false;
    if level == Level::V5 {
        connect.properties = properties(|p| {
            p.session_expiry_s(3600);
        });
    }
    connect
}

pub(super) fn will(topic: &str, payload: &str, qos: Qos, retain: bool) -> Will {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    Will { qos, retain, topic: text(topic), payload, properties: Properties::default() }
}

pub(super) fn text(value: &str) -> Text {
    Text::new(value).unwrap()
}

pub(super) fn id(number: u16) -> PacketId {
    NonZeroU16::new(number).unwrap()
}

pub(super) fn properties(fill: impl FnOnce(&mut PropertyWriter)) -> Properties {
    let mut writer = PropertyWriter::new();
    fill(&mut writer);
    writer.finish()
}

pub(super) fn options(qos: Qos) -> SubscribeOptions {
    SubscribeOptions { qos, no_local: false, retain_as_published: false, retain_handling: 0 }
}

pub(super) fn publish(topic: &str, payload: &str, qos: Qos, packet_id: u16) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: text(topic),
        packet_id: NonZeroU16::new(packet_id),
        properties: Properties::default(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

/// The other end of a connection.
pub(super) struct Client {
    pub(super) stream: DuplexStream,
    task: JoinHandle<()>,
    decoder: Decoder,
    input: BytesMut,
    level: Level,
}

impl Client {
    pub(super) fn over(stream: DuplexStream, task: JoinHandle<()>, level: Level) -> Self {
        let mut decoder = Decoder::new(Role::Client, 16 << 20);
        decoder.set_level(level);
        Self { stream, task, decoder, input: BytesMut::new(), level }
    }

    pub(super) async fn raw(&mut self, bytes: &[u8]) {
        // The server may have closed already; what matters is what it sent.
        let _ = self.stream.write_all(bytes).await;
    }

    /// What arrived and was not looked at.
    pub(super) fn take_input(&mut self) -> BytesMut {
        std::mem::take(&mut self.input)
    }

    pub(super) async fn send(&mut self, packet: Packet) {
        let mut out = BytesMut::new();
        encode::packet(self.level, &packet, &mut out);
        self.raw(&out).await;
    }

    /// The next packet; `None` when the server closed.
    pub(super) async fn next(&mut self) -> Option<Packet> {
        tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(packet) =
                    self.decoder.decode(&mut self.input).expect("the server sends what it may")
                {
                    return Some(packet);
                }
                if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        })
        .await
        .expect("a packet or the end, in time")
    }

    pub(super) async fn connect(&mut self, connect: Connect) -> Connack {
        self.send(Packet::Connect(Box::new(connect))).await;
        match self.next().await {
            Some(Packet::Connack(connack)) => connack,
            other => panic!("not a CONNACK: {other:?}"),
        }
    }

    pub(super) async fn subscribe(&mut self, filter: &str, qos: Qos) -> u8 {
        self.subscribe_with(filter, options(qos), Properties::default()).await
    }

    pub(super) async fn subscribe_with(
        &mut self,
        filter: &str,
        options: SubscribeOptions,
        properties: Properties,
    ) -> u8 {
        let filters = vec![(text(filter), options)];
        self.send(Packet::Subscribe(Subscribe { packet_id: id(9_000), properties, filters })).await;
        match self.next().await {
            Some(Packet::Suback(suback)) => {
                assert_eq!(suback.packet_id, id(9_000));
                assert_eq!(suback.reasons.len(), 1);
                suback.reasons[0]
            }
            other => panic!("not a SUBACK: {other:?}"),
        }
    }

    pub(super) async fn unsubscribe(&mut self, filter: &str) -> Vec<u8> {
        let (packet_id, properties) = (id(9_001), Properties::default());
        self.send(Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters: vec![text(filter)] }))
            .await;
        match self.next().await {
            Some(Packet::Unsuback(unsuback)) => unsuback.reasons,
            other => panic!("not an UNSUBACK: {other:?}"),
        }
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub(super) async fn put(&mut self, topic: &str, payload: &str) -> Ack {
        self.put_packet(publish(topic, payload, Qos::AtLeastOnce, 1)).await
    }

    /// Publishes at QoS 1 or 2 and waits for the first acknowledgement.
    pub(super) async fn put_packet(&mut self, publish: Publish) -> Ack {
        self.send(Packet::Publish(publish)).await;
        match self.next().await {
            Some(Packet::Puback(ack) | Packet::Pubrec(ack)) => ack,
            other => panic!("not an acknowledgement: {other:?}"),
        }
    }

    pub(super) async fn message(&mut self) -> Publish {
        match self.next().await {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("not a PUBLISH: {other:?}"),
        }
    }

    /// The payload of the next message, which must be on this topic.
    pub(super) async fn payload(&mut self, topic: &str) -> String {
        let message = self.message().await;
        assert_eq!(message.topic.as_str(), topic);
        String::from_utf8(message.payload.to_vec()).unwrap()
    }

    pub(super) async fn puback(&mut self, packet_id: PacketId) {
        self.send(Packet::Puback(ack(packet_id))).await;
    }

    /// Everything that was sent before has been dealt with: a PINGREQ is answered, and nothing else comes before it.
    pub(super) async fn quiet(&mut self) {
        self.send(Packet::Pingreq).await;
        match self.next().await {
            Some(Packet::Pingresp) => {}
            other => panic!("not quiet: {other:?}"),
        }
    }

    pub(super) async fn closed(&mut self) {
        let next = self.next().await;
        assert_eq!(next, None, "the server was to close without a word");
    }

    /// DISCONNECT from the server, then the end.
    pub(super) async fn disconnected(&mut self) -> u8 {
        match self.next().await {
            Some(Packet::Disconnect(disconnect)) => {
                assert_eq!(self.next().await, None);
                disconnect.reason
            }
            other => panic!("not a DISCONNECT: {other:?}"),
        }
    }

    /// Leaves with DISCONNECT and waits until the server has let go.
    pub(super) async fn leave(self) {
        self.leave_with(0, Properties::default()).await;
    }

    pub(super) async fn leave_with(mut self, reason: u8, properties: Properties) {
        self.send(Packet::Disconnect(Disconnect { reason, properties })).await;
        self.gone().await;
    }

    /// Waits until the server has let go.
    pub(super) async fn gone(self) {
        self.task.await.unwrap();
    }

    /// The server's end is gone from one moment to the next, as when its process is killed.
    pub(super) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// The server's end of the connection is gone in an instant, as in a crash.
    pub(super) async fn cut(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Breaks off and waits until the server has let go.
    pub(super) async fn vanish(self) {
        drop(self.stream);
        self.task.await.unwrap();
    }
}

/// What an acknowledgement says of the place: feed_id, seq_id, ordinal.
pub(super) fn place_of(ack: &Ack) -> Option<(String, u64, u64)> {
    let of = |name| ack.properties.user().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    Some((of("feed_id")?, of("seq_id")?.parse().unwrap(), of("ordinal")?.parse().unwrap()))
}

/// How many messages a feed has, for one who may read it.
pub(super) async fn sent_as(world: &World, uid: &str, feed: &str) -> usize {
    let feed = FeedId::parse(feed).unwrap();
    let page = world.gate(uid).history(&feed, HistoryQuery::After(SeqId::ZERO), 1000, 0).await.unwrap();
    page.entries.iter().filter(|view| view.entry.is_message()).count()
}

/// The payloads of all messages of a feed, in order.
pub(super) async fn sent(world: &World, feed: &str) -> Vec<String> {
    let feed = FeedId::parse(feed).unwrap();
    let page = world.gate("anybody").history(&feed, HistoryQuery::After(SeqId::ZERO), 1000, 0).await;
    let Ok(page) = page else { return Vec::new() };
    let text = |view: &View| String::from_utf8(view.entry.payload.bytes()?.to_vec()).ok();
    page.entries.iter().filter(|view| view.entry.is_message()).filter_map(text).collect()
}

pub(super) fn ack(packet_id: PacketId) -> Ack {
    Ack { packet_id, reason: 0, properties: Properties::default() }
}
