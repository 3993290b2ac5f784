//! The runtime: TCP, timers, tasks and blocking threads. The only file that names `async_std`, so that moving to
//! another runtime is a change of one file.

pub(crate) mod family;
mod pipe;

use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_std::net::TcpStream;
use async_std::os::unix::net::UnixStream;
use async_std::task;
use futures::{AsyncRead, AsyncWrite};

pub(crate) use async_std::net::TcpListener;
pub(crate) use async_std::os::unix::net::UnixListener;

/// A connected stream of bytes, whatever carries it: TCP, a Unix socket, TLS over one of them.
pub struct Stream(Box<dyn Duplex>);

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

impl Stream {
    /// Any stream. What its reads and writes cost more, by a pointer, is lost beside the bytes that each of them moves.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self(Box::new(stream))
    }

    /// A TCP connection. Closing it tells the peer that nothing more will come, and what the peer still says can be read.
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        Self::new(Socket { stream, shut_down: |stream| stream.shutdown(Shutdown::Write) })
    }

    /// The same of a Unix socket.
    pub(crate) fn unix(stream: UnixStream) -> Self {
        Self::new(Socket { stream, shut_down: |stream| stream.shutdown(Shutdown::Write) })
    }
}

/// A socket, which the runtime's own type does not shut down when it is closed.
struct Socket<S> {
    stream: S,
    shut_down: fn(&S) -> io::Result<()>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready((self.shut_down)(&self.stream))
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// Runs a future on this thread until it is done.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    task::block_on(future)
}

/// Runs a future beside this one, on the runtime's threads.
pub fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> + Send + Unpin {
    task::spawn(future)
}

/// Runs a function that blocks on a thread that may. It runs to its end even if the future is dropped.
pub fn spawn_blocking<T: Send + 'static>(
    function: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> + Send + Unpin {
    task::spawn_blocking(function)
}

/// Waits for a future for so long; `None` if it is not done by then.
pub async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    async_std::future::timeout(limit, future).await.ok()
}

/// Waits.
pub async fn sleep(duration: Duration) {
    task::sleep(duration).await;
}

/// The addresses of a host, in the order that the system prefers.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = host.to_owned();
    spawn_blocking(move || Ok((host.as_str(), port).to_socket_addrs()?.collect())).await
}

/// Connects to an address.
pub async fn connect(address: SocketAddr) -> io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Stream::new(stream))
}

/// Connects to a socket in the file system.
pub async fn connect_unix(path: &Path) -> io::Result<Stream> {
    UnixStream::connect(path).await.map(Stream::new)
}

/// A timer that can be set anew.
pub(crate) struct Timer {
    at: Option<Instant>,
    sleep: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl std::fmt::Debug for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timer").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Timer {
    pub(crate) fn new() -> Self {
        Self { at: None, sleep: Box::pin(std::future::pending()) }
    }

    /// Ready once `deadline` has passed.
    ///
    /// Deadlines mostly move away, frame by frame: the timer that runs is kept until it goes off, and is set anew
    /// only for an earlier one.
    pub(crate) fn poll_at(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            if deadline <= now {
                self.at = None;
                return Poll::Ready(());
            }
            if self.at.is_none_or(|at| deadline < at) {
                self.at = Some(deadline);
                self.sleep = Box::pin(task::sleep(deadline - now));
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.at = None;
        }
    }
}
