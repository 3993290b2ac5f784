//! The sending machine: offers a file, says which bytes go next, settles what was acknowledged.
//!
//! The caller moves frames and reads bytes: it asks [`Sender::poll_message`] and [`Sender::next_chunk`] for
//! what to send, hands each incoming frame to [`Sender::handle_frame`], and hashes the blocks that
//! [`Sender::next_check`] names, behind the transfer.

mod vocabulary;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Violation;
use super::blocks::BlockSet;
use super::check::{Check, Need};
use super::chunk;
use super::digest::{BlockHasher, BlockHashes, DigestTree, FileDigest};
use super::flight::{Flight, Sent};
use super::geometry::{ChunkSize, Geometry, MIN_FRAME_LIMIT};
use super::heartbeat::{Beat, Heartbeat};
use super::message::{Accept, Message, Offer, check_runs, clip};
pub use vocabulary::{Progress, SenderConfig, SenderEvent};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Offered; waits for `accept` or `reject`.
    Offered,
    /// Chunks flow.
    Streaming,
    /// Nothing is left to send or compare; waits for the caller's `finish`.
    Ready,
    /// `finish` went out; waits for `receipt` or `repair`.
    Finishing,
    /// Receipted, rejected or failed.
    Ended,
}

impl State {
    fn describe(self) -> &'static str {
        match self {
            Self::Offered => "the sender waited for `accept`",
            Self::Streaming | Self::Ready => "the sender was sending chunks",
            Self::Finishing => "the sender waited for `receipt`",
            Self::Ended => "the transfer had ended",
        }
    }
}

#[derive(Debug)]
struct Cursor {
    block: u64,
    offset: u64,
    /// `None` if the block was hashed before.
    hasher: Option<BlockHasher>,
}

/// The sending machine for one file on one connection.
#[derive(Debug)]
pub struct Sender {
    id: String,
    discard: bool,
    geometry: Geometry,
    frame_limit: u64,
    window: u64,
    chunk: ChunkSize,
    state: State,
    heartbeat: Heartbeat,
    /// When the receiver last did something that this side waits for, or this side began to wait.
    moved: Instant,
    outbox: VecDeque<Message>,
    pong: Option<u64>,
    events: VecDeque<SenderEvent>,

    /// Blocks still to be sent.
    pending: BlockSet,
    cursor: Option<Cursor>,
    flight: Flight,
    /// The offset below which sending a byte means sending it again.
    sent_before: u64,
    sent_up_to: u64,

    tree: DigestTree,
    hashed: BlockSet,
    check: Check,
    /// How many blocks the receiver has asked for with `repair`.
    asked_for: u64,
    progress: Progress,
}

/// How many blocks one connection may ask for with `repair`, beyond each block twice.
const MAX_REPAIRS: u64 = 100;

impl Sender {
    /// A machine that will offer this file.
    ///
    /// # Panics
    /// If the offer's fields are out of their bounds.
    pub fn new(offer: Offer, config: SenderConfig, now: Instant) -> Self {
        let geometry = Geometry::new(offer.size).expect("an offer's size is within the protocol's limit");
        assert!(offer.window > 0 && offer.frame_limit >= MIN_FRAME_LIMIT as u64);
        let progress = Progress { total: offer.size, ..Progress::default() };
        Self {
            id: offer.id.clone(),
            discard: offer.discard,
            geometry,
            frame_limit: offer.frame_limit,
            window: offer.window,
            chunk: config.chunk,
            state: State::Offered,
            heartbeat: Heartbeat::new(config.heartbeat, now),
            moved: now,
            outbox: VecDeque::from([Message::Offer(offer)]),
            pong: None,
            events: VecDeque::new(),
            pending: BlockSet::new(),
            cursor: None,
            flight: Flight::default(),
            sent_before: config.already_sent,
            sent_up_to: config.already_sent,
            tree: DigestTree::new(geometry),
            hashed: BlockSet::new(),
            asked_for: 0,
            check: Check::default(),
            progress,
        }
    }

