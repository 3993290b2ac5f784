//! Every operation of the destination fails, and others play with every name between any two of them, under the real
//! machines: never a receipt without that very file under that name, what was durable stays unless it was taken, and
//! once all is well again the same command finishes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::io::Errno;
use wsferry::protocol::{
    Action, BlockDigest, ChunkSize, Done, Due, HeartbeatConfig, Link, LinkConfig, LinkEvent, Message, Offer,
    Path, Receiving, SenderEvent, Write, chunk,
};
use wsferry::storage::{Inbox, InboxOptions, Sealed, StorageError, Target};

use crate::link::{File, Options};
use crate::model::{Act, DEEDS, Deed, Fault, Lie, Model};
use crate::support::random;

const BLOCK: u64 = 3 << 20;

const ERRNOS: [Errno; 11] = [
    Errno::IO,
    Errno::PERM,
    Errno::ACCESS,
    Errno::NOSPC,
    Errno::DQUOT,
    Errno::INVAL,
    Errno::NOTSUP,
    Errno::MFILE,
    Errno::NOLCK,
    Errno::BUSY,
    Errno::ROFS,
];

/// Permissions of a source that nobody may write to.
const READ_ONLY: Option<u32> = Some(0o440);

const WRONG: &str = "a receipt for another file";

/// How a connection ended without a receipt.
#[derive(Debug)]
enum End {
    Storage(String),
    /// A receipt, and the file is not that file.
    Wrong,
    Cut,
}

impl From<StorageError> for End {
    fn from(error: StorageError) -> Self {
        Self::Storage(format!("{error:?}"))
    }
}

/// One connection of the two machines, the receiver's on the model.
struct Connection<'a> {
    model: &'a Model,
    inbox: &'a Inbox,
    file: &'a File,
    sender: Link,
    receiver: Link,
    target: Option<Target>,
    now: Instant,
    /// Chunks after which it is cut.
    chunks: u64,
    /// The most that was called durable.
    durable: u64,
    receipt: bool,
}

impl<'a> Connection<'a> {
    fn new(model: &'a Model, inbox: &'a Inbox, file: &'a File, repair: bool, chunks: u64) -> Self {
        let now = Instant::now();
        let options = Options { chunk: 512 * 1024, ..Options::default() };
        // Each block is synced alone.
        let receiving = Receiving { sync_bytes: 1, sync_interval: Duration::ZERO };
        let config = LinkConfig {
            hello: options.hello(true),
            path: Path::carrying(ChunkSize::at_most(options.chunk).unwrap()),
            receiving,
            heartbeat: HeartbeatConfig::default(),
        };
        let mut sender = Link::new(config.clone(), now);
        sender.offer(Offer { repair, ..file.offer() }, file.sending(options.chunk)).unwrap();
        Self {
            model,
            inbox,
            file,
            sender,
            receiver: Link::new(config, now),
            target: None,
            now,
            chunks,
            durable: 0,
            receipt: false,
        }
    }

    fn run(mut self) -> (Result<(), End>, u64) {
        let ended = loop {
            match self.turn() {
                Ok(_) if self.receipt => break Ok(()),
                Ok(true) => {}
                Ok(false) => {
                    let next = self.sender.timeout(self.now).min(self.receiver.timeout(self.now));
                    self.now = next.max(self.now + Duration::from_micros(1));
                    let beats =
                        [self.sender.handle_timeout(self.now), self.receiver.handle_timeout(self.now)];
                    assert!(beats.iter().all(Result::is_ok), "it hangs");
                }
                Err(end) => break Err(end),
            }
        };
        if let Some(target) = self.target.take().filter(|_| ended.is_err()) {
            let storage_failed = matches!(ended, Err(End::Storage(_)));
            if let Some(left) = self.receiver.take_unfinished(0) {
                let blocks = if storage_failed { Vec::new() } else { left.unsynced };
                target.put_away(&blocks, left.end);
            }
        }
        (ended, self.durable)
    }

