//! Many transfers on one connection: whatever becomes of one of them, the others are none the wiser.

mod agreement;
mod damage;
mod patience;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use wsferry::protocol::chunk::{self, Header, Zeros};
use wsferry::protocol::{
    Accept, Action, BLOCK, BlockDigest, Code, Done, Link, LinkEvent, MIN_OFFERS, Message, Offer, Opened,
    ReceiverEvent, Write,
};

use crate::link::{File, Options};
use crate::machines::{accept, digests, frame, greeted, hear, offered, say};
use crate::support::random;

const B: usize = BLOCK as usize;

/// A small file of its own name and bytes.
fn small(n: u32) -> File {
    File::named(&format!("{n}.bin"), random(1000 + n as usize, u64::from(n)))
}

fn offer(transfer: u32, file: &File) -> Message {
    Message::Offer(Offer { transfer, ..file.offer() })
}

fn finish(transfer: u32, file: &File) -> Message {
    Message::Finish { transfer, digest: file.digest() }
}

/// A receiver that was offered these files under the numbers from 0 on, and opened them; what it said was taken.
fn receiver_of(files: &[File], now: Instant) -> Link {
    let mut receiver = greeted(&Options { offers: 100, ..Options::default() }, now);
    for (number, file) in (0..).zip(files) {
        say(&mut receiver, &offer(number, file), now);
    }
    // All are offered before the first is answered.
    for number in 0..files.len() as u32 {
        assert!(
            matches!(receiver.poll_action(now), Some(Action::Open { transfer, .. }) if transfer == number)
        );
        receiver.done(number, Done::Opened(Opened::default()), now);
        assert!(
            matches!(receiver.poll_message(now), Some(Message::Accept(accept)) if accept.transfer == number)
        );
    }
    receiver
}

fn take(receiver: &mut Link, frame: &[u8], now: Instant) -> Option<Write> {
    receiver.handle_frame(frame, &mut Vec::new(), now).unwrap()
}

fn refuse(link: &mut Link, frame: &[u8], now: Instant) -> String {
    link.handle_frame(frame, &mut Vec::new(), now).expect_err("it breaks the protocol").to_string()
}

fn bytes(transfer: u32, offset: u64, len: usize) -> Option<Write> {
    Some(Write::Bytes { transfer, offset, len })
}

fn zeros(transfer: u32, sequence: u64, len: u64) -> Vec<u8> {
    chunk::encode_zeros(Zeros { header: Header { transfer, sequence, offset: 0 }, len }).to_vec()
}

fn said(link: &mut Link, now: Instant) -> Vec<Message> {
    std::iter::from_fn(|| link.poll_message(now)).collect()
}

#[test]
fn one_that_is_refused_or_fails_harms_nobody_and_receipts_go_together() {
    let now = Instant::now();
    let files = [small(0), small(1), small(2)];
    let mut receiver = receiver_of(&files, now);
    // The sender does not know yet that the second has ended: its chunks are on their way.
    assert!(receiver.fail(1, Code::Storage, "the disk is full", true).is_some());
    let reason = "the disk is full".to_owned();
    assert_eq!(
        said(&mut receiver, now),
        [Message::Reject { transfer: 1, code: Code::Storage, reason, again: true }]
    );
    for (number, file) in (0..).zip(&files) {
        let frame = frame(number, number.into(), 0, &file.bytes);
        let write = (number != 1).then(|| bytes(number, 0, file.bytes.len()).unwrap());
        assert_eq!(take(&mut receiver, &frame, now), write, "{number}");
        assert_eq!(take(&mut receiver, finish(number, file).to_frame().as_bytes(), now), None);
    }
    let later = now + Duration::from_millis(10);
    assert_eq!(said(&mut receiver, later), [Message::Ack { sequence: 3, durable: Vec::new() }]);
    for number in [0, 2] {
        let Some(Action::Seal { transfer, digest, hashes }) = receiver.poll_action(now) else {
            panic!("{number}")
        };
        let file = &files[number as usize];
        assert_eq!((transfer, digest, hashes), (number, file.digest(), Some(file.hashes(0))));
    }
    for number in [2, 0] {
        receiver.done(number, Done::Sealed(Some(files[number as usize].digest())), now);
    }
    let receipts = [2, 0].map(|number| (number, Some(files[number as usize].digest()))).to_vec();
    assert_eq!(said(&mut receiver, later), [Message::Receipt { files: receipts }]);
    assert!(!receiver.is_busy());
}

