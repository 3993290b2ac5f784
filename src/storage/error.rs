//! What can go wrong in the destination.

use std::io;

use super::folder::Obstacle;
use super::size::Size;
use crate::protocol::{Code, FileDigest};

/// Why the destination could not take or finish a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// An operation of the operating system failed.
    #[error("cannot {operation} {path}: {source}{}", advice(.source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The directory was removed while it was in use.
    #[error("the directory that files are received into is gone; it was removed since the receiver started")]
    Gone,
    /// A file of that name is there.
    #[error("a different file named {name} is already there")]
    Exists {
        /// The name.
        name: String,
    },
    /// A file of that name is there, and what comes without a size is not compared with it.
    #[error(
        "a file named {name} is already there; whether it is the same cannot be told of what comes without its size"
    )]
    Taken {
        /// The name.
        name: String,
    },
    /// A file of that name, size and time is there, has another content, and may be replaced.
    #[error("the file named {name} that is there is another one; it is replaced when it is offered again")]
    Outdated {
        /// The name.
        name: String,
    },
    /// A directory, a device or the like has that name.
    #[error("something that is not a regular file is already named {name}")]
    NotAFile {
        /// The name.
        name: String,
    },
    /// Something on the way to a file is no directory that files are received into.
    #[error("{path} {what}, and what was offered lies below it; remove it, or use another name")]
    NoDirectory {
        /// Where it is.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A symbolic link that may lead somewhere else.
    #[error(
        "the link {name} may lead out of the destination, and is not made; leave it out, or send what it stands for"
    )]
    LinkOutside {
        /// The name.
        name: String,
    },
    /// The file that is there cannot be replaced.
    #[error("the file named {name} cannot be replaced: {obstacle}")]
    Fixed {
        /// The name.
        name: String,
        /// Why not.
        obstacle: Obstacle,
    },
    /// The file is whole, and cannot be given its name.
    #[error("{name} is whole, and cannot be given its name: {source}")]
    NoName {
        /// The name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file of that name is there, and whether it is what was offered cannot be told.
    #[error("the file named {name} that is there cannot be relied on: {what}")]
    Unreliable {
        /// The name.
        name: String,
        /// Why not.
        what: &'static str,
    },
    /// Another transfer is writing that name.
    #[error("another transfer is writing {name}; try again when it has ended")]
    Busy {
        /// The name.
        name: String,
    },
    /// Somebody else took the partial file's place.
    #[error("{name} was moved or changed here by another program meanwhile; what is left of it is kept")]
    Disturbed {
        /// The name.
        name: String,
    },
    /// The directory of partial files is not this program's alone.
    #[error(".wsferry in the destination {what}; remove it, or choose another directory")]
    NotOurs {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file system lets others write into every directory.
    #[error(
        "others can write to every directory of this file system; mount it with umask=022, or choose another directory"
    )]
    NotPrivate,
    /// Files cannot be locked, so that who is writing one cannot be seen.
    #[error(
        "files cannot be locked here, so that nobody can tell which of them is being written; stop the receiver, then remove .wsferry"
    )]
    NoLocks,
    /// The file does not fit.
    #[error(
        "{name} needs {} more and {} are free; make room, then run the same command", Size(*.needed), Size(*.free)
    )]
    NoSpace {
        /// The name.
        name: String,
        /// Bytes that are still to be written.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The file is larger than this destination takes.
    #[error("{name} has {size} bytes, and files of {most} bytes at most are taken here")]
    TooLarge {
        /// The name.
        name: String,
        /// Its bytes.
        size: u64,
        /// The most bytes of a file.
        most: u64,
    },
    /// As many files as may be were begun and are not whole.
    #[error(
        "{name} would be begun beside {most} unfinished transfers, and no more are taken here; try again later"
    )]
    TooMany {
        /// The name.
        name: String,
        /// The most of them.
        most: u64,
    },
    /// A file to be discarded was offered.
    #[error("this receiver takes no measurements")]
    NoBench,
    /// The journal was written by a newer version.
    #[error(
        "the partial file of {name} was begun by a newer wsferry (journal version {version}) and is kept; \
         finish it with that version, or delete .wsferry in the destination"
    )]
    NewerJournal {
        /// The file's name.
        name: String,
        /// The journal's version.
        version: u64,
    },
    /// Every block is there, and the whole is still not what the sender has.
    #[error(
        "{name} has digest {actual}, the sender's has {expected}; the partial file is kept and checked again on the next run"
    )]
    Mismatch {
        /// The file's name.
        name: String,
        /// The sender's digest.
        expected: FileDigest,
        /// The partial file's digest.
        actual: FileDigest,
    },
    /// A single file is received, and this is not one.
    #[error("one plain file is taken here, and {name} is a directory, a link, or lies in a directory")]
    NoPlainFile {
        /// The name.
        name: String,
    },
    /// A single file is received, and it is another.
    #[error("one file is taken here, and {first} was the first; send {name} to another receiver")]
    NotTheFirst {
        /// The name.
        name: String,
        /// The name of the one that was taken.
        first: String,
    },
    /// What a file is written into in order takes no more.
    #[error("{name} cannot be passed on behind {written} bytes, since nobody takes more of it: {source}")]
    Closed {
        /// The name.
        name: String,
        /// How many bytes were taken.
        written: u64,
        /// What the system said.
        source: io::Error,
    },
    /// What was written in order is not what the sender has.
    #[error("{written} bytes of {name} were passed on and cannot be taken back: {what}")]
    Left {
        /// The name.
        name: String,
        /// How many bytes.
        written: u64,
        /// What is wrong.
        what: String,
    },
    /// The blocks come in another order than they are needed in.
    #[error(
        "{name} is passed on in order, and what comes ahead of it needs more than {most} bytes of memory"
    )]
    TooFar {
        /// The name.
        name: String,
        /// The most bytes that are kept.
        most: u64,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "; what arrived is kept: make room for the rest"
        }
        _ => "",
    }
}

