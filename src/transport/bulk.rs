//! A stream that is read and written in few large pieces, whatever pieces its user asks for.
//!
//! TLS reads and writes by records of 16 KiB, each in memory of its own. One system call for each costs more than all of the
//! encryption: the kernel takes several times as long to copy a record of odd length behind another as to copy many at once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};

/// Bytes that are read and written at a time.
const PIECE: usize = 256 << 10;
/// Where less comes or goes at a time, nothing is gained, and a connection that idles is to hold no memory.
const WORTHWHILE: usize = 16 << 10;

/// A stream that is read and written in large pieces while much comes and goes.
pub(super) struct Bulk<S> {
    stream: S,
    /// Much came at the last read: more is likely to be there.
    much_came: bool,
    /// `came[taken..filled]` was read and not asked for yet.
    came: Vec<u8>,
    taken: usize,
    filled: usize,
    /// `going[gone..]` is to be written.
    going: Vec<u8>,
    gone: usize,
}

impl<S> Bulk<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, much_came: false, came: vec![], taken: 0, filled: 0, going: vec![], gone: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bulk<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.taken == this.filled {
            if !this.much_came {
                let count = ready!(Pin::new(&mut this.stream).poll_read(cx, into))?;
                this.much_came = count == into.len() && count >= WORTHWHILE / 4;
                return Poll::Ready(Ok(count));
            }
            this.came.resize(PIECE, 0);
            (this.taken, this.filled) =
                (0, ready!(Pin::new(&mut this.stream).poll_read(cx, &mut this.came))?);
            this.much_came = this.filled >= WORTHWHILE;
        }
        let count = into.len().min(this.filled - this.taken);
        into[..count].copy_from_slice(&this.came[this.taken..this.taken + count]);
        this.taken += count;
        if this.taken == this.filled && !this.much_came {
            this.came = Vec::new();
            (this.taken, this.filled) = (0, 0);
        }
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncWrite + Unpin> Bulk<S> {
    /// Writes what was gathered.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gone < self.going.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.going[self.gone..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.gone += count,
            }
        }
        self.going.clear();
        self.gone = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bulk<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(from)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.going.is_empty() && from.iter().map(|piece| piece.len()).sum::<usize>() < WORTHWHILE {
            // Also what nobody flushes: the last words of a handshake that fails.
            this.going = Vec::new();
            return Pin::new(&mut this.stream).poll_write_vectored(cx, from);
        }
        if this.going.len() >= PIECE {
            ready!(this.poll_drain(cx))?;
        }
        let before = this.going.len();
        for piece in from {
            let room = PIECE - this.going.len();
            this.going.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        Poll::Ready(Ok(this.going.len() - before))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker;
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    /// Gives and takes at most so many bytes at a time, and is not ready every third time.
    struct Other {
        gives: Vec<u8>,
        given: usize,
        took: Vec<u8>,
        rng: StdRng,
        most: usize,
    }

    impl Other {
        fn count(&mut self) -> Option<usize> {
            let count = self.rng.random_range(1..=self.most);
            (!self.rng.random_ratio(1, 3)).then_some(count)
        }
    }

    impl AsyncRead for Other {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            to: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let Some(count) = self.count() else { return Poll::Pending };
            let (start, end) = (self.given, self.gives.len().min(self.given + count.min(to.len())));
            to[..end - start].copy_from_slice(&self.gives[start..end]);
            self.given = end;
            Poll::Ready(Ok(end - start))
        }
    }

    impl AsyncWrite for Other {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
            let Some(count) = self.count() else { return Poll::Pending };
            let count = count.min(from.len());
            self.took.extend_from_slice(&from[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn whatever_the_pieces_the_same_bytes_come_and_go(
            seed: u64, most in 1usize..600_000, asked in 1usize..40_000, records in 1usize..5,
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let gives: Vec<u8> = (0..rng.random_range(0..800_000)).map(|_| rng.random()).collect();
            let most = most.max(gives.len() / 1000 + 1);
            let other = Other { gives: gives.clone(), given: 0, took: vec![], rng, most };
            let mut bulk = Bulk::new(other);
            let waker = noop_waker();
            let cx = &mut Context::from_waker(&waker);
            let (mut read, mut buffer) = (vec![], vec![0; asked.max(most / 1000 + 1)]);
            loop {
                match Pin::new(&mut bulk).poll_read(cx, &mut buffer) {
                    Poll::Ready(Ok(0)) => break,
                    Poll::Ready(Ok(count)) => read.extend_from_slice(&buffer[..count]),
                    Poll::Ready(Err(error)) => panic!("{error}"),
                    Poll::Pending => {}
                }
            }
            prop_assert!(read == gives, "what was read is not what came");
            let mut written = 0;
            while written < gives.len() {
                let rest = &gives[written..gives.len().min(written + buffer.len() * records)];
                let slices: Vec<_> = rest.chunks(buffer.len()).map(IoSlice::new).collect();
                if let Poll::Ready(count) = Pin::new(&mut bulk).poll_write_vectored(cx, &slices) {
                    written += count.unwrap();
                }
            }
            while Pin::new(&mut bulk).poll_flush(cx).is_pending() {}
            prop_assert!(bulk.stream.took == gives, "what was written is not what went");
        }
    }

    #[test]
    fn memory_is_given_back_once_little_comes_and_goes() {
        let bytes: Vec<u8> = (0..3 * PIECE).map(|at| (at % 251) as u8).collect();
        let rng = StdRng::seed_from_u64(7);
        let other = Other { gives: bytes.clone(), given: 0, took: vec![], rng, most: usize::MAX };
        let mut bulk = Bulk::new(other);
        let waker = noop_waker();
        let cx = &mut Context::from_waker(&waker);
        let mut buffer = vec![0; 18_000];
        let mut most = 0;
        while bulk.stream.given < bytes.len() || bulk.taken < bulk.filled {
            let _ = Pin::new(&mut bulk).poll_read(cx, &mut buffer);
            most = most.max(bulk.came.capacity());
        }
        assert!(most >= PIECE, "much came, and was read in pieces of {most}");
        bulk.stream.gives.extend_from_slice(b"ping");
        while bulk.stream.given < bulk.stream.gives.len() || bulk.taken < bulk.filled {
            let _ = Pin::new(&mut bulk).poll_read(cx, &mut buffer);
        }
        assert_eq!(bulk.came.capacity(), 0, "behind a little that came");

        assert!(Pin::new(&mut bulk).poll_write(cx, &bytes).is_ready());
        while Pin::new(&mut bulk).poll_flush(cx).is_pending() {}
        assert!(bulk.going.capacity() >= PIECE);
        while Pin::new(&mut bulk).poll_write(cx, b"pong").is_pending() {}
        assert_eq!(bulk.going.capacity(), 0, "behind a little that went");
    }
}
