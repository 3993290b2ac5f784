//! Why a transfer ended without a receipt, and who ended it.

use std::time::Duration;

use crate::protocol::codec::BadText;
use crate::protocol::{Code, Violation};
use crate::storage::{SourceError, StorageError};
use crate::transport::TransportError;

/// Why a transfer, or the work around it, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file to send.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The destination of this side.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The connection.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The peer broke the protocol.
    #[error("{peer} broke the protocol: {violation}")]
    Violation {
        /// The peer's address.
        peer: String,
        /// What was wrong.
        violation: Violation,
    },
    /// The receiver did not take the file.
    #[error("{peer} refused {name}: {reason}")]
    Refused {
        /// The peer's address.
        peer: String,
        /// The offered name.
        name: String,
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
    },
    /// This side did not take the file that the peer offered.
    #[error("refused {name} from {peer}: {reason}")]
    Declined {
        /// The peer's address.
        peer: String,
        /// The offered name.
        name: String,
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
    },
    /// The peer ended the transfer and said why.
    #[error("{peer} ended the transfer: {reason}")]
    PeerEnded {
        /// The peer's address.
        peer: String,
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        reason: String,
    },
    /// The peer said nothing for too long.
    #[error("{peer} was silent for {} s", .silence.as_secs())]
    Stalled {
        /// The peer's address.
        peer: String,
        /// How long.
        silence: Duration,
    },
    /// The connection was cut, and could not be made again in the time that was allowed.
    #[error("gave up after {attempts} attempt{} to reconnect: {last}", if *.attempts == 1 { "" } else { "s" })]
    GaveUp {
        /// How many attempts there were since bytes last moved.
        attempts: u32,
        /// How the last of them ended.
        last: Box<Error>,
    },
    /// The peer's text is no Base64.
    #[error("{peer} sent a text that is no Base64: {error}")]
    BadText {
        /// The peer's address.
        peer: String,
        /// What is wrong, and where.
        error: BadText,
    },
    /// The file that the peer sends, without saying how large it is, is too large.
    #[error("{peer} sends more than {limit} bytes, which is what there is room for")]
    TooLarge {
        /// The peer's address.
        peer: String,
        /// The most bytes that are taken.
        limit: u64,
    },
    /// The peer did not read what it was sent back.
    #[error(
        "{peer} has read nothing of what it was sent back for {} s; a client has to read while it sends",
        .silence.as_secs()
    )]
    Unread {
        /// The peer's address.
        peer: String,
        /// How long.
        silence: Duration,
    },
    /// What the peer sent back is another text.
    #[error(
        "{peer} sent back another text: at offset {offset} came {}, where {} was sent",
        char::from(*.came).escape_default(),
        .sent.map_or("nothing".to_owned(), |sent| char::from(sent).to_string())
    )]
    EchoDiffers {
        /// The peer's address.
        peer: String,
        /// How many characters were the same.
        offset: u64,
        /// What was sent there; none behind the end.
        sent: Option<u8>,
        /// What came.
        came: u8,
    },
    /// What the peer sent back is only the beginning.
    #[error("{peer} sent back {offset} characters of {expected}")]
    EchoEnds {
        /// The peer's address.
        peer: String,
        /// How many characters came.
        offset: u64,
        /// How many were sent.
        expected: u64,
    },
    /// What the peer sent back is no text.
    #[error("{peer} sent back a binary message, where the text was expected")]
    EchoIsBinary {
        /// The peer's address.
        peer: String,
    },
    /// This side was told to stop.
    #[error("stopped")]
    Stopped,
}

/// What an error means for what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// It failed, and would fail again.
    Failed,
    /// It was cut; the same transfer can go on where it was.
    Interrupted,
    /// The peer does not want the file.
    Refused,
    /// The contents could not be made to match.
    Mismatch,
}

impl Error {
    /// What the error means for what to do next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Source(SourceError::Changed { .. }) => ErrorKind::Mismatch,
            Self::Source(_) => ErrorKind::Failed,
            Self::Storage(StorageError::Io { .. } | StorageError::Outdated { .. }) => ErrorKind::Interrupted,
            Self::Storage(StorageError::Mismatch { .. }) => ErrorKind::Mismatch,
            Self::Storage(_) => ErrorKind::Refused,
            Self::Transport(
                TransportError::Lost { .. } | TransportError::Closed { .. } | TransportError::Crowded { .. },
            ) => ErrorKind::Interrupted,
            Self::Transport(_) | Self::Violation { .. } => ErrorKind::Failed,
            Self::Refused { .. } | Self::Declined { .. } => ErrorKind::Refused,
            Self::PeerEnded { code, .. } => match code {
                Code::Storage | Code::Shutdown => ErrorKind::Interrupted,
                Code::Digest | Code::Source => ErrorKind::Mismatch,
                Code::Exists | Code::Busy | Code::Name | Code::TooLarge | Code::Journal | Code::Discard => {
                    ErrorKind::Refused
                }
                _ => ErrorKind::Failed,
            },
            Self::BadText { .. } => ErrorKind::Failed,
            Self::TooLarge { .. } => ErrorKind::Refused,
            Self::EchoDiffers { .. } | Self::EchoEnds { .. } | Self::EchoIsBinary { .. } => {
                ErrorKind::Mismatch
            }
            Self::Stalled { .. } | Self::Unread { .. } | Self::GaveUp { .. } | Self::Stopped => {
                ErrorKind::Interrupted
            }
        }
    }
}
