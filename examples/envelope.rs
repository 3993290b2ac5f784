//! wsferry's frames inside the messages of a host application, which knows nothing of them: what SignalR, Socket.IO or the
//! gateway of an agent need. The machines alone, two threads, no async crate.
//!
//! ```sh
//! cargo run --no-default-features --example envelope
//! ```
//!
//! The host's connection is a pair of channels here. It loses one message: a connection that loses something is at its
//! end, and the next one goes on behind the last durable block. There it damages another one, which is sent again.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use wsferry::protocol::{
    Action, BLOCK, BlockSet, ChunkSize, Code, Done, Feature, HeartbeatConfig, Hello, Link, LinkConfig,
    LinkEvent, MIN_OFFERS, Path, Progress, ReceiverEvent, Receiving, SenderEvent, Sending, Write, chunk,
};
use wsferry::storage::{Inbox, InboxOptions, Source, Standing, Target};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    run()
}

/// Sends a file of several blocks, over as many connections as it takes.
pub fn run() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let mut content = vec![0; 3 * BLOCK as usize + 1000];
    fastrand::Rng::with_seed(14).fill(&mut content);
    fs::write(dir.path().join("file.bin"), &content)?;
    let source = Source::open(&dir.path().join("file.bin"), None)?;
    let inbox = Inbox::open(&dir.path().join("inbox"), InboxOptions::default())?;

    let mut host = Host { chunks: 0, loses: 260, damages: 300 };
    let mut connect = || {
        let (to_receiver, at_receiver) = mpsc::channel();
        let (to_sender, at_sender) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| receive(&inbox, End::new(to_sender, at_receiver, None)));
            send(&source, End::new(to_receiver, at_sender, Some(&mut host)))
        })
    };
    let cut = connect().expect_err("a message was lost");
    println!("The first connection: {cut}");
    let progress = connect()?;
    println!("The second one went on behind {} bytes", progress.held);

    assert!(progress.held >= 2 * BLOCK, "what was whole does not cross again: {progress:?}");
    assert_eq!(progress.naks, 1, "the damaged message was asked for again");
    assert!(fs::read(dir.path().join("inbox/file.bin"))? == content, "the copy differs");
    Ok(())
}

/// One end of the host's connection, with the machine of wsferry's connection on it.
struct End<'a> {
    link: Link,
    bytes: Vec<u8>,
    to: Sender<String>,
    from: Receiver<String>,
    host: Option<&'a mut Host>,
}

impl<'a> End<'a> {
    fn new(to: Sender<String>, from: Receiver<String>, host: Option<&'a mut Host>) -> Self {
        let hello = Hello {
            // Runs of zeros, trees and the like cost more code on this side.
            features: vec![Feature::TreeDigests],
            // What the host takes as a message, less its envelope.
            frame_limit: 32 * 1024 - 64,
            window: 256 * 1024,
            offers: MIN_OFFERS,
            session: None,
            program: "an example".to_owned(),
            role: None,
        };
        let (path, receiving, heartbeat) =
            (Path::default(), Receiving::default(), HeartbeatConfig::default());
        let config = LinkConfig { hello, path, receiving, heartbeat };
        Self { link: Link::new(config, Instant::now()), bytes: Vec::new(), to, from, host }
    }

    fn send(&mut self, frame: &str) -> Result<(), Failure> {
        // Frames are ASCII, and none of their characters is escaped but the quotation marks of control messages.
        let message = json!({"channel": "files", "body": frame}).to_string();
        match self.host.as_mut().map_or(Some(message.clone()), |host| host.pass(frame, message)) {
            Some(message) => self.to.send(message).map_err(|_| "the receiver has hung up".into()),
            None => Ok(()),
        }
    }

    /// Takes the next frame; what has to be written of it. Waits for one until the machine has to be asked again.
    fn take(&mut self) -> Result<Option<Write>, Failure> {
        let message = match self.from.try_recv() {
            Ok(message) => message,
            Err(_) => {
                self.link.handle_drained(false, Instant::now());
                while let Some(message) = self.link.poll_message(Instant::now()) {
                    self.send(&message.to_frame())?;
                }
                let now = Instant::now();
                match self.from.recv_timeout(self.link.timeout(now).saturating_duration_since(now)) {
                    Ok(message) => message,
                    Err(RecvTimeoutError::Disconnected) => return Err("the peer has hung up".into()),
                    Err(RecvTimeoutError::Timeout) => {
                        let silent = |silence| format!("the peer was silent for {silence:?}");
                        return Ok(self
                            .link
                            .handle_timeout(Instant::now())
                            .map(|()| None)
                            .map_err(silent)?);
                    }
                }
            }
        };
        let message: Value = serde_json::from_str(&message)?;
        if message["channel"] != "files" {
            return Ok(None);
        }
        let frame = message["body"].as_str().ok_or("a message without a body")?;
        Ok(self.link.handle_frame(frame.as_bytes(), &mut self.bytes, Instant::now())?)
    }
}

