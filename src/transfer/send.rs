//! The sending side: joins the files of a run to a connection.

mod hearing;
mod offering;
mod streams;
mod terms;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncWrite};

use super::content::Content;
use super::pump::{Jobs, Pump, Side};
use super::run::{Run, Transfer};
use super::succession::Succession;
use super::throttle::{Throttle, chunk_at};
use super::{Error, Event, PROGRESS_INTERVAL, Pace, RetryOptions, Summary, hello, tell};
use crate::protocol::{
    Action, BlockDigest, BlockHashes, ChunkSize, DEFAULT_WINDOW, Done, Due, FileDigest, HeartbeatConfig,
    Hello, Link, LinkConfig, LinkEvent, MAX_FRAME, MIN_OFFERS, Path, Receiving, Role, Violation, Write,
};
use crate::runtime;
use crate::storage::{Come, Source, SourceError};
use crate::transport::Connection;
pub(super) use terms::Terms;

/// How to send.
#[derive(Debug, Clone, Copy)]
pub struct SendOptions {
    /// The raw bytes of a chunk, lowered to what the frame limit allows; `None` is
    /// [`ChunkSize::auto`](crate::protocol::ChunkSize::auto).
    pub chunk: Option<ChunkSize>,
    /// The most characters of a frame, header included.
    pub frame_limit: u64,
    /// The most bytes to keep unacknowledged.
    pub window: u64,
    /// The most bytes of files that are sent in a second, over all connections of a run; chunks are no larger than a part
    /// of that.
    pub limit: Option<u64>,
    /// Send what a file has when it is opened; what it grows by meanwhile is left out.
    pub growing: bool,
    /// Send what differs from the file that is there, if the receiver may replace it.
    pub repair: bool,
    /// Take a file that is there with the same size and time for the same: it is neither read nor compared.
    pub quick: bool,
    /// Ask what would become of each file, and send no content: nothing changes at the receiver. [`Event::Foreseen`] tells.
    /// Digests are not offered, since a receiver would go by them, and directories and links are not offered at all.
    pub dry_run: bool,
    /// Have the receiver remove the file once it is checked, if it takes such files: a measurement.
    pub discard: bool,
    /// Between two [`Event::Progress`] of a file at the least.
    pub progress_interval: Duration,
    /// Signs of life.
    pub heartbeat: HeartbeatConfig,
}

impl Default for SendOptions {
    fn default() -> Self {
        Self {
            chunk: None,
            frame_limit: MAX_FRAME as u64,
            window: DEFAULT_WINDOW,
            limit: None,
            growing: false,
            repair: false,
            quick: false,
            dry_run: false,
            discard: false,
            progress_interval: PROGRESS_INTERVAL,
            heartbeat: HeartbeatConfig::default(),
        }
    }
}

impl SendOptions {
    /// The chunk of a file of this size.
    pub(super) fn chunk_for(&self, size: u64) -> ChunkSize {
        let limit = ChunkSize::for_frame_limit(usize::try_from(self.frame_limit).unwrap_or(usize::MAX));
        let chunk = self.chunk.unwrap_or_else(|| ChunkSize::auto(size));
        let chunk = self.limit.map_or(chunk, |rate| chunk.min(chunk_at(rate)));
        limit.map_or(chunk, |limit| chunk.min(limit))
    }
}

/// Sends one file over an open connection: offers it, streams it, waits for the receipt.
///
/// # Errors
/// All that can end a transfer; [`Error::kind`] says what to do. After an error the connection carries nothing more.
pub async fn send_file<S>(
    connection: &mut Connection<S>,
    source: &Arc<Source>,
    options: &SendOptions,
    observer: &mut (dyn FnMut(Event) + Send),
) -> Result<Summary, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let transfer = Transfer::new(0, Content::File(source.clone()));
    let mut run = Run::of(transfer, RetryOptions::default(), false, Path::default());
    let mut result = None;
    let mut watch = |_, event| match event {
        Event::Finished(summary) => result = Some(Ok(summary)),
        Event::Failed(error) => result = Some(Err(error)),
        event => observer(event),
    };
    let link = Link::new(link_config(options, None), Instant::now());
    let (ended, _) = attempt(connection, link, &mut run, Terms::of(options), &mut watch).await;
    if let Err(error) = &ended {
        tell(connection, error, false).await;
    }
    ended?;
    let later = run.later.pop().map(|(_, error)| Err(error));
    result.or(later).expect("a file that is not on its way any more has an end")
}