    fn turn(&mut self) -> Result<bool, End> {
        let mut moved = false;
        let mut bytes = Vec::new();
        while let Some(message) = self.sender.poll_message(self.now) {
            moved = true;
            self.receiver.handle_frame(message.to_frame().as_bytes(), &mut bytes, self.now).unwrap();
        }
        if let Some(Due { offset, len, .. }) = self.sender.next_chunk() {
            moved = true;
            self.chunks = self.chunks.checked_sub(1).ok_or(End::Cut)?;
            let mut frame = vec![0; chunk::frame_len(len)];
            let chunk = &self.file.bytes[offset as usize..][..len];
            self.sender.encode_chunk(chunk, &mut frame, self.now);
            let write = self.receiver.handle_frame(&frame, &mut bytes, self.now).unwrap();
            self.write(write, &bytes)?;
        }
        if let Some(frame) = self.sender.poll_zeros(self.now) {
            moved = true;
            let write = self.receiver.handle_frame(&frame, &mut bytes, self.now).unwrap();
            self.write(write, &bytes)?;
        }
        while let Some(action) = self.sender.poll_action(self.now) {
            moved = true;
            let done = match action {
                Action::HashSource { block, .. } => {
                    let hashes = self.file.hashes(block);
                    let digest = hashes.digest();
                    Done::HashedSource(block, hashes, digest)
                }
                Action::Confirm { .. } => Done::Confirmed,
                action => panic!("{action:?} is no work of a sender"),
            };
            self.sender.done(0, done, self.now);
        }
        while let Some(action) = self.receiver.poll_action(self.now) {
            moved = true;
            self.act(action)?;
        }
        while let Some(event) = self.receiver.poll_event() {
            if let LinkEvent::Ended { reason, .. } = event {
                panic!("the sender ended it: {reason}");
            }
        }
        while let Some(message) = self.receiver.poll_message(self.now) {
            moved = true;
            if let Message::Ack { durable, .. } = &message {
                let durable = durable.iter().map(|(_, durable)| *durable);
                self.durable = durable.fold(self.durable, u64::max);
            }
            self.sender.handle_frame(message.to_frame().as_bytes(), &mut bytes, self.now).unwrap();
        }
        while let Some(event) = self.sender.poll_event() {
            match event {
                LinkEvent::Sender(_, SenderEvent::Receipted { .. }) => self.receipt = true,
                LinkEvent::Sender(_, SenderEvent::Rejected { reason, .. })
                | LinkEvent::Ended { reason, .. } => {
                    panic!("errors of the storage end a connection here: {reason}")
                }
                _ => {}
            }
        }
        Ok(moved)
    }

    fn act(&mut self, action: Action) -> Result<(), End> {
        let done = match action {
            Action::Open { offer, .. } => {
                let (target, opened) = self.inbox.begin(offer)?;
                self.target = Some(target);
                Done::Opened(opened)
            }
            Action::Sync { blocks, .. } => {
                self.target().sync(&blocks)?;
                Done::Synced
            }
            Action::HashBlock { block, .. } => Done::Hashed(block, self.target().hash_block(block)?),
            Action::CheckBlock { block, .. } => Done::Checked(block, self.target().check_block(block)?),
            // There may be no journal of what has one block.
            Action::ReadDigests { first, .. } if self.target().geometry().blocks() == 1 => {
                let hashes = self.target().hash_block(first)?;
                Done::Digests(first, vec![hashes.map_or(BlockDigest::NONE, |hashes| hashes.digest())])
            }
            Action::ReadDigests { first, count, .. } => {
                Done::Digests(first, self.target().digests(first, count)?)
            }
            Action::Seal { digest, hashes, .. } => {
                if let Some(hashes) = hashes {
                    self.target().note_hashes(hashes)?;
                }
                match self.target().seal(digest)? {
                    // From the receipt on others may do as they like.
                    Sealed::Stored(_)
                        if self.model.content(&self.file.name).as_ref() != Some(&self.file.bytes) =>
                    {
                        return Err(End::Wrong);
                    }
                    Sealed::Stored(_) => Done::Sealed(Some(digest)),
                    Sealed::Differs(opened) => Done::Differs(opened),
                }
            }
            action => panic!("{action:?} is no work of a receiver"),
        };
        self.receiver.done(0, done, self.now);
        Ok(())
    }

