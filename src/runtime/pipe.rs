//! Pipes to another process. Where the system can wait for them as for sockets, as it can for all but plain files.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_io::Async;
use futures::{AsyncRead, AsyncWrite};

use super::Stream;

/// What a pipe holds, if the system lets it: several frames, so that both processes need not take turns.
#[cfg(target_os = "linux")]
const CAPACITY: usize = 1 << 20;

/// One to read from and one to write to.
struct Pipes {
    input: Async<File>,
    /// None once it is closed, which the peer sees as the end.
    output: Option<Async<File>>,
}

impl Stream {
    /// Two pipes as one stream.
    ///
    /// # Errors
    /// If one of them is a plain file, or something else that cannot be waited for.
    pub fn pipes(input: OwnedFd, output: OwnedFd) -> io::Result<Self> {
        Ok(Self::new(Pipes { input: pipe(input)?, output: Some(pipe(output)?) }))
    }
}

fn pipe(end: OwnedFd) -> io::Result<Async<File>> {
    // A socket has no such size, and a user may have no room for more.
    #[cfg(target_os = "linux")]
    let _ = rustix::pipe::fcntl_setpipe_size(&end, CAPACITY);
    Async::new(File::from(end))
}

impl Pipes {
    fn output(&mut self) -> io::Result<Pin<&mut Async<File>>> {
        self.output.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl AsyncRead for Pipes {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_read(cx, into)
    }
}

impl AsyncWrite for Pipes {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.output()?.poll_write(cx, from)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept here.
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output = None;
        Poll::Ready(Ok(()))
    }
}
