//! The sending machine: offers a file, says which bytes go next, settles what was acknowledged.
//!
//! The caller moves frames and reads bytes: it asks [`Sender::poll_message`] and [`Sender::next_chunk`] for
//! what to send, hands each incoming frame to [`Sender::handle_frame`], and hashes the blocks that
//! [`Sender::next_check`] names, behind the transfer.

mod outgoing;
mod vocabulary;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Violation;
use super::blocks::BlockSet;
use super::check::Need;
use super::chunk::{self, Zeros};
use super::digest::{BlockHashes, FileDigest};
use super::flight::{Flight, Sent};
use super::geometry::{ChunkSize, Geometry, MIN_FRAME_LIMIT};
use super::heartbeat::{Beat, Heartbeat};
use super::message::{Accept, Message, Offer, check_begun, check_runs, clip};
use super::path::Path;
use outgoing::Outgoing;
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

    outgoing: Outgoing,
    flight: Flight,
    path: Path,
    /// The file is there already, as far as the receiver knows: the digests will tell.
    complete: bool,
    /// How many blocks the receiver has asked for with `repair`.
    asked_for: u64,
    progress: Progress,
}

/// A part of the file that goes into a frame.
struct Flying {
    offset: u64,
    len: u64,
    zeros: bool,
    counts: bool,
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
            outgoing: Outgoing::new(geometry, config.zeros, config.already_sent),
            flight: Flight::default(),
            path: config.path,
            complete: false,
            asked_for: 0,
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
        self.outgoing.sent_up_to()
    }

    /// The connection ended, with the transfer or (`cut`) before it: what was learnt of the path.
    pub fn into_path(mut self, cut: bool) -> Path {
        if cut {
            self.path.on_cut(self.flight.largest());
        }
        self.path
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

    /// The next run of zeros to tell of, as a frame. Ask before [`next_chunk`](Self::next_chunk).
    pub fn poll_zeros(&mut self, now: Instant) -> Option<[u8; chunk::ZEROS_LEN]> {
        if self.state != State::Streaming || !self.flight.has_room(0, self.window) {
            return None;
        }
        let (offset, len, counts) = match self.flight.damaged() {
            Some(sent) if sent.zeros => (sent.offset, sent.len, sent.counts),
            Some(_) => return None,
            None => {
                let (offset, len) = self.outgoing.next_zeros()?;
                (offset, len, self.outgoing.advance_zeros(offset, len))
            }
        };
        self.flight.take_damaged(len);
        let frame = chunk::encode_zeros(Zeros { sequence: self.flight.sequence(), offset, len });
        self.push(Flying { offset, len, zeros: true, counts }, now);
        Some(frame)
    }

    /// Which bytes go next: offset and length. `None` if the window is closed or nothing is left.
    pub fn next_chunk(&mut self) -> Option<(u64, usize)> {
        if self.state != State::Streaming {
            return None;
        }
        let (offset, left) = match self.flight.damaged() {
            Some(sent) if sent.zeros => return None,
            Some(sent) => (sent.offset, sent.len),
            None => self.outgoing.next_bytes()?,
        };
        let chunk = self.path.chunk(self.chunk);
        let len = chunk.raw().min(left);
        let window = self.path.in_flight(chunk.raw(), self.window);
        self.flight.has_room(len, window).then_some((offset, len as usize))
    }

    /// Writes the frame of the chunk that [`next_chunk`](Self::next_chunk) named, from its bytes, into `frame`,
    /// which must have [`chunk::frame_len`]`(bytes.len())` characters.
    ///
    /// # Panics
    /// If there is no next chunk, or `bytes` has another length.
    pub fn encode_chunk(&mut self, bytes: &[u8], frame: &mut [u8], now: Instant) {
        let (offset, expected) = self.next_chunk().expect("a chunk is due");
        assert_eq!(bytes.len(), expected, "the chunk's length was said before");
        let len = bytes.len() as u64;
        let counts = match self.flight.take_damaged(len) {
            Some(sent) => {
                self.progress.resent += len;
                sent.counts
            }
            None => {
                let advanced = self.outgoing.advance(offset, bytes);
                self.progress.resent += advanced.resent;
                advanced.counts
            }
        };
        chunk::encode(self.flight.sequence(), offset, bytes, frame);
        self.push(Flying { offset, len, zeros: false, counts }, now);
    }

    /// The held block to hash next, behind the transfer. Each is named once; answer with
    /// [`handle_checked`](Self::handle_checked).
    pub fn next_check(&mut self) -> Option<u64> {
        if self.state != State::Streaming {
            return None;
        }
        match self.outgoing.check.next(self.frame_limit) {
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
        self.progress.verified += self.geometry.block_len(block);
        self.progress.repaired_blocks += u64::from(self.outgoing.checked(block, hashes));
        self.settle();
    }

    /// The digest of what was sent, once each block was hashed.
    pub fn digest(&self) -> Option<FileDigest> {
        self.outgoing.digest()
    }

    /// The source is what it was: sends `finish`. Does nothing if the receiver has asked for more since
    /// [`SenderEvent::ReadyToFinish`]; another such event will follow.
    pub fn finish(&mut self) {
        if self.state == State::Ready {
            let digest = self.outgoing.digest().expect("each block was hashed when it was sent or compared");
            self.outbox.push_back(Message::Finish { id: self.id.clone(), digest });
            self.state = State::Finishing;
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    pub fn timeout(&self) -> Instant {
        let stalled = self.waits().then(|| self.moved + self.heartbeat.stall());
        stalled.into_iter().fold(self.heartbeat.timeout(), Instant::min)
    }

    /// Bytes came, of a frame that is not whole yet: the receiver is alive.
    pub fn handle_bytes(&mut self, now: Instant) {
        self.heartbeat.on_received(now);
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
        // An acknowledgement tells below whether it moves anything, and so does damage.
        let is_idle = matches!(
            message,
            Message::Ping { busy: false, .. }
                | Message::Pong { busy: false, .. }
                | Message::Ack { .. }
                | Message::Nak { .. }
        );
        if !is_idle {
            self.moved = now;
        }
        match (self.state, message) {
            (_, Message::Ping { token, .. }) => self.pong = Some(token),
            (_, Message::Pong { .. }) => {}
            (_, Message::Error { code, reason, again }) => {
                self.state = State::Ended;
                let reason = clip(&reason).into_owned();
                self.events.push_back(SenderEvent::Failed { code, reason, again });
            }
            (State::Offered, Message::Accept(accept)) => self.handle_accept(accept)?,
            (State::Offered, Message::Reject { id, code, reason, again }) => {
                self.expect_id("reject.id", &id)?;
                self.state = State::Ended;
                let reason = clip(&reason).into_owned();
                self.events.push_back(SenderEvent::Rejected { code, reason, again });
            }
            (State::Streaming | State::Ready | State::Finishing, Message::Ack { sequence, durable }) => {
                self.handle_ack(sequence, durable, now)?;
            }
            (State::Streaming, Message::Nak { sequence }) => {
                let len = self.flight.refuse(sequence)?;
                self.path.on_damaged(len);
                self.progress.naks = self.flight.naks();
            }
            (State::Streaming, Message::Digests { first, digests }) => {
                self.outgoing.check.handle_digests(first, &digests)?
            }
            (State::Streaming | State::Ready | State::Finishing, Message::Repair { blocks }) => {
                self.handle_repair(check_runs("repair.blocks", &blocks, self.geometry)?)?;
            }
            (State::Finishing, Message::Receipt { id, digest }) => {
                self.expect_id("receipt.id", &id)?;
                let expected = self.outgoing.digest().expect("`finish` was sent with it");
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
            || self.outgoing.check.waits()
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
        let mut begun = check_begun("accept.begun", &accept.begun, self.geometry)?;
        begun.retain(|&block, _| !held.contains(block));
        self.chunk = self.chunk.min(largest);
        self.window = self.window.min(accept.window);
        self.complete = accept.complete;
        let whole: u64 = held.runs().map(|run| self.geometry.bytes_of(run)).sum();
        self.progress.held = whole + begun.values().sum::<u64>();
        self.progress.acknowledged = self.progress.held;
        self.outgoing.begin(&held, begun, accept.received, accept.complete);
        self.state = State::Streaming;
        self.events.push_back(SenderEvent::Accepted { held: self.progress.held, complete: accept.complete });
        Ok(())
    }

    fn handle_ack(&mut self, sequence: u64, durable: u64, now: Instant) -> Result<(), Violation> {
        if durable > self.geometry.size() {
            return Err(Violation::field(
                "ack.durable",
                format!("at most {}", self.geometry.size()),
                durable,
            ));
        }
        if let Some(acknowledged) = self.flight.acknowledge(sequence)? {
            self.progress.acknowledged += acknowledged.counted;
            if acknowledged.crossed > 0 {
                self.path.on_acknowledged(&acknowledged, self.flight.bytes(), now);
            }
            self.moved = now;
        }
        self.progress.durable = durable;
        Ok(())
    }

    /// Blocks are asked for: those that got lost or damaged, or those of a file that stood there and is another.
    fn handle_repair(&mut self, runs: Vec<Range<u64>>) -> Result<(), Violation> {
        if std::mem::take(&mut self.complete) {
            self.outgoing.replace(runs.iter().cloned().collect());
            let bytes: u64 = runs.iter().map(|run| self.geometry.bytes_of(run.clone())).sum();
            self.progress.held -= bytes;
            self.progress.acknowledged -= bytes;
            self.progress.verified = 0;
            self.events.push_back(SenderEvent::Replacing { held: self.progress.held });
        } else {
            self.progress.repaired_blocks += runs.iter().map(|run| run.end - run.start).sum::<u64>();
        }
        for run in runs {
            self.count_repairs(run.end - run.start)?;
            self.outgoing.repair(run);
        }
        self.state = State::Streaming;
        Ok(())
    }

    /// A frame that carries a part of the file goes out.
    fn push(&mut self, flying: Flying, now: Instant) {
        let Flying { offset, len, zeros, counts } = flying;
        let is_alone = self.flight.is_empty();
        if is_alone {
            self.moved = now;
        }
        let stamp = self.path.on_sent(is_alone, now);
        self.flight.push(Sent { offset, len, zeros, counts, is_damaged: false, stamp });
        self.heartbeat.on_sent(now);
    }

    /// A disk that damages whatever is written to it is no reason to go on for ever.
    fn count_repairs(&mut self, blocks: u64) -> Result<(), Violation> {
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
        if self.state == State::Streaming
            && self.outgoing.is_sent()
            && self.flight.is_over()
            && self.outgoing.is_compared()
        {
            self.state = State::Ready;
            self.events.push_back(SenderEvent::ReadyToFinish);
        }
    }
}
