//! A value of every variant of the library's errors, or several where what it says branches; but for the transport's.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use wsferry::protocol::chunk::ChunkError;
use wsferry::protocol::codec::BadText;
use wsferry::protocol::{Code, FileDigest, MAX_FILE, MAX_NAKS, NameError, NotOffered, Role, Violation};
use wsferry::storage::{
    FilterError, MOST_KEPT, Obstacle, SkipReason, Skipped, SourceError, Special, StorageError, Warning,
};
use wsferry::transfer::Error;
use wsferry::transfer::probe::Refusal;
use wsferry::transport::TransportError;

use super::NAME;

/// Who is at the other end, as it is named while a connection is there.
pub const PEER: &str = "192.0.2.7:51234";

/// What the system says of these; the numbers are the same wherever it is a Unix.
const NOT_FOUND: i32 = 2;
const NOT_PERMITTED: i32 = 1;
const NO_SPACE: i32 = 28;
const BROKEN_PIPE: i32 = 32;

fn system(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

fn path() -> PathBuf {
    PathBuf::from(format!("pictures/{NAME}"))
}

fn name() -> String {
    NAME.to_owned()
}

fn peer() -> String {
    PEER.to_owned()
}

pub fn names() -> Vec<NameError> {
    vec![
        NameError::Empty,
        NameError::TooLong(300),
        NameError::PathTooLong(5000),
        NameError::Dots,
        NameError::Separator,
        NameError::Control('\u{7}'),
        NameError::NotUtf8,
        NameError::Reserved,
    ]
}

/// One of each, and one for each fault of a name.
pub fn sources(names: Vec<NameError>) -> Vec<SourceError> {
    let mut errors = vec![
        SourceError::Io { operation: "open", path: path(), source: system(NOT_FOUND) },
        SourceError::NotAFile(path()),
        SourceError::NoSize("/proc/cpuinfo".into()),
        SourceError::TooLarge { path: path(), size: MAX_FILE + 1 },
        SourceError::Replaced(path()),
        SourceError::Gone { name: name(), offset: 3 << 20 },
        SourceError::Changed { path: path(), what: "it had 10 bytes and has 20".to_owned() },
    ];
    errors.extend(names.into_iter().map(|error| SourceError::Name { path: path(), error }));
    errors
}

pub fn obstacles() -> Vec<Obstacle> {
    vec![Obstacle::MountPoint, Obstacle::Immutable, Obstacle::Sticky]
}

/// One of each, and one for each obstacle.
pub fn storage(obstacles: Vec<Obstacle>) -> Vec<StorageError> {
    let (expected, actual) =
        (FileDigest::from(blake3::hash(b"one")), FileDigest::from(blake3::hash(b"other")));
    let what = |what: &str| what.to_owned();
    let mut errors = vec![
        StorageError::Io { operation: "write", path: name(), source: system(NOT_PERMITTED) },
        StorageError::Io { operation: "write", path: name(), source: system(NO_SPACE) },
        StorageError::Gone,
        StorageError::Exists { name: name() },
        StorageError::Taken { name: name() },
        StorageError::Outdated { name: name() },
        StorageError::NotAFile { name: name() },
        StorageError::NoDirectory { path: what("pictures"), what: "is a link" },
        StorageError::LinkOutside { name: name() },
        StorageError::NoName { name: name(), source: system(NOT_PERMITTED) },
        StorageError::Unreliable { name: name(), what: "it cannot be read" },
        StorageError::Busy { name: name() },
        StorageError::Disturbed { name: name() },
        StorageError::NotOurs { what: "belongs to another user" },
        StorageError::NotPrivate,
        StorageError::NoLocks,
        StorageError::NoSpace { name: name(), needed: 2_000_000, free: 1_000_000 },
        StorageError::TooLarge { name: name(), size: 2_000_000, most: 1_000_000 },
        StorageError::TooMany { name: name(), most: 100 },
        StorageError::NoBench,
        StorageError::NewerJournal { name: name(), version: 9 },
        StorageError::Mismatch { name: name(), expected, actual },
        StorageError::NoPlainFile { name: what("pictures") },
        StorageError::NotTheFirst { name: name(), first: what("first.jpg") },
        StorageError::Closed { name: name(), written: 1000, source: system(BROKEN_PIPE) },
        StorageError::Left {
            name: name(),
            written: 1000,
            what: what("what is offered now is another version of it"),
        },
        StorageError::TooFar { name: name(), most: MOST_KEPT },
    ];
    errors.extend(obstacles.into_iter().map(|obstacle| StorageError::Fixed { name: name(), obstacle }));
    errors
}

pub fn violations() -> Vec<Violation> {
    vec![
        Violation::Field {
            field: "offer.size",
            expected: "at most 9007199254740991".to_owned(),
            came: "9007199254740992".to_owned(),
        },
        Violation::Unexpected { came: "offer", state: "files were being sent" },
        Violation::Malformed {
            why: "missing field `id` at line 1 column 16".to_owned(),
            came: "{\"type\":\"offer\"}".to_owned(),
        },
        Violation::DamagedMessage,
        Violation::Damaged(MAX_NAKS + 1),
    ]
}

pub fn violated(violation: Violation) -> Error {
    Error::Violation { peer: peer(), violation }
}

pub fn codes() -> Vec<Code> {
    use Code::{
        Busy, Destination, Digest, Discard, Exists, Journal, Kind, Name, Other, Protocol, Role, Shutdown,
        Source, Storage, TooLarge,
    };
    vec![
        Exists,
        Busy,
        Name,
        Kind,
        TooLarge,
        Storage,
        Destination,
        Journal,
        Digest,
        Source,
        Shutdown,
        Role,
        Discard,
        Protocol,
        Other,
    ]
}

/// What a peer says of itself, which may be anything.
fn reason(code: Code) -> String {
    format!("THE PEER'S WORDS FOR {code:?}")
}

pub fn refused(codes: &[Code]) -> Vec<Error> {
    let refused =
        |&code| Error::Refused { peer: peer(), name: name(), code, reason: reason(code), again: false };
    codes.iter().map(refused).collect()
}

pub fn declined(codes: &[Code]) -> Vec<Error> {
    let declined = |&code| Error::Declined { peer: peer(), name: name(), code, reason: reason(code) };
    codes.iter().map(declined).collect()
}

pub fn ended(codes: &[Code]) -> Vec<Error> {
    let ended = |&code| Error::PeerEnded { peer: peer(), code, reason: reason(code), again: false };
    codes.iter().map(ended).collect()
}

pub fn not_offered() -> Vec<NotOffered> {
    vec![NotOffered::NoTrees, NotOffered::NoLateSize, NotOffered::TooLong { needed: 5000, limit: 2048 }]
}

/// What cannot be offered is told as what was refused.
pub fn unoffered(errors: &[NotOffered]) -> Vec<Error> {
    let refused = |error: &NotOffered| {
        let (code, reason) = (Code::Kind, error.to_string());
        Error::Refused { peer: peer(), name: name(), code, reason, again: false }
    };
    errors.iter().map(refused).collect()
}

fn lost() -> Box<Error> {
    Box::new(TransportError::Lost { address: peer(), why: "it hung up".to_owned() }.into())
}

/// What may end a connection of either side.
pub fn connection() -> Vec<Error> {
    vec![
        Error::SameRole { peer: peer(), role: Role::Sender },
        Error::SameRole { peer: peer(), role: Role::Receiver },
        Error::Stalled { peer: peer(), silence: Duration::from_secs(60) },
        Error::Stopped,
    ]
}

/// What ends all connections that a side may make.
pub fn connections() -> Vec<Error> {
    vec![
        Error::TooNarrow { peer: peer(), last: lost() },
        Error::GaveUp { attempts: 1, last: lost() },
        Error::GaveUp { attempts: 12, last: lost() },
    ]
}

pub fn receiving() -> Vec<Error> {
    vec![Error::NothingOffered { peer: peer() }, Error::TakenOver]
}

pub fn texts() -> Vec<BadText> {
    vec![
        BadText::Character { offset: 7, found: b'!' },
        BadText::Character { offset: 7, found: 0 },
        BadText::End { offset: 9 },
    ]
}

pub fn plain_receiving(texts: Vec<BadText>) -> Vec<Error> {
    let mut errors = vec![
        Error::TooLarge { peer: peer(), limit: 1_000_000 },
        Error::Unread { peer: peer(), silence: Duration::from_secs(60) },
    ];
    errors.extend(texts.into_iter().map(|error| Error::BadText { peer: peer(), error }));
    errors
}

pub fn plain_sending() -> Vec<Error> {
    vec![
        Error::EchoDiffers { peer: peer(), offset: 7, sent: Some(b'A'), came: b'B' },
        Error::EchoDiffers { peer: peer(), offset: 7, sent: None, came: b'\n' },
        Error::EchoEnds { peer: peer(), offset: 7, expected: 12 },
        Error::EchoIsBinary { peer: peer() },
    ]
}

pub fn specials() -> Vec<Special> {
    vec![Special::Pipe, Special::Socket, Special::Device, Special::Unknown]
}

pub fn skips() -> Vec<SkipReason> {
    vec![
        SkipReason::Link,
        SkipReason::LeadsOutside { target: "../../etc".to_owned() },
        SkipReason::LeadsNowhere,
        SkipReason::Loop,
        SkipReason::Special(Special::Pipe),
        SkipReason::Excluded,
        SkipReason::Name(NameError::NotUtf8),
        SkipReason::Taken { first: "one/pictures".into(), to: "pictures".to_owned() },
        SkipReason::Moved,
        SkipReason::Io { operation: "open", source: system(NOT_PERMITTED) },
    ]
}

pub fn skipped(why: SkipReason) -> Skipped {
    Skipped { path: path(), why }
}

pub fn warnings() -> Vec<Warning> {
    let why = || "Operation not supported".to_owned();
    vec![
        Warning::NoLocks(why()),
        Warning::NoExclusiveNames,
        Warning::NoDirectorySync(why()),
        Warning::Time(why()),
        Warning::Mode(why()),
    ]
}

pub fn filters() -> Vec<FilterError> {
    vec![FilterError { glob: "[a".to_owned(), why: "unclosed character class; missing ']'".to_owned() }]
}

pub fn chunks() -> Vec<ChunkError> {
    vec![
        ChunkError::TooShort(10),
        ChunkError::TooLong(5_000_000),
        ChunkError::ZerosLen(10),
        ChunkError::Header(3),
        ChunkError::Body,
        ChunkError::Crc { stated: 1, computed: 2 },
    ]
}

pub fn probed() -> Vec<Refusal> {
    vec![Refusal::Closed(1009), Refusal::Lost, Refusal::Stalled, Refusal::Damaged]
}
