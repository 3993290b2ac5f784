//! The receiving side: decodes and writes a message as it comes, and sends it back.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncWrite, Future};

use super::coming::{Coming, Refused};
use super::name::numbered;
use super::{Life, last_words};
use crate::protocol::{Code, FileName, HeartbeatConfig, OfferKind, Progress};
use crate::runtime;
use crate::storage::{PlainInbox, StorageError, Warning};
use crate::transfer::{
    CLOSE_TIMEOUT, Error, Event, PROGRESS_INTERVAL, Pace, Shutdown, Summary, TURNS_PER_POLL,
};
use crate::transport::{Connection, Gathered, Kind, Piece, TransportError};

/// Pieces taken before what goes back is written.
const PIECES_PER_TURN: usize = 64;
/// The least and the most bytes of a fragment that goes back, and in how many fragments it would be what has gone back so
/// far: they grow, since there are libraries that take 4,096 fragments of a message and no more.
const FRAGMENT: usize = 128 * 1024;
const LARGEST_FRAGMENT: usize = 1 << 20;
const FRAGMENTS: u64 = 512;
/// How to receive without the protocol.
#[derive(Debug, Clone, Copy)]
pub struct PlainReceiveOptions {
    /// The most bytes of a file, if there are fewer than the destination has room for.
    pub limit: u64,
    /// Cut after this long without a byte that moved.
    pub stall: Duration,
}

impl Default for PlainReceiveOptions {
    fn default() -> Self {
        Self { limit: u64::MAX, stall: HeartbeatConfig::default().stall }
    }
}

/// Receives one message over an open connection, the `number`th there, as a file: under this name, or under one that
/// it gets. The last of it goes back once the file is durable under its final name.
///
/// `Ok(None)` if the peer closed the connection instead of sending one. What ends in the middle leaves nothing.
///
/// # Errors
/// All that can end a transfer. The peer has been told, and the connection is closed.
pub async fn receive_plain<S>(
    connection: &mut Connection<S>,
    inbox: &PlainInbox,
    (name, number): (Option<&FileName>, u64),
    options: &PlainReceiveOptions,
    shutdown: Shutdown,
    observer: &mut (dyn FnMut(Event) + Send),
) -> Result<Option<Summary>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let now = Instant::now();
    let mut pump = Pump {
        inbox,
        name,
        number,
        options,
        observer,
        shutdown,
        coming: None,
        back: Gathered::default(),
        gone_back: 0,
        sealing: None,
        done: None,
        life: Life::new(options.stall, now),
        pace: Pace::new(PROGRESS_INTERVAL, now),
        wire_before: connection.wire_bytes(),
    };
    let received = poll_fn(|cx| pump.poll(connection, cx)).await;
    let error = match received {
        Ok(summary) => return Ok(Some(summary)),
        Err(error) => error,
    };
    // The file may have got its final name although nobody is left to tell.
    if let Some(Sealing { job, mut summary, .. }) = pump.sealing.take()
        && let Ok(sealed) = job.await
    {
        sealed_as(&mut summary, sealed);
        pump.done = Some(summary);
    }
    if pump.done.is_some() {
        return Ok(pump.done);
    }
    let hung_up =
        matches!(error, Error::Transport(TransportError::Closed { .. } | TransportError::Lost { .. }));
    if hung_up && pump.coming.is_none() {
        return Ok(None);
    }
    drop(pump);
    if let Some((code, reason)) = goodbye(&error) {
        runtime::timeout(CLOSE_TIMEOUT, connection.close_with(code, &reason)).await;
    }
    Err(error)
}

/// Why a file is not stored of which so many bytes have come. Nobody knew how large it is: where the disk is full, it is too
/// large.
fn not_stored(error: StorageError, peer: &str, came: u64) -> Error {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match &error {
        StorageError::Io { source, .. }
            if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge) =>
        {
            Error::TooLarge { peer: peer.to_owned(), limit: came }
        }
        _ => error.into(),
    }
}

