//! The receiving machine: takes an offer, verifies chunks, says when to sync, acknowledges, seals.
//!
//! The caller moves frames and touches the disk: it hands each incoming frame to [`Receiver::handle_frame`],
//! writes the bytes that come out, carries out each [`Action`] and reports back, and sends what
//! [`Receiver::poll_message`] says. At most one action of each kind is under way at a time.

mod vocabulary;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Violation;
use super::arrivals::Arrivals;
use super::assembly::{Assembly, Filled};
use super::blocks::BlockSet;
use super::chunk::{self, Chunk};
use super::digest::{BlockDigest, BlockHashes, FileDigest};
use super::geometry::{BLOCK, Geometry, MAX_FRAME};
use super::heartbeat::{Beat, Heartbeat};
use super::message::{self, Accept, Code, MAX_RUNS, Message, Offer, check_runs, clip, digests_to_text};
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

    /// The partial file is open: accepts the offer.
    ///
    /// # Panics
    /// Unless [`Action::Open`] was given out.
    pub fn opened(&mut self, opened: Opened) {
        assert_eq!(self.state, State::Opening, "an offer is being opened");
        self.complete = opened.complete;
        let received = opened.received.min(self.assembly.geometry().size());
        let (held, begun) = self.begin(opened);
        let message = Accept {
            id: self.id.clone(),
            held: held.runs().map(|run| (run.start, run.end - run.start)).collect(),
            begun,
            received,
            complete: self.complete,
            frame_limit: MAX_FRAME as u64,
            window: self.window,
            discard: self.discard,
        };
        self.outbox.push_back(Message::Accept(message));
        self.events
            .push_back(ReceiverEvent::Accepted { held: self.assembly.filled(), complete: self.complete });
    }

    /// What [`Action::Seal`] was to give its name, or to compare, is something else by now, and there is a partial file with
    /// this in it: asks for what is missing.
    ///
    /// # Panics
    /// Unless sealing was asked for.
    pub fn differs(&mut self, opened: Opened) {
        assert_eq!(self.state, State::Finishing, "a file is being sealed");
        let was_complete = std::mem::take(&mut self.complete);
        self.begin(opened);
        let missing = self.assembly.missing();
        if was_complete {
            self.events.push_back(ReceiverEvent::Replacing { held: self.assembly.filled() });
        }
        self.ask_for(missing);
    }

    /// Goes on from what there is: gives the blocks that are whole, and the beginnings of others.
    fn begin(&mut self, opened: Opened) -> (BlockSet, Vec<(u64, u64)>) {
        let Opened { held, unhashed, received, complete } = opened;
        let geometry = self.assembly.geometry();
        // What a message cannot list is sent again; files that fill in order have one run.
        let whole: BlockSet = held.runs().chain(unhashed.runs()).collect();
        let listed: BlockSet = whole.runs().take(MAX_RUNS).collect();
        let only_listed = |set: BlockSet| set.runs().flat_map(|run| listed.within(run)).collect::<BlockSet>();
        let (held, unhashed) = (only_listed(held), only_listed(unhashed));
        if !complete {
            self.unchecked = held.clone();
            self.to_hash = unhashed.clone();
        }
        self.syncing = Syncing::new(held.clone());
        self.assembly = Assembly::new(geometry, held, unhashed, received.min(geometry.size()));
        self.state = State::Streaming;
        (listed, self.assembly.begun().collect())
    }

    /// The offer cannot be taken; `again` if the cause may pass. The machine has ended; the connection may carry another
    /// offer.
    ///
    /// # Panics
    /// Unless [`Action::Open`] was given out.
    pub fn refuse(&mut self, code: Code, reason: impl Into<String>, again: bool) {
        assert_eq!(self.state, State::Opening, "an offer is being opened");
        self.state = State::Ended;
        let (name, reason) = (std::mem::take(&mut self.name), clip(&reason.into()).into_owned());
        self.outbox.push_back(Message::Reject { id: self.id.clone(), code, reason: reason.clone(), again });
        self.events.push_back(ReceiverEvent::Refused { name, code, reason });
    }

    /// The last [`Action::Sync`] is done.
    pub fn synced(&mut self, now: Instant) {
        self.syncing.synced();
        self.arrivals.acknowledge_by(now);
        self.go_on();
    }

    /// The hashes of the block that [`Action::HashBlock`] named; `None` if it cannot be read.
    ///
    /// # Panics
    /// If it named another.
    pub fn hashed(&mut self, block: u64, hashes: Option<BlockHashes>, now: Instant) {
        let reading = self.hashing.take_if(|reading| reading.block == block).expect("it was named");
        match hashes {
            _ if reading.stale => {}
            Some(hashes) => {
                if self.assembly.hold(block) {
                    self.syncing.push(block, hashes, now);
                }
            }
            None => {
                if self.assembly.lose_unhashed(block) {
                    self.ask_for_lost(block);
                }
            }
        }
        self.go_on();
    }

    /// Whether the block that [`Action::CheckBlock`] named is what its journal entry says.
    ///
    /// # Panics
    /// If it named another.
    pub fn checked(&mut self, block: u64, same: bool) {
        let reading = self.checking.take_if(|reading| reading.block == block).expect("it was named");
        if !same && !reading.stale && self.assembly.lose(block) {
            self.syncing.forget(block);
            self.ask_for_lost(block);
        }
        self.go_on();
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
                self.assembly = Assembly::new(offer.geometry, BlockSet::new(), BlockSet::new(), 0);
                self.actions.push_back(Action::Open(offer));
            }
            Err(error) => self.refuse(Code::Name, format!("the name is not allowed: {error}"), false),
        }
        Ok(())
    }

    fn handle_chunk(
        &mut self,
        frame: &[u8],
        bytes: &mut Vec<u8>,
        now: Instant,
    ) -> Result<Option<Write>, Violation> {
        self.expect_chunks("chunk")?;
        let Ok(Chunk { sequence, offset, len }) = chunk::decode(frame, bytes) else {
            return self.handle_damage(now);
        };
        self.expect_sequence(sequence)?;
        let filled = self.assembly.fill(offset, &bytes[..len])?;
        if let Some(block) = filled.reopened {
            self.forget(block);
        }
        self.asked.remove(offset / BLOCK);
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
        self.moved = now;
        self.arrivals.push(len as u64, self.window, self.is_filled(), now);
        Ok(Some(Write::Bytes { offset, len }))
    }

    fn handle_zeros(&mut self, frame: &[u8], now: Instant) -> Result<Option<Write>, Violation> {
        self.expect_chunks("zeros")?;
        let Ok(chunk::Zeros { sequence, offset, len }) = chunk::decode_zeros(frame) else {
            return self.handle_damage(now);
        };
        self.expect_sequence(sequence)?;
        for block in self.assembly.check_zeros(offset, len)? {
            if self.assembly.fill_with_zeros(block) {
                self.forget(block);
            }
            self.asked.remove(block);
            self.to_hash.insert(block);
        }
        self.moved = now;
        self.arrivals.push(0, self.window, self.is_filled(), now);
        Ok(Some(Write::Zeros(offset..offset + len)))
    }

    /// A frame that carries a part of the file came damaged.
    fn handle_damage(&mut self, now: Instant) -> Result<Option<Write>, Violation> {
        let sequence = self.arrivals.refuse(now)?;
        self.assembly.expect_gap();
        self.outbox.push_back(Message::Nak { sequence });
        Ok(None)
    }

    fn expect_chunks(&self, came: &'static str) -> Result<(), Violation> {
        if self.state == State::Streaming && !self.complete {
            return Ok(());
        }
        let state = if self.complete { "the file was there already" } else { self.state.describe() };
        Err(Violation::Unexpected { came, state })
    }

    fn expect_sequence(&self, sequence: u64) -> Result<(), Violation> {
        let expected = self.arrivals.sequence();
        if sequence == expected {
            return Ok(());
        }
        Err(Violation::field("chunk.sequence", expected, sequence))
    }

    /// A block that was whole is begun again: nothing that was read of it counts any more.
    fn forget(&mut self, block: u64) {
        self.syncing.forget(block);
        self.unchecked.remove(block);
        self.to_hash.remove(block);
        for reading in [&mut self.checking, &mut self.hashing].into_iter().flatten() {
            reading.stale |= reading.block == block;
        }
    }

    fn handle_check(&mut self, first: u64, count: u64) -> Result<(), Violation> {
        let run = check_runs("check", &[(first, count)], self.assembly.geometry())?.remove(0);
        if self.owed_digests.is_some() || self.complete {
            return Err(Violation::Unexpected { came: "check", state: "no digests were to be asked for" });
        }
        self.owed_digests = Some(run);
        self.go_on();
        Ok(())
    }

    /// Answers `check` once the journal can: a block that is whole and on its way there is waited for.
    fn try_to_answer(&mut self) {
        let Some(Range { start: first, end }) = self.owed_digests.clone().filter(|_| !self.reads_digests)
        else {
            return;
        };
        if let Some(durable) = self.syncing.durable_run(first) {
            let count = (end.min(durable.end) - first).min(message::digests_per_page(self.frame_limit));
            self.reads_digests = true;
            self.actions.push_back(Action::ReadDigests { first, count });
        } else if !self.assembly.is_whole(first) {
            // It was begun again, or got lost: there is nothing worth comparing.
            self.reads_digests = true;
            self.digests(first, &[BlockDigest::NONE]);
        }
    }

    /// Something was done that others may have waited for.
    fn go_on(&mut self) {
        self.try_to_answer();
        self.try_to_seal();
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

    /// A block got lost: asks for it now, or, behind `finish`, with all that is missing.
    fn ask_for_lost(&mut self, block: u64) {
        if self.finish.is_none() {
            self.ask_for(std::iter::once(block..block + 1).collect());
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
