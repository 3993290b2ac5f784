//! A file of random bytes, for `demo` and `bench`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use futures::FutureExt;
use wsferry::transfer::Shutdown;

use super::words;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("stopped")]
    Stopped,
    #[error("{0}")]
    Failed(String),
}

/// Makes a file of random bytes, where there is room for that many copies of it.
pub fn make(path: &Path, size: u64, copies: u64, stop: &mut Shutdown) -> Result<(), Error> {
    let dir = path.parent().unwrap_or(Path::new(""));
    let needed = size.saturating_mul(copies);
    if let Ok(free) = free(dir)
        && needed > free
    {
        let (dir, needed, free) = (dir.display(), words::size(needed), words::size(free));
        return Err(Error::Failed(format!(
            "{needed} are needed in {dir} and {free} are free; choose a smaller --size"
        )));
    }
    let cannot = |error| Error::Failed(format!("cannot write {}: {error}", path.display()));
    let mut file = File::create(path).map_err(cannot)?;
    let mut rng = fastrand::Rng::new();
    let mut bytes = vec![0; 1 << 20];
    let mut left = size;
    while left > 0 {
        if stop.now_or_never().is_some() {
            return Err(Error::Stopped);
        }
        let now = left.min(bytes.len() as u64) as usize;
        rng.fill(&mut bytes[..now]);
        file.write_all(&bytes[..now]).map_err(cannot)?;
        left -= now as u64;
    }
    Ok(())
}

/// Bytes that can be written below a directory.
pub fn free(dir: &Path) -> io::Result<u64> {
    let fs = rustix::fs::statvfs(dir)?;
    Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
}
