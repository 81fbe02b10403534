//! A client as light as it can be: what it costs is taken from the program under test, which shares the machine.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use feedlog_api::mqtt::wire::{
    self, Connect, Decoder, Level, Packet, Properties, Qos, Role, Subscribe, SubscribeOptions, Text,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::super::BenchError;
use super::Common;

/// Largest packet that a bench reads.
const PACKET_BYTES_MAX: usize = 16 << 20;
/// A broker that does not answer for so long has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that a subscriber takes from its socket at once.
const READ_BYTES: usize = 64 << 10;
/// Connections that are opened from one loopback address; one address has about 28,000 ports.
const PORTS_PER_ADDRESS: usize = 20_000;

/// A connection to a broker, past CONNACK.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    decoder: Decoder,
    buffer: BytesMut,
    level: Level,
}

impl Client {
    /// Connects with a clean session and no keep-alive; `number` tells clients of one round apart.
    pub(super) async fn connect(
        common: &Common,
        address: SocketAddr,
        number: usize,
    ) -> Result<Self, BenchError> {
        let stream = dial(address, number).await?;
        let level = common.protocol.level();
        let mut decoder = Decoder::new(Role::Client, PACKET_BYTES_MAX);
        decoder.set_level(level);
        let mut client = Self { stream, decoder, buffer: BytesMut::new(), level };
        // Ids of 23 letters and digits at most are accepted everywhere, in 3.1 too.
        let id = format!("bench{:x}x{number:x}", std::process::id());
        let connect = Connect {
            level,
            clean_start: true,
            keep_alive_s: 0,
            client_id: text(&id)?,
            will: None,
            username: common.username.as_deref().map(text).transpose()?,
            password: common.password.as_ref().map(|password| Bytes::from(password.clone())),
            properties: Properties::default(),
        };
        client.send(&Packet::Connect(Box::new(connect))).await?;
        match client.answer().await? {
            Packet::Connack(connack) if connack.reason == 0 => Ok(client),
            Packet::Connack(connack) => {
                Err(BenchError::Other(format!("{address} refuses the connection: 0x{:02x}", connack.reason)))
            }
            other => Err(unexpected("CONNACK", &other)),
        }
    }

    /// Subscribes to one filter with QoS 0.
    pub(super) async fn subscribe(&mut self, filter: &str) -> Result<(), BenchError> {
        let options = SubscribeOptions {
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
        };
        let subscribe = Subscribe {
            packet_id: wire::PacketId::MIN,
            properties: Properties::default(),
            filters: vec![(text(filter)?, options)],
        };
        self.send(&Packet::Subscribe(subscribe)).await?;
        match self.answer().await? {
            Packet::Suback(suback) if suback.reasons.iter().all(|reason| *reason < 0x80) => Ok(()),
            Packet::Suback(suback) => {
                Err(BenchError::Other(format!("{filter} is refused: {:02x?}", suback.reasons)))
            }
            other => Err(unexpected("SUBACK", &other)),
        }
    }

    /// The next packet of the broker.
    pub(super) async fn next(&mut self) -> Result<Packet, BenchError> {
        loop {
            if let Some(packet) = self.buffered()? {
                return Ok(packet);
            }
            self.buffer.reserve(4096);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(BenchError::Other("the broker closed the connection".into()));
            }
        }
    }

    /// A packet that was read already.
    pub(super) fn buffered(&mut self) -> Result<Option<Packet>, BenchError> {
        self.decoder
            .decode(&mut self.buffer)
            .map_err(|error| BenchError::Other(format!("the broker sends nonsense: {}", error.problem)))
    }

    async fn send(&mut self, packet: &Packet) -> Result<(), BenchError> {
        let mut out = BytesMut::new();
        wire::encode::packet(self.level, packet, &mut out);
        Ok(self.stream.write_all(&out).await?)
    }

    async fn answer(&mut self) -> Result<Packet, BenchError> {
        tokio::time::timeout(PATIENCE, self.next())
            .await
            .map_err(|_| BenchError::Other("the broker does not answer".into()))?
    }
}