/// Completes the summary once the file has its name.
fn sealed_as(summary: &mut Summary, (name, warnings): (String, Vec<Warning>)) {
    summary.name = name;
    summary.warnings = warnings.iter().map(Warning::to_string).collect();
}

/// What the peer is told of an error that it does not know of. Nothing of this side is in it.
fn goodbye(error: &Error) -> Option<(u16, String)> {
    let (code, reason) = match error {
        Error::BadText { error, .. } => (1007, error.to_string()),
        Error::TooLarge { limit, .. } => (1009, format!("a file has at most {limit} bytes here")),
        Error::Storage(error) if error.code() == Code::Exists => {
            (1008, "there is something of that name already".to_owned())
        }
        Error::Storage(StorageError::Busy { .. }) => {
            (1008, "another transfer is writing that name".to_owned())
        }
        Error::Storage(_) => (1011, "the file could not be written".to_owned()),
        Error::Transport(TransportError::Frame { why, .. }) => (1002, why.clone()),
        Error::Transport(TransportError::Crowded { .. }) => (1009, "smaller frames can be read".to_owned()),
        Error::Unread { .. } => (1008, "what is sent back was not read for too long".to_owned()),
        Error::Stalled { .. } => (1008, "nothing came for too long".to_owned()),
        Error::Stopped => (1001, "the receiver is stopped".to_owned()),
        _ => return None,
    };
    Some((code, reason))
}

/// Sealing, on a thread that may block: the file's name, and what the file system would not do for it.
type SealJob = Pin<Box<dyn Future<Output = Result<(String, Vec<Warning>), StorageError>> + Send>>;

/// A file that has come and is being made durable.
struct Sealing {
    job: SealJob,
    kind: Kind,
    /// All but the name.
    summary: Summary,
}

struct Pump<'a> {
    inbox: &'a PlainInbox,
    name: Option<&'a FileName>,
    number: u64,
    options: &'a PlainReceiveOptions,
    observer: &'a mut (dyn FnMut(Event) + Send),
    shutdown: Shutdown,
    coming: Option<Coming>,
    /// What will go back with the next fragment, and how much has gone.
    back: Gathered,
    gone_back: u64,
    sealing: Option<Sealing>,
    done: Option<Summary>,
    life: Life,
    pace: Pace,
    wire_before: u64,
}

