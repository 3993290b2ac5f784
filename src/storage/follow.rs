//! A file that is read as it grows.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::SourceError;

/// How often it is looked whether a file has grown.
const LOOK: Duration = Duration::from_millis(100);
/// A file that was moved away, or removed, has ended once it has not grown for so long: its writer may not know yet.
const MOVED_FOR: Duration = Duration::from_secs(1);

/// Reads a file from its beginning, and then what is added to it; to its end once that is asked for, or the file was moved
/// away or removed, or has not grown for as long as was said.
#[derive(Debug)]
pub struct Follower {
    file: File,
    path: PathBuf,
    offset: u64,
    quiet: Option<Duration>,
    grew: Instant,
    end: FollowEnd,
}

/// Ends a [`Follower`] behind what the file has by then. Clones end the same.
#[derive(Debug, Clone, Default)]
pub struct FollowEnd(Arc<(Mutex<bool>, Condvar)>);

impl FollowEnd {
    /// Ends it.
    pub fn end(&self) {
        let (is_over, told) = &*self.0;
        *is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        told.notify_all();
    }

    /// Waits for that, for so long. Whether it is to end.
    fn wait(&self, time: Duration) -> bool {
        let (is_over, told) = &*self.0;
        let is_over = is_over.lock().unwrap_or_else(PoisonError::into_inner);
        let (is_over, _) =
            told.wait_timeout_while(is_over, time, |over| !*over).unwrap_or_else(PoisonError::into_inner);
        *is_over
    }
}

impl Follower {
    /// Opens a file. It ends once it has not grown for so long, if that is said.
    ///
    /// # Errors
    /// If it is no regular file, or cannot be opened.
    pub fn open(path: &Path, quiet: Option<Duration>, end: FollowEnd) -> Result<Self, SourceError> {
        let cannot = |source| SourceError::Io { operation: "open", path: path.to_owned(), source };
        // Opening a named pipe would let its writer go on: ask first what it is.
        if !std::fs::metadata(path).map_err(cannot)?.is_file() {
            return Err(SourceError::NotAFile(path.to_owned()));
        }
        let file = File::open(path).map_err(cannot)?;
        let path = std::path::absolute(path).map_err(cannot)?;
        Ok(Self { file, path, offset: 0, quiet, grew: Instant::now(), end })
    }

    /// Whether nothing more is to come, although nothing was said.
    fn is_over(&self) -> io::Result<bool> {
        let open = self.file.metadata()?;
        if open.len() < self.offset {
            let what = format!("it was cut short to {} bytes while it was followed", open.len());
            return Err(io::Error::other(what));
        }
        let quiet = self.grew.elapsed();
        // It grew between two looks.
        if open.len() > self.offset {
            return Ok(false);
        }
        let is_there = || {
            std::fs::metadata(&self.path)
                .is_ok_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino()))
        };
        Ok(self.quiet.is_some_and(|most| quiet >= most) || (quiet >= MOVED_FOR && !is_there()))
    }
}

impl Read for Follower {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        // What was there when the end was asked for is of it.
        let mut is_last = self.end.wait(Duration::ZERO);
        loop {
            let read = self.file.read(bytes)?;
            if read > 0 {
                self.offset += read as u64;
                self.grew = Instant::now();
                return Ok(read);
            }
            if is_last || self.is_over()? {
                return Ok(0);
            }
            is_last = self.end.wait(LOOK);
        }
    }
}
