//! The receiving machine: takes an offer, verifies chunks, says when to sync, acknowledges, seals.
//!
//! The caller moves frames and touches the disk: it hands each incoming frame to [`Receiver::handle_frame`],
//! writes the bytes that come out, carries out each [`Action`] and reports back, and sends what
//! [`Receiver::poll_message`] says. At most one action of each kind is under way at a time.

mod arriving;
mod storing;
mod vocabulary;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Violation;
use super::arrivals::Arrivals;
use super::assembly::Assembly;
use super::blocks::BlockSet;
use super::chunk::{self};
use super::digest::{BlockHashes, FileDigest};
use super::geometry::Geometry;
use super::heartbeat::{Beat, Heartbeat};
use super::message::{Message, clip};
use super::syncing::Syncing;
pub use vocabulary::{Action, Opened, ReceiverConfig, ReceiverEvent, Write};

/// How long a sender may hold a name with signs of life alone, as a multiple of the time after which silence is a stall.
const IDLE_STALLS: u32 = 10;
/// Bytes a second of the slowest disk that a sender is waited for, while it reads a file to compare it.
const SLOWEST_SOURCE: u64 = 20_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for an `offer`.
    Idle,
    /// The caller opens the partial file.
    Opening,
    /// Chunks flow.
    Streaming,
    /// `finish` came; what is left is checked, synced and sealed.
    Finishing,
    /// Sealed, refused or failed.
    Ended,
}

impl State {
    fn describe(self) -> &'static str {
        match self {
            Self::Idle => "the receiver waited for `offer`",
            Self::Opening => "the receiver was opening the file",
            Self::Streaming => "the receiver was receiving chunks",
            Self::Finishing => "the receiver was sealing the file",
            Self::Ended => "the transfer had ended",
        }
    }
}

/// A block that is being read back.
#[derive(Debug)]
struct Reading {
    block: u64,
    /// It was begun again meanwhile: what was read counts for nothing.
    stale: bool,
}

impl Reading {
    fn new(block: u64) -> Self {
        Self { block, stale: false }
    }
}

/// The receiving machine for one file on one connection.
#[derive(Debug)]
pub struct Receiver {
    config: ReceiverConfig,
    state: State,
    heartbeat: Heartbeat,
    outbox: VecDeque<Message>,
    pong: Option<u64>,
    actions: VecDeque<Action>,
    events: VecDeque<ReceiverEvent>,

    id: String,
    /// The offered name, made safe to print.
    name: String,
    frame_limit: u64,
    window: u64,
    discard: bool,
    complete: bool,
    arrivals: Arrivals,
    assembly: Assembly,
    syncing: Syncing,
    /// Held blocks to be read back, behind the transfer.
    unchecked: BlockSet,
    checking: Option<Reading>,
    /// Whole blocks to be read back, because they were not filled in order.
    to_hash: BlockSet,
    hashing: Option<Reading>,
    /// These digests were asked for, and the answer is not on its way yet.
    owed_digests: Option<Range<u64>>,
    /// They are being read.
    reads_digests: bool,
    /// When the sender last did something that moves the transfer.
    moved: Instant,
    finish: Option<FileDigest>,
    /// Blocks that a `repair` asked for and that have not been begun since.
    asked: BlockSet,
}

impl Receiver {
    /// A machine that waits for an offer.
    pub fn new(config: ReceiverConfig, now: Instant) -> Self {
        let empty = Geometry::new(0).expect("an empty file is within the limit");
        Self {
            config,
            state: State::Idle,
            heartbeat: Heartbeat::new(config.heartbeat, now),
            outbox: VecDeque::new(),
            pong: None,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            id: String::new(),
            name: String::new(),
            frame_limit: 0,
            window: config.window,
            discard: false,
            complete: false,
            arrivals: Arrivals::default(),
            assembly: Assembly::new(empty, BlockSet::new(), BlockSet::new(), 0),
            syncing: Syncing::default(),
            unchecked: BlockSet::new(),
            checking: None,
            to_hash: BlockSet::new(),
            hashing: None,
            owed_digests: None,
            reads_digests: false,
            moved: now,
            finish: None,
            asked: BlockSet::new(),
        }
    }