impl Pump<'_> {
    fn poll<S>(
        &mut self,
        connection: &mut Connection<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Summary, Error>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for _ in 0..TURNS_PER_POLL {
            if self.sealing.is_none() && Pin::new(&mut self.shutdown).poll(cx).is_ready() {
                return Poll::Ready(Err(Error::Stopped));
            }
            let mut moved = self.read(connection, cx)?;
            moved |= self.sealed(connection, cx)?;
            let flushed = connection.poll_flush(cx).map_err(|error| last_words(connection, error, cx))?;
            if flushed.is_ready()
                && let Some(mut summary) = self.done.take()
            {
                summary.wire_bytes = connection.wire_bytes() - self.wire_before;
                return Poll::Ready(Ok(summary));
            }
            if !moved {
                let is_busy = self.sealing.is_some();
                if let Poll::Ready(silence) = self.life.poll_stalled(connection, is_busy, cx)? {
                    let peer = connection.peer().to_owned();
                    return Poll::Ready(Err(if flushed.is_pending() {
                        Error::Unread { peer, silence }
                    } else {
                        Error::Stalled { peer, silence }
                    }));
                }
                return Poll::Pending;
            }
        }
        // There is more to do; others have a turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes pieces as long as there is space for what goes back: who does not read is not read from.
    fn read<S>(&mut self, connection: &mut Connection<S>, cx: &mut Context<'_>) -> Result<bool, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for turn in 0..PIECES_PER_TURN {
            if self.sealing.is_some() || self.done.is_some() {
                return Ok(turn > 0);
            }
            let ready = connection.poll_ready(cx).map_err(|error| last_words(connection, error, cx))?;
            if ready.is_pending() {
                return Ok(turn > 0);
            }
            let Poll::Ready(piece) = connection.poll_piece(cx) else { return Ok(turn > 0) };
            self.take(connection, piece?)?;
        }
        Ok(true)
    }

    fn take<S>(&mut self, connection: &mut Connection<S>, piece: Piece) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let peer = || connection.peer().to_owned();
        if piece.first {
            self.coming = Some(self.begin(piece.kind)?);
        }
        let coming = self.coming.as_mut().expect("a piece that is not the first has one before it");
        let came = coming.file.len();
        coming.take(connection.bytes(&piece), piece.last).map_err(|refused| match refused {
            Refused::Text(error) => Error::BadText { peer: peer(), error },
            Refused::Storage(error) => not_stored(error, connection.peer(), came),
        })?;
        if coming.len() > coming.limit {
            return Err(Error::TooLarge { peer: peer(), limit: coming.limit });
        }
        if coming.is_to_be_named(piece.last) {
            coming.name_it();
            let (name, kind) = (coming.file.name().to_owned(), OfferKind::File);
            (self.observer)(Event::Started { name, kind, size: None, peer: peer() });
        }
        let acknowledged = coming.len();
        if coming.is_named() && (self.pace.is_due(Instant::now()) || piece.last) {
            (self.observer)(Event::Progress(Progress { acknowledged, ..Progress::default() }));
        }
        self.back.extend(connection.bytes(&piece));
        let enough = (self.gone_back / FRAGMENTS).clamp(FRAGMENT as u64, LARGEST_FRAGMENT as u64);
        if piece.last {
            self.seal(connection.peer(), piece.kind);
        } else if self.back.len() as u64 >= enough {
            self.send_back(connection, piece.kind, false);
        }
        Ok(())
    }

    fn send_back<S>(&mut self, connection: &mut Connection<S>, kind: Kind, last: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.gone_back += self.back.len() as u64;
        connection.send_gathered(kind, last, &mut self.back);
    }

    fn begin(&mut self, kind: Kind) -> Result<Coming, Error> {
        let name = match self.name.map(|name| numbered(name, self.number)) {
            // Too long with its number: then it gets none of its own.
            None | Some(Err(_)) => None,
            Some(Ok(name)) => Some(name),
        };
        let told = name.as_ref().map_or_else(String::new, FileName::to_string);
        (self.observer)(Event::Offered { name: told, left: 0, session: None });
        let file = self.inbox.begin(name.as_ref())?;
        Ok(Coming::new(file, kind == Kind::Text, self.options.limit))
    }

    fn seal(&mut self, peer: &str, kind: Kind) {
        let Coming { file, hasher, started, .. } = self.coming.take().expect("it has come");
        let (len, digest) = (file.len(), hasher.finalize().into());
        let summary = Summary {
            name: String::new(),
            kind: OfferKind::File,
            peer: peer.to_owned(),
            digest: Some(digest),
            elapsed: started.elapsed(),
            progress: Progress { total: Some(len), acknowledged: len, durable: len, ..Progress::default() },
            complete: false,
            discarded: false,
            warnings: Vec::new(),
            wire_bytes: 0,
        };
        let job = Box::pin(runtime::spawn_blocking(move || file.seal(digest)));
        self.sealing = Some(Sealing { job, kind, summary });
    }

    /// Once the file is durable the rest goes back.
    fn sealed<S>(&mut self, connection: &mut Connection<S>, cx: &mut Context<'_>) -> Result<bool, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(sealing) = &mut self.sealing else { return Ok(false) };
        let Poll::Ready(sealed) = sealing.job.as_mut().poll(cx) else { return Ok(false) };
        let Sealing { kind, mut summary, .. } = self.sealing.take().expect("it is there");
        let came = summary.size();
        let sealed = sealed.map_err(|error| not_stored(error, connection.peer(), came))?;
        sealed_as(&mut summary, sealed);
        self.send_back(connection, kind, true);
        self.done = Some(summary);
        Ok(true)
    }
}
