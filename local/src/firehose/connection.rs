//! One connection that a fault may break: a TCP stream that can be reset while a request is being answered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Breaks its connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Breaker(Arc<BreakerState>);

#[derive(Debug, Default)]
struct BreakerState {
    reset: AtomicBool,
    broken: Notify,
}

impl Breaker {
    /// Resets the connection (RST): unread and unwritten data is lost.
    pub fn reset(&self) {
        self.0.reset.store(true, Ordering::Release);
        self.close();
    }

    /// Closes the connection (FIN) without sending another byte.
    pub fn close(&self) {
        self.0.broken.notify_one();
    }

    /// Returns once the connection must end.
    pub async fn broken(&self) {
        self.0.broken.notified().await;
    }
}

/// A TCP stream that its [`Breaker`] can reset.
pub(super) struct Breakable {
    stream: TcpStream,
    breaker: Breaker,
}

impl Breakable {
    pub fn new(stream: TcpStream, breaker: Breaker) -> Self {
        Breakable { stream, breaker }
    }
}

impl Drop for Breakable {
    fn drop(&mut self) {
        if self.breaker.0.reset.load(Ordering::Acquire) {
            reset(&self.stream);
        }
    }
}

/// Makes `stream` end with a reset when it is dropped.
pub(super) fn reset(stream: &TcpStream) {
    // Fails only for a closed socket.
    let _ = stream.set_zero_linger();
}

impl AsyncRead for Breakable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Breakable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