    fn write(&self, write: Option<Write>, bytes: &[u8]) -> Result<(), StorageError> {
        match write.expect("the link is perfect") {
            Write::Bytes { offset, len, .. } => self.target().write_at(&bytes[..len], offset),
            Write::Zeros { bytes, .. } => self.target().write_zeros(bytes),
        }
    }

    fn target(&self) -> &Target {
        self.target.as_ref().expect("it was opened")
    }
}

/// What is there when a transfer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// A partial file, cut after so many chunks.
    Partial(u64),
    /// That very file, which may not be replaced.
    Same,
    /// Another one of that size and time, which may be replaced.
    Other,
    /// Another one, to be repaired.
    Repaired,
}

/// One command on one model, as often as it takes.
struct Case {
    file: File,
    before: Before,
}

impl Case {
    fn new(size: usize, before: Before) -> Self {
        Self { file: File::new(random(size, 11)), before }
    }

    /// The source is one that nobody may write to.
    fn read_only(mut self) -> Self {
        self.file.mode = READ_ONLY;
        self
    }

    fn options(&self) -> InboxOptions {
        let overwrite = matches!(self.before, Before::Other | Before::Repaired);
        InboxOptions { overwrite, ..InboxOptions::default() }
    }

    fn model(&self) -> Model {
        let model = Model::new(Lie::No);
        let put = |bytes: &[u8]| {
            let file = wsferry::storage::Folder::create(&model, &self.file.name, 0o644).unwrap();
            file.write_all_at(bytes, 0).unwrap();
            file.set_mtime(self.file.mtime, 5).unwrap();
            file.sync_all().unwrap();
            wsferry::storage::Folder::sync(&model).unwrap();
        };
        let mut other = self.file.bytes.clone();
        if let Some(byte) = other.last_mut() {
            *byte ^= 1;
        }
        match self.before {
            Before::Nothing => {}
            Before::Partial(chunks) => {
                let inbox = Inbox::new(Arc::new(model.clone()), self.options()).unwrap();
                let (ended, _) = Connection::new(&model, &inbox, &self.file, false, chunks).run();
                assert!(matches!(ended, Err(End::Cut)), "{ended:?}");
            }
            Before::Same => put(&self.file.bytes),
            Before::Other | Before::Repaired => put(&other),
        }
        model
    }

    /// Runs the command once: a receiver is started unless one is running, connections are made until one ends for
    /// another reason than that the file has to be offered again.
    fn run(&self, model: &Model, inbox: Option<&Inbox>) -> (Result<(), String>, u64) {
        let started;
        let inbox = match inbox {
            Some(inbox) => inbox,
            None => match Inbox::new(Arc::new(model.clone()), self.options()) {
                Ok(inbox) => {
                    started = inbox;
                    &started
                }
                Err(error) => return (Err(error.to_string()), 0),
            },
        };
        let repair = self.before == Before::Repaired;
        let (ended, durable) = Connection::new(model, inbox, &self.file, repair, u64::MAX).run();
        let result = ended.map_err(|end| match end {
            End::Storage(why) => why,
            End::Cut => "cut".to_owned(),
            End::Wrong => WRONG.to_owned(),
        });
        (result, durable)
    }

