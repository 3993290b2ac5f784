//! Two machines joined by a fake link: a virtual clock, faults at chosen frames, any number of files.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use wsferry::protocol::message::transfer_id;
use wsferry::protocol::{
    Action, BLOCK, BlockDigest, BlockHasher, BlockHashes, BlockSet, CheckedOffer, ChunkSize, Code,
    DigestTree, Done, Due, Feature, FileDigest, Geometry, Hashed, HeartbeatConfig, Hello, Input, Link,
    LinkConfig, LinkEvent, MIN_OFFERS, Message, Offer, OfferKind, Opened, Path, Progress, ReceiverEvent,
    Receiving, SenderEvent, Sending, Unfinished, Violation, Write, chunk,
};

/// A file as it is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub bytes: Vec<u8>,
    pub mtime: i64,
    pub mode: Option<u32>,
    /// Blocks that lie in holes.
    pub zeros: BlockSet,
    /// The digest that the offer tells, of a file of a block at most.
    pub known: Option<FileDigest>,
    /// It comes bit by bit, cannot be read twice, and is offered without its size.
    pub is_input: bool,
}

impl File {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self::named("file.bin", bytes)
    }

    pub fn named(name: &str, bytes: Vec<u8>) -> Self {
        let (mtime, mode) = (1_700_000_000, Some(0o640));
        Self {
            name: name.to_owned(),
            bytes,
            mtime,
            mode,
            zeros: BlockSet::new(),
            known: None,
            is_input: false,
        }
    }

    /// The same, as it comes on standard input.
    pub fn input(mut self) -> Self {
        self.is_input = true;
        self
    }

    /// The same file, offered with its digest.
    pub fn known(mut self) -> Self {
        self.known = Some(self.digest());
        self
    }

    pub fn digest(&self) -> FileDigest {
        blake3::hash(&self.bytes).into()
    }

    pub fn geometry(&self) -> Geometry {
        Geometry::new(self.bytes.len() as u64).unwrap()
    }

    pub fn hashes(&self, block: u64) -> BlockHashes {
        hash(self.geometry(), block, &self.bytes)
    }

    pub fn offer(&self) -> Offer {
        let size = self.bytes.len() as u64;
        Offer {
            transfer: 0,
            id: transfer_id(&self.name, size, self.mtime, 5, self.mode),
            path: self.name.clone(),
            kind: OfferKind::File,
            target: None,
            size: Some(size),
            mtime: self.mtime,
            mtime_ns: 5,
            mode: self.mode,
            digest: self.known,
            repair: false,
            discard: false,
            quick: false,
            zeros: 0,
            left: 0,
        }
    }

    pub fn sending(&self, chunk: u64) -> Sending {
        let (chunk, zeros) = (ChunkSize::at_most(chunk).unwrap(), self.zeros.clone());
        Sending { chunk, zeros, already_sent: 0, input: None }
    }
}

/// What a sender knows of what comes bit by bit: outlives connections.
#[derive(Debug, Clone, Default)]
pub struct Come {
    bytes: usize,
    hashed: Hashed,
    sent_up_to: u64,
    /// Nothing below is kept.
    let_go: u64,
}

/// The receiver's disk, as far as one file goes: outlives connections.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    pub part: Vec<u8>,
    pub journal: BTreeMap<u64, BlockHashes>,
    pub sealed: Option<File>,
    /// Every chunk that was written: offset and length.
    pub written: Vec<(u64, usize)>,
    /// What the sender knows of the file.
    pub come: Come,
}

impl Disk {
    /// A disk that holds these blocks of a file, whole and in the journal.
    pub fn holding(file: &File, blocks: impl IntoIterator<Item = u64>) -> Self {
        let mut disk = Self::default();
        let geometry = file.geometry();
        for block in blocks {
            let range = range_of(geometry, block);
            disk.part.resize(disk.part.len().max(range.end), 0);
            disk.part[range.clone()].copy_from_slice(&file.bytes[range]);
            disk.journal.insert(block, file.hashes(block));
        }
        disk
    }