    /// How far the transfer is.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The offset behind the last byte that was ever sent: what the next connection's
    /// [`SenderConfig::already_sent`] is.
    pub fn sent_up_to(&self) -> u64 {
        self.sent_up_to
    }

    /// The next thing the caller should know.
    pub fn poll_event(&mut self) -> Option<SenderEvent> {
        self.events.pop_front()
    }

    /// The next control message to send. Ask before [`next_chunk`](Self::next_chunk).
    pub fn poll_message(&mut self, now: Instant) -> Option<Message> {
        let message = match self.pong.take() {
            Some(token) => Message::Pong { token, busy: false },
            None => self.outbox.pop_front()?,
        };
        self.heartbeat.on_sent(now);
        if !matches!(message, Message::Ping { .. } | Message::Pong { .. }) {
            self.moved = now;
        }
        Some(message)
    }

    /// Which bytes go next: offset and length. `None` if the window is closed or nothing is left.
    pub fn next_chunk(&mut self) -> Option<(u64, usize)> {
        if self.state != State::Streaming {
            return None;
        }
        let (offset, len) = match self.flight.damaged() {
            Some(sent) => (sent.offset, u64::from(sent.len)),
            None => {
                if self.cursor.is_none() {
                    self.cursor = self.pending.pop_first().map(|block| self.start_block(block));
                }
                let cursor = self.cursor.as_ref()?;
                let left = self.geometry.block_end(cursor.block) - cursor.offset;
                (cursor.offset, self.chunk.raw().min(left))
            }
        };
        self.flight.has_room(len, self.window).then_some((offset, len as usize))
    }

    /// Writes the frame of the chunk that [`next_chunk`](Self::next_chunk) named, from its bytes, into `frame`,
    /// which must have [`chunk::frame_len`]`(bytes.len())` characters.
    ///
    /// # Panics
    /// If there is no next chunk, or `bytes` has another length.
    pub fn encode_chunk(&mut self, bytes: &[u8], frame: &mut [u8], now: Instant) {
        let (offset, len) = self.next_chunk().expect("a chunk is due");
        assert_eq!(bytes.len(), len, "the chunk's length was said before");
        let sent = match self.flight.take_damaged() {
            Some(sent) => {
                self.progress.resent += len as u64;
                sent
            }
            None => self.advance(offset, bytes),
        };
        chunk::encode(self.flight.sequence(), offset, bytes, frame);
        if self.flight.is_empty() {
            self.moved = now;
        }
        self.flight.push(sent);
        self.sent_up_to = self.sent_up_to.max(offset + len as u64);
        self.heartbeat.on_sent(now);
    }

    /// The held block to hash next, behind the transfer. Each is named once; answer with
    /// [`handle_checked`](Self::handle_checked).
    pub fn next_check(&mut self) -> Option<u64> {
        if self.state != State::Streaming {
            return None;
        }
        match self.check.next(self.frame_limit) {
            Need::Nothing => None,
            Need::Hashes(block) => Some(block),
            Need::Digests(message) => {
                self.outbox.push_back(message);
                None
            }
        }
    }

    /// The hashes of the block that [`next_check`](Self::next_check) named.
    ///
    /// # Panics
    /// If it named another.
    pub fn handle_checked(&mut self, block: u64, hashes: &BlockHashes) {
        self.tree.insert(block, hashes);
        self.hashed.insert(block);
        self.progress.verified += self.geometry.block_len(block);
        if !self.check.compare(block, hashes) {
            self.pending.insert(block);
            self.progress.repaired_blocks += 1;
        }
        self.settle();
    }

    /// The digest of what was sent, once each block was hashed.
    pub fn digest(&self) -> Option<FileDigest> {
        self.tree.digest()
    }