    /// Runs the command while faults and acts come, then once more without. Says whether the first run had a receipt.
    fn check(&self, faults: &[Fault], acts: &[Act], same_process: bool) -> Result<bool, String> {
        let model = self.model();
        model.disturb(faults, acts);
        let inbox = Inbox::new(Arc::new(model.clone()), self.options());
        let (first, durable) = match &inbox {
            Ok(inbox) => self.run(&model, Some(inbox)),
            Err(error) => (Err(error.to_string()), 0),
        };
        let there = || model.content(&self.file.name);
        let told = || format!("{faults:?} {acts:?} {:?}: {first:?}", model.done());
        if first.as_ref().is_err_and(|why| why == WRONG) {
            return Err(told());
        }
        let log = model.log();
        let cannot_set = faults.iter().any(|fault| log.get(fault.at as usize) == Some(&"set mode"));
        model.disturb(&[], &[]);
        // Others take what they take; what fails takes nothing.
        if acts.is_empty() && first.is_err() && there().as_ref() != Some(&self.file.bytes) {
            self.check_durable(&model, durable).map_err(|what| format!("{}: {what}", told()))?;
        }
        let inbox = inbox.ok().filter(|_| same_process);
        let mut second = self.run(&model, inbox.as_ref()).0;
        if second.is_err() && !self.options().overwrite {
            // Others may have put another file there, which is kept.
            let theirs = there().is_some_and(|there| there != self.file.bytes);
            let kept = second.as_ref().is_err_and(|why| why.contains("Exists"));
            if theirs && kept && !acts.is_empty() {
                return Ok(first.is_ok());
            }
        }
        if second.is_err() && !acts.is_empty() {
            // They acted on what the first run had told; the next finds it.
            second = self.run(&model, None).0;
        }
        if let Err(why) = second {
            return Err(format!("{}: and then it does not finish: {why}", told()));
        }
        if there().as_ref() != Some(&self.file.bytes) {
            return Err(format!("{}: and then another file", told()));
        }
        // Permissions that could not be set are a warning.
        let is_to_be_kept = acts.is_empty() && self.file.mode == READ_ONLY && !cannot_set;
        if is_to_be_kept && !model.is_read_only(&self.file.name) {
            return Err(format!("{}: and then it can be written to", told()));
        }
        Ok(first.is_ok())
    }

    fn check_durable(&self, model: &Model, durable: u64) -> Result<(), String> {
        let inbox = Inbox::new(Arc::new(model.clone()), self.options()).map_err(|error| error.to_string())?;
        let offer = self.file.offer().check().unwrap().unwrap();
        let (_, opened) = inbox.begin(offer).map_err(|error| error.to_string())?;
        for block in 0..durable / BLOCK {
            if !opened.complete && !opened.held.contains(block) && !opened.unhashed.contains(block) {
                return Err(format!("block {block} was durable and is gone"));
            }
        }
        Ok(())
    }

    /// How many operations an undisturbed run has.
    fn operations(&self) -> u64 {
        let model = self.model();
        model.disturb(&[], &[]);
        self.run(&model, None).0.expect("nothing disturbs it");
        model.log().len() as u64
    }
}

/// What was tried and how often the first run got its receipt all the same.
#[derive(Default)]
struct Counts {
    runs: u64,
    receipts: u64,
    wrong: Vec<String>,
}

impl Counts {
    fn add(&mut self, case: &Case, faults: &[Fault], acts: &[Act]) {
        self.runs += 1;
        match case.check(faults, acts, self.runs.is_multiple_of(2)) {
            Ok(receipt) => self.receipts += u64::from(receipt),
            Err(wrong) => {
                self.wrong.push(format!("{:?}, {} bytes: {wrong}", case.before, case.file.bytes.len()))
            }
        }
    }

    fn tell(self, what: &str) {
        println!("{what}: {} runs, {} with a receipt at once", self.runs, self.receipts);
        let (first, count) = (self.wrong.first(), self.wrong.len());
        assert!(self.wrong.is_empty(), "{count} of {} went wrong, the first: {}", self.runs, first.unwrap());
        assert!(self.runs > 100 && self.receipts > 0 && self.receipts < self.runs);
    }
}

