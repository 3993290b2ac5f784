//! Two machines joined by a fake link: a virtual clock, faults at chosen frames, any number of files.

mod disk;
mod file;
mod receiving;
mod sending;
mod to_the_end;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use wsferry::protocol::{
    Action, CheckedOffer, ChunkSize, Code, Due, Feature, FileDigest, HeartbeatConfig, Hello, Input, Link,
    LinkConfig, MIN_OFFERS, Message, Path, Progress, Receiving, Violation, chunk,
};

pub use self::disk::Disk;
pub use self::file::{File, plain_digest};
pub use self::to_the_end::{send_all_to_the_end, send_to_the_end};

#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub chunk: u64,
    pub window: u64,
    pub frame_limit: u64,
    /// How slow the receiver's disk is.
    pub turns_per_action: usize,
    /// Both sides know all features; else the receiver knows none.
    pub features: bool,
    /// How many offers the receiver lets be open.
    pub offers: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            chunk: 256 * 1024,
            window: 1 << 20,
            frame_limit: 32 * 1024 * 1024,
            turns_per_action: 1,
            features: true,
            offers: MIN_OFFERS,
        }
    }
}

impl Options {
    pub fn hello(&self, features: bool) -> Hello {
        let all = vec![Feature::Zeros, Feature::Trees, Feature::TreeDigests, Feature::LateSize];
        Hello {
            features: if features { all } else { Vec::new() },
            frame_limit: self.frame_limit,
            window: self.window,
            offers: self.offers,
            session: None,
            role: None,
            program: String::new(),
        }
    }

    /// The machine of either side.
    pub fn link(&self, features: bool, now: Instant) -> Link {
        let config = LinkConfig {
            hello: self.hello(features),
            path: Path::carrying(ChunkSize::at_most(self.chunk).unwrap()),
            receiving: Receiving { sync_bytes: 4 << 20, ..Receiving::default() },
            heartbeat: HeartbeatConfig::default(),
        };
        Link::new(config, now)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    ToReceiver,
    ToSender,
}

/// What the link does to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Deliver,
    Drop,
    Twice,
    /// Comes behind the next frame of its direction.
    Swap,
    /// This bit is flipped.
    Flip(usize),
    /// Neither this nor any later frame comes.
    Cut,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All files have their receipts.
    Receipted,
    /// All transfers are over; of those without a receipt this was the first.
    Rejected(Code),
    /// The peer, or what came in its name, broke the protocol.
    Violation(Direction, Violation),
    /// The peer ended it.
    PeerEnded(Code),
    Cut,
    Stalled,
    /// A frame was no text any more: the WebSocket layer ends the connection.
    NoText,
}

/// How a transfer ended, on the sender's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Receipted(FileDigest),
    Rejected(Code),
    /// The source was not what was offered.
    Cancelled,
}

/// A file that is being received.
struct Taken {
    index: usize,
    offer: CheckedOffer,
    /// Something of it was there before.
    is_resumed: bool,
}

/// One connection over the fake link.
pub struct Pair<'a> {
    pub sender: Link,
    pub receiver: Link,
    files: &'a [File],
    disks: &'a mut [Disk],
    chunk: u64,
    next_offer: usize,
    /// The files that were offered, by the transfer's number.
    sent: BTreeMap<u32, usize>,
    /// Those that the receiver took.
    taken: BTreeMap<u32, Taken>,
    /// How each file's transfer ended, and how far it was.
    pub outcomes: Vec<Option<Outcome>>,
    pub progress: Vec<Progress>,
    started: Instant,
    now: Instant,
    to_receiver: VecDeque<String>,
    to_sender: VecDeque<String>,
    swapped: [Option<String>; 2],
    count: [usize; 2],
    cut: bool,
    turns: usize,
    turns_per_action: usize,
    /// What the receiver's disk has still to do.
    actions: VecDeque<Action>,
    /// Frames that nobody sent: each comes before the frame of this direction and index.
    pub forged: BTreeMap<(Direction, usize), String>,
    /// Every frame that was sent, for tests that look at the wire.
    pub log: Vec<(Direction, String)>,
}