/// How a connection begins, of whose path nothing is known.
pub(super) fn link_config(options: &SendOptions, session: Option<String>) -> LinkConfig {
    LinkConfig {
        hello: hello(options.frame_limit, options.window, MIN_OFFERS, session, Some(Role::Sender)),
        path: Path::default(),
        receiving: Receiving::default(),
        heartbeat: options.heartbeat,
    }
}

/// Offers and sends what there is in a run, as far as one connection gets, or until the next one is there. What is on its
/// way when the connection ends is ready to be offered again; the receiver is not told of an error yet. Gives the
/// machine back, which another run may go on with as long as the connection stands.
pub(super) async fn attempt<S>(
    connection: &mut Connection<S>,
    mut link: Link,
    run: &mut Run,
    Terms { options, succession, stop, most_open }: Terms<'_>,
    observer: &mut (dyn FnMut(Option<u64>, Event) + Send),
) -> (Result<(), Error>, Link)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    link.hold(false);
    if run.throttle.is_none() {
        run.throttle = options.limit.map(|rate| Throttle::new(rate, Instant::now()));
    }
    let side = Files {
        run,
        options,
        observer,
        open: BTreeMap::new(),
        most_open,
        stop,
        pace: Pace::new(options.progress_interval, Instant::now()),
        peer: connection.peer().to_owned(),
        wire_bytes: connection.wire_bytes(),
        last_left: 0,
        streams: Vec::new(),
        succession,
        carried: false,
    };
    let mut pump = Pump::new(link, side, connection);
    let result = pump.run(connection).await;
    pump.side.wire_bytes = connection.wire_bytes();
    let Pump { mut link, side, .. } = pump;
    side.conclude(&mut link, result.is_err());
    (result, link)
}

/// What came of work on another thread.
enum Outcome {
    Hashed(u32, u64, Result<(BlockHashes, BlockDigest), SourceError>),
    /// Whether the source is what it was: if that is not clear, its digest.
    Confirmed(u32, Result<Option<FileDigest>, SourceError>),
}

/// The files of a run, as the side of a connection.
struct Files<'a> {
    run: &'a mut Run,
    options: &'a SendOptions,
    observer: &'a mut (dyn FnMut(Option<u64>, Event) + Send),
    open: BTreeMap<u32, Transfer>,
    most_open: usize,
    stop: BoxFuture<'static, ()>,
    pace: Pace,
    peer: String,
    wire_bytes: u64,
    /// What the last offer said of how many follow.
    last_left: u64,
    /// Transfers of what cannot be read twice, and has not ended as far as the machine was told; how far it was told.
    streams: Vec<(u32, Come)>,
    /// The connection behind this one.
    succession: Option<&'a mut Succession>,
    /// Something has moved on this one: it was worth its while.
    carried: bool,
}