    /// Whether an offer came and its transfer has not ended.
    pub fn is_busy(&self) -> bool {
        !matches!(self.state, State::Idle | State::Ended)
    }

    /// Bytes of the file that are there, verified.
    pub fn received(&self) -> u64 {
        self.assembly.filled()
    }

    /// The offset below which everything survives a loss of power.
    pub fn durable(&self) -> u64 {
        self.syncing.durable_run(0).map_or(0, |run| self.assembly.geometry().block_end(run.end - 1))
    }

    /// Chunk frames that came damaged.
    pub fn naks(&self) -> u32 {
        self.arrivals.naks()
    }

    /// The next thing the caller should know.
    pub fn poll_event(&mut self) -> Option<ReceiverEvent> {
        self.events.pop_front()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.is_busy() {
            let limits = (self.config.sync_bytes, self.config.sync_interval);
            // Nothing more is to come, as far as is known here; the sender's `finish` may still be on its way.
            let is_last = self.is_filled() && self.unchecked.is_empty();
            let at_once = is_last || self.state == State::Finishing || self.owed_digests.is_some();
            let due = self.syncing.take_due(self.assembly.geometry(), limits, at_once, now);
            if let Some(blocks) = due {
                return Some(Action::Sync(blocks));
            }
        }
        // Behind the transfer: the first new chunk does not wait for a disk that is busy with old ones.
        let reads = match self.state {
            State::Streaming => {
                self.arrivals.sequence() > 0 || self.is_filled() || self.owed_digests.is_some()
            }
            State::Finishing => true,
            _ => false,
        };
        if self.hashing.is_none()
            && reads
            && let Some(block) = self.to_hash.pop_first()
        {
            self.hashing = Some(Reading::new(block));
            return Some(Action::HashBlock(block));
        }
        if self.checking.is_none()
            && reads
            && let Some(block) = self.unchecked.pop_first()
        {
            self.checking = Some(Reading::new(block));
            return Some(Action::CheckBlock(block));
        }
        None
    }

    /// The next control message to send.
    pub fn poll_message(&mut self, now: Instant) -> Option<Message> {
        let message = self
            .pong
            .take()
            .map(|token| Message::Pong { token, busy: self.is_at_work() })
            .or_else(|| self.outbox.pop_front())
            .or_else(|| self.due_ack(now))?;
        if matches!(message, Message::Digests { .. }) {
            (self.owed_digests, self.reads_digests) = (None, false);
        }
        self.heartbeat.on_sent(now);
        Some(message)
    }

    /// Takes a frame that came from the sender. `Some` are bytes of the file, in `bytes`, to be written before
    /// the next call to this machine.
    pub fn handle_frame(
        &mut self,
        frame: &[u8],
        bytes: &mut Vec<u8>,
        now: Instant,
    ) -> Result<Option<Write>, Violation> {
        self.heartbeat.on_received(now);
        match frame.first() {
            Some(&chunk::KIND) => return self.handle_chunk(frame, bytes, now),
            Some(&chunk::ZEROS_KIND) => return self.handle_zeros(frame, now),
            _ => {}
        }
        let message = Message::parse(frame)?;
        if !matches!(message, Message::Ping { .. } | Message::Pong { .. }) {
            self.moved = now;
        }
        match (self.state, message) {
            (_, Message::Ping { token, .. }) => self.pong = Some(token),
            (_, Message::Pong { token, .. }) => self.heartbeat.on_pong(token),
            (_, Message::Error { code, reason, again }) => {
                self.state = State::Ended;
                let reason = clip(&reason).into_owned();
                self.events.push_back(ReceiverEvent::Failed { code, reason, again });
            }
            (State::Idle, Message::Offer(offer)) => self.handle_offer(offer)?,
            (State::Streaming, Message::Check { first, count }) => self.handle_check(first, count)?,
            (State::Streaming, Message::Finish { id, digest }) => {
                if id != self.id {
                    return Err(Violation::field("finish.id", &self.id, clip(&id)));
                }
                // One that crossed a `repair` on its way counts for nothing: another will follow.
                if self.asked.is_empty() {
                    self.finish = Some(digest);
                    self.state = State::Finishing;
                    self.try_to_seal();
                }
            }
            (state, message) => {
                return Err(Violation::Unexpected { came: message.kind(), state: state.describe() });
            }
        }
        Ok(None)
    }

