//! Two machines joined by a fake link: a virtual clock, and faults at chosen frames.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use wsferry::protocol::message::transfer_id;
use wsferry::protocol::{
    Action, BLOCK, BlockHasher, BlockHashes, BlockSet, CheckedOffer, ChunkSize, Code, DigestTree, FileDigest,
    Geometry, HeartbeatConfig, Message, Offer, Opened, Path, Receiver, ReceiverConfig, ReceiverEvent, Sender,
    SenderConfig, SenderEvent, Violation, Write, chunk,
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
}

impl File {
    pub fn new(bytes: Vec<u8>) -> Self {
        let zeros = BlockSet::new();
        Self { name: "file.bin".to_owned(), bytes, mtime: 1_700_000_000, mode: Some(0o640), zeros }
    }

    pub fn geometry(&self) -> Geometry {
        Geometry::new(self.bytes.len() as u64).unwrap()
    }

    pub fn hashes(&self, block: u64) -> BlockHashes {
        hash(self.geometry(), block, &self.bytes)
    }

    pub fn offer(&self, options: &Options) -> Offer {
        let size = self.bytes.len() as u64;
        Offer {
            id: transfer_id(&self.name, size, self.mtime, 5, self.mode),
            name: self.name.clone(),
            size,
            mtime: self.mtime,
            mtime_ns: 5,
            mode: self.mode,
            frame_limit: options.frame_limit,
            window: options.window,
            repair: false,
            discard: false,
            zeros: 0,
            left: 0,
            session: None,
        }
    }
}

/// The receiver's disk: outlives connections.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    pub part: Vec<u8>,
    pub journal: BTreeMap<u64, BlockHashes>,
    pub sealed: Option<File>,
    /// Every chunk that was written: offset and length.
    pub written: Vec<(u64, usize)>,
}

