//! What can go wrong in the destination.

use std::io;

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
    /// A file of that name is there.
    #[error(
        "a different file named {name} is already there; use --name, or start the receiver with --overwrite"
    )]
    Exists {
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
    #[error("something that is not a regular file is already named {name}; use --name")]
    NotAFile {
        /// The name.
        name: String,
    },
    /// Another transfer is writing that name.
    #[error("another transfer is writing {name}; try again when it has ended")]
    Busy {
        /// The name.
        name: String,
    },
    /// The file does not fit.
    #[error(
        "{name} needs {needed} more bytes and {free} are free; free some space, then run the same command"
    )]
    NoSpace {
        /// The name.
        name: String,
        /// Bytes that are still to be written.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A file to be discarded was offered.
    #[error("this receiver takes no measurements; start it with --allow-bench")]
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
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "; what arrived is kept: make room, then run the same command"
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
            Self::Busy { .. } => true,
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
        match self {
            Self::Io { .. } => Code::Storage,
            Self::Exists { .. } | Self::Outdated { .. } | Self::NotAFile { .. } => Code::Exists,
            Self::Busy { .. } => Code::Busy,
            Self::NoSpace { .. } => Code::TooLarge,
            Self::NoBench => Code::Discard,
            Self::NewerJournal { .. } => Code::Journal,
            Self::Mismatch { .. } => Code::Digest,
        }
    }
}
