//! MQTT over WebSocket: binary frames, whose borders mean nothing, as a stream of bytes ([MQTT-6.0.0-1] to [MQTT-6.0.0-4]).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one frame of ours.
const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Close code of a frame that is not binary (RFC 6455 §7.4.1).
const UNSUPPORTED_DATA: u16 = 1003;

/// A WebSocket as a stream of bytes.
pub(crate) struct WebSocketStream {
    socket: WebSocket,
    /// What is left of the last frame.
    rest: Bytes,
    closing: bool,
}

impl WebSocketStream {
    pub(crate) fn new(socket: WebSocket) -> Self {
        Self { socket, rest: Bytes::new(), closing: false }
    }
}

fn failed(error: axum::Error) -> io::Error {
    io::Error::other(error)
}

impl AsyncRead for WebSocketStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.rest.is_empty() {
                let count = self.rest.len().min(buffer.remaining());
                buffer.put_slice(&self.rest.split_to(count));
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(failed(error))),
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                // Answered by the layer below; no data of ours.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(())),
                Some(Ok(Message::Text(_))) => {
                    // [MQTT-6.0.0-1]: anything but binary data closes the connection.
                    let close = CloseFrame { code: UNSUPPORTED_DATA, reason: "MQTT is binary".into() };
                    let _ = Pin::new(&mut self.socket).start_send(Message::Close(Some(close)));
                    let _ = Pin::new(&mut self.socket).poll_flush(context);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a text frame")));
                }
            }
        }
    }
}

impl AsyncWrite for WebSocketStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(context)).map_err(failed)?;
        bytes = bytes.get(..FRAME_BYTES_MAX).unwrap_or(bytes);
        let frame = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.socket).start_send(frame).map_err(failed)?;
        // What cannot leave now leaves with the next write or flush; taken it is.
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.socket).poll_flush(context) {
            return Poll::Ready(Err(failed(error)));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context).map_err(failed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            self.closing = true;
            let _ = Pin::new(&mut self.socket).start_send(Message::Close(None));
        }
        Pin::new(&mut self.socket).poll_flush(context).map_err(failed)
    }
}

/// A subprotocol that MQTT over WebSocket is offered under: `mqtt` ([MQTT-6.0.0-3], [MQTT-6.0.0-4]), and that of clients of 3.1.
pub(crate) const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
