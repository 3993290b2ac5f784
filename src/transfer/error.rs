//! Why a transfer ended without a receipt, and who ended it.

use std::io;
use std::time::Duration;

use crate::protocol::codec::BadText;
use crate::protocol::{Code, MIN_FRAME_LIMIT, Role, Violation};
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
        /// The cause may pass.
        again: bool,
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
        /// The cause may pass.
        again: bool,
    },
    /// Both sides send, or both receive.
    #[error("{peer} {} too: {}", does(.role), both(.role))]
    SameRole {
        /// The peer's address.
        peer: String,
        /// What both do.
        role: Role,
    },
    /// The peer ended the connection well, and offered nothing on it.
    #[error(
        "{peer} closed the connection and offered nothing: it has nothing to send, or something between cut it"
    )]
    NothingOffered {
        /// The peer's address.
        peer: String,
    },
    /// The sender came back on another connection, which goes on with the transfer.
    #[error("the sender came back on another connection")]
    TakenOver,
    /// Not even the least frame passes.
    #[error(
        "the path to {peer} carries no frame of {MIN_FRAME_LIMIT} characters, and smaller ones are not sent: {last}"
    )]
    TooNarrow {
        /// The peer's address.
        peer: String,
        /// How the last connection ended.
        last: Box<Error>,
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
    #[error("{peer} sent a bad text: {error}")]
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
    /// What the peer is told, if it is this side that ends the transfer; `name` is the one that was offered. Nothing of
    /// this side is in it: no path, no URL, no address.
    pub(super) fn told(&self, name: &str) -> Option<(Code, String)> {
        match self {
            // Where the file is on this machine is nothing to the receiver.
            Self::Source(SourceError::Changed { what, .. }) => {
                Some((Code::Source, format!("the source changed while it was sent: {what}")))
            }
            Self::Source(SourceError::Replaced(_)) => {
                Some((Code::Source, "the source was replaced while it was sent".to_owned()))
            }
            Self::Source(_) => Some((Code::Storage, "the source cannot be read any more".to_owned())),
            Self::Storage(error) => Some((error.code(), told_of_storage(error, name))),
            Self::Violation { violation, .. } => {
                Some((Code::Protocol, format!("what came broke the protocol: {violation}")))
            }
            Self::Transport(TransportError::Frame { why, .. }) => {
                Some((Code::Protocol, format!("what came is not allowed by this protocol: {why}")))
            }
            Self::Stopped => Some((Code::Shutdown, self.to_string())),
            Self::SameRole { role, .. } => Some((Code::Role, both(role).to_owned())),
            _ => None,
        }
    }

    /// Whether the cause may pass, so that another connection makes sense.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Storage(error) => error.may_pass(),
            Self::Stopped => true,
            _ => false,
        }
    }

    /// The peer ended the connection, on which this side had that role.
    pub(super) fn peer_ended(peer: &str, role: Role, code: Code, reason: String, again: bool) -> Self {
        let peer = peer.to_owned();
        match code {
            // It may say so before its own hello has gone out.
            Code::Role => Self::SameRole { peer, role },
            code => Self::PeerEnded { peer, code, reason, again },
        }
    }

    /// What it means where nothing was offered yet.
    pub(super) fn or_nothing_offered(self, peer: &str) -> Self {
        match self {
            Self::Transport(TransportError::Closed { code: 1000, .. }) => {
                Self::NothingOffered { peer: peer.to_owned() }
            }
            error => error,
        }
    }

    /// Whether it ends this file's transfer alone, so that others may go on.
    pub fn concerns_one_file(&self) -> bool {
        match self {
            Self::Source(_) | Self::Refused { .. } | Self::Declined { .. } => true,
            Self::PeerEnded { code, .. } => !matches!(code, Code::Shutdown | Code::Protocol | Code::Other),
            _ => false,
        }
    }

    /// What the error means for what to do next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Source(SourceError::Changed { .. } | SourceError::Replaced(_)) => ErrorKind::Mismatch,
            Self::Source(_) => ErrorKind::Failed,
            Self::Storage(error) if error.code() == Code::Destination => ErrorKind::Refused,
            Self::Storage(StorageError::Io { .. } | StorageError::Disturbed { .. }) => ErrorKind::Interrupted,
            Self::Storage(StorageError::Mismatch { .. } | StorageError::Left { .. }) => ErrorKind::Mismatch,
            Self::Storage(_) => ErrorKind::Refused,
            Self::Transport(
                TransportError::Lost { .. } | TransportError::Closed { .. } | TransportError::Crowded { .. },
            ) => ErrorKind::Interrupted,
            Self::Violation { violation: Violation::Damaged(_), .. } => ErrorKind::Interrupted,
            // Whoever calls is not let in.
            Self::Transport(TransportError::NotWebSocket { status: 401 | 403, .. }) => ErrorKind::Refused,
            Self::Transport(_) | Self::Violation { .. } | Self::TooNarrow { .. } => ErrorKind::Failed,
            // A file that could not be opened there may be another time.
            Self::Refused { code: Code::Storage, .. } | Self::Declined { code: Code::Storage, .. } => {
                ErrorKind::Interrupted
            }
            Self::Refused { code: Code::Digest, .. } | Self::Declined { code: Code::Digest, .. } => {
                ErrorKind::Mismatch
            }
            Self::Refused { .. } | Self::Declined { .. } => ErrorKind::Refused,
            Self::PeerEnded { code, .. } => match code {
                Code::Storage | Code::Shutdown => ErrorKind::Interrupted,
                Code::Digest | Code::Source => ErrorKind::Mismatch,
                Code::Destination
                | Code::Exists
                | Code::Busy
                | Code::Name
                | Code::TooLarge
                | Code::Journal
                | Code::Discard => ErrorKind::Refused,
                _ => ErrorKind::Failed,
            },
            Self::BadText { .. } | Self::SameRole { .. } | Self::NothingOffered { .. } => ErrorKind::Failed,
            Self::TooLarge { .. } => ErrorKind::Refused,
            Self::EchoDiffers { .. } | Self::EchoEnds { .. } | Self::EchoIsBinary { .. } => {
                ErrorKind::Mismatch
            }
            Self::Stalled { .. }
            | Self::Unread { .. }
            | Self::GaveUp { .. }
            | Self::TakenOver
            | Self::Stopped => ErrorKind::Interrupted,
        }
    }
}

