//! The receiving machine: takes an offer, verifies chunks, says when to sync, acknowledges, seals.
//!
//! The caller moves frames and touches the disk: it hands each incoming frame to [`Receiver::handle_frame`],
//! writes the bytes that come out, carries out each [`Action`] and reports back, and sends what
//! [`Receiver::poll_message`] says. At most one action of each kind is under way at a time.

mod vocabulary;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Violation;
use super::arrivals::Arrivals;
use super::assembly::{Assembly, Filled};
use super::blocks::BlockSet;
use super::chunk;
use super::digest::{BlockDigest, BlockHashes, FileDigest};
use super::geometry::{BLOCK, Geometry, MAX_FRAME};
use super::heartbeat::{Beat, Heartbeat};
use super::message::{self, Accept, Code, MAX_RUNS, Message, Offer, check_runs, clip, digests_to_text};
use super::syncing::Syncing;
pub use vocabulary::{Action, Opened, ReceiverConfig, ReceiverEvent, Write};

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
    /// Digests were asked for, and the answer is not on its way yet.
    owes_digests: bool,
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
            assembly: Assembly::new(empty, BlockSet::new()),
            syncing: Syncing::default(),
            unchecked: BlockSet::new(),
            checking: None,
            to_hash: BlockSet::new(),
            hashing: None,
            owes_digests: false,
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
            let at_once = is_last || self.state == State::Finishing;
            let due = self.syncing.take_due(self.assembly.geometry(), limits, at_once, now);
            if let Some(blocks) = due {
                return Some(Action::Sync(blocks));
            }
        }
        if self.hashing.is_none()
            && self.is_busy()
            && let Some(block) = self.to_hash.pop_first()
        {
            self.hashing = Some(Reading::new(block));
            return Some(Action::HashBlock(block));
        }
        // Behind the transfer: the first new chunk does not wait for a disk that is busy with old ones.
        let checks = match self.state {
            State::Streaming => self.arrivals.sequence() > 0 || self.is_filled(),
            State::Finishing => true,
            _ => false,
        };
        if self.checking.is_none()
            && checks
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
            self.owes_digests = false;
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
        if frame.first() == Some(&chunk::KIND) {
            return self.handle_chunk(frame, bytes, now);
        }
        match (self.state, Message::parse(frame)?) {
            (_, Message::Ping { token, .. }) => self.pong = Some(token),
            (_, Message::Pong { .. }) => {}
            (_, Message::Error { code, reason }) => {
                self.state = State::Ended;
                self.events.push_back(ReceiverEvent::Failed { code, reason: clip(&reason).into_owned() });
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

    /// The partial file is open: accepts the offer.
    ///
    /// # Panics
    /// Unless [`Action::Open`] was given out.
    pub fn opened(&mut self, opened: Opened) {
        assert_eq!(self.state, State::Opening, "an offer is being opened");
        let geometry = self.assembly.geometry();
        // What a message cannot list is sent again; files that fill in order have one run.
        let held: BlockSet = opened.held.runs().take(MAX_RUNS).collect();
        let message = Accept {
            id: self.id.clone(),
            held: held.runs().map(|run| (run.start, run.end - run.start)).collect(),
            received: opened.received.min(geometry.size()),
            complete: opened.complete,
            frame_limit: MAX_FRAME as u64,
            window: self.window,
            discard: self.discard,
        };
        self.complete = opened.complete;
        if !opened.complete {
            self.unchecked = held.clone();
        }
        self.syncing = Syncing::new(held.clone());
        self.assembly = Assembly::new(geometry, held);
        self.state = State::Streaming;
        self.outbox.push_back(Message::Accept(message));
        self.events
            .push_back(ReceiverEvent::Accepted { held: self.assembly.filled(), complete: opened.complete });
    }

    /// The offer cannot be taken. The machine has ended; the connection may carry another offer.
    ///
    /// # Panics
    /// Unless [`Action::Open`] was given out.
    pub fn refuse(&mut self, code: Code, reason: impl Into<String>) {
        assert_eq!(self.state, State::Opening, "an offer is being opened");
        self.state = State::Ended;
        let (name, reason) = (std::mem::take(&mut self.name), clip(&reason.into()).into_owned());
        self.outbox.push_back(Message::Reject { id: self.id.clone(), code, reason: reason.clone() });
        self.events.push_back(ReceiverEvent::Refused { name, code, reason });
    }

    /// The last [`Action::Sync`] is done.
    pub fn synced(&mut self, now: Instant) {
        self.syncing.synced();
        self.arrivals.acknowledge_by(now);
        self.try_to_seal();
    }

    /// The hashes of the block that [`Action::HashBlock`] named.
    ///
    /// # Panics
    /// If it named another.
    pub fn hashed(&mut self, block: u64, hashes: BlockHashes, now: Instant) {
        let reading = self.hashing.take_if(|reading| reading.block == block).expect("it was named");
        if !reading.stale && self.assembly.hold(block) {
            self.syncing.push(block, hashes, now);
        }
        self.try_to_seal();
    }

    /// Whether the block that [`Action::CheckBlock`] named is what its journal entry says.
    ///
    /// # Panics
    /// If it named another.
    pub fn checked(&mut self, block: u64, same: bool) {
        let reading = self.checking.take_if(|reading| reading.block == block).expect("it was named");
        if !same && !reading.stale && self.assembly.lose(block) {
            self.syncing.forget(block);
            if self.finish.is_none() {
                self.ask_for(std::iter::once(block..block + 1).collect());
            }
        }
        self.try_to_seal();
    }

    /// The digests that [`Action::ReadDigests`] asked for, from block `first`.
    pub fn digests(&mut self, first: u64, digests: &[BlockDigest]) {
        self.outbox.push_back(Message::Digests { first, digests: digests_to_text(digests) });
    }

    /// The file has its final name, and the directory is synced: sends the receipt.
    pub fn sealed(&mut self, digest: FileDigest) {
        self.state = State::Ended;
        self.arrivals.stop();
        self.outbox.push_back(Message::Receipt { id: self.id.clone(), digest });
        self.events.push_back(ReceiverEvent::Sealed(digest));
    }

    /// Whole blocks whose hashes are not in the journal yet: what is worth a last sync when the connection ends.
    pub fn take_unsynced(&mut self) -> Vec<(u64, BlockHashes)> {
        self.syncing.take_waiting()
    }

    /// When to call the machine again at the latest, asked after [`poll_action`](Self::poll_action) and
    /// [`poll_message`](Self::poll_message) were. What was due at `now` already is not named again: if it has not
    /// been taken, it waits for the socket or the disk and not for the clock.
    pub fn timeout(&self, now: Instant) -> Instant {
        let sync = self.syncing.due_at(self.config.sync_interval);
        let later = [self.arrivals.due_at(), sync].into_iter().flatten().filter(|at| *at > now);
        later.fold(self.heartbeat.timeout(), Instant::min)
    }

    /// Lets time pass. `Err` is a stall: the sender was silent for that long.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Duration> {
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
        matches!(self.state, State::Opening | State::Finishing) || self.owes_digests
    }

    fn handle_offer(&mut self, offer: Offer) -> Result<(), Violation> {
        let (frame_limit, window, id) = (offer.frame_limit, offer.window, offer.id.clone());
        let (left, session) = (offer.left, offer.session.clone());
        self.discard = offer.discard;
        let name = clip(&offer.name).into_owned();
        let checked = offer.check()?;
        self.events.push_back(ReceiverEvent::Offered { name: name.clone(), left, session });
        (self.id, self.name) = (id, name);
        self.frame_limit = frame_limit;
        self.window = window.min(self.config.window);
        self.state = State::Opening;
        match checked {
            Ok(offer) => {
                self.assembly = Assembly::new(offer.geometry, BlockSet::new());
                self.actions.push_back(Action::Open(offer));
            }
            Err(error) => self.refuse(Code::Name, format!("the name is not allowed: {error}")),
        }
        Ok(())
    }

    fn handle_chunk(
        &mut self,
        frame: &[u8],
        bytes: &mut Vec<u8>,
        now: Instant,
    ) -> Result<Option<Write>, Violation> {
        if self.state != State::Streaming || self.complete {
            let state = if self.complete { "the file was there already" } else { self.state.describe() };
            return Err(Violation::Unexpected { came: "chunk", state });
        }
        let chunk = match chunk::decode(frame, bytes) {
            Ok(chunk) => chunk,
            Err(_) => {
                let sequence = self.arrivals.refuse(now)?;
                self.assembly.expect_gap();
                self.outbox.push_back(Message::Nak { sequence });
                return Ok(None);
            }
        };
        let expected = self.arrivals.sequence();
        if chunk.sequence != expected {
            return Err(Violation::field("chunk.sequence", expected, chunk.sequence));
        }
        let filled = self.assembly.fill(chunk.offset, &bytes[..chunk.len])?;
        self.asked.remove(chunk.offset / BLOCK);
        if let Some(block) = filled.reopened {
            self.syncing.forget(block);
            self.unchecked.remove(block);
            self.to_hash.remove(block);
            for reading in [&mut self.checking, &mut self.hashing].into_iter().flatten() {
                reading.stale |= reading.block == block;
            }
        }
        match filled.completed {
            Filled::No => {}
            Filled::Hashed(block, hashes) => {
                self.assembly.hold(block);
                self.syncing.push(block, hashes, now);
            }
            Filled::Unhashed(block) => {
                self.to_hash.insert(block);
            }
        }
        self.arrivals.push(chunk.len as u64, self.window, self.is_filled(), now);
        Ok(Some(Write { offset: chunk.offset, len: chunk.len }))
    }

    fn handle_check(&mut self, first: u64, count: u64) -> Result<(), Violation> {
        let run = check_runs("check", &[(first, count)], self.assembly.geometry())?.remove(0);
        if self.owes_digests || self.complete {
            return Err(Violation::Unexpected { came: "check", state: "no digests were to be asked for" });
        }
        self.owes_digests = true;
        // Only the journal's entries are given out, and a block that was begun again or lost has none worth comparing.
        let Some(durable) = self.syncing.durable_run(first) else {
            self.digests(first, &[BlockDigest::NONE]);
            return Ok(());
        };
        let count = (run.end.min(durable.end) - first).min(message::digests_per_page(self.frame_limit));
        self.actions.push_back(Action::ReadDigests { first, count });
        Ok(())
    }

    fn due_ack(&mut self, now: Instant) -> Option<Message> {
        let due = self.arrivals.take_due(now);
        due.then(|| Message::Ack { sequence: self.arrivals.sequence(), durable: self.durable() })
    }

    /// Sends `repair` for as many of the blocks as one message lists; a later `finish` brings up the rest.
    fn ask_for(&mut self, blocks: BlockSet) {
        let runs: Vec<_> = blocks.runs().take(MAX_RUNS).collect();
        if !runs.is_empty() {
            let blocks = runs.iter().map(|run| (run.start, run.end - run.start)).collect();
            self.outbox.push_back(Message::Repair { blocks });
            runs.into_iter().for_each(|run| self.asked.insert_run(run));
        }
    }

    /// After `finish`: asks for what is missing, or seals once everything is checked and durable.
    fn try_to_seal(&mut self) {
        let Some(digest) = self.finish else { return };
        let hashed = self.hashing.is_none() && self.to_hash.is_empty();
        let checked = self.checking.is_none() && self.unchecked.is_empty();
        if !hashed || !checked {
            return;
        }
        let missing = self.assembly.missing();
        if !missing.is_empty() {
            self.ask_for(missing);
            self.finish = None;
            self.state = State::Streaming;
        } else if self.syncing.is_over() {
            self.finish = None;
            self.actions.push_back(Action::Seal(digest));
        }
    }
}
