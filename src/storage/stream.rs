//! What is sent and cannot be read twice: standard input, a pipe, whatever gives bytes one after the other.
//!
//! A thread reads ahead. What the receiver has not made durable is kept, as many bytes as are allowed: a connection that is
//! cut loses nothing.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use super::{SourceError, hash_block, plain_digest};
use crate::protocol::{BLOCK, BlockDigest, BlockHashes, Geometry, MAX_FILE, Offer, OfferKind, RelativePath};

/// The most bytes that are kept: three times what a receiver makes durable at once, so that neither waits for the other.
pub const MOST_KEPT: u64 = 16 * BLOCK;
/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// Something that is sent and cannot be read twice.
pub struct Stream {
    name: RelativePath,
    id: String,
    began: SystemTime,
    shared: Arc<Shared>,
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Come {
    /// Bytes so far.
    pub bytes: u64,
    /// There are no more.
    pub is_all: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Bytes were let go of, or nobody wants any more.
    moved: Condvar,
}

#[derive(Default)]
struct State {
    /// The blocks that are kept, from `first` on; all but the last are whole.
    blocks: VecDeque<Vec<u8>>,
    first: u64,
    come: u64,
    end: Option<Result<(), io::Error>>,
    is_unwanted: bool,
    waker: Option<Waker>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("name", &self.name)
            .field("come", &self.state().come)
            .finish_non_exhaustive()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A thread that waits in a read ends with that read.
        self.state().is_unwanted = true;
        self.shared.moved.notify_all();
    }
}

impl Stream {
    /// Begins to read, on a thread of its own, what is to have this name. `id`: 32 lower-case hexadecimal digits, different
    /// for each stream.
    pub fn new(name: RelativePath, id: String, reader: impl Read + Send + 'static) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let stream = Self { name, id, began: SystemTime::now(), shared: shared.clone() };
        std::thread::Builder::new().name("input".to_owned()).spawn(move || shared.read_all(reader))?;
        Ok(stream)
    }

    /// The path that it is offered under.
    pub fn name(&self) -> &RelativePath {
        &self.name
    }

    /// Its size, if it has ended.
    pub fn geometry(&self) -> Geometry {
        self.state().geometry()
    }

    /// How far it has come; and has the task woken once that is more.
    ///
    /// # Errors
    /// If reading failed.
    pub fn poll_come(&self, cx: &mut Context<'_>) -> Result<Come, SourceError> {
        let mut state = self.state();
        match &state.end {
            None => {
                state.waker = Some(cx.waker().clone());
                Ok(Come { bytes: state.come, is_all: false })
            }
            Some(Ok(())) => Ok(Come { bytes: state.come, is_all: true }),
            Some(Err(error)) => {
                let source = io::Error::new(error.kind(), error.to_string());
                Err(SourceError::Io { operation: "read", path: self.name.as_str().into(), source })
            }
        }
    }

    /// Waits until it has ended, or more than so many bytes have come.
    pub fn poll_beyond(&self, bytes: u64, cx: &mut Context<'_>) -> Poll<Result<(), SourceError>> {
        match self.poll_come(cx) {
            Ok(come) if !come.is_all && come.bytes <= bytes => Poll::Pending,
            come => Poll::Ready(come.map(|_| ())),
        }
    }

    /// Its offer; without a size where it has not ended.
    pub fn offer(&self) -> Offer {
        let since = self.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Offer {
            size: self.geometry().known_size(),
            mtime: since.as_secs() as i64,
            mtime_ns: since.subsec_nanos(),
            ..Offer::new(self.id.clone(), self.name.to_string(), OfferKind::File)
        }
    }

