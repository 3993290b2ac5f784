//! One file that is received in order into a pipe, or into whatever else takes bytes one after the other.
//!
//! What came is kept until all before it has left, and its block was hashed. Bytes that left cannot be taken back: what
//! comes again has to be the same. A thread writes, so that a reader that takes its time holds up nothing but the file.

mod file;

use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::StorageError;
use crate::protocol::{BlockDigest, BlockHashes, CheckedOffer, FileDigest, Geometry, Kind, Opened};
use file::TheFile;

/// As many bytes may wait for the reader before the sender is to wait: some blocks, for their hashes.
const MOST_WAITING: u64 = 16 << 20;
/// As many bytes are kept at all. Blocks that come in order, within a window, never need so many.
const MOST_KEPT: u64 = 128 << 20;
/// Bytes that are written at a time.
const PIECE: usize = 256 << 10;

/// Takes one file, in order, each byte once.
pub struct Outlet {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Bytes can be written, or nobody wants any more.
    came: Condvar,
}

#[derive(Default)]
struct State {
    file: Option<TheFile>,
    /// A connection carries it.
    is_live: bool,
    failure: Option<Failure>,
    is_unwanted: bool,
    wakers: Vec<Waker>,
}

/// Why nothing more of it is taken, as often as somebody asks.
#[derive(Debug, Clone)]
enum Failure {
    /// Writing failed.
    Closed {
        raw: Option<i32>,
        kind: io::ErrorKind,
    },
    /// What left is not what is sent.
    Left(String),
    TooFar,
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").finish_non_exhaustive()
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.state().is_unwanted = true;
        self.shared.came.notify_all();
    }
}

