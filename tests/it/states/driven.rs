//! Machines driven into a state, frames about a transfer, and which state a machine is in.

use std::time::Instant;

use wsferry::protocol::chunk::{self, Header, Zeros};
use wsferry::protocol::{
    Accept, Action, BLOCK, BlockDigest, BlockSet, Code, Done, Input, Link, LinkEvent, Message, Offer, Opened,
    Sending, Violation,
};

use crate::link::{File, Options};
use crate::machines::{accept, digests, frame, greeted, hear, next_frame, offered, say};
use crate::support::random;

pub fn now() -> Instant {
    // One for all: no time passes here.
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

pub fn small() -> File {
    File::new(random(1000, 1))
}

pub fn two_blocks() -> File {
    File::new(random(2 * BLOCK as usize, 2))
}

/// A well-formed frame of this kind, about this transfer.
pub fn frame_about(kind: &str, transfer: u32) -> Vec<u8> {
    let (file, code, again) = (small(), Code::Source, false);
    let reason = String::new;
    let header = Header { transfer, sequence: 0, offset: 0 };
    let message = match kind {
        "chunk" => return frame(transfer, 0, 0, &file.bytes),
        "zeros" => return chunk::encode_zeros(Zeros { header, len: file.bytes.len() as u64 }).to_vec(),
        "hello" => Message::Hello(Options::default().hello(true)),
        "offer" => Message::Offer(Offer { transfer, ..file.offer() }),
        "accept" => Message::Accept(Accept { transfer, ..accept(&[]) }),
        "reject" => Message::Reject { transfer, code, reason: reason(), again },
        "cancel" => Message::Cancel { transfer, code, reason: reason(), again },
        "ack" => Message::Ack { sequence: 0, durable: Vec::new() },
        "nak" => Message::Nak { sequence: 0 },
        "check" => Message::Check { transfer, first: 0, count: 1, tree: true },
        "digests" => match digests(0, file.hashes(0).digest()) {
            Message::Digests { first, digests, .. } => Message::Digests { transfer, first, digests },
            other => panic!("{other:?}"),
        },
        "repair" => Message::Repair { transfer, blocks: vec![(0, 1)] },
        "size" => Message::Size { transfer, size: file.bytes.len() as u64 },
        "finish" => Message::Finish { transfer, digest: file.digest() },
        "receipt" => Message::Receipt { files: vec![(transfer, Some(file.digest()))] },
        "ping" => Message::Ping { token: 1, busy: false },
        "pong" => Message::Pong { token: 1, busy: false },
        "error" => Message::Error { code, reason: reason(), again },
        _ => panic!("no message of kind {kind}"),
    };
    message.to_frame().into_bytes()
}

/// A machine that offered this, and heard `hello`.
pub fn sender_of(offer: Offer) -> Link {
    let mut link = Options::default().link(true, now());
    link.offer(offer, small().sending(BLOCK)).unwrap();
    say(&mut link, &Message::Hello(Options::default().hello(true)), now());
    link
}

/// A sender whose file was accepted, with these blocks held.
pub fn streaming_sender(file: &File, held: &[(u64, u64)]) -> Link {
    let mut link = offered(file, &Options::default(), true, now());
    hear(&mut link, Message::Accept(accept(held)), now());
    link
}

/// A sender that sent all of its file.
pub fn sent_sender(file: &File) -> Link {
    let mut link = streaming_sender(file, &[]);
    next_frame(&mut link, file, now()).expect("it is one chunk");
    link
}

/// A sender of which all was acknowledged, and that makes sure of its source.
pub fn confirming_sender() -> Link {
    let mut link = sent_sender(&small());
    let confirm = hear(&mut link, Message::Ack { sequence: 1, durable: Vec::new() }, now());
    assert_eq!(confirm, (Some(Action::Confirm { transfer: 0 }), None));
    link
}

pub fn finishing_sender() -> Link {
    let mut link = confirming_sender();
    link.done(0, Done::Confirmed, now());
    assert!(matches!(link.poll_message(now()), Some(Message::Finish { .. })));
    link
}

pub fn opening_receiver(offer: Offer) -> Link {
    let mut link = greeted(&Options::default(), now());
    say(&mut link, &Message::Offer(offer), now());
    assert!(matches!(link.poll_action(now()), Some(Action::Open { transfer: 0, .. })));
    link
}

pub fn streaming_receiver(file: &File, opened: Opened) -> Link {
    let mut link = opening_receiver(file.offer());
    link.done(0, Done::Opened(opened), now());
    assert!(matches!(link.poll_message(now()), Some(Message::Accept(_))));
    link
}

/// A receiver of a file whose size was not offered.
pub fn sizeless_receiver() -> Link {
    let mut link = opening_receiver(Offer { size: None, ..small().offer() });
    link.done(0, Done::Opened(Opened::default()), now());
    assert!(matches!(link.poll_message(now()), Some(Message::Accept(_))));
    link
}

/// A sender of a file whose end it does not know, and that was accepted.
pub fn sizeless_sender() -> Link {
    let mut link = Options::default().link(true, now());
    say(&mut link, &Message::Hello(Options::default().hello(true)), now());
    let sending = Sending { input: Some(Input::default()), ..small().sending(BLOCK) };
    link.offer(Offer { size: None, ..small().offer() }, sending).unwrap();
    hear(&mut link, Message::Accept(accept(&[])), now());
    link
}

/// A receiver that has these blocks.
pub fn holding_receiver(file: &File, complete: bool) -> Link {
    let held: BlockSet = std::iter::once(0..file.geometry().blocks()).collect();
    let received = file.bytes.len() as u64;
    streaming_receiver(file, Opened { held, received, complete, ..Opened::default() })
}

/// A receiver that asked for a block again.
pub fn repairing_receiver() -> Link {
    let file = two_blocks();
    let mut link = holding_receiver(&file, false);
    take(&mut link, &Message::Check { transfer: 0, first: 0, count: 1, tree: true });
    let reads = std::iter::from_fn(|| link.poll_action(now())).collect::<Vec<_>>();
    assert!(reads.contains(&Action::CheckBlock { transfer: 0, block: 0 }), "{reads:?}");
    link.done(0, Done::Digests(0, vec![BlockDigest::NONE]), now());
    link.done(0, Done::Checked(0, false), now());
    let said: Vec<_> = std::iter::from_fn(|| link.poll_message(now())).collect();
    assert!(said.contains(&Message::Repair { transfer: 0, blocks: vec![(0, 1)] }), "{said:?}");
    link
}

pub fn finishing_receiver() -> Link {
    // Without a chunk, so that the first sequence number is still to come.
    let mut link = streaming_receiver(&File::new(Vec::new()), Opened::default());
    feed(&mut link, &frame_about("finish", 0)).unwrap();
    assert!(matches!(link.poll_action(now()), Some(Action::Seal { .. })));
    link
}

pub fn take(link: &mut Link, message: &Message) {
    feed(link, message.to_frame().as_bytes()).unwrap();
}

pub fn feed(link: &mut Link, frame: &[u8]) -> Result<(), Violation> {
    link.handle_frame(frame, &mut Vec::new(), now()).map(|_| ())
}

/// A machine in a state, about which nothing else is special.
pub fn plain(machine: &str, state: &str) -> Link {
    match (machine, state) {
        ("connection", "greeting") => Options::default().link(true, now()),
        ("connection", "open") => greeted(&Options::default(), now()),
        ("sender", "offered") => sender_of(small().offer()),
        ("sender", "streaming") => streaming_sender(&small(), &[]),
        ("sender", "finishing") => finishing_sender(),
        ("sender", "ended") => {
            let mut link = sender_of(small().offer());
            link.cancel(0, Code::Source, "", false);
            link
        }
        ("receiver", "opening") => opening_receiver(small().offer()),
        ("receiver", "streaming") => streaming_receiver(&small(), Opened::default()),
        ("receiver", "finishing") => finishing_receiver(),
        ("receiver", "ended") => {
            let mut link = opening_receiver(small().offer());
            link.fail(0, Code::Busy, "", false);
            link
        }
        _ => panic!("no machine is driven into the state {state} of a {machine}"),
    }
}

/// The state that a machine is in, as far as its answers tell.
pub fn state_of(machine: &str, link: &mut Link) -> &'static str {
    let probe = match machine {
        "connection" => {
            let ended = std::iter::from_fn(|| link.poll_event())
                .any(|event| matches!(event, LinkEvent::Ended { .. }));
            return match link.peer() {
                _ if ended => "ended",
                None => "greeting",
                Some(_) => "open",
            };
        }
        "sender" if link.progress(0).is_none() => return "ended",
        "receiver" if link.received(0).is_none() => return "ended",
        // Neither is ever right.
        "sender" => Message::Digests { transfer: 0, first: 0, digests: "AAAA".to_owned() },
        _ => Message::Check { transfer: 0, first: 0, count: 0, tree: true },
    };
    match feed(link, probe.to_frame().as_bytes()).expect_err("the probe is never right") {
        Violation::Unexpected { state: "the sender waited for `accept`", .. } => "offered",
        Violation::Unexpected { state: "the receiver was opening the file", .. } => "opening",
        Violation::Unexpected { state: "the sender was sending chunks", .. } | Violation::Field { .. } => {
            "streaming"
        }
        Violation::Unexpected {
            state: "the sender waited for `receipt`" | "the receiver was sealing the file",
            ..
        } => "finishing",
        other => panic!("{machine}: {other:?}"),
    }
}
