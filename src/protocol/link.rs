//! The machine of one connection, either side: frames and the time come in, frames and requests come out.
//!
//! What belongs to the connection is here: who speaks first, sequence numbers, window, acknowledgements, damage, signs of
//! life. Each transfer has a half of its own behind it, [`Sender`] where a file was offered from here, [`Receiver`] where it
//! was offered to here; both may be there at once, and many of them.
//!
//! The caller moves frames and touches the disk: it hands each incoming frame to [`Link::handle_frame`] and writes the bytes
//! that come out, sends what [`Link::poll_message`], [`Link::poll_zeros`] and [`Link::next_chunk`] say, carries out each
//! [`Action`] and reports with the [`Done`] that belongs to it. For one transfer at most one action of each kind is under way
//! at a time.

mod actions;
mod incoming;
mod outgoing;
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Violation;
use super::arrivals::Arrivals;
use super::chunk;
use super::flight::Flight;
use super::heartbeat::{Beat, Heartbeat};
use super::idle::Idle;
use super::message::{self, Agreed, Hello, MIN_OFFERS, Message, clip};
use super::path::Path;
use super::receiver::{Receiver, Write};
use super::sender::Sender;
pub use incoming::Unfinished;
pub use outgoing::NotOffered;
pub(super) use vocabulary::Out;
pub use vocabulary::{Action, Done, Due, LinkConfig, LinkEvent};

/// How long a sender may hold names with signs of life alone, as a multiple of the time after which silence is a stall.
const IDLE_STALLS: u32 = 10;

/// How much longer a sender is waited for that waits for what it sends: somebody may be typing it.
const INPUT_PATIENCE: Duration = Duration::from_secs(60 * 60);

/// Messages that wait to be sent, beyond which nothing more is to be read: a peer that asks and does not listen is one
/// that waits.
const MAX_UNSENT: usize = 1024;

/// How often it is looked whether a sender is idle, where it may be.
const A_MOMENT: Duration = Duration::from_secs(1);

/// The machine of one connection.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    /// What the peer said of itself.
    peer: Option<Hello>,
    agreed: Agreed,
    heartbeat: Heartbeat,
    pong: Option<u64>,
    out: Out,

    /// What is offered from here.
    // Boxed: a map moves what is in it about.
    senders: BTreeMap<u32, Box<Sender>>,
    /// The number of the next offer.
    next_transfer: u32,
    /// Those that may have something to send.
    active: BTreeSet<u32>,
    /// Those that may have held blocks to compare; one block of one of them is hashed at a time.
    checks: BTreeSet<u32>,
    is_checking: bool,
    flight: Flight,
    /// Nothing is begun any more: another connection goes on.
    holds: bool,
    path: Path,
    /// When the receiver last did something that this side waits for, or this side began to wait.
    answered: Instant,

    /// What is offered to here.
    receivers: BTreeMap<u32, Box<Receiver>>,
    /// Those that the sender cancelled, until the caller takes what is left of them.
    cancelled: BTreeMap<u32, Box<Receiver>>,
    /// The number that the next offer has at the least.
    next_offered: u32,
    /// Those of which something has changed, and those that wait for their next sync.
    changed: BTreeSet<u32>,
    syncs: BTreeSet<u32>,
    arrivals: Arrivals,
    receipts: Vec<(u32, Option<super::FileDigest>)>,
    /// What came waits to be taken: no more is acknowledged.
    is_full: bool,
    idle: Idle,
}

impl Link {
    /// A machine that will say hello.
    ///
    /// # Panics
    /// If the hello's fields are out of their bounds.
    pub fn new(config: LinkConfig, now: Instant) -> Self {
        let hello = config.hello.clone().check().expect("our own hello is within the bounds");
        // Before the peer's has come nothing can be counted on.
        let bare = Hello { features: Vec::new(), ..hello.clone() };
        let mut out = Out::new(hello.frame_limit);
        out.send(Message::Hello(hello.clone()));
        Self {
            heartbeat: Heartbeat::new(config.heartbeat, now),
            agreed: bare.agree(&bare),
            peer: None,
            pong: None,
            out,
            senders: BTreeMap::new(),
            next_transfer: 0,
            active: BTreeSet::new(),
            checks: BTreeSet::new(),
            is_checking: false,
            flight: Flight::default(),
            holds: false,
            path: config.path.clone(),
            answered: now,
            receivers: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            next_offered: 0,
            changed: BTreeSet::new(),
            syncs: BTreeSet::new(),
            arrivals: Arrivals::default(),
            receipts: Vec::new(),
            is_full: false,
            idle: Idle::new(now),
            config,
        }
    }