fn does(role: &Role) -> &'static str {
    if *role == Role::Receiver { "receives" } else { "sends" }
}

fn both(role: &Role) -> &'static str {
    match role {
        Role::Receiver => "where both sides receive, one has to send instead",
        _ => "where both sides send, one has to receive instead",
    }
}

/// What a sender is told of the destination: the name that it offered, the operation and the system's words.
pub(super) fn told_of_storage(error: &StorageError, name: &str) -> String {
    match error {
        StorageError::Io { operation, source, .. } => {
            let advice = match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    "; what arrived is kept: make room, then run the same command"
                }
                _ => "",
            };
            format!("cannot {operation} {name}: {}{advice}", words(source))
        }
        // They hold the offered name and numbers.
        StorageError::Exists { .. }
        | StorageError::Taken { .. }
        | StorageError::NotAFile { .. }
        | StorageError::Busy { .. }
        | StorageError::NoSpace { .. }
        | StorageError::TooLarge { .. }
        | StorageError::TooMany { .. }
        | StorageError::NoBench
        | StorageError::Gone
        | StorageError::NewerJournal { .. }
        | StorageError::Fixed { .. }
        | StorageError::Unreliable { .. }
        | StorageError::Disturbed { .. }
        | StorageError::NoPlainFile { .. }
        | StorageError::NotTheFirst { .. }
        | StorageError::Closed { .. }
        | StorageError::Left { .. }
        | StorageError::TooFar { .. }
        | StorageError::Mismatch { .. } => error.to_string(),
        StorageError::NoName { source, .. } => {
            format!("{name} is whole, and cannot be given its name: {}", words(source))
        }
        _ => format!("{name} cannot be stored"),
    }
}

/// The system's words alone: whatever else an error carries may tell of this machine.
fn words(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.kind().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ChunkSize;

    /// Every error, with this side's path, URL and address wherever it has a place for text.
    fn errors() -> Vec<Error> {
        let ours = || "ws://10.1.2.3:9000/private/inbox?token=SECRET".to_owned();
        let io = |kind: io::ErrorKind| io::Error::new(kind, ours());
        let storage = |source| StorageError::Io { operation: "open", path: ours(), source };
        let digest = crate::protocol::FileDigest::from(blake3::hash(b""));
        let name = || "photo.jpg".to_owned();
        vec![
            SourceError::Changed { path: ours().into(), what: "its size".into() }.into(),
            SourceError::NotAFile(ours().into()).into(),
            storage(io(io::ErrorKind::Other)).into(),
            storage(io(io::ErrorKind::StorageFull)).into(),
            storage(io::Error::from_raw_os_error(2)).into(),
            StorageError::Exists { name: name() }.into(),
            StorageError::NotAFile { name: name() }.into(),
            StorageError::Gone.into(),
            StorageError::Busy { name: name() }.into(),
            StorageError::NoSpace { name: name(), needed: 2, free: 1 }.into(),
            StorageError::NewerJournal { name: name(), version: 9 }.into(),
            StorageError::Mismatch { name: name(), expected: digest, actual: digest }.into(),
            Error::Violation {
                peer: ours(),
                violation: Violation::field("chunk.offset", "0", ChunkSize::auto(0).raw()),
            },
            TransportError::Frame { address: ours(), why: "a frame with reserved bits".into() }.into(),
            TransportError::Lost { address: ours(), why: ours() }.into(),
            TransportError::Connect { address: ours(), source: io(io::ErrorKind::Other) }.into(),
            Error::Refused { peer: ours(), name: name(), code: Code::Busy, reason: ours(), again: true },
            Error::Declined { peer: ours(), name: name(), code: Code::Busy, reason: ours() },
            Error::PeerEnded { peer: ours(), code: Code::Other, reason: ours(), again: false },
            Error::Stalled { peer: ours(), silence: Duration::ZERO },
            Error::Stopped,
        ]
    }

    #[test]
    fn what_a_peer_is_told_holds_nothing_of_this_side() {
        for error in errors() {
            let Some((_, told)) = error.told("photo.jpg") else { continue };
            for ours in ["SECRET", "10.1.2.3", "9000", "/", "ws:"] {
                assert!(!told.contains(ours), "{told}");
            }
        }
        let told: Vec<_> = errors().iter().filter_map(|error| error.told("photo.jpg")).collect();
        assert_eq!(told.len(), 15, "{told:?}");
        assert!(told.contains(&(
            Code::Storage,
            "cannot open photo.jpg: No such file or directory (os error 2)".to_owned()
        )));
    }
}
