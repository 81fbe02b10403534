//! A light MQTT client: packets in, packets out. What they mean is the test's business.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use feedlog_api::mqtt::wire::{
    Ack, Connack, Connect, Decoder, Disconnect, Level, Packet, PacketId, Properties, PropertyWriter, Publish,
    Qos, Role, Subscribe, SubscribeOptions, Text, encode,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest time that a test waits for a packet: a failure, never a way to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
pub(crate) struct Wire {
    stream: TcpStream,
    decoder: Decoder,
    input: BytesMut,
    out: BytesMut,
    pub(crate) level: Level,
}

impl Wire {
    /// Connects and sends CONNECT; `None` when the server went away meanwhile.
    pub(crate) async fn connect(server: SocketAddr, connect: Connect) -> Option<(Self, Connack)> {
        let stream = TcpStream::connect(server).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let level = connect.level;
        let mut decoder = Decoder::new(Role::Client, 16 << 20);
        decoder.set_level(level);
        let mut wire = Self { stream, decoder, input: BytesMut::new(), out: BytesMut::new(), level };
        wire.push(&Packet::Connect(Box::new(connect)));
        wire.flush().await?;
        match wire.next().await? {
            Packet::Connack(connack) => Some((wire, connack)),
            other => panic!("not a CONNACK: {other:?}"),
        }
    }

    /// A packet to be sent with the next flush.
    pub(crate) fn push(&mut self, packet: &Packet) {
        encode::packet(self.level, packet, &mut self.out);
    }

    /// Sends what was pushed; `None` when the server is gone.
    pub(crate) async fn flush(&mut self) -> Option<()> {
        let sent = self.stream.write_all(&self.out).await;
        self.out.clear();
        sent.ok()
    }

    /// The next packet; `None` when the server is gone.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.ready() {
                return Some(packet);
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next packet if it is here already.
    pub(crate) fn ready(&mut self) -> Option<Packet> {
        self.decoder.decode(&mut self.input).expect("the server sends what it may")
    }

    /// Subscribes; `None` when the server is gone. Nothing else may be on its way.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: Qos) -> Option<u8> {
        let options =
            SubscribeOptions { qos, no_local: false, retain_as_published: false, retain_handling: 0 };
        let filters = vec![(text(filter), options)];
        let properties = Properties::default();
        self.push(&Packet::Subscribe(Subscribe { packet_id: id(60_000), properties, filters }));
        self.flush().await?;
        match self.next().await? {
            Packet::Suback(suback) => suback.reasons.first().copied(),
            other => panic!("not a SUBACK: {other:?}"),
        }
    }

    /// DISCONNECT, then the end.
    pub(crate) async fn leave(mut self) {
        self.push(&Packet::Disconnect(Disconnect { reason: 0, properties: Properties::default() }));
        let _ = self.flush().await;
        while self.next().await.is_some() {}
    }
}

/// A CONNECT to a session that stays.
pub(crate) fn lasting(level: Level, user: &str) -> Connect {
    Connect {
        level,
        clean_start: false,
        keep_alive_s: 60,
        client_id: text(user),
        will: None,
        username: Some(text(user)),
        password: Some(Bytes::copy_from_slice(user.as_bytes())),
        properties: match level {
            Level::V5 => {
                let mut writer = PropertyWriter::new();
                writer.session_expiry_s(3600);
                writer.finish()
            }
            _ => Properties::default(),
        },
    }
}

/// A CONNECT to a session that ends with the connection.
pub(crate) fn clean(level: Level, user: &str) -> Connect {
    Connect { clean_start: true, properties: Properties::default(), ..lasting(level, user) }
}

pub(crate) fn publish(topic: &str, payload: Bytes, qos: Qos, packet_id: Option<PacketId>) -> Publish {
    let (topic, properties) = (text(topic), Properties::default());
    Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload }
}

pub(crate) fn ack(packet_id: PacketId) -> Ack {
    Ack { packet_id, reason: 0, properties: Properties::default() }
}

pub(crate) fn text(value: &str) -> Text {
    Text::new(value).expect("a text")
}

pub(crate) fn id(number: u16) -> PacketId {
    NonZeroU16::new(number).expect("not zero")
}
