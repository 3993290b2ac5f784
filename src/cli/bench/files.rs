//! What a bench sends, and where that arrives.

use std::io;
use std::path::{Path, PathBuf};

use wsferry::transfer::Shutdown;

use super::run::Error;
use crate::cli::random;

/// Where files are in memory, on Linux.
const MEMORY: &str = "/dev/shm";

/// The file to send and the place for what arrives; gone when dropped.
pub struct Files {
    dir: tempfile::TempDir,
    /// What the file is called at the receiver.
    pub name: String,
}

impl Files {
    /// Makes a random file of this size, where there is room for that many copies of it: in `dir`, or in memory if there is
    /// room, or where temporary files are.
    pub fn make(dir: Option<&Path>, size: u64, copies: u64, stop: &mut Shutdown) -> Result<Self, Error> {
        let in_memory = || {
            let room = random::free(Path::new(MEMORY)).unwrap_or(0).min(available_memory());
            Path::new(MEMORY).is_dir() && room / 5 * 2 > size
        };
        let parent = match dir {
            Some(dir) => dir.to_owned(),
            None if in_memory() => PathBuf::from(MEMORY),
            None => std::env::temp_dir(),
        };
        // Its own words name a directory that was to be made, which means nothing to anybody.
        let cannot = |error: io::Error| {
            Error::failed(format!("cannot make files in {}: {}", parent.display(), error.kind()))
        };
        let dir = tempfile::Builder::new().prefix("wsferry-bench-").tempdir_in(&parent).map_err(cannot)?;
        let name = format!("wsferry-bench-{:016x}", fastrand::u64(..));
        let files = Self { dir, name };
        random::make(&files.source(), size, copies, stop).map_err(|error| match error {
            random::Error::Stopped => Error::Stopped,
            random::Error::Failed(why) => Error::failed(why),
        })?;
        Ok(files)
    }

    /// The directory that holds them, for people.
    pub fn directory(&self) -> String {
        self.dir.path().parent().unwrap_or(self.dir.path()).display().to_string()
    }

    pub fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    /// A file that arrives.
    pub fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    /// The directory of a receiver.
    pub fn inbox(&self) -> PathBuf {
        self.dir.path().join("inbox")
    }

    /// Removes what arrived.
    pub fn clean(&self) {
        let _ = std::fs::remove_file(self.target());
        let _ = std::fs::remove_dir_all(self.inbox());
    }
}

/// Bytes that the system could give without swapping.
fn available_memory() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