#[test]
fn receipts_that_no_frame_holds_together_go_in_several() {
    let now = Instant::now();
    let options = Options { frame_limit: 2048, offers: 100, ..Options::default() };
    let mut receiver = greeted(&options, now);
    for number in 0..60 {
        take(&mut receiver, offer(number, &small(number)).to_frame().as_bytes(), now);
        receiver.done(number, Done::Sealed(Some(small(number).digest())), now);
    }
    let said = said(&mut receiver, now);
    let mut receipted = BTreeSet::new();
    for message in &said {
        let Message::Receipt { files } = message else { panic!("{message:?}") };
        assert!(message.to_frame().len() <= 2048);
        receipted.extend(files.iter().map(|(number, _)| *number));
    }
    assert_eq!((receipted.len(), said.len()), (60, 3));
}

#[test]
fn chunks_of_a_transfer_that_ended_count_and_go_nowhere() {
    let now = Instant::now();
    let file = small(0);
    let mut receiver = receiver_of(&[small(0), small(1)], now);
    take(&mut receiver, &frame(0, 0, 0, &file.bytes), now);
    say(&mut receiver, &finish(0, &file), now);
    receiver.done(0, Done::Sealed(Some(file.digest())), now);
    receiver.fail(1, Code::Busy, "somebody else has it", false);
    said(&mut receiver, now);
    // Whatever they say: nobody looks where they belong.
    assert_eq!(take(&mut receiver, &frame(0, 1, 0, &file.bytes), now), None);
    assert_eq!(take(&mut receiver, &frame(1, 2, 999_999, b"abc"), now), None);
    assert_eq!(take(&mut receiver, &zeros(1, 3, BLOCK), now), None);
    let mut damaged = frame(0, 4, 0, b"abc");
    damaged[chunk::HEADER_LEN] ^= 1;
    assert_eq!(take(&mut receiver, &damaged, now), None);
    let heard = said(&mut receiver, now + Duration::from_millis(10));
    assert_eq!(heard, [Message::Nak { sequence: 4 }, Message::Ack { sequence: 5, durable: Vec::new() }]);
    let wrong = refuse(&mut receiver, &frame(0, 7, 0, b"abc"), now);
    assert_eq!(wrong, "chunk.sequence is 7, expected 5");
}

#[test]
fn a_number_that_was_passed_is_not_offered_again() {
    let now = Instant::now();
    for (numbers, expected) in [
        (&[5, 5][..], "offer.transfer is 5, expected at least 6"),
        (&[5, 3], "offer.transfer is 3, expected at least 6"),
        (&[u32::MAX], "offer.transfer is 4294967295, expected below 4294967295"),
    ] {
        let mut receiver = greeted(&Options::default(), now);
        let (last, first) = numbers.split_last().unwrap();
        for &number in first {
            say(&mut receiver, &offer(number, &small(0)), now);
            // Nor once it has ended.
            receiver.fail(number, Code::Busy, "no", false);
        }
        assert_eq!(refuse(&mut receiver, offer(*last, &small(1)).to_frame().as_bytes(), now), expected);
    }
}

