//! What a walk finds: what is sent, and what is not.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, FileType};

use crate::protocol::{FileName, NameError, RelativePath};
use crate::storage::folder::Time;
use crate::storage::source::{Source, SourceError};

/// One thing that is sent.
#[derive(Debug)]
pub struct Entry {
    /// Where it is.
    pub path: PathBuf,
    /// Where it goes, below the destination.
    pub to: RelativePath,
    /// What it is.
    pub what: What,
    /// The directory that it lies in, which is what the walk has seen there, wherever its path leads now. A root is found
    /// by its path.
    pub(super) dir: Option<Arc<OwnedFd>>,
    /// Whether it was reached through a symbolic link.
    pub(super) through_link: bool,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A regular file.
    File {
        /// How many bytes it had.
        len: u64,
    },
    /// A directory, all of which came before.
    Directory {
        /// Its permission bits.
        mode: u32,
        /// Its modification time.
        mtime: Time,
    },
    /// A symbolic link that stays inside.
    Link {
        /// What it says, in the link's own directory.
        target: String,
        /// The link's own modification time.
        mtime: Time,
    },
}

/// One thing that is not sent.
#[derive(Debug, thiserror::Error)]
#[error("{path} is not sent: {why}", path = .path.display())]
pub struct Skipped {
    /// Where it is.
    pub path: PathBuf,
    /// Why not.
    pub why: SkipReason,
}

/// Why something is not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// A symbolic link, where links are not asked for.
    #[error("it is a symbolic link")]
    Link,
    /// A symbolic link that says what may be outside of the destination, or what cannot be said there.
    #[error("it is a symbolic link that does not stay inside of what is sent: {target}")]
    LeadsOutside {
        /// What it says; where that is no text, as far as it is.
        target: String,
    },
    /// A symbolic link to what is not there, where links are followed.
    #[error("it is a symbolic link that leads nowhere")]
    LeadsNowhere,
    /// A symbolic link to a directory that it lies in.
    #[error("it is a symbolic link to a directory that it lies in")]
    Loop,
    /// No file, directory or link.
    #[error("it is {0}")]
    Special(Special),
    /// What was to be sent is excluded.
    #[error("it is excluded")]
    Excluded,
    /// The destination cannot have such a name.
    #[error("its name cannot be used at the destination: {0}")]
    Name(#[from] NameError),
    /// It would be written where something else is.
    #[error("{first} is sent as {to} already; send one of them by itself", first = .first.display())]
    Taken {
        /// The root of the walk that was the first.
        first: PathBuf,
        /// The name at the destination that both would have.
        to: String,
    },
    /// It has another place, or is gone, and what is in it cannot be found any more.
    #[error("the directory was moved while it was read, and is sent in part; send it again")]
    Moved,
    /// An operation of the operating system failed.
    #[error("cannot {operation} it: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What has a name and no content of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Special {
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A block or character device.
    Device,
    /// What the system has no name for.
    Unknown,
}

impl Entry {
    /// Opens a file to be sent. What became a symbolic link since is not followed, unless it was one and is to be.
    pub fn open(&self) -> Result<Source, SourceError> {
        let (path, to) = (&*self.path, self.to.clone());
        match (&self.dir, path.file_name()) {
            (Some(dir), Some(name)) => Source::open_at(dir, Path::new(name), path, to, self.through_link),
            _ => Source::open_at(CWD, path, path, to, self.through_link),
        }
    }
}

impl Skipped {
    /// Whether something is missing at the destination that was asked for, or ought to be there.
    pub fn is_failure(&self) -> bool {
        match self.why {
            SkipReason::Link
            | SkipReason::LeadsOutside { .. }
            | SkipReason::Loop
            | SkipReason::Special(_)
            | SkipReason::Excluded
            // Partial files are the receiver's own, where one's directory is sent on.
            | SkipReason::Name(NameError::Reserved) => false,
            SkipReason::LeadsNowhere
            | SkipReason::Name(_)
            | SkipReason::Taken { .. }
            | SkipReason::Moved
            | SkipReason::Io { .. } => true,
        }
    }
}

impl SkipReason {
    pub(super) fn io(operation: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |error| Self::Io { operation, source: error.into() }
    }

    pub(super) fn special(kind: FileType) -> Self {
        Self::Special(match kind {
            FileType::Fifo => Special::Pipe,
            FileType::Socket => Special::Socket,
            FileType::BlockDevice | FileType::CharacterDevice => Special::Device,
            _ => Special::Unknown,
        })
    }
}

impl std::fmt::Display for Special {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pipe => "a named pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
            Self::Unknown => "of an unknown kind",
        })
    }
}

/// What a link says, if it stays inside of the destination wherever that is.
pub(super) fn link_target(to: &RelativePath, target: &CStr) -> Result<String, SkipReason> {
    match target.to_str() {
        Ok(target) if stays_inside(to, target) => Ok(target.to_owned()),
        _ => Err(SkipReason::LeadsOutside { target: target.to_string_lossy().into_owned() }),
    }
}

/// Whether a symbolic link at `to` that says `target` leads to the destination itself or below it.
///
/// A `..` behind a name would leave the directory that the name leads to, which another link may have put anywhere; at the
/// beginning it leaves one that the link lies in, which is none. So there it may stand, as often as there are such, and
/// what follows are names.
pub fn stays_inside(to: &RelativePath, target: &str) -> bool {
    if target.is_empty() || target.starts_with('/') {
        return false;
    }
    let depth = to.components().count() - 1;
    let mut components = target.split('/').filter(|component| !matches!(*component, "" | ".")).peekable();
    let mut above = 0;
    while components.next_if_eq(&"..").is_some() {
        above += 1;
    }
    above <= depth && components.all(|name| name.parse::<FileName>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_inside_if_it_leaves_no_more_than_it_lies_in() {
        for (to, target, inside) in [
            ("a", "b", true),
            ("a", "./b//c/", true),
            ("a", ".", true),
            ("a", "..", false),
            ("a", "../b", false),
            ("a", "./../b", false),
            ("d/a", "..", true),
            ("d/a", "../e/f", true),
            ("d/a", "../../e", false),
            ("d/e/a", "../../b", true),
            ("d/e/a", "../.././../b", false),
            // Where `b` is a link, what is above it may be anywhere.
            ("d/a", "b/../c", false),
            ("d/e/a", "../b/../c", false),
            ("a", "/etc/passwd", false),
            ("a", "/", false),
            ("a", "", false),
            ("a", ".wsferry/x", false),
            ("a", "b\\..\\c", false),
            ("a", "b\nc", false),
        ] {
            assert_eq!(stays_inside(&to.parse().unwrap(), target), inside, "{to} -> {target}");
        }
    }
}