impl StorageError {
    pub(super) fn io(operation: &'static str, path: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    /// Whether the cause may pass by itself, so that another try makes sense a little later.
    pub fn may_pass(&self) -> bool {
        use rustix::io::Errno;
        match self {
            Self::Busy { .. } | Self::TooMany { .. } | Self::Disturbed { .. } | Self::Outdated { .. } => true,
            Self::Io { source, .. } => matches!(
                Errno::from_io_error(source),
                Some(
                    Errno::MFILE
                        | Errno::NFILE
                        | Errno::NOMEM
                        | Errno::AGAIN
                        | Errno::BUSY
                        | Errno::INTR
                        | Errno::TIMEDOUT
                        | Errno::STALE
                        | Errno::NOLCK
                )
            ),
            _ => false,
        }
    }

    /// The code that tells a peer of it.
    pub fn code(&self) -> Code {
        use rustix::io::Errno;
        match self {
            // What another user decided does not pass by itself.
            Self::Gone => Code::Destination,
            Self::Io { source, .. }
                if matches!(
                    Errno::from_io_error(source),
                    Some(Errno::ACCESS | Errno::PERM | Errno::ROFS)
                ) =>
            {
                Code::Destination
            }
            Self::Io { .. }
            | Self::Disturbed { .. }
            | Self::NotOurs { .. }
            | Self::NotPrivate
            | Self::NoLocks => Code::Storage,
            Self::Exists { .. }
            | Self::Taken { .. }
            | Self::Outdated { .. }
            | Self::NotAFile { .. }
            | Self::NotTheFirst { .. }
            | Self::NoDirectory { .. }
            | Self::Fixed { .. }
            | Self::NoName { .. }
            | Self::Unreliable { .. } => Code::Exists,
            Self::LinkOutside { .. } | Self::NoPlainFile { .. } => Code::Kind,
            Self::Busy { .. } | Self::TooMany { .. } => Code::Busy,
            Self::NoSpace { .. } | Self::TooLarge { .. } | Self::Closed { .. } | Self::TooFar { .. } => {
                Code::TooLarge
            }
            Self::NoBench => Code::Discard,
            Self::NewerJournal { .. } => Code::Journal,
            Self::Mismatch { .. } | Self::Left { .. } => Code::Digest,
        }
    }
}