    fn opened(&self, offer: &CheckedOffer) -> Opened {
        let (mut held, mut unhashed) = (BlockSet::new(), BlockSet::new());
        let geometry = offer.geometry;
        let complete = self.sealed.as_ref().is_some_and(|sealed| {
            (sealed.name.as_str(), sealed.bytes.len() as u64, sealed.mtime)
                == (offer.path.as_str(), geometry.size(), offer.mtime)
        });
        if complete {
            held.insert_run(0..geometry.blocks());
        } else {
            let most = if geometry.is_open() { self.part.len() as u64 / BLOCK } else { geometry.blocks() };
            for block in 0..most {
                // A hole has nothing that could be hashed.
                let bytes = self.part.get(range_of(geometry, block));
                if bytes.is_some_and(|bytes| bytes.iter().any(|&byte| byte != 0)) {
                    let is_known = self.journal.contains_key(&block);
                    if is_known { &mut held } else { &mut unhashed }.insert(block);
                }
            }
        }
        Opened { held, unhashed, received: self.part.len() as u64, complete }
    }

    fn write(&mut self, range: std::ops::Range<usize>, bytes: &[u8]) {
        self.part.resize(self.part.len().max(range.end), 0);
        self.part[range.clone()].copy_from_slice(&bytes[..range.len()]);
        self.written.push((range.start as u64, range.len()));
    }

    /// The hashes that the journal has of a block, or those of its bytes.
    fn hashes(&self, geometry: Geometry, block: u64) -> BlockHashes {
        let known = self.journal.get(&block).cloned();
        known.unwrap_or_else(|| hash(geometry, block, &self.part))
    }

    fn digest(&self, geometry: Geometry) -> FileDigest {
        match &self.sealed {
            Some(sealed) => sealed.digest(),
            None => {
                let mut tree = DigestTree::new(geometry);
                (0..geometry.blocks()).for_each(|block| tree.insert(block, &self.hashes(geometry, block)));
                tree.digest().unwrap()
            }
        }
    }

