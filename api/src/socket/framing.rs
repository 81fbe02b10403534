//! The bytes of WebSocket (RFC 6455) without IO: bytes in, whole messages out, and the other way round.
//!
//! tungstenite does the protocol; it reads from and writes to plain buffers here, so that the connection's one loop moves
//! the bytes and a quiet connection holds none.

use std::io::{self, Read, Write};

use bytes::{Buf as _, BytesMut};
use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, FrameHeader, Utf8Bytes};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Bytes, Message};

/// tungstenite reads into a buffer of this size, which every connection has for as long as it lives.
const READ_STEP_BYTES: usize = 256;
/// Room that the bytes of one control frame need: a header, and at most 125 bytes (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: usize = 2 + 125;

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Checked to be UTF-8 (RFC 6455 §8.1).
    Text(Utf8Bytes),
    /// Any bytes.
    Binary(Bytes),
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Got {
    /// A message.
    Frame(Frame),
    /// A ping or a pong; a ping is answered already (RFC 6455 §5.5.2).
    Sign,
    /// The peer closes; that is answered already (RFC 6455 §5.5.1).
    Close,
}

/// Why a connection is failed (RFC 6455 §7.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The close code to fail it with (RFC 6455 §7.4.1).
    pub(crate) code: u16,
    /// For people.
    pub(crate) why: &'static str,
}

/// One side of a connection: the server's.
pub(crate) struct Framing {
    context: WebSocketContext,
    out: BytesMut,
}

/// What tungstenite takes for a socket.
struct Pipe<'a> {
    input: &'a mut BytesMut,
    out: &'a mut BytesMut,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            // Not the end: that is the loop's to see.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.input.len().min(buffer.len());
        self.input.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Framing {
    /// A server's side that takes messages of at most so many bytes, whole or in pieces.
    pub(crate) fn new(message_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_STEP_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(CONTROL_BYTES_MAX)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        Self { context: WebSocketContext::new(Role::Server, Some(config)), out: BytesMut::new() }
    }

    /// The next message in `input`, which is taken from it; `None` when more bytes are needed.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Got>, Fault> {
        let mut pipe = Pipe { input, out: &mut self.out };
        let got = match self.context.read(&mut pipe) {
            Ok(Message::Text(text)) => Got::Frame(Frame::Text(text)),
            Ok(Message::Binary(bytes)) => Got::Frame(Frame::Binary(bytes)),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Got::Sign,
            Ok(Message::Close(_)) => Got::Close,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => Got::Close,
            Err(error) => return Err(fault(&error)),
        };
        if !matches!(got, Got::Frame(_)) {
            // The answer to a ping or a close leaves now; after a close this tells that nothing follows.
            let _ = self.context.flush(&mut pipe);
        }
        Ok(Some(got))
    }

    /// Whether messages may still be written: neither side has closed.
    pub(crate) fn is_open(&self) -> bool {
        self.context.can_write()
    }

    /// Writes a text message. INVARIANT: the bytes are UTF-8.
    pub(crate) fn text(&mut self, text: &[u8]) {
        debug_assert!(std::str::from_utf8(text).is_ok(), "INVARIANT: text frames are UTF-8");
        self.write(Data::Text, text);
    }

    /// Writes a binary message.
    pub(crate) fn binary(&mut self, bytes: &[u8]) {
        self.write(Data::Binary, bytes);
    }

    /// A server's frame is a header and the bytes as they are (RFC 6455 §5.3: only clients mask), so they are copied once.
    fn write(&mut self, kind: Data, bytes: &[u8]) {
        if !self.is_open() {
            return;
        }
        let header = FrameHeader { opcode: OpCode::Data(kind), ..FrameHeader::default() };
        let length = bytes.len() as u64;
        self.out.reserve(header.len(length) + bytes.len());
        let mut pipe = Pipe { input: &mut BytesMut::new(), out: &mut self.out };
        header.format(length, &mut pipe).expect("INVARIANT: a buffer takes everything");
        self.out.extend_from_slice(bytes);
    }

    /// Asks whether the peer is there (RFC 6455 §5.5.2).
    pub(crate) fn ping(&mut self) {
        if self.is_open() {
            let mut pipe = Pipe { input: &mut BytesMut::new(), out: &mut self.out };
            let _ = self.context.write(&mut pipe, Message::Ping(Bytes::new()));
        }
    }

    /// Closes, once: nothing can be written afterwards (RFC 6455 §5.5.1).
    pub(crate) fn close(&mut self, code: u16, why: &'static str) {
        if self.is_open() {
            let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::from_static(why) };
            let mut pipe = Pipe { input: &mut BytesMut::new(), out: &mut self.out };
            let _ = self.context.close(&mut pipe, Some(frame));
        }
    }

    /// Bytes that wait to leave.
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }
}

fn fault(error: &Error) -> Fault {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            Fault { code: 1009, why: "the message is too large" }
        }
        Error::Utf8(_) => Fault { code: 1007, why: "the text is not UTF-8" },
        _ => Fault { code: 1002, why: "not WebSocket as RFC 6455 has it" },
    }
}

/// For fuzzing: no bytes make it panic, and where the bytes are cut changes neither what is heard nor what is answered. The
/// first byte says how they are cut.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    const MESSAGE_BYTES_MAX: usize = 256;

    fn hear(framing: &mut Framing, input: &mut BytesMut, heard: &mut Vec<Result<Got, Fault>>) {
        while !matches!(heard.last(), Some(Err(_) | Ok(Got::Close))) {
            match framing.next(input) {
                Ok(Some(got)) => heard.push(Ok(got)),
                Ok(None) => return,
                Err(fault) => heard.push(Err(fault)),
            }
        }
    }

    let Some((step, bytes)) = bytes.split_first() else { return };
    let (mut whole, mut cut) = (Framing::new(MESSAGE_BYTES_MAX), Framing::new(MESSAGE_BYTES_MAX));
    let (mut heard, mut heard_cut) = (Vec::new(), Vec::new());
    hear(&mut whole, &mut BytesMut::from(bytes), &mut heard);
    let mut input = BytesMut::new();
    for piece in bytes.chunks(usize::from(*step).max(1)) {
        input.extend_from_slice(piece);
        hear(&mut cut, &mut input, &mut heard_cut);
    }
    assert_eq!(heard, heard_cut);
    assert_eq!(whole.out(), cut.out());
    let size = |got: &Result<Got, Fault>| match got {
        Ok(Got::Frame(Frame::Text(text))) => text.len(),
        Ok(Got::Frame(Frame::Binary(bytes))) => bytes.len(),
        _ => 0,
    };
    assert!(heard.iter().all(|got| size(got) <= MESSAGE_BYTES_MAX));
}

#[cfg(test)]
mod tests;