impl<'a> Pair<'a> {
    pub fn one(file: &'a File, disk: &'a mut Disk, options: Options) -> Self {
        Self::new(std::slice::from_ref(file), std::slice::from_mut(disk), options)
    }

    /// A connection that these files are offered on, each of another name.
    pub fn new(files: &'a [File], disks: &'a mut [Disk], options: Options) -> Self {
        assert_eq!(files.len(), disks.len());
        let now = Instant::now();
        Self {
            sender: options.link(true, now),
            receiver: options.link(options.features, now),
            files,
            disks,
            chunk: options.chunk,
            next_offer: 0,
            sent: BTreeMap::new(),
            taken: BTreeMap::new(),
            outcomes: vec![None; files.len()],
            progress: vec![Progress::default(); files.len()],
            started: now,
            now,
            to_receiver: VecDeque::new(),
            to_sender: VecDeque::new(),
            swapped: [None, None],
            count: [0, 0],
            cut: false,
            turns: 0,
            turns_per_action: options.turns_per_action,
            actions: VecDeque::new(),
            forged: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    /// Runs until the connection has ended. `fault` is asked for each frame, by direction and index.
    pub fn run(&mut self, mut fault: impl FnMut(Direction, usize, &str) -> Fault) -> End {
        let end = loop {
            match self.turn(&mut fault) {
                Ok(_) if self.is_over() => break self.over(),
                Ok(true) => {}
                Ok(false) if self.cut => break End::Cut,
                Ok(false) => {
                    // Nothing moves: the clock does.
                    let next = self.sender.timeout(self.now).min(self.receiver.timeout(self.now));
                    self.now = next.max(self.now + Duration::from_micros(1));
                    assert!(
                        self.now - self.started < Duration::from_secs(600),
                        "it hangs: {:#?}",
                        self.log.last()
                    );
                    let sides =
                        [self.sender.handle_timeout(self.now), self.receiver.handle_timeout(self.now)];
                    if sides.iter().any(Result::is_err) {
                        break End::Stalled;
                    }
                }
                Err(end) => break end,
            }
        };
        for (&number, &index) in &self.sent {
            if self.files[index].is_input && self.outcomes[index].is_none() {
                let come = &mut self.disks[index].come;
                come.sent_up_to = self.sender.sent_up_to(number);
                come.hashed = self.sender.take_hashed(number);
            }
        }
        // What the pump does when a connection ends.
        for (number, Taken { index, .. }) in std::mem::take(&mut self.taken) {
            if let Some(unfinished) = self.receiver.take_unfinished(number) {
                self.disks[index].put_away(unfinished);
            }
        }
        end
    }

    fn is_over(&self) -> bool {
        self.outcomes.iter().all(Option::is_some)
    }

    fn over(&self) -> End {
        let code = self.outcomes.iter().flatten().find_map(|outcome| match outcome {
            Outcome::Receipted(_) => None,
            Outcome::Rejected(code) => Some(*code),
            Outcome::Cancelled => Some(Code::Source),
        });
        code.map_or(End::Receipted, End::Rejected)
    }

    fn turn(&mut self, fault: &mut impl FnMut(Direction, usize, &str) -> Fault) -> Result<bool, End> {
        let mut moved = false;
        while self.next_offer < self.files.len() && self.sender.may_offer() > 0 {
            let file = &self.files[self.next_offer];
            let (mut offer, mut sending) = (file.offer(), file.sending(self.chunk));
            if file.is_input {
                if self.sender.peer().is_none() {
                    break;
                }
                let come = &mut self.disks[self.next_offer].come;
                offer.size = offer.size.filter(|_| come.bytes == file.bytes.len());
                let available = offer.size.unwrap_or(0);
                sending.already_sent = come.sent_up_to;
                sending.input = Some(Input { available, hashed: std::mem::take(&mut come.hashed) });
            }
            let number = self.sender.offer(offer, sending).expect("it may be offered");
            self.sent.insert(number, self.next_offer);
            self.next_offer += 1;
        }
        moved |= self.follow_inputs();
        while let Some(message) = self.sender.poll_message(self.now) {
            self.transmit(Direction::ToReceiver, message.to_frame(), fault)?;
            moved = true;
        }
        if let Some(frame) = self.sender.poll_zeros(self.now) {
            self.transmit(Direction::ToReceiver, String::from_utf8(frame.to_vec()).unwrap(), fault)?;
            moved = true;
        }
        if let Some(Due { transfer, offset, len }) = self.sender.next_chunk() {
            let index = self.sent[&transfer];
            assert!(offset >= self.disks[index].come.let_go, "byte {offset} was let go");
            let bytes = &self.files[index].bytes[offset as usize..][..len];
            let mut frame = vec![0; chunk::frame_len(len)];
            self.sender.encode_chunk(bytes, &mut frame, self.now);
            self.transmit(Direction::ToReceiver, String::from_utf8(frame).unwrap(), fault)?;
            moved = true;
        }
        while let Some(action) = self.sender.poll_action(self.now) {
            self.act_as_sender(action);
            moved = true;
        }
        if let Some(text) = self.to_receiver.pop_front() {
            self.hand_to_receiver(&text)?;
            moved = true;
        }
        while let Some(event) = self.receiver.poll_event() {
            self.hear_as_receiver(event)?;
        }
        while let Some(action) = self.receiver.poll_action(self.now) {
            self.actions.push_back(action);
        }
        self.turns += 1;
        if (!moved || self.turns.is_multiple_of(self.turns_per_action))
            && let Some(action) = self.actions.pop_front()
        {
            self.act(action);
            moved = true;
        }
        while let Some(message) = self.receiver.poll_message(self.now) {
            self.transmit(Direction::ToSender, message.to_frame(), fault)?;
            moved = true;
        }
        if let Some(text) = self.to_sender.pop_front() {
            let handled = self.sender.handle_frame(text.as_bytes(), &mut Vec::new(), self.now);
            let write = handled.map_err(|violation| End::Violation(Direction::ToSender, violation))?;
            assert_eq!(write, None, "nothing is offered to the sender");
            moved = true;
        }
        while let Some(event) = self.sender.poll_event() {
            self.hear_as_sender(event)?;
            moved = true;
        }
        Ok(moved)
    }

    fn transmit(
        &mut self,
        direction: Direction,
        text: String,
        fault: &mut impl FnMut(Direction, usize, &str) -> Fault,
    ) -> Result<(), End> {
        if let Ok(Message::Ack { durable, .. }) = Message::parse(text.as_bytes()) {
            durable.into_iter().for_each(|(number, durable)| self.check_durable(number, durable));
        }
        self.log.push((direction, text.clone()));
        if self.cut {
            return Ok(());
        }
        let side = direction as usize;
        let index = self.count[side];
        self.count[side] += 1;
        let queue = match direction {
            Direction::ToReceiver => &mut self.to_receiver,
            Direction::ToSender => &mut self.to_sender,
        };
        queue.extend(self.forged.remove(&(direction, index)));
        let before = self.swapped[side].take();
        match fault(direction, index, &text) {
            Fault::Deliver => queue.push_back(text),
            Fault::Drop => {}
            Fault::Twice => queue.extend([text.clone(), text]),
            Fault::Swap => self.swapped[side] = Some(text),
            Fault::Flip(bit) => {
                let mut bytes = text.into_bytes();
                let bit = bit % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                queue.push_back(String::from_utf8(bytes).map_err(|_| End::NoText)?);
            }
            Fault::Cut => self.cut = true,
        }
        queue.extend(before);
        Ok(())
    }
}