/// Offers the file and sends what the receiver lacks of it, to the receipt.
fn send(source: &Source, mut end: End<'_>) -> Result<Progress, Failure> {
    let chunk = ChunkSize::auto(source.geometry().size());
    let sending = Sending { chunk, zeros: BlockSet::new(), already_sent: 0, input: None };
    let number = end.link.offer(source.offer(), sending)?;
    let (mut bytes, mut frame) = (Vec::new(), Vec::new());
    loop {
        while let Some(action) = end.link.poll_action(Instant::now()) {
            let done = match action {
                Action::HashSource { block, tree, .. } => {
                    let hashes = source.hash_block(block)?;
                    let digest = if tree { hashes.digest() } else { source.plain_digest(block)? };
                    Done::HashedSource(block, hashes, digest)
                }
                Action::Confirm { .. } if source.standing()? == Standing::Same => Done::Confirmed,
                action => return Err(format!("not done here, or not any more: {action:?}").into()),
            };
            end.link.done(number, done, Instant::now());
        }
        while let Some(due) = end.link.next_chunk() {
            bytes.resize(due.len, 0);
            source.read_exact_at(&mut bytes, due.offset)?;
            frame.resize(chunk::frame_len(due.len), 0);
            end.link.encode_chunk(&bytes, &mut frame, Instant::now());
            end.send(str::from_utf8(&frame)?)?;
        }
        while let Some(event) = end.link.poll_event() {
            match event {
                LinkEvent::Sender(_, SenderEvent::Receipted { progress, .. }) => return Ok(progress),
                LinkEvent::Sender(_, SenderEvent::Rejected { reason, .. })
                | LinkEvent::Ended { reason, .. } => return Err(reason.into()),
                LinkEvent::Sender(_, SenderEvent::Changed) => return Err("the file has changed".into()),
                _ => {}
            }
        }
        end.take()?;
    }
}

/// Receives what is offered until the sender hangs up, and keeps what came of what is not whole.
fn receive(inbox: &Inbox, mut end: End<'_>) {
    let mut targets = BTreeMap::new();
    if let Err(error) = receive_into(inbox, &mut end, &mut targets) {
        println!("The receiver: {error}");
    }
    for (number, target) in targets {
        if let Some(left) = end.link.take_unfinished(number) {
            target.put_away(&left.unsynced, left.end);
        }
    }
}

fn receive_into(
    inbox: &Inbox,
    end: &mut End<'_>,
    targets: &mut BTreeMap<u32, Target>,
) -> Result<(), Failure> {
    loop {
        while let Some(action) = end.link.poll_action(Instant::now()) {
            let number = action.transfer();
            let done = match action {
                Action::Open { offer, .. } => inbox.begin(offer).map(|(target, opened)| {
                    targets.insert(number, target);
                    Done::Opened(opened)
                }),
                action => targets[&number].carry_out(action),
            };
            match done {
                Ok(done) => end.link.done(number, done, Instant::now()),
                Err(error) => drop(end.link.fail(number, error.code(), "it cannot be stored", false)),
            }
        }
        while let Some(event) = end.link.poll_event() {
            if let LinkEvent::Receiver(number, ReceiverEvent::Sealed { .. }) = event {
                targets.remove(&number);
            }
        }
        if let Some(Write::Bytes { transfer, offset, len }) = end.take()?
            && let Err(error) = targets[&transfer].write_at(&end.bytes[..len], offset)
        {
            end.link.fail(transfer, Code::Storage, error.to_string(), false);
        }
    }
}

/// What goes wrong on the host's connection: which of all chunks is lost, and which is damaged.
struct Host {
    chunks: u32,
    loses: u32,
    damages: u32,
}

impl Host {
    fn pass(&mut self, frame: &str, message: String) -> Option<String> {
        if frame.as_bytes().first() != Some(&chunk::KIND) {
            return Some(message);
        }
        self.chunks += 1;
        match self.chunks {
            count if count == self.loses => None,
            // One letter of the body becomes another one.
            count if count == self.damages => {
                let (rest, last) = frame.split_at(frame.len() - 1);
                let damaged = format!("{rest}{}", if last == "A" { "B" } else { "A" });
                Some(json!({"channel": "files", "body": damaged}).to_string())
            }
            _ => Some(message),
        }
    }
}