#[test]
fn more_offers_than_allowed_are_a_violation_and_each_that_ended_makes_room() {
    let now = Instant::now();
    let full = || {
        let mut receiver = greeted(&Options::default(), now);
        (0..MIN_OFFERS as u32)
            .for_each(|number| drop(say(&mut receiver, &offer(number, &small(number)), now)));
        receiver
    };
    let next = offer(20, &small(20)).to_frame();
    assert_eq!(refuse(&mut full(), next.as_bytes(), now), "offers that are open is 17, expected at most 16");
    let mut receiver = full();
    receiver.fail(3, Code::Busy, "no", false);
    assert_eq!(take(&mut receiver, next.as_bytes(), now), None);
    let mut receiver = full();
    receiver.done(3, Done::Sealed(Some(small(3).digest())), now);
    assert_eq!(take(&mut receiver, next.as_bytes(), now), None);
    // One whose name is not allowed was never open.
    let bad = Message::Offer(Offer { transfer: 20, path: "..".to_owned(), ..small(1).offer() });
    let mut receiver = greeted(&Options::default(), now);
    for number in 0..50 {
        let Message::Offer(bad) = bad.clone() else { unreachable!() };
        let heard = say(&mut receiver, &Message::Offer(Offer { transfer: number, ..bad }), now);
        assert!(matches!(heard[..], [Message::Reject { code: Code::Name, .. }]), "{heard:?}");
    }
}

#[test]
fn one_that_is_cancelled_makes_room_at_once_for_what_its_source_became() {
    let now = Instant::now();
    let files: Vec<File> = (0..100).map(small).collect();
    let mut receiver = receiver_of(&files, now);
    let reason = "it changed".to_owned();
    let cancel = Message::Cancel { transfer: 7, code: Code::Source, reason: reason.clone(), again: true };
    take(&mut receiver, &frame(7, 0, 0, &files[7].bytes[..300]), now);
    assert_eq!(take(&mut receiver, cancel.to_frame().as_bytes(), now), None);
    // Both were in one packet: nobody asked for events between them.
    assert_eq!(take(&mut receiver, offer(100, &small(7)).to_frame().as_bytes(), now), None);
    // What was on its way when it was cancelled goes nowhere.
    assert_eq!(take(&mut receiver, &frame(7, 1, 300, &files[7].bytes[300..600]), now), None);
    let cancelled = ReceiverEvent::Cancelled { code: Code::Source, reason, again: true };
    let events: Vec<_> = std::iter::from_fn(|| receiver.poll_event()).collect();
    assert!(events.contains(&LinkEvent::Receiver(7, cancelled)), "{events:?}");
    let left = receiver.take_unfinished(7).expect("it was begun");
    assert_eq!((left.unsynced, left.end), (Vec::new(), Some(300)));
    assert!(receiver.take_unfinished(7).is_none());
}