impl Outlet {
    /// Writes the first file that is taken to `writer`, on a thread of its own.
    pub fn new(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), came: Condvar::new() });
        let mine = shared.clone();
        std::thread::Builder::new().name("outlet".to_owned()).spawn(move || mine.write_all(writer))?;
        Ok(Self { shared })
    }

    /// Takes an offer, if it is of the one file, or says why not. `sender` is the run of the sender that offers it, if it tells.
    ///
    /// # Errors
    /// If it is no file, or not the first; or if the sender of the first offers another version of it, and bytes have left:
    /// then nothing more can be taken.
    pub fn begin(&self, offer: &CheckedOffer, sender: Option<&str>) -> Result<Opened, StorageError> {
        let name = offer.path.to_string();
        if offer.discard {
            return Err(StorageError::NoBench);
        }
        if offer.kind != Kind::File || name.contains('/') {
            return Err(StorageError::NoPlainFile { name });
        }
        let mut state = self.state();
        state.check()?;
        let is_live = state.is_live;
        match &state.file {
            Some(file) if file.handed == 0 && !is_live && !file.is_sealed => state.file = None,
            Some(file) if file.name != name || is_live => {
                return Err(StorageError::NotTheFirst { name, first: file.name.clone() });
            }
            Some(file) if !file.is_version(offer) => {
                // What others offer under its name takes nothing from it.
                if file.is_sealed || sender.is_none() || file.sender.as_deref() != sender {
                    return Err(StorageError::NotTheFirst { name, first: file.name.clone() });
                }
                let what = "what is offered now is another version of it".to_owned();
                return Err(state.fail(Failure::Left(what)));
            }
            _ => {}
        }
        let file = state.file.get_or_insert_with(|| TheFile::new(name, offer, sender));
        let is_sealed = file.is_sealed;
        if file.geometry.is_open() && !offer.geometry.is_open() {
            file.ends_with(offer.geometry);
        }
        let opened = file.opened();
        // Of a file that is done nothing more is to come.
        state.is_live = !is_sealed;
        Ok(opened)
    }

    /// Why nothing more can be taken, if that is so.
    pub fn failure(&self) -> Option<StorageError> {
        self.state().check().err()
    }

    /// The file's size and blocks.
    pub fn geometry(&self) -> Geometry {
        self.state().file.as_ref().map_or_else(Geometry::open, |file| file.geometry)
    }

    /// The file was offered without its size, and has this one.
    pub fn ends_with(&self, geometry: Geometry) {
        if let Some(file) = &mut self.state().file {
            file.ends_with(geometry);
        }
    }

    /// Takes bytes that came.
    ///
    /// # Errors
    /// If other bytes left in their place, or nothing more can leave.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        self.take(|file| file.fill(bytes, offset))
    }

    /// Takes a run of zeros of whole blocks.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn write_zeros(&self, bytes: Range<u64>) -> Result<(), StorageError> {
        self.take(|file| file.fill_with_zeros(bytes))
    }

    fn take(&self, take: impl FnOnce(&mut TheFile) -> Result<(), Failure>) -> Result<(), StorageError> {
        let mut state = self.state();
        state.check()?;
        let Some(file) = &mut state.file else { return Ok(()) };
        if let Err(failure) = take(file) {
            return Err(state.fail(failure));
        }
        self.shared.came.notify_all();
        Ok(())
    }

    /// Notes the hashes of whole blocks. What came again has to have the same. The offset below which these blocks, as far
    /// as nothing is missing before them, are.
    ///
    /// # Errors
    /// If another block left in the place of one of them, or nothing more can leave.
    pub fn note(&self, blocks: &[(u64, BlockHashes)]) -> Result<u64, StorageError> {
        let mut state = self.state();
        state.check()?;
        let Some(file) = &mut state.file else { return Ok(0) };
        for (block, hashes) in blocks {
            if let Err(failure) = file.note(*block, hashes) {
                return Err(state.fail(failure));
            }
        }
        file.let_go();
        let front = file.front();
        let ends = blocks.iter().map(|&(block, _)| file.geometry.block_end(block));
        Ok(ends.filter(|&end| end <= front).max().unwrap_or(0))
    }

    /// Waits until everything below this offset was written.
    pub fn poll_written(&self, below: u64, cx: &mut Context<'_>) -> Poll<Result<(), StorageError>> {
        let mut state = self.state();
        state.check()?;
        match &state.file {
            Some(file) if file.written < below => {
                state.wake_later(cx);
                Poll::Pending
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Whether so much waits for the reader that the sender is to wait; has the task woken once that may have changed.
    ///
    /// # Errors
    /// If nothing more can leave.
    pub fn poll_full(&self, cx: &mut Context<'_>) -> Result<bool, StorageError> {
        let mut state = self.state();
        state.check()?;
        state.wake_later(cx);
        Ok(state.file.as_ref().is_some_and(|file| file.front() - file.written > MOST_WAITING))
    }

    /// Hashes a block that is kept.
    pub fn hash_block(&self, block: u64) -> Option<BlockHashes> {
        self.state().file.as_ref()?.hash_block(block)
    }

    /// The digests of blocks that were hashed: at least one, [`BlockDigest::NONE`] if the first was not.
    pub fn digests(&self, first: u64, count: u64) -> Vec<BlockDigest> {
        let state = self.state();
        state.file.as_ref().map_or_else(|| vec![BlockDigest::NONE], |file| file.digests(first, count))
    }

    /// Everything was written: makes sure that it is what was sent.
    ///
    /// # Errors
    /// If it is not.
    pub fn seal(&self, digest: FileDigest) -> Result<(), StorageError> {
        let mut state = self.state();
        state.check()?;
        let Some(file) = &mut state.file else { return Ok(()) };
        match file.seal(digest) {
            Ok(()) => {
                state.is_live = false;
                Ok(())
            }
            Err(failure) => Err(state.fail(failure)),
        }
    }

    /// Its connection ended, or the transfer did: another may go on with it.
    pub fn put_away(&self) {
        self.state().is_live = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut writer: impl Write) {
        let mut piece = vec![0; PIECE];
        loop {
            let mut state = self.state();
            let len = loop {
                if state.is_unwanted {
                    return;
                }
                match state.file.as_mut().map_or(0, |file| file.hand_out(&mut piece)) {
                    0 => state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner),
                    len => break len,
                }
            };
            drop(state);
            let (written, result) = write_piece(&mut writer, &piece[..len]);
            let mut state = self.state();
            if let Some(file) = &mut state.file {
                file.written += written as u64;
                file.let_go();
            }
            if let Err(error) = result {
                let (raw, kind) = (error.raw_os_error(), error.kind());
                state.fail(Failure::Closed { raw, kind });
            }
            let is_over = state.failure.is_some();
            let wakers = std::mem::take(&mut state.wakers);
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
            if is_over {
                return;
            }
        }
    }
}

/// Writes all of it; as many bytes as were, where that failed.
fn write_piece(writer: &mut impl Write, piece: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < piece.len() {
        match writer.write(&piece[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, writer.flush())
}

impl State {
    /// Whether more of the file can be taken.
    fn check(&self) -> Result<(), StorageError> {
        self.failure.as_ref().map_or(Ok(()), |failure| Err(self.error(failure)))
    }

    /// Nothing more of it is taken from here on.
    fn fail(&mut self, failure: Failure) -> StorageError {
        let error = self.error(&failure);
        self.failure.get_or_insert(failure);
        error
    }

    fn error(&self, failure: &Failure) -> StorageError {
        let file = self.file.as_ref();
        let name = file.map(|file| file.name.clone()).unwrap_or_default();
        let written = file.map_or(0, |file| file.written);
        match failure {
            Failure::Closed { raw, kind } => {
                let source = raw.map_or_else(|| (*kind).into(), io::Error::from_raw_os_error);
                StorageError::Closed { name, written, source }
            }
            Failure::Left(what) => StorageError::Left { name, written, what: what.clone() },
            Failure::TooFar => StorageError::TooFar { name, most: MOST_KEPT },
        }
    }

    fn wake_later(&mut self, cx: &Context<'_>) {
        if !self.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
    }
}