    /// Copies bytes that have come and are kept.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), SourceError> {
        let read = self.state().read_at(bytes, offset);
        if read < bytes.len() {
            return Err(SourceError::Gone { name: self.name.to_string(), offset: offset + read as u64 });
        }
        Ok(())
    }

    /// Hashes a block that is kept.
    pub fn hash_block(&self, block: u64) -> Result<BlockHashes, SourceError> {
        hash_block(self.geometry(), block, |bytes, offset| Ok(self.state().read_at(bytes, offset)))
            .map_err(|_| self.gone(block))
    }

    /// The BLAKE3 digest of the bytes of a block that is kept.
    pub fn plain_digest(&self, block: u64) -> Result<BlockDigest, SourceError> {
        plain_digest(self.geometry(), block, |bytes, offset| Ok(self.state().read_at(bytes, offset)))
            .map_err(|_| self.gone(block))
    }

    /// What lies below this offset is not needed any more.
    pub fn let_go_below(&self, offset: u64) {
        let mut state = self.state();
        // The last one is being filled.
        while state.blocks.len() > 1 && (state.first + 1) * BLOCK <= offset {
            state.blocks.pop_front();
            state.first += 1;
            self.shared.moved.notify_all();
        }
    }

    fn gone(&self, block: u64) -> SourceError {
        SourceError::Gone { name: self.name.to_string(), offset: block * BLOCK }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_all(&self, mut reader: impl Read) {
        let mut piece = vec![0; PIECE];
        let end = loop {
            match reader.read(&mut piece) {
                Ok(0) => break Ok(()),
                Ok(count) if !self.push(&piece[..count]) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.change(|state| state.end = Some(end));
    }

    /// Adds bytes once there is room for them. `false` if nobody wants them.
    fn push(&self, mut bytes: &[u8]) -> bool {
        let mut state = self.state();
        while !state.is_unwanted && state.come - state.first * BLOCK + bytes.len() as u64 > MOST_KEPT {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_unwanted {
            return false;
        }
        drop(state);
        self.change(|state| {
            if state.come + bytes.len() as u64 > MAX_FILE {
                state.end = Some(Err(io::ErrorKind::FileTooLarge.into()));
                return;
            }
            while !bytes.is_empty() {
                if state.come.is_multiple_of(BLOCK) {
                    state.blocks.push_back(Vec::with_capacity(bytes.len()));
                }
                let block = state.blocks.back_mut().expect("it was begun above, or before");
                let (now, later) = bytes.split_at(bytes.len().min(BLOCK as usize - block.len()));
                block.extend_from_slice(now);
                state.come += now.len() as u64;
                bytes = later;
            }
        });
        self.state().end.is_none()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn geometry(&self) -> Geometry {
        let ended = matches!(self.end, Some(Ok(())));
        ended.then(|| Geometry::new(self.come)).flatten().unwrap_or_else(Geometry::open)
    }

    /// Copies bytes from one block; as many as are kept there.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> usize {
        let at = (offset / BLOCK).checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(block) = at.and_then(|at| self.blocks.get(at)) else { return 0 };
        let kept = block.get((offset % BLOCK) as usize..).unwrap_or_default();
        let count = bytes.len().min(kept.len());
        bytes[..count].copy_from_slice(&kept[..count]);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::DigestTree;

    fn random(len: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; len];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        bytes
    }

    fn stream(reader: impl Read + Send + 'static) -> Stream {
        Stream::new("input.bin".parse().unwrap(), "0".repeat(32), reader).unwrap()
    }

    /// The thread that reads goes on meanwhile.
    fn wait_beyond(stream: &Stream, bytes: u64) -> Result<(), SourceError> {
        loop {
            match stream.poll_beyond(bytes, &mut Context::from_waker(Waker::noop())) {
                Poll::Ready(come) => return come,
                Poll::Pending => std::thread::yield_now(),
            }
        }
    }

    /// Gives pieces of all lengths.
    struct Pieces(io::Cursor<Vec<u8>>, fastrand::Rng);

    impl Read for Pieces {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let most = self.1.usize(1..=bytes.len());
            self.0.read(&mut bytes[..most])
        }
    }

    #[test]
    fn no_more_is_kept_than_may_be_and_all_of_it_comes_in_order() {
        let all = random(3 * MOST_KEPT as usize + 12_345, 1);
        let stream = stream(Pieces(io::Cursor::new(all.clone()), fastrand::Rng::with_seed(2)));
        let mut read = 0;
        let mut tree = None;
        let mut hashes = Vec::new();
        while read < all.len() {
            wait_beyond(&stream, read as u64).unwrap();
            let come = stream.poll_come(&mut Context::from_waker(Waker::noop())).unwrap();
            let end = (come.bytes as usize).min((read / BLOCK as usize + 1) * BLOCK as usize);
            let mut bytes = vec![0; end - read];
            stream.read_exact_at(&mut bytes, read as u64).unwrap();
            assert!(bytes == all[read..end], "bytes {read} to {end}");
            read = end;
            let kept: u64 = stream.state().blocks.iter().map(|block| block.len() as u64).sum();
            assert!(kept <= MOST_KEPT, "{kept} bytes are kept");
            if (read as u64).is_multiple_of(BLOCK) {
                hashes.push(stream.hash_block(read as u64 / BLOCK - 1).unwrap());
                stream.let_go_below(read as u64);
            }
        }
        wait_beyond(&stream, all.len() as u64).unwrap();
        let geometry = stream.geometry();
        assert_eq!(geometry.known_size(), Some(all.len() as u64));
        hashes.push(stream.hash_block(geometry.blocks() - 1).unwrap());
        for (block, hashes) in hashes.iter().enumerate() {
            tree.get_or_insert_with(|| DigestTree::new(geometry)).insert(block as u64, hashes);
        }
        assert_eq!(tree.unwrap().digest(), Some(blake3::hash(&all).into()));
        let gone = stream.read_exact_at(&mut [0; 3], 0).unwrap_err().to_string();
        assert!(gone.contains("byte 0"), "{gone}");
    }

    #[test]
    fn a_reader_whose_stream_is_dropped_reads_no_more() {
        struct Endless(#[allow(dead_code, reason = "whether it is alive is what is looked at")] Arc<()>);
        impl Read for Endless {
            fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
                bytes.fill(7);
                Ok(bytes.len())
            }
        }
        let alive = Arc::new(());
        let stream = stream(Endless(alive.clone()));
        wait_beyond(&stream, MOST_KEPT - PIECE as u64 - 1).unwrap();
        drop(stream);
        while Arc::strong_count(&alive) > 1 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_error_of_the_reader_is_told() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the tape tore"))
            }
        }
        let stream = stream(Broken);
        let error = wait_beyond(&stream, 0).unwrap_err().to_string();
        assert!(error.contains("the tape tore") && error.contains("input.bin"), "{error}");
    }
}