/// A connection without delay. Many clients of one machine need several of its loopback addresses.
pub(super) async fn dial(address: SocketAddr, number: usize) -> Result<TcpStream, BenchError> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let nth = number / PORTS_PER_ADDRESS;
    if nth > 0 && address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        let last = u8::try_from(1 + nth).map_err(|_| BenchError::Other("too many clients".into()))?;
        socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into())?;
    }
    let stream = socket
        .connect(address)
        .await
        .map_err(|error| BenchError::Other(format!("no connection to {address}: {error}")))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A text of the protocol.
pub(super) fn text(text: &str) -> Result<Text, BenchError> {
    Text::new(text).ok_or_else(|| BenchError::Other(format!("{text:?} is no text of MQTT")))
}

/// What came instead.
pub(super) fn unexpected(wanted: &str, packet: &Packet) -> BenchError {
    let name = match packet {
        Packet::Connect(_) => "CONNECT",
        Packet::Connack(_) => "CONNACK",
        Packet::Publish(_) => "PUBLISH",
        Packet::Puback(_) => "PUBACK",
        Packet::Pubrec(_) => "PUBREC",
        Packet::Pubrel(_) => "PUBREL",
        Packet::Pubcomp(_) => "PUBCOMP",
        Packet::Subscribe(_) => "SUBSCRIBE",
        Packet::Suback(_) => "SUBACK",
        Packet::Unsubscribe(_) => "UNSUBSCRIBE",
        Packet::Unsuback(_) => "UNSUBACK",
        Packet::Pingreq => "PINGREQ",
        Packet::Pingresp => "PINGRESP",
        Packet::Disconnect(_) => "DISCONNECT",
        Packet::Auth(_) => "AUTH",
    };
    BenchError::Other(format!("the broker sends {name} where {wanted} belongs"))
}

/// Thousands of connections need as many open files.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // A lower limit shows when connections fail; there is nothing better to do here.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Counts the packets of a stream without copying or decoding them.
#[derive(Debug, Default)]
pub(super) struct Skim {
    /// Bytes of the current packet that are still to come.
    left: usize,
    /// Within the length field: what was read of it, and its next place.
    header: Option<(usize, u32)>,
    kind: u8,
    started: bool,
}

thread_local! {
    /// One for all subscribers: thousands of buffers would only push each other out of the processor's cache.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Waits for bytes, takes them and returns how many messages ended in them, as `count` says.
pub(super) async fn take(stream: &TcpStream, mut count: impl FnMut(&[u8]) -> u64) -> std::io::Result<u64> {
    loop {
        stream.readable().await?;
        let read = BUFFER.with_borrow_mut(|buffer| stream.try_read(buffer).map(|n| (n, count(&buffer[..n]))));
        match read {
            Ok((0, _)) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok((_, ended)) => return Ok(ended),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

impl Skim {
    /// Returns how many PUBLISH packets ended within `bytes`.
    pub(super) fn publishes(&mut self, mut bytes: &[u8]) -> u64 {
        let mut ended = 0;
        loop {
            if !self.started {
                let Some((first, rest)) = bytes.split_first() else { return ended };
                (self.kind, self.started, self.header, bytes) = (first >> 4, true, Some((0, 0)), rest);
            }
            while let Some((length, place)) = self.header {
                let Some((byte, rest)) = bytes.split_first() else { return ended };
                let length = length | usize::from(byte & 0x7f) << place;
                bytes = rest;
                if byte & 0x80 == 0 {
                    (self.left, self.header) = (length, None);
                } else {
                    self.header = Some((length, (place + 7).min(21)));
                }
            }
            let here = self.left.min(bytes.len());
            bytes = bytes.get(here..).unwrap_or_default();
            self.left -= here;
            if self.left > 0 {
                return ended;
            }
            self.started = false;
            ended += u64::from(self.kind == 3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_wherever_the_stream_is_cut() {
        let mut stream = Vec::new();
        for n in 0..5_usize {
            // A PUBLISH with a two-byte length, a PINGRESP and an empty-bodied PUBLISH.
            stream.extend([0x30, 0x80 + n as u8, 0x01]);
            stream.extend(vec![0xff; 128 + n]);
            stream.extend([0xd0, 0x00, 0x30, 0x00]);
        }
        for cut in 1..stream.len() {
            let mut skim = Skim::default();
            let count: u64 = stream.chunks(cut).map(|part| skim.publishes(part)).sum();
            assert_eq!(count, 10, "cut every {cut} bytes");
        }
    }
}