    /// Whole blocks whose hashes are not in the journal yet: what is worth a last sync when the connection ends.
    pub fn take_unsynced(&mut self) -> Vec<(u64, BlockHashes)> {
        self.syncing.take_waiting()
    }

    /// The offset behind which nothing is worth keeping when the connection ends, if the partial file's last block is not
    /// whole: what came of it without a gap is gone on with.
    pub fn end(&self) -> Option<u64> {
        self.assembly.end()
    }

    /// Asks the sender whether it is there, because somebody else wants the name. Without its answer within `patience` it
    /// counts as gone: [`handle_timeout`](Self::handle_timeout) says so.
    pub fn ask(&mut self, patience: Duration, now: Instant) {
        if let Some(token) = self.heartbeat.ask(patience, now) {
            self.outbox.push_front(Message::Ping { token, busy: self.is_at_work() });
        }
    }

    /// Whether a question to the sender waits for its answer.
    pub fn asks(&self) -> bool {
        self.heartbeat.asks()
    }

    /// All frames that came were handed over. `came`: the beginning of another did, so that the sender is alive.
    pub fn handle_drained(&mut self, came: bool, now: Instant) {
        if came {
            self.heartbeat.on_received(now);
        }
        self.arrivals.drained(now);
    }

    /// When to call the machine again at the latest, asked after [`poll_action`](Self::poll_action) and
    /// [`poll_message`](Self::poll_message) were. What was due at `now` already is not named again: if it has not
    /// been taken, it waits for the socket or the disk and not for the clock.
    pub fn timeout(&self, now: Instant) -> Instant {
        let sync = self.syncing.due_at(self.config.sync_interval);
        let later = [self.arrivals.due_at(), sync].into_iter().flatten().filter(|at| *at > now);
        let idle = self.idle_limit().map(|limit| self.moved + limit);
        later.chain(idle).fold(self.heartbeat.timeout(), Instant::min)
    }

    /// Lets time pass. `Err` is a stall: the sender was silent for that long, or gave nothing but signs of life for much
    /// longer.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Duration> {
        // While it waits for this side it is not idle.
        if self.is_at_work() {
            self.moved = now;
        }
        let idle = now.saturating_duration_since(self.moved);
        if self.idle_limit().is_some_and(|limit| idle >= limit) {
            return Err(idle);
        }
        match self.heartbeat.beat(now) {
            Beat::Quiet => Ok(()),
            Beat::Ping(token) => {
                self.outbox.push_back(Message::Ping { token, busy: self.is_at_work() });
                Ok(())
            }
            Beat::Stalled(silence) => Err(silence),
        }
    }

    /// Whether every byte is there.
    fn is_filled(&self) -> bool {
        self.assembly.filled() == self.assembly.geometry().size()
    }

    /// Whether the sender waits for something that takes its time here.
    fn is_at_work(&self) -> bool {
        matches!(self.state, State::Opening | State::Finishing) || self.owed_digests.is_some()
    }

    /// How long a sender that holds a name may give nothing but signs of life. One that compares a file that is there, or
    /// makes sure that the source is what it was, has to read all of it first.
    fn idle_limit(&self) -> Option<Duration> {
        let reading = if self.complete || self.is_filled() {
            self.assembly.geometry().size() / SLOWEST_SOURCE
        } else {
            0
        };
        let limit = self.config.heartbeat.stall * IDLE_STALLS + Duration::from_secs(reading);
        (self.state == State::Streaming && !self.is_at_work()).then_some(limit)
    }
}