    /// What the peer said of itself, once it has.
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Whether what the peer said of itself is what this side said: something sends back what it gets.
    pub fn is_echoed(&self) -> bool {
        let own = &self.config.hello.session;
        own.is_some() && self.peer.as_ref().is_some_and(|peer| peer.session == *own)
    }

    /// Whether a transfer is open, in either direction.
    pub fn is_busy(&self) -> bool {
        !self.senders.is_empty() || !self.receivers.is_empty()
    }

    /// Whether everything that was to be told is on its way.
    pub fn is_told(&self) -> bool {
        self.out.messages.is_empty() && self.receipts.is_empty()
    }

    /// Whether so much waits to be sent that no more frames are to be handed over before some of it was.
    pub fn is_clogged(&self) -> bool {
        self.out.messages.len() >= MAX_UNSENT
    }

    /// The next thing the caller should know.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.out.events.pop_front()
    }

    /// The next message to send, as a frame. Ask before [`poll_zeros`](Self::poll_zeros).
    pub fn poll_message(&mut self, now: Instant) -> Option<Message> {
        let busy =
            |link: &Self| link.is_full || link.receivers.values().any(|receiver| receiver.is_at_work());
        let pong = if self.greets() { None } else { self.pong.take() };
        let message = match pong {
            Some(token) => Message::Pong { token, busy: busy(self) },
            None => match self.out.messages.pop_front().or_else(|| self.due(now))? {
                Message::Ping { token, .. } => Message::Ping { token, busy: busy(self) },
                message => message,
            },
        };
        self.heartbeat.on_sent(now);
        if !matches!(message, Message::Ping { .. } | Message::Pong { .. }) {
            self.answered = now;
        }
        if let Message::Digests { transfer, .. } = message
            && let Some(receiver) = self.receivers.get_mut(&transfer)
        {
            receiver.digests_went_out();
        }
        Some(message)
    }

    /// Our `hello` has not gone out: nothing goes before it.
    fn greets(&self) -> bool {
        matches!(self.out.messages.front(), Some(Message::Hello(_)))
    }

    /// Takes a frame that came. `Some` are bytes of a file, in `bytes`, to be written before the next call to this machine.
    ///
    /// # Errors
    /// If the peer broke the protocol: the connection is to be ended.
    pub fn handle_frame(
        &mut self,
        frame: &[u8],
        bytes: &mut Vec<u8>,
        now: Instant,
    ) -> Result<Option<Write>, Violation> {
        self.heartbeat.on_received(now);
        match frame.first() {
            Some(&chunk::KIND) => self.handle_chunk(frame, bytes, now),
            Some(&chunk::ZEROS_KIND) => self.handle_zeros(frame, now),
            _ => self.handle_message(Message::parse(frame)?, now).map(|()| None),
        }
    }

    fn handle_message(&mut self, message: Message, now: Instant) -> Result<(), Violation> {
        if self.peer.is_none() && !matches!(message, Message::Hello(_) | Message::Error { .. }) {
            return Err(Violation::Unexpected { came: message.kind(), state: "`hello` had not come" });
        }
        match message {
            Message::Hello(hello) => self.handle_hello(hello)?,
            Message::Ping { token, busy } => {
                self.pong = Some(token);
                if busy {
                    self.answered = now;
                }
            }
            Message::Pong { token, busy } => {
                self.heartbeat.on_pong(token);
                if busy {
                    self.answered = now;
                }
                return Ok(());
            }
            Message::Error { code, reason, again } => {
                let reason = clip(&reason).into_owned();
                self.out.events.push_back(LinkEvent::Ended { code, reason, again });
            }
            Message::Offer(_)
            | Message::Check { .. }
            | Message::Size { .. }
            | Message::Finish { .. }
            | Message::Cancel { .. } => {
                self.handle_from_sender(message, now)?;
            }
            Message::Accept(_)
            | Message::Reject { .. }
            | Message::Ack { .. }
            | Message::Nak { .. }
            | Message::Digests { .. }
            | Message::Repair { .. }
            | Message::Receipt { .. } => self.handle_from_receiver(message, now)?,
            Message::Unknown => {}
        }
        Ok(())
    }

    fn handle_hello(&mut self, hello: Hello) -> Result<(), Violation> {
        if self.peer.is_some() {
            return Err(Violation::Unexpected { came: "hello", state: "it had come" });
        }
        let hello = hello.check()?;
        self.agreed = self.config.hello.agree(&hello);
        self.out.frame_limit = self.agreed.frame_limit;
        for sender in self.senders.values_mut() {
            sender.agree(&self.agreed);
        }
        self.out.events.push_back(LinkEvent::Greeted(hello.clone()));
        self.peer = Some(hello);
        Ok(())
    }

    /// How many more offers may be open.
    pub fn may_offer(&self) -> u64 {
        let most = self.peer.as_ref().map_or(MIN_OFFERS, |peer| peer.offers);
        most.saturating_sub(self.senders.len() as u64)
    }

    /// Asks the peer whether it is there. Without its answer within `patience` it counts as gone:
    /// [`handle_timeout`](Self::handle_timeout) says so.
    pub fn ask(&mut self, patience: Duration, now: Instant) {
        if let Some(token) = self.heartbeat.ask(patience, now) {
            let first = usize::from(self.greets());
            self.out.messages.insert(first, Message::Ping { token, busy: false });
        }
    }

    /// Whether a question to the peer waits for its answer.
    pub fn asks(&self) -> bool {
        self.heartbeat.asks()
    }

    /// All frames that came were handed over. `came`: the beginning of another did, so that the peer is alive.
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
        let interval = self.config.receiving.sync_interval;
        let syncs = self.syncs.iter().filter_map(|number| self.receivers.get(number)?.sync_due_at(interval));
        let later = self.arrivals.due_at().into_iter().chain(syncs).filter(|at| *at > now);
        let stalled = self.waits().then(|| self.answered + self.heartbeat.stall());
        let since = self.idle.since();
        let idle = (!self.receivers.is_empty()).then(|| since + self.heartbeat.stall() * IDLE_STALLS);
        // Behind that it depends on what each of them does.
        let idle = idle.map(|at| if at > now { at } else { (since + self.idle_limit()).max(now + A_MOMENT) });
        later.chain(stalled).chain(idle).fold(self.heartbeat.timeout(), Instant::min)
    }

    /// Lets time pass. `Err` is a stall: the peer was silent for that long, or gave signs of life and nothing else while
    /// something was due from it.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Duration> {
        let waited = now.saturating_duration_since(self.answered);
        if self.waits() && waited >= self.heartbeat.stall() {
            return Err(waited);
        }
        let idle = now.saturating_duration_since(self.idle.since());
        let may_be_idle = !self.receivers.is_empty() && idle >= self.heartbeat.stall() * IDLE_STALLS;
        if may_be_idle && idle >= self.idle_limit() && self.is_senders_turn() {
            return Err(idle);
        }
        match self.heartbeat.beat(now) {
            Beat::Quiet => Ok(()),
            Beat::Ping(token) => {
                self.out.send(Message::Ping { token, busy: false });
                Ok(())
            }
            Beat::Stalled(silence) => Err(silence),
        }
    }

    /// Whether something is due from the receiver.
    fn waits(&self) -> bool {
        !self.flight.is_empty() || self.senders.values().any(|sender| sender.waits())
    }

    /// Something may be due from the receiver by now: if nothing was before, the time counts from here.
    fn begin_to_wait(&mut self, waited: bool, now: Instant) {
        if !waited && self.waits() {
            self.answered = now;
        }
    }

    /// Whether this side waits for the sender, in whatever transfer. One that is being opened tells nothing: it may wait for
    /// the end of those that the sender does not move.
    fn is_senders_turn(&self) -> bool {
        let mut accepted = self.receivers.values().filter(|receiver| !receiver.is_opening()).peekable();
        !self.is_full && accepted.peek().is_some() && !accepted.any(|receiver| receiver.is_at_work())
    }

    /// How long a sender may give nothing but signs of life.
    fn idle_limit(&self) -> Duration {
        let receivers = || self.receivers.values();
        // Whoever waits for its input holds up nothing else.
        let patience = match receivers().all(|receiver| receiver.is_endless()) {
            true => INPUT_PATIENCE,
            false => receivers().map(|receiver| receiver.patience()).max().unwrap_or_default(),
        };
        self.config.heartbeat.stall * IDLE_STALLS + patience
    }
}

/// The most bytes of a message that lists receipts.
fn receipts_per_message(frame_limit: u64) -> usize {
    // M cccccccc {"type":"receipt","files":[]} and, of each, [4294967295,"64 digits"],
    let room = frame_limit.saturating_sub(48) / 80;
    (room as usize).clamp(1, message::MAX_LISTED)
}