impl Disk {
    /// A disk that holds these blocks of a file, whole and in the journal.
    pub fn holding(file: &File, blocks: impl IntoIterator<Item = u64>) -> Self {
        let mut disk = Self::default();
        let geometry = file.geometry();
        for block in blocks {
            let range = geometry.block_start(block) as usize..geometry.block_end(block) as usize;
            disk.part.resize(disk.part.len().max(range.end), 0);
            disk.part[range.clone()].copy_from_slice(&file.bytes[range]);
            disk.journal.insert(block, file.hashes(block));
        }
        disk
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub chunk: u64,
    pub window: u64,
    pub frame_limit: u64,
    /// How slow the receiver's disk is.
    pub turns_per_action: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { chunk: 256 * 1024, window: 1 << 20, frame_limit: 32 * 1024 * 1024, turns_per_action: 1 }
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
    Receipted(FileDigest),
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

/// One connection over the fake link.
pub struct Link<'a> {
    pub sender: Sender,
    pub receiver: Receiver,
    file: &'a File,
    disk: &'a mut Disk,
    offer: Option<CheckedOffer>,
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

impl<'a> Link<'a> {
    pub fn new(file: &'a File, disk: &'a mut Disk, options: Options) -> Self {
        let now = Instant::now();
        let config = SenderConfig {
            chunk: ChunkSize::at_most(options.chunk).unwrap(),
            path: Path::carrying(ChunkSize::at_most(options.chunk).unwrap()),
            zeros: file.zeros.clone(),
            already_sent: 0,
            heartbeat: HeartbeatConfig::default(),
        };
        Self {
            sender: Sender::new(file.offer(&options), config, now),
            receiver: Receiver::new(ReceiverConfig { sync_bytes: 4 << 20, ..ReceiverConfig::default() }, now),
            file,
            disk,
            offer: None,
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
        loop {
            match self.turn(&mut fault) {
                Ok(true) => {}
                Ok(false) => {
                    if self.cut {
                        return self.end(End::Cut);
                    }
                    // Nothing moves: the clock does.
                    let next = self.sender.timeout().min(self.receiver.timeout(self.now));
                    self.now = next.max(self.now + Duration::from_micros(1));
                    assert!(
                        self.now - self.started < Duration::from_secs(600),
                        "it hangs: {:#?}",
                        self.log.last()
                    );
                    let sides =
                        [self.sender.handle_timeout(self.now), self.receiver.handle_timeout(self.now)];
                    if sides.iter().any(Result::is_err) {
                        return self.end(End::Stalled);
                    }
                }
                Err(end) => return self.end(end),
            }
        }
    }

    fn end(&mut self, end: End) -> End {
        // What the pump does when a connection ends.
        self.disk.journal.extend(self.receiver.take_unsynced());
        if let Some(end) = self.receiver.end() {
            self.disk.part.truncate(end as usize);
        }
        end
    }

    fn turn(&mut self, fault: &mut impl FnMut(Direction, usize, &str) -> Fault) -> Result<bool, End> {
        let mut moved = false;
        while let Some(message) = self.sender.poll_message(self.now) {
            self.transmit(Direction::ToReceiver, message.to_text(), fault)?;
            moved = true;
        }
        if let Some(frame) = self.sender.poll_zeros(self.now) {
            self.transmit(Direction::ToReceiver, String::from_utf8(frame.to_vec()).unwrap(), fault)?;
            moved = true;
        }
        if let Some((offset, len)) = self.sender.next_chunk() {
            let bytes = &self.file.bytes[offset as usize..][..len];
            let mut frame = vec![0; chunk::frame_len(len)];
            self.sender.encode_chunk(bytes, &mut frame, self.now);
            self.transmit(Direction::ToReceiver, String::from_utf8(frame).unwrap(), fault)?;
            moved = true;
        }
        if let Some(block) = self.sender.next_check() {
            self.sender.handle_checked(block, &self.file.hashes(block));
            moved = true;
        }
        if let Some(text) = self.to_receiver.pop_front() {
            self.hand_to_receiver(&text)?;
            moved = true;
        }
        while let Some(action) = self.receiver.poll_action(self.now) {
            self.actions.push_back(action);
        }
        self.turns += 1;
        if (!moved || self.turns.is_multiple_of(self.turns_per_action))
            && let Some(action) = self.actions.pop_front()
        {
            self.act(action)?;
            moved = true;
        }
        while let Some(message) = self.receiver.poll_message(self.now) {
            self.transmit(Direction::ToSender, message.to_text(), fault)?;
            moved = true;
        }
        while let Some(event) = self.receiver.poll_event() {
            if let ReceiverEvent::Failed { code, .. } = event {
                return Err(End::PeerEnded(code));
            }
        }
        if let Some(text) = self.to_sender.pop_front() {
            let handled = self.sender.handle_frame(text.as_bytes(), self.now);
            handled.map_err(|violation| End::Violation(Direction::ToSender, violation))?;
            moved = true;
        }
        while let Some(event) = self.sender.poll_event() {
            match event {
                SenderEvent::Accepted { .. } | SenderEvent::Replacing { .. } => {}
                SenderEvent::ReadyToFinish => self.sender.finish(),
                SenderEvent::Receipted(digest) => return Err(End::Receipted(digest)),
                SenderEvent::Rejected { code, .. } => return Err(End::Rejected(code)),
                SenderEvent::Failed { code, .. } => return Err(End::PeerEnded(code)),
            }
            moved = true;
        }
        Ok(moved)
    }

    fn hand_to_receiver(&mut self, text: &str) -> Result<(), End> {
        let mut bytes = Vec::new();
        let write = self
            .receiver
            .handle_frame(text.as_bytes(), &mut bytes, self.now)
            .map_err(|violation| End::Violation(Direction::ToReceiver, violation))?;
        let range = match write {
            None => return Ok(()),
            Some(Write::Bytes { offset, len }) => offset as usize..offset as usize + len,
            Some(Write::Zeros(range)) => {
                bytes = vec![0; (range.end - range.start) as usize];
                range.start as usize..range.end as usize
            }
        };
        self.disk.part.resize(self.disk.part.len().max(range.end), 0);
        self.disk.part[range.clone()].copy_from_slice(&bytes[..range.len()]);
        self.disk.written.push((range.start as u64, range.len()));
        Ok(())
    }

    fn act(&mut self, action: Action) -> Result<(), End> {
        let geometry = self.offer.as_ref().map(|offer| offer.geometry);
        match action {
            Action::Open(offer) => {
                let (mut held, mut unhashed) = (BlockSet::new(), BlockSet::new());
                let geometry = offer.geometry;
                for block in 0..geometry.blocks() {
                    let (start, end) =
                        (geometry.block_start(block) as usize, geometry.block_end(block) as usize);
                    // A hole has nothing that could be hashed.
                    if self.disk.part.get(start..end).is_some_and(|bytes| bytes.iter().any(|&byte| byte != 0))
                    {
                        let is_known = self.disk.journal.contains_key(&block);
                        if is_known { &mut held } else { &mut unhashed }.insert(block);
                    }
                }
                let complete = self.disk.sealed.as_ref().is_some_and(|sealed| {
                    (sealed.name.as_str(), sealed.bytes.len() as u64, sealed.mtime)
                        == (offer.path.as_str(), geometry.size(), offer.mtime)
                });
                if complete {
                    held.insert_run(0..geometry.blocks());
                    unhashed = BlockSet::new();
                }
                self.offer = Some(offer);
                let received = self.disk.part.len() as u64;
                self.receiver.opened(Opened { held, unhashed, received, complete });
            }
            Action::Sync(blocks) => {
                self.disk.journal.extend(blocks);
                self.receiver.synced(self.now);
            }
            Action::HashBlock(block) => {
                let hashes = hash(geometry.unwrap(), block, &self.disk.part);
                self.receiver.hashed(block, Some(hashes), self.now);
            }
            Action::CheckBlock(block) => {
                let same = self.disk.journal[&block] == hash(geometry.unwrap(), block, &self.disk.part);
                self.receiver.checked(block, same);
            }
            Action::ReadDigests { first, count } => {
                let digests: Vec<_> =
                    (first..first + count).map(|block| self.disk.journal[&block].digest()).collect();
                self.receiver.digests(first, &digests);
            }
            Action::Seal(digest) => {
                let offer = self.offer.clone().unwrap();
                let actual = match &self.disk.sealed {
                    Some(sealed) => blake3::hash(&sealed.bytes).into(),
                    None => {
                        let mut tree = DigestTree::new(offer.geometry);
                        for block in 0..offer.geometry.blocks() {
                            tree.insert(block, &self.disk.journal[&block]);
                        }
                        tree.digest().unwrap()
                    }
                };
                if actual != digest && self.disk.sealed.take().is_some() {
                    // It may be replaced.
                    self.receiver.differs(Opened::default());
                    return Ok(());
                }
                if actual != digest {
                    return Err(End::PeerEnded(Code::Digest));
                }
                if self.disk.sealed.is_none() {
                    self.disk.part.truncate(offer.geometry.size() as usize);
                    self.disk.sealed = Some(File {
                        name: offer.path.to_string(),
                        bytes: std::mem::take(&mut self.disk.part),
                        mtime: offer.mtime,
                        mode: offer.mode,
                        zeros: self.file.zeros.clone(),
                    });
                    self.disk.journal.clear();
                }
                self.receiver.sealed(digest);
            }
        }
        Ok(())
    }

    /// What is called durable is in the journal, and the partial file reaches as far.
    fn check_durable(&self, durable: u64) {
        if let (Some(offer), None) = (&self.offer, &self.disk.sealed) {
            let blocks = durable.div_ceil(BLOCK);
            assert!(durable == offer.geometry.size() || durable.is_multiple_of(BLOCK), "{durable}");
            assert!(
                (0..blocks).all(|block| self.disk.journal.contains_key(&block)),
                "{durable} are not durable"
            );
            assert!(durable <= self.disk.part.len() as u64);
        }
    }

    fn transmit(
        &mut self,
        direction: Direction,
        text: String,
        fault: &mut impl FnMut(Direction, usize, &str) -> Fault,
    ) -> Result<(), End> {
        if let Ok(Message::Ack { durable, .. }) = Message::parse(text.as_bytes()) {
            self.check_durable(durable);
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

fn hash(geometry: Geometry, block: u64, bytes: &[u8]) -> BlockHashes {
    let mut hasher = BlockHasher::new(geometry, block);
    hasher.update(&bytes[geometry.block_start(block) as usize..geometry.block_end(block) as usize]);
    hasher.finish()
}

/// Sends `file` over as many connections as it takes, the first with faults: the exact file, or a panic.
///
/// Returns how the first one ended.
pub fn send_to_the_end(
    file: &File,
    disk: &mut Disk,
    options: Options,
    fault: impl FnMut(Direction, usize, &str) -> Fault,
) -> End {
    let first = Link::new(file, disk, options).run(fault);
    check_receipt(&first, file, disk);
    if !matches!(first, End::Receipted(_)) {
        let second = Link::new(file, disk, options).run(|_, _, _| Fault::Deliver);
        assert!(
            matches!(second, End::Receipted(_)),
            "after {first:?} the second connection ended with {second:?}"
        );
        check_receipt(&second, file, disk);
    }
    first
}

/// A receipt means: exactly this file is there.
fn check_receipt(end: &End, file: &File, disk: &Disk) {
    if let End::Receipted(digest) = end {
        assert_eq!(*digest, blake3::hash(&file.bytes).into());
        assert!(disk.sealed.as_ref() == Some(file), "a wrong file was called right");
    }
}