const SMALL: usize = 100_001;
const LARGE: usize = (3 << 20) + 50_001;

fn small_cases() -> Vec<Case> {
    let befores = [Before::Nothing, Before::Same, Before::Other, Before::Repaired];
    befores.into_iter().map(|before| Case::new(SMALL, before)).collect()
}

fn large_cases() -> Vec<Case> {
    let befores = [Before::Nothing, Before::Partial(7), Before::Repaired];
    befores.into_iter().map(|before| Case::new(LARGE, before)).collect()
}

fn every_fault(case: &Case, counts: &mut Counts, errnos: impl Fn(u64) -> Vec<Errno>) {
    for at in 0..case.operations() {
        for errno in errnos(at) {
            for forever in [false, true] {
                counts.add(case, &[Fault { at, errno, forever }], &[]);
            }
        }
    }
}

fn every_act(case: &Case, counts: &mut Counts, names: usize) {
    for at in 0..case.operations() {
        for deed in DEEDS {
            for which in 0..if deed == Deed::Clean { 1 } else { names } {
                counts.add(case, &[], &[Act { at, deed, which }]);
            }
        }
    }
}

fn pairs(cases: &[Case], counts: &mut Counts, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut rng = Rng::with_seed(seed);
        let case = &cases[rng.usize(..cases.len())];
        let most = case.operations() + 10;
        let fault = |rng: &mut Rng| Fault {
            at: rng.u64(..most),
            errno: ERRNOS[rng.usize(..ERRNOS.len())],
            forever: rng.u8(..3) == 0,
        };
        let act = |rng: &mut Rng| Act {
            at: rng.u64(..most),
            deed: DEEDS[rng.usize(..DEEDS.len())],
            which: rng.usize(..4),
        };
        match rng.u8(..3) {
            0 => counts.add(case, &[fault(&mut rng), fault(&mut rng)], &[]),
            1 => counts.add(case, &[], &[act(&mut rng), act(&mut rng)]),
            _ => counts.add(case, &[fault(&mut rng)], &[act(&mut rng)]),
        }
    }
}

#[test]
fn any_operation_that_fails_costs_no_more_than_another_try() {
    let mut counts = Counts::default();
    for case in small_cases() {
        every_fault(&case, &mut counts, |_| ERRNOS.to_vec());
    }
    for case in large_cases() {
        every_fault(&case, &mut counts, |at| vec![ERRNOS[at as usize % ERRNOS.len()]]);
    }
    for case in [Case::new(SMALL, Before::Nothing), Case::new(LARGE, Before::Nothing)] {
        every_fault(&case.read_only(), &mut counts, |_| vec![Errno::IO, Errno::NOSPC]);
    }
    counts.tell("faults");
}

#[test]
fn whatever_others_do_between_two_operations_no_receipt_is_wrong() {
    let mut counts = Counts::default();
    for case in small_cases() {
        every_act(&case, &mut counts, 3);
    }
    counts.tell("acts of others");
}

#[test]
fn two_faults_or_acts_together_are_no_worse() {
    let mut counts = Counts::default();
    pairs(&small_cases(), &mut counts, 0..1500);
    pairs(&large_cases(), &mut counts, 0..50);
    counts.tell("pairs");
}

#[test]
#[ignore = "takes minutes: every fault and every act in files of two blocks, and five thousand pairs"]
fn any_fault_and_any_act_at_any_operation_of_larger_files() {
    let mut counts = Counts::default();
    for case in large_cases() {
        every_fault(&case, &mut counts, |_| ERRNOS.to_vec());
        every_act(&case, &mut counts, 2);
    }
    pairs(&small_cases(), &mut counts, 2000..7000);
    pairs(&large_cases(), &mut counts, 2000..2300);
    counts.tell("faults and acts, larger");
}