impl Side for Files<'_> {
    type Outcome = Outcome;

    const FRAMES_PER_TURN: usize = 64;

    fn turn(&mut self, link: &mut Link, _: &mut Jobs<Outcome>, cx: &mut Context<'_>) -> Result<bool, Error> {
        if self.stop.as_mut().poll(cx).is_ready() {
            return Err(Error::Stopped);
        }
        let mut moved = self.look_ahead(link, cx);
        if self.run.looking.is_none()
            && let Some(work) = self.run.prepare(self.options)
        {
            self.run.looking = Some(Box::pin(runtime::spawn_blocking(work)));
        }
        if let Some(looking) = &mut self.run.looking
            && let Poll::Ready(prepared) = looking.as_mut().poll(cx)
        {
            self.run.looking = None;
            for (id, why) in self.run.prepared(prepared) {
                (self.observer)(Some(id), why.event());
            }
            moved = true;
        }
        while !self.leaves()
            && link.may_offer() > 0
            && self.open.len() < self.most_open
            && (link.peer().is_some() || !self.run.begins_with_stream())
            && let Some(transfer) = self.run.take_ready(self.open.is_empty())
        {
            self.offer(transfer, link);
            moved = true;
        }
        Ok(self.follow_streams(link, cx) | moved)
    }

    fn begin(&mut self, action: Action, jobs: &mut Jobs<Outcome>) {
        let number = action.transfer();
        let Some(content) = self.open.get(&number).map(|transfer| transfer.content.clone()) else { return };
        match action {
            Action::HashSource { block, tree, .. } => {
                jobs.push(Box::pin(runtime::spawn_blocking(move || {
                    Outcome::Hashed(number, block, content.hash(block, tree))
                })));
            }
            Action::Confirm { .. } => jobs.push(Box::pin(runtime::spawn_blocking(move || {
                Outcome::Confirmed(number, content.confirm())
            }))),
            _ => unreachable!("nothing is received here"),
        }
    }

    fn end(&mut self, outcome: Outcome, link: &mut Link) -> Result<(), Error> {
        let now = Instant::now();
        match outcome {
            Outcome::Hashed(number, block, hashed) => match hashed {
                Ok((hashes, digest)) => {
                    link.done(number, Done::HashedSource(block, hashes, digest), now);
                    self.tell_progress(number, link, false);
                }
                Err(error) => {
                    link.not_hashed();
                    self.failed(number, error.into(), link);
                }
            },
            Outcome::Confirmed(number, confirmed) => {
                let Some(transfer) = self.open.get_mut(&number) else { return Ok(()) };
                let source = transfer.source().cloned();
                if let Some(source) = source.as_ref().filter(|source| !transfer.said && source.is_elsewhere())
                {
                    transfer.said = true;
                    let path = source.path().display();
                    let what = format!(
                        "{path} is another file, or none, by now; the one that was begun is sent to its end"
                    );
                    (self.observer)(Some(transfer.id), Event::Notice { what });
                }
                match confirmed {
                    Ok(digest) if digest.is_none() || digest == link.digest(number) => {
                        link.done(number, Done::Confirmed, now);
                    }
                    Ok(_) => {
                        let source = source.expect("a file alone has a digest of its own");
                        self.failed(number, source.changed_content().into(), link);
                    }
                    Err(error) => self.failed(number, error.into(), link),
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, due: Due, bytes: &mut [u8], link: &mut Link) -> bool {
        let transfer = self.open.get_mut(&due.transfer).expect("chunks are due of what is open");
        if Some(due.offset + due.len as u64) == transfer.size() {
            self.run.let_go(transfer);
        }
        match transfer.content.read_exact_at(bytes, due.offset) {
            Ok(()) => {
                if let Some(throttle) = &mut self.run.throttle {
                    throttle.take(due.len as u64, Instant::now());
                }
                true
            }
            Err(error) => {
                self.failed(due.transfer, error.into(), link);
                false
            }
        }
    }

    fn pauses(&self, now: Instant) -> Option<Instant> {
        self.run.throttle.map(|throttle| throttle.next()).filter(|next| *next > now)
    }

    fn write(&mut self, _: Write, _: &[u8], _: &mut Link) {
        unreachable!("nothing is received here")
    }

    fn hear(&mut self, event: LinkEvent, link: &mut Link, wire_bytes: u64) -> Result<(), Error> {
        self.wire_bytes = wire_bytes;
        match event {
            LinkEvent::Ended { code, reason, again } => {
                return Err(Error::peer_ended(&self.peer, Role::Sender, code, reason, again));
            }
            LinkEvent::Sender(number, event) => self.hear_of(number, event, link),
            LinkEvent::Receiver(..) => {
                let violation =
                    Violation::Unexpected { came: "offer", state: "this side sends and takes nothing" };
                return Err(Error::Violation { peer: self.peer.clone(), violation });
            }
            LinkEvent::Greeted(hello) => self.greeted(&hello, link)?,
        }
        Ok(())
    }

    fn heard(&mut self, link: &Link, wire_bytes: u64) {
        if self.pace.is_due_at(Instant::now(), wire_bytes) {
            for number in self.open.keys().copied().collect::<Vec<_>>() {
                self.tell_progress(number, link, false);
            }
        }
    }

    fn tells_at(&self) -> Option<Instant> {
        self.pace.wakes_at()
    }

    fn is_over(&self, link: &Link) -> bool {
        self.open.is_empty() && self.run.is_taken() || self.leaves() && link.is_drained()
    }
}

impl Files<'_> {
    /// Somebody who sends as well takes nothing.
    fn greeted(&self, hello: &Hello, link: &Link) -> Result<(), Error> {
        match hello.role {
            Some(role @ Role::Sender) if !link.is_echoed() => {
                Err(Error::SameRole { peer: self.peer.clone(), role })
            }
            _ => Ok(()),
        }
    }

    /// Goes on with the next connection, and holds back what is for that one. Whether anything has changed.
    fn look_ahead(&mut self, link: &mut Link, cx: &mut Context<'_>) -> bool {
        let carried = self.carried;
        let Some(succession) = self.succession.as_mut().filter(|_| carried) else { return false };
        let polled = succession.poll(cx);
        link.hold(succession.is_ready());
        let Poll::Ready(error) = polled else { return false };
        if succession.attempts() == 1 {
            let what = format!("the next connection cannot be opened yet, and this one is kept: {error}");
            (self.observer)(None, Event::Notice { what });
        }
        true
    }

    /// Whether the next connection is there, for what was not sent yet.
    fn leaves(&self) -> bool {
        self.succession.as_ref().is_some_and(|succession| succession.is_ready())
    }
}