    /// The source is what it was: sends `finish`. Does nothing if the receiver has asked for more since
    /// [`SenderEvent::ReadyToFinish`]; another such event will follow.
    pub fn finish(&mut self) {
        if self.state == State::Ready {
            let digest = self.tree.digest().expect("each block was hashed when it was sent or compared");
            self.outbox.push_back(Message::Finish { id: self.id.clone(), digest });
            self.state = State::Finishing;
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    pub fn timeout(&self) -> Instant {
        let stalled = self.waits().then(|| self.moved + self.heartbeat.stall());
        stalled.into_iter().fold(self.heartbeat.timeout(), Instant::min)
    }

    /// Lets time pass. `Err` is a stall: the receiver was silent for that long, or gave signs of life and nothing
    /// else while something was due from it.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Duration> {
        let waited = now.saturating_duration_since(self.moved);
        if self.waits() && waited >= self.heartbeat.stall() {
            return Err(waited);
        }
        match self.heartbeat.beat(now) {
            Beat::Quiet => Ok(()),
            Beat::Ping(token) => {
                self.outbox.push_back(Message::Ping { token, busy: false });
                Ok(())
            }
            Beat::Stalled(silence) => Err(silence),
        }
    }

    /// Takes a frame that came from the receiver.
    pub fn handle_frame(&mut self, frame: &[u8], now: Instant) -> Result<(), Violation> {
        self.heartbeat.on_received(now);
        let message = Message::parse(frame)?;
        if !matches!(message, Message::Ping { busy: false, .. } | Message::Pong { busy: false, .. }) {
            self.moved = now;
        }
        match (self.state, message) {
            (_, Message::Ping { token, .. }) => self.pong = Some(token),
            (_, Message::Pong { .. }) => {}
            (_, Message::Error { code, reason }) => {
                self.state = State::Ended;
                self.events.push_back(SenderEvent::Failed { code, reason: clip(&reason).into_owned() });
            }
            (State::Offered, Message::Accept(accept)) => self.handle_accept(accept)?,
            (State::Offered, Message::Reject { id, code, reason }) => {
                self.expect_id("reject.id", &id)?;
                self.state = State::Ended;
                self.events.push_back(SenderEvent::Rejected { code, reason: clip(&reason).into_owned() });
            }
            (State::Streaming | State::Ready | State::Finishing, Message::Ack { sequence, durable }) => {
                self.handle_ack(sequence, durable)?;
            }
            (State::Streaming, Message::Nak { sequence }) => {
                self.flight.refuse(sequence)?;
                self.progress.naks = self.flight.naks();
            }
            (State::Streaming, Message::Digests { first, digests }) => {
                self.check.handle_digests(first, &digests)?
            }
            (State::Streaming | State::Ready | State::Finishing, Message::Repair { blocks }) => {
                for run in check_runs("repair.blocks", &blocks, self.geometry)? {
                    self.count_repairs(run.end - run.start)?;
                    self.check.repair(run.clone());
                    self.pending.insert_run(run);
                }
                self.state = State::Streaming;
            }
            (State::Finishing, Message::Receipt { id, digest }) => {
                self.expect_id("receipt.id", &id)?;
                let expected = self.tree.digest().expect("`finish` was sent with it");
                if digest != expected {
                    return Err(Violation::field("receipt.digest", expected, digest));
                }
                self.state = State::Ended;
                self.progress.acknowledged = self.geometry.size();
                self.progress.durable = self.geometry.size();
                self.events.push_back(SenderEvent::Receipted(digest));
            }
            (state, message) => {
                return Err(Violation::Unexpected { came: message.kind(), state: state.describe() });
            }
        }
        self.settle();
        Ok(())
    }

    /// Whether something is due from the receiver.
    fn waits(&self) -> bool {
        matches!(self.state, State::Offered | State::Finishing)
            || !self.flight.is_empty()
            || self.check.waits()
    }

    fn start_block(&self, block: u64) -> Cursor {
        let hashed_elsewhere = self.hashed.contains(block) || self.check.has(block);
        let hasher = (!hashed_elsewhere).then(|| BlockHasher::new(self.geometry, block));
        Cursor { block, offset: self.geometry.block_start(block), hasher }
    }

    /// Moves the cursor over `bytes` and hashes them.
    fn advance(&mut self, offset: u64, bytes: &[u8]) -> Sent {
        let cursor = self.cursor.as_mut().expect("the next chunk came from the cursor");
        let len = bytes.len() as u64;
        let counts = cursor.hasher.is_some();
        if let Some(hasher) = &mut cursor.hasher {
            hasher.update(bytes);
        }
        cursor.offset += len;
        if cursor.offset == self.geometry.block_end(cursor.block) {
            let done = self.cursor.take().expect("it was there a line ago");
            if let Some(hasher) = done.hasher {
                self.tree.insert(done.block, &hasher.finish());
                self.hashed.insert(done.block);
            }
        }
        // A block that is sent although its hash is known was sent before, by this program or an earlier run.
        self.progress.resent += if counts { self.sent_before.saturating_sub(offset).min(len) } else { len };
        Sent { offset, len: bytes.len() as u32, counts }
    }

    fn handle_accept(&mut self, accept: Accept) -> Result<(), Violation> {
        self.expect_id("accept.id", &accept.id)?;
        if accept.window == 0 {
            return Err(Violation::field("accept.window", "at least 1", 0));
        }
        if accept.discard != self.discard {
            return Err(Violation::field("accept.discard", self.discard, accept.discard));
        }
        let limit = accept.frame_limit.min(self.frame_limit);
        let fits =
            (limit >= MIN_FRAME_LIMIT as u64).then(|| ChunkSize::for_frame_limit(limit as usize)).flatten();
        let Some(largest) = fits else {
            let expected = format!("at least {MIN_FRAME_LIMIT}");
            return Err(Violation::field("accept.frame_limit", expected, accept.frame_limit));
        };
        let blocks = self.geometry.blocks();
        let held: BlockSet = check_runs("accept.held", &accept.held, self.geometry)?.into_iter().collect();
        if accept.complete && held.len() != blocks {
            return Err(Violation::field("accept.held", "all blocks of a complete file", held.len()));
        }
        self.chunk = self.chunk.min(largest);
        self.window = self.window.min(accept.window);
        self.pending = held.missing_below(blocks);
        self.progress.held = held.runs().map(|run| self.geometry.bytes_of(run)).sum();
        self.progress.acknowledged = self.progress.held;
        self.sent_before = self.sent_before.max(accept.received.min(self.geometry.size()));
        self.check = Check::new(held, !accept.complete);
        self.state = State::Streaming;
        self.events.push_back(SenderEvent::Accepted { held: self.progress.held, complete: accept.complete });
        Ok(())
    }

    fn handle_ack(&mut self, sequence: u64, durable: u64) -> Result<(), Violation> {
        if durable > self.geometry.size() {
            return Err(Violation::field(
                "ack.durable",
                format!("at most {}", self.geometry.size()),
                durable,
            ));
        }
        self.progress.acknowledged += self.flight.acknowledge(sequence)?;
        self.progress.durable = durable;
        Ok(())
    }

    /// A disk that damages whatever is written to it is no reason to go on for ever.
    fn count_repairs(&mut self, blocks: u64) -> Result<(), Violation> {
        self.progress.repaired_blocks += blocks;
        self.asked_for += blocks;
        let most = 2 * self.geometry.blocks() + MAX_REPAIRS;
        if self.asked_for > most {
            let expected = format!("at most {most} in a file of {}", self.geometry.blocks());
            return Err(Violation::field("repair.blocks", expected, format!("{} in all", self.asked_for)));
        }
        Ok(())
    }

    fn expect_id(&self, field: &'static str, id: &str) -> Result<(), Violation> {
        if id == self.id { Ok(()) } else { Err(Violation::field(field, &self.id, clip(id))) }
    }

    /// Notices that nothing is left to do but to finish.
    fn settle(&mut self) {
        let idle =
            self.pending.is_empty() && self.cursor.is_none() && self.flight.is_over() && self.check.is_over();
        if self.state == State::Streaming && idle {
            self.state = State::Ready;
            self.events.push_back(SenderEvent::ReadyToFinish);
        }
    }
}