#[test]
fn nothing_comes_before_hello_and_no_second_one() {
    let now = Instant::now();
    let file = small(0);
    let reason = String::new;
    let messages = [
        offer(0, &file),
        Message::Accept(accept(&[])),
        Message::Reject { transfer: 0, code: Code::Busy, reason: reason(), again: false },
        Message::Cancel { transfer: 0, code: Code::Source, reason: reason(), again: false },
        Message::Ack { sequence: 0, durable: Vec::new() },
        Message::Nak { sequence: 0 },
        Message::Check { transfer: 0, first: 0, count: 1, tree: true },
        digests(0, BlockDigest::NONE),
        Message::Repair { transfer: 0, blocks: Vec::new() },
        finish(0, &file),
        Message::Receipt { files: vec![(0, None)] },
        Message::Ping { token: 1, busy: false },
        Message::Pong { token: 1, busy: false },
    ];
    let unknown = wsferry::protocol::message::frame_of(r#"{"type":"greeting"}"#).into_bytes();
    let frames = messages.iter().map(|message| message.to_frame().into_bytes());
    for frame in frames.chain([unknown, frame(0, 0, 0, b"abc"), zeros(0, 0, BLOCK)]) {
        // Also of a side that has offered something.
        for offers in [false, true] {
            let mut link = Options::default().link(true, now);
            if offers {
                link.offer(file.offer(), file.sending(BLOCK)).unwrap();
            }
            let wrong = refuse(&mut link, &frame, now);
            assert!(wrong.ends_with("came while `hello` had not come"), "{wrong}");
        }
    }
    let error = Message::Error { code: Code::Shutdown, reason: reason(), again: false };
    let mut link = Options::default().link(true, now);
    assert_eq!(take(&mut link, error.to_frame().as_bytes(), now), None);
    assert!(matches!(link.poll_event(), Some(LinkEvent::Ended { code: Code::Shutdown, .. })));

    let mut link = greeted(&Options::default(), now);
    let hello = Message::Hello(Options::default().hello(false)).to_frame();
    assert_eq!(refuse(&mut link, hello.as_bytes(), now), "`hello` came while it had come");
}

#[test]
fn our_hello_goes_out_first_whatever_is_asked_meanwhile() {
    let now = Instant::now();
    let mut link = Options::default().link(true, now);
    link.ask(Duration::from_secs(3), now);
    for message in [Message::Hello(Options::default().hello(true)), Message::Ping { token: 7, busy: false }] {
        take(&mut link, message.to_frame().as_bytes(), now);
    }
    let kinds: Vec<_> = said(&mut link, now).iter().map(Message::kind).collect();
    assert_eq!(kinds[0], "hello", "{kinds:?}");
    assert_eq!(kinds.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from(["hello", "ping", "pong"]));
}

#[test]
fn what_is_said_of_a_transfer_that_was_never_offered_is_a_violation_and_of_one_that_ended_nothing() {
    let now = Instant::now();
    let file = small(0);
    let (code, again) = (Code::Source, false);
    let reason = String::new;
    let to_receiver = |transfer| {
        let header = Header { transfer, sequence: 0, offset: 0 };
        [
            finish(transfer, &file).to_frame().into_bytes(),
            Message::Check { transfer, first: 0, count: 1, tree: true }.to_frame().into_bytes(),
            Message::Cancel { transfer, code, reason: reason(), again }.to_frame().into_bytes(),
            frame(transfer, 0, 0, b"abc"),
            chunk::encode_zeros(Zeros { header, len: 1 }).to_vec(),
        ]
    };
    for (known, never) in to_receiver(0).into_iter().zip(to_receiver(1)) {
        let mut receiver = receiver_of(std::slice::from_ref(&file), now);
        let wrong = refuse(&mut receiver, &never, now);
        assert_eq!(wrong, "transfer is 1, expected one that was offered, below 1");
        let mut receiver = receiver_of(std::slice::from_ref(&file), now);
        receiver.fail(0, Code::Busy, "no", false);
        said(&mut receiver, now);
        while receiver.poll_event().is_some() {}
        assert_eq!(take(&mut receiver, &known, now), None);
        assert_eq!((receiver.poll_action(now), receiver.poll_event()), (None, None));
    }
    let to_sender = |transfer| {
        [
            Message::Accept(Accept { transfer, ..accept(&[]) }),
            Message::Reject { transfer, code, reason: reason(), again },
            Message::Digests { transfer, first: 0, digests: "AAAA".to_owned() },
            Message::Repair { transfer, blocks: vec![(0, 1)] },
            Message::Receipt { files: vec![(transfer, Some(file.digest()))] },
            Message::Ack { sequence: 0, durable: vec![(transfer, 0)] },
        ]
    };
    for (known, never) in to_sender(0).into_iter().zip(to_sender(1)) {
        let mut sender = offered(&file, &Options::default(), true, now);
        let wrong = refuse(&mut sender, never.to_frame().as_bytes(), now);
        assert_eq!(wrong, "transfer is 1, expected one that was offered, below 1");
        let mut sender = offered(&file, &Options::default(), true, now);
        sender.cancel(0, Code::Source, "gone", false);
        said(&mut sender, now);
        while sender.poll_event().is_some() {}
        assert_eq!(hear(&mut sender, known, now), (None, None));
        assert_eq!((sender.poll_event(), sender.is_busy()), (None, false));
    }
}
