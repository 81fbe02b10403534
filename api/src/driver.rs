//! What the socket loops of all front ends share: reading and writing at once, without a buffer while nothing happens.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_util::io::poll_read_buf;

/// A read buffer grows by this much while bytes arrive, and is given back when it is empty.
const STEP_BYTES: usize = 4096;
/// It is read into in larger steps while the peer fills them.
const STEP_BYTES_MAX: usize = 64 * 1024;

/// What happened to a stream.
#[derive(Debug)]
pub(crate) enum Io {
    /// Bytes came.
    Read,
    /// Bytes left.
    Wrote,
    /// The peer sends no more.
    Closed,
    /// The stream failed.
    Failed(io::Error),
}

/// Sends what is in `out` and, if asked for, reads more into `input`, whichever is possible first. Cancel safe.
pub(crate) async fn exchange<S>(stream: &mut S, out: &mut BytesMut, input: &mut BytesMut, reads: bool) -> Io
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|context| {
        let mut stream = Pin::new(&mut *stream);
        match poll_write(stream.as_mut(), out, context) {
            Poll::Ready(Ok(0)) | Poll::Pending => {}
            Poll::Ready(Ok(_)) => return Poll::Ready(Io::Wrote),
            Poll::Ready(Err(error)) => return Poll::Ready(Io::Failed(error)),
        }
        if !reads {
            return Poll::Pending;
        }
        match poll_read(stream, input, context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => Poll::Ready(Io::Closed),
            Poll::Ready(Ok(_)) => Poll::Ready(Io::Read),
            Poll::Ready(Err(error)) => Poll::Ready(Io::Failed(error)),
        }
    })
    .await
}

fn poll_write<S: AsyncWrite>(
    mut stream: Pin<&mut S>,
    out: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut written = 0;
    while !out.is_empty() {
        match stream.as_mut().poll_write(context, out) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(count)) => {
                out.advance(count);
                written += count;
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending if written > 0 => break,
            Poll::Pending => return Poll::Pending,
        }
    }
    if out.is_empty() {
        if written > 0 {
            // Given back: a connection that does nothing holds no buffer.
            *out = BytesMut::new();
        }
        // What a layer in between (TLS, WebSocket) keeps is pushed on, also later when the socket takes it; a plain socket
        // keeps nothing.
        if let Poll::Ready(Err(error)) = stream.poll_flush(context) {
            return Poll::Ready(Err(error));
        }
    }
    Poll::Ready(Ok(written))
}

fn poll_read<S: AsyncRead>(
    stream: Pin<&mut S>,
    input: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let step = if input.len() >= STEP_BYTES { input.len().min(STEP_BYTES_MAX) } else { STEP_BYTES };
    if input.capacity() - input.len() < step / 2 {
        input.reserve(step);
    }
    let read = poll_read_buf(stream, context, input);
    if read.is_pending() && input.is_empty() {
        *input = BytesMut::new();
    }
    read
}

/// Sends the rest and says that nothing follows.
pub(crate) async fn finish<S>(stream: &mut S, out: &mut BytesMut) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    stream.write_all_buf(out).await?;
    stream.flush().await?;
    stream.shutdown().await
}