    /// What the pump does with what is left when a transfer ends early.
    fn put_away(&mut self, unfinished: Unfinished) {
        self.journal.extend(unfinished.unsynced);
        if let Some(end) = unfinished.end {
            self.part.truncate(end as usize);
        }
    }
}

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

    /// More of what is offered without its size comes. Whether any did.
    fn follow_inputs(&mut self) -> bool {
        let mut moved = false;
        for (&number, &index) in &self.sent {
            let (file, come) = (&self.files[index], &mut self.disks[index].come);
            if !file.is_input || self.outcomes[index].is_some() {
                continue;
            }
            come.let_go = come.let_go.max(self.sender.done_below(number));
            if come.bytes < file.bytes.len() {
                come.bytes = file.bytes.len().min(come.bytes + 100_003);
                self.sender.grown(number, come.bytes as u64);
                moved = true;
            }
            if come.bytes == file.bytes.len() {
                self.sender.ended(number, come.bytes as u64);
            }
        }
        moved
    }

    fn act_as_sender(&mut self, action: Action) {
        let number = action.transfer();
        if matches!(action, Action::Open { .. }) {
            // Somebody forged an offer to the sender.
            self.sender.fail(number, Code::Other, "nothing is received here", false);
            return;
        }
        let file = &self.files[self.sent[&number]];
        let done = match action {
            Action::HashSource { block, tree, .. } => {
                let let_go = self.disks[self.sent[&number]].come.let_go;
                assert!(block * BLOCK >= let_go, "block {block} was let go");
                let hashes = file.hashes(block);
                let digest =
                    if tree { hashes.digest() } else { plain_digest(file.geometry(), block, &file.bytes) };
                Done::HashedSource(block, hashes, digest)
            }
            Action::Confirm { .. } => Done::Confirmed,
            action => panic!("{action:?} is no work of a sender"),
        };
        self.sender.done(number, done, self.now);
    }

    fn hear_as_receiver(&mut self, event: LinkEvent) -> Result<(), End> {
        let LinkEvent::Receiver(number, event) = event else {
            return match event {
                LinkEvent::Ended { code, .. } => Err(End::PeerEnded(code)),
                _ => Ok(()),
            };
        };
        match event {
            ReceiverEvent::Cancelled { .. } => {
                let unfinished = self.receiver.take_unfinished(number);
                self.forget(number, unfinished);
            }
            ReceiverEvent::Sized { size } => {
                let taken = self.taken.get_mut(&number).expect("it was accepted");
                taken.offer.geometry = Geometry::new(size).unwrap();
            }
            ReceiverEvent::Sealed { .. } => self.forget(number, None),
            _ => {}
        }
        Ok(())
    }

    fn hear_as_sender(&mut self, event: LinkEvent) -> Result<(), End> {
        let LinkEvent::Sender(number, event) = event else {
            return match event {
                LinkEvent::Ended { code, .. } => Err(End::PeerEnded(code)),
                _ => Ok(()),
            };
        };
        let index = self.sent[&number];
        let (outcome, progress) = match event {
            SenderEvent::Accepted { .. } | SenderEvent::Replacing { .. } => return Ok(()),
            SenderEvent::Receipted { digest, progress, .. } => {
                (Outcome::Receipted(digest.expect("a file has a digest")), progress)
            }
            SenderEvent::Rejected { code, progress, .. } => (Outcome::Rejected(code), progress),
            SenderEvent::Changed => {
                let progress = self.sender.progress(number).unwrap();
                self.sender.cancel(number, Code::Source, "the source changed", false);
                (Outcome::Cancelled, progress)
            }
        };
        self.outcomes[index] = Some(outcome);
        self.progress[index] = progress;
        Ok(())
    }

    fn hand_to_receiver(&mut self, text: &str) -> Result<(), End> {
        let mut bytes = Vec::new();
        let write = self
            .receiver
            .handle_frame(text.as_bytes(), &mut bytes, self.now)
            .map_err(|violation| End::Violation(Direction::ToReceiver, violation))?;
        let (number, range) = match write {
            None => return Ok(()),
            Some(Write::Bytes { transfer, offset, len }) => {
                (transfer, offset as usize..offset as usize + len)
            }
            Some(Write::Zeros { transfer, bytes: range }) => {
                bytes = vec![0; (range.end - range.start) as usize];
                (transfer, range.start as usize..range.end as usize)
            }
        };
        let index = self.taken[&number].index;
        self.disks[index].write(range, &bytes);
        Ok(())
    }

    /// A transfer is over on the receiver's side.
    fn forget(&mut self, number: u32, unfinished: Option<Unfinished>) {
        if let Some(Taken { index, .. }) = self.taken.remove(&number)
            && let Some(unfinished) = unfinished
        {
            self.disks[index].put_away(unfinished);
        }
    }

    fn fail(&mut self, number: u32, code: Code) {
        let unfinished = self.receiver.fail(number, code, "it cannot be", false);
        self.forget(number, unfinished);
    }

    fn open(&mut self, number: u32, offer: CheckedOffer) {
        let index = self.files.iter().position(|file| file.name == offer.path.as_str());
        let Some(index) = index else { return self.fail(number, Code::Name) };
        if self.taken.values().any(|taken| taken.index == index) {
            return self.fail(number, Code::Busy);
        }
        let disk = &mut self.disks[index];
        let mut opened = disk.opened(&offer);
        if let (true, Some(known)) = (opened.complete, offer.digest) {
            // It is compared at once, and may be replaced.
            if disk.digest(offer.geometry) == known {
                return self.receiver.done(number, Done::Sealed(Some(known)), self.now);
            }
            disk.sealed = None;
            opened = Opened::default();
        }
        let is_resumed = !self.disks[index].part.is_empty();
        self.taken.insert(number, Taken { index, offer, is_resumed });
        self.receiver.done(number, Done::Opened(opened), self.now);
    }

    fn act(&mut self, action: Action) {
        let number = action.transfer();
        if let Action::Open { offer, .. } = action {
            return self.open(number, offer);
        }
        // One that is over meanwhile has no file open.
        let Some(Taken { index, offer, .. }) = self.taken.get(&number) else { return };
        let (geometry, disk) = (offer.geometry, &mut self.disks[*index]);
        let done = match action {
            Action::Sync { blocks, .. } => {
                let is_large = geometry.blocks() > 1 || self.files[*index].is_input;
                assert!(is_large, "what has one block is not journaled before its end");
                disk.journal.extend(blocks);
                Done::Synced
            }
            Action::HashBlock { block, .. } => Done::Hashed(block, Some(hash(geometry, block, &disk.part))),
            Action::CheckBlock { block, .. } => {
                Done::Checked(block, disk.journal[&block] == hash(geometry, block, &disk.part))
            }
            Action::ReadDigests { first, count, tree, .. } => {
                let digest = |block| match tree {
                    true => disk.hashes(geometry, block).digest(),
                    false => plain_digest(geometry, block, &disk.part),
                };
                Done::Digests(first, (first..first + count).map(digest).collect())
            }
            Action::Seal { digest, hashes, .. } => {
                disk.journal.extend(hashes.map(|hashes| (0, hashes)));
                if disk.digest(geometry) != digest {
                    return self.differs(number);
                }
                if disk.sealed.is_none() {
                    disk.part.truncate(geometry.size() as usize);
                    let (name, bytes) = (offer.path.to_string(), std::mem::take(&mut disk.part));
                    let File { zeros, known, is_input, .. } = self.files[*index].clone();
                    disk.sealed = Some(File {
                        name,
                        bytes,
                        mtime: offer.mtime,
                        mode: offer.mode,
                        zeros,
                        known,
                        is_input,
                    });
                    disk.journal.clear();
                }
                Done::Sealed(Some(digest))
            }
            action => panic!("{action:?} is no work of a receiver"),
        };
        self.receiver.done(number, done, self.now);
    }

    /// What was to be sealed is something else: another file that stood there may be replaced, and what was left of another
    /// version, where nobody compares blocks since the digest is known, goes.
    fn differs(&mut self, number: u32) {
        let taken = self.taken.get_mut(&number).expect("it is being sealed");
        let disk = &mut self.disks[taken.index];
        let was_there = taken.offer.digest.is_some() && std::mem::take(&mut taken.is_resumed);
        if disk.sealed.take().is_some() || was_there {
            disk.journal.clear();
            self.receiver.done(number, Done::Differs(Opened::default()), self.now);
        } else {
            self.fail(number, Code::Digest);
        }
    }

    /// What is called durable is in the journal, and the partial file reaches as far.
    fn check_durable(&self, number: u32, durable: u64) {
        let Some(Taken { index, offer, .. }) = self.taken.get(&number) else { return };
        let disk = &self.disks[*index];
        if disk.sealed.is_none() {
            let blocks = durable.div_ceil(BLOCK);
            assert!(durable == offer.geometry.size() || durable.is_multiple_of(BLOCK), "{durable}");
            assert!((0..blocks).all(|block| disk.journal.contains_key(&block)), "{durable} are not durable");
            assert!(durable <= disk.part.len() as u64);
        }
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

fn range_of(geometry: Geometry, block: u64) -> std::ops::Range<usize> {
    geometry.block_start(block) as usize..geometry.block_end(block) as usize
}

fn hash(geometry: Geometry, block: u64, bytes: &[u8]) -> BlockHashes {
    let mut hasher = BlockHasher::new(geometry, block);
    hasher.update(&bytes[range_of(geometry, block)]);
    hasher.finish()
}

/// What a receiver that knows no subtree hashes tells of a block.
pub fn plain_digest(geometry: Geometry, block: u64, bytes: &[u8]) -> BlockDigest {
    BlockDigest(*blake3::hash(&bytes[range_of(geometry, block)]).as_bytes())
}

/// Sends one file over as many connections as it takes: see [`send_all_to_the_end`].
pub fn send_to_the_end(
    file: &File,
    disk: &mut Disk,
    options: Options,
    fault: impl FnMut(Direction, usize, &str) -> Fault,
) -> End {
    send_all_to_the_end(std::slice::from_ref(file), std::slice::from_mut(disk), options, fault)
}

/// Sends `files` over two connections at most, the first with faults: the exact files, or a panic.
///
/// Returns how the first one ended.
pub fn send_all_to_the_end(
    files: &[File],
    disks: &mut [Disk],
    options: Options,
    fault: impl FnMut(Direction, usize, &str) -> Fault,
) -> End {
    let mut first = Pair::new(files, disks, options);
    let end = first.run(fault);
    let outcomes = first.outcomes;
    check_receipts(&outcomes, files, disks);
    let left: Vec<usize> =
        (0..files.len()).filter(|&at| !matches!(outcomes[at], Some(Outcome::Receipted(_)))).collect();
    if !left.is_empty() {
        // Those alone are offered again.
        let again: Vec<File> = left.iter().map(|&at| files[at].clone()).collect();
        let mut places: Vec<Disk> = left.iter().map(|&at| std::mem::take(&mut disks[at])).collect();
        let mut second = Pair::new(&again, &mut places, options);
        let second_end = second.run(|_, _, _| Fault::Deliver);
        assert_eq!(second_end, End::Receipted, "of the second connection, after {end:?}");
        check_receipts(&second.outcomes, &again, &places);
        left.into_iter().zip(places).for_each(|(at, disk)| disks[at] = disk);
    }
    end
}

/// A receipt means: exactly this file is there.
fn check_receipts(outcomes: &[Option<Outcome>], files: &[File], disks: &[Disk]) {
    for ((outcome, file), disk) in outcomes.iter().zip(files).zip(disks) {
        if let Some(Outcome::Receipted(digest)) = outcome {
            assert_eq!(*digest, file.digest());
            assert!(disk.sealed.as_ref() == Some(file), "a wrong file was called right");
        }
    }
}
