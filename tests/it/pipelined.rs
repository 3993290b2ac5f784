//! Many transfers on one connection: whatever becomes of one of them, the others are none the wiser.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use wsferry::protocol::chunk::{self, Header, Zeros};
use wsferry::protocol::{
    Accept, Action, BLOCK, BlockDigest, Code, Done, Link, LinkEvent, MAX_NAKS, MIN_OFFERS, Message,
    NotOffered, Offer, OfferKind, Opened, ReceiverEvent, SenderEvent, Violation, Write,
};

use crate::link::{
    Direction, Disk, End, Fault, File, Options, Outcome, Pair, plain_digest, send_all_to_the_end,
};
use crate::machines::{accept, digests, frame, greeted, hashed, hear, next_frame, offered, say, sparse};
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

#[test]
fn a_file_with_its_digest_is_sealed_without_a_finish() {
    let now = Instant::now();
    let file = small(3).known();
    let mut receiver = receiver_of(std::slice::from_ref(&file), now);
    take(&mut receiver, &frame(0, 0, 0, &file.bytes), now);
    let (digest, hashes) = (file.digest(), Some(file.hashes(0)));
    assert_eq!(receiver.poll_action(now), Some(Action::Seal { transfer: 0, digest, hashes }));
    let mut receiver = receiver_of(std::slice::from_ref(&file), now);
    let wrong = refuse(&mut receiver, finish(0, &file).to_frame().as_bytes(), now);
    assert_eq!(wrong, "`finish` came while the digest was offered");

    // Of the sender nothing but `hello`, `offer` and chunks comes.
    for bytes in [0, 1, 1000, B] {
        let file = File::new(random(bytes, 4)).known();
        let mut disk = Disk::default();
        let mut pair = Pair::one(&file, &mut disk, Options::default());
        assert_eq!(pair.run(|_, _, _| Fault::Deliver), End::Receipted);
        let messages =
            pair.log.iter().filter(|(to, text)| *to == Direction::ToReceiver && text.starts_with('M'));
        assert_eq!(messages.count(), 2, "{bytes}");
        assert_eq!(disk.sealed, Some(file));
    }
    // A larger one has none.
    let large = File::new(random(B + 1, 5)).known();
    let mut receiver = greeted(&Options::default(), now);
    let wrong = refuse(&mut receiver, offer(0, &large).to_frame().as_bytes(), now);
    assert_eq!(wrong, "offer.digest is 3145729, expected none of more than a block");
}

#[test]
fn a_file_with_its_digest_that_was_begun_is_gone_on_with_whatever_is_there_of_it() {
    let file = File::new(random(B - 5, 6)).known();
    let mut other = file.clone();
    other.bytes[5] ^= 1;
    let cut = |mut disk: Disk, len: usize| {
        disk.journal.clear();
        disk.part.truncate(len);
        disk
    };
    for (what, disk, written) in [
        ("whole and journaled", Disk::holding(&file, [0]), 0),
        ("whole", cut(Disk::holding(&file, [0]), B), 0),
        ("begun", cut(Disk::holding(&file, [0]), 3_000_000), B - 5 - 3_000_000),
        ("another, whole and journaled", Disk::holding(&other, [0]), B - 5),
        ("another, whole", cut(Disk::holding(&other, [0]), B), B - 5),
        ("another, begun", cut(Disk::holding(&other, [0]), 3_000_000), 2 * (B - 5) - 3_000_000),
        ("there", Disk { sealed: Some(file.clone()), ..Disk::default() }, 0),
        ("another there", Disk { sealed: Some(other.clone()), ..Disk::default() }, B - 5),
    ] {
        for turns_per_action in [1, 3, 50] {
            let mut disk = disk.clone();
            let options = Options { turns_per_action, ..Options::default() };
            let end = Pair::one(&file, &mut disk, options).run(|_, _, _| Fault::Deliver);
            assert_eq!(end, End::Receipted, "{what}");
            assert!(disk.sealed.as_ref() == Some(&file), "{what}");
            let all: usize = disk.written.iter().map(|(_, len)| *len).sum();
            assert_eq!(all, written, "{what}");
        }
    }
}

#[test]
fn a_source_that_is_not_what_its_digest_said_is_cancelled_alone() {
    let mut files: Vec<File> =
        (0..4).map(|n| File::named(&format!("{n}"), random(500_000, n)).known()).collect();
    files[2].bytes[400_000] ^= 1;
    let mut disks = vec![Disk::default(); 4];
    let mut pair = Pair::new(&files, &mut disks, Options::default());
    assert_eq!(pair.run(|_, _, _| Fault::Deliver), End::Rejected(Code::Source));
    assert_eq!(pair.outcomes[2], Some(Outcome::Cancelled));
    let cancels = pair.log.iter().filter(|(_, text)| text.contains(r#""type":"cancel","transfer":2"#));
    assert_eq!(cancels.count(), 1);
    for (at, disk) in disks.iter().enumerate() {
        assert_eq!(disk.sealed.is_some(), at != 2, "{at}");
    }
}

#[test]
fn a_peer_that_knows_no_features_gets_zeros_as_bytes_and_tells_plain_digests() {
    let file = sparse(random(3 * B, 7), &[1]);
    let mut old = file.clone();
    old.bytes[2 * B + 9] ^= 1;
    for (stock, repaired) in [(&file, 0), (&old, 1)] {
        let mut disk = Disk::holding(stock, [0, 2]);
        let mut pair = Pair::one(&file, &mut disk, Options { features: false, ..Options::default() });
        assert_eq!(pair.run(|_, _, _| Fault::Deliver), End::Receipted);
        assert_eq!(pair.progress[0].repaired_blocks, repaired);
        assert!(!pair.log.iter().any(|(_, text)| text.starts_with('Z')));
        let messages: Vec<_> =
            pair.log.iter().filter_map(|(_, text)| Message::parse(text.as_bytes()).ok()).collect();
        assert!(messages.iter().any(|message| matches!(message, Message::Check { tree: false, .. })));
        assert!(!messages.iter().any(|message| matches!(message, Message::Check { tree: true, .. })));
        let plain = plain_digest(stock.geometry(), 0, &stock.bytes);
        let mut told = messages.iter().filter_map(|message| match message {
            Message::Digests { first: 0, digests, .. } => Some(digests),
            _ => None,
        });
        let told = wsferry::protocol::message::digests_from_text(told.next().unwrap()).unwrap();
        assert_eq!(told[0], plain);
    }
}

#[test]
fn what_was_not_agreed_on_is_not_used_and_not_taken() {
    let now = Instant::now();
    let (file, options) = (small(0), Options::default());
    let nested = || Offer { path: "a/b".to_owned(), ..file.offer() };
    let directory = || Offer { kind: OfferKind::Directory, size: Some(0), mode: None, ..file.offer() };
    let mut sender = options.link(true, now);
    say(&mut sender, &Message::Hello(options.hello(false)), now);
    for offer in [nested(), directory()] {
        assert_eq!(sender.offer(offer, file.sending(BLOCK)), Err(NotOffered::NoTrees));
    }
    assert!(!sender.is_busy() && said(&mut sender, now).is_empty());
    // And where it was offered before the peer's hello came.
    let mut receiver = options.link(true, now);
    say(&mut receiver, &Message::Hello(options.hello(false)), now);
    for (transfer, offer) in (0..).zip([nested(), directory()]) {
        let heard = say(&mut receiver, &Message::Offer(Offer { transfer, ..offer }), now);
        assert!(matches!(heard[..], [Message::Reject { code: Code::Kind, again: false, .. }]), "{heard:?}");
    }
    say(&mut receiver, &offer(2, &file), now);
    receiver.done(2, Done::Opened(Opened::default()), now);
    let wrong = refuse(&mut receiver, &zeros(2, 0, 1000), now);
    assert_eq!(wrong, "`zeros` came while runs of zeros were not agreed on");
}

#[test]
fn damage_while_several_files_are_open_costs_the_damaged_chunks_alone() {
    let files: Vec<File> = (0..4).map(|n| File::named(&format!("{n}"), random(250_000, 50 + n))).collect();
    let options = Options { chunk: 30_000, ..Options::default() };
    let mut disks = vec![Disk::default(); 4];
    let mut whole = Pair::new(&files, &mut disks, options);
    assert_eq!(whole.run(|_, _, _| Fault::Deliver), End::Receipted);
    let chunks: Vec<usize> = whole
        .log
        .iter()
        .filter(|(direction, _)| *direction == Direction::ToReceiver)
        .enumerate()
        .filter_map(|(at, (_, text))| text.starts_with('C').then_some(at))
        .collect();
    assert_eq!(chunks.len(), 4 * 9);
    for (nth, &at) in chunks.iter().enumerate() {
        // One alone, and three in a row, in one file or in two.
        for damaged in [at..at + 1, at..at + 3] {
            let mut disks = vec![Disk::default(); 4];
            let mut pair = Pair::new(&files, &mut disks, options);
            let mut naks = 0;
            let end = pair.run(|direction, index, text| {
                let hit =
                    direction == Direction::ToReceiver && damaged.contains(&index) && text.starts_with('C');
                naks += u32::from(hit);
                if hit { Fault::Flip(8 * 60) } else { Fault::Deliver }
            });
            assert_eq!(end, End::Receipted, "chunk {nth}");
            assert_eq!(pair.receiver.naks(), naks);
            assert_eq!(pair.progress.iter().map(|progress| progress.naks).sum::<u32>(), naks);
            assert!(files.iter().zip(&disks).all(|(file, disk)| disk.sealed.as_ref() == Some(file)));
            for (file, disk) in files.iter().zip(&disks) {
                assert_eq!(disk.written.iter().map(|(_, len)| *len).sum::<usize>(), file.bytes.len());
            }
        }
    }
}

#[test]
fn a_damaged_chunk_opens_one_gap_in_one_file() {
    let now = Instant::now();
    let files = [File::named("0", random(B, 60)), File::named("1", random(B, 61))];
    let mut receiver = receiver_of(&files, now);
    let mut damaged = frame(0, 0, 0, b"abc");
    damaged[chunk::HEADER_LEN] ^= 1;
    assert_eq!(take(&mut receiver, &damaged, now), None);
    // Which file it was of is not known: the gap may be in either, and not in both.
    assert_eq!(take(&mut receiver, &frame(1, 1, 3, &files[1].bytes[3..9]), now), bytes(1, 3, 6));
    let gap = frame(0, 2, 3, &files[0].bytes[3..9]);
    assert!(refuse(&mut receiver, &gap, now).starts_with("chunk.offset is 3, expected 0"));
    // It is filled, or its transfer ends: still it was one damaged chunk.
    for ends in [false, true] {
        let mut receiver = receiver_of(&files, now);
        take(&mut receiver, &damaged, now);
        take(&mut receiver, &frame(1, 1, 3, &files[1].bytes[3..9]), now);
        if ends {
            receiver.fail(1, Code::Storage, "no", false);
        } else {
            take(&mut receiver, &frame(1, 2, 0, &files[1].bytes[..3]), now);
        }
        let sequence = if ends { 2 } else { 3 };
        assert_eq!(take(&mut receiver, &frame(0, sequence, 3, &files[0].bytes[3..9]), now), bytes(0, 3, 6));
    }
}

#[test]
fn damage_without_end_is_given_up_in_whatever_file_it_is() {
    let now = Instant::now();
    let files = [small(0), small(1)];
    let mut receiver = receiver_of(&files, now);
    for sequence in 0..u64::from(MAX_NAKS) {
        let mut damaged = frame(sequence as u32 % 2, sequence, 0, b"abc");
        damaged[chunk::HEADER_LEN] ^= 1;
        assert_eq!(take(&mut receiver, &damaged, now), None);
    }
    let mut damaged = frame(0, 100, 0, b"abc");
    damaged[chunk::HEADER_LEN] ^= 1;
    let error = receiver.handle_frame(&damaged, &mut Vec::new(), now).unwrap_err();
    assert_eq!(error, Violation::Damaged(MAX_NAKS + 1));
}

#[test]
fn a_file_has_a_digest_in_its_receipt_and_what_is_none_has_not() {
    let now = Instant::now();
    let (file, known, options) = (small(0), small(1).known(), Options::default());
    let directory = Offer { kind: OfferKind::Directory, size: Some(0), ..file.offer() };
    let receipt = |digest| Message::Receipt { files: vec![(0, digest)] }.to_frame();
    let fresh = |offer: Offer| {
        let mut sender = options.link(true, now);
        sender.offer(offer, file.sending(BLOCK)).unwrap();
        say(&mut sender, &Message::Hello(options.hello(true)), now);
        sender
    };
    for offer in [file.offer(), known.offer()] {
        let wrong = refuse(&mut fresh(offer), receipt(None).as_bytes(), now);
        assert!(wrong.contains("receipt"), "{wrong}");
    }
    // Nor behind its finish.
    let mut sender = offered(&file, &options, true, now);
    hear(&mut sender, Message::Accept(accept(&[])), now);
    next_frame(&mut sender, &file, now).unwrap();
    let confirm = hear(&mut sender, Message::Ack { sequence: 1, durable: Vec::new() }, now);
    assert_eq!(confirm, (Some(Action::Confirm { transfer: 0 }), None));
    sender.done(0, Done::Confirmed, now);
    assert_eq!(sender.poll_message(now), Some(finish(0, &file)));
    let wrong = refuse(&mut sender, receipt(None).as_bytes(), now);
    assert_eq!(wrong, format!("receipt.digest is none, expected {}", file.digest()));
    let wrong =
        refuse(&mut fresh(directory.clone()), receipt(Some(blake3::hash(b"").into())).as_bytes(), now);
    assert!(wrong.starts_with("receipt.digest is"), "{wrong}");
    let mut sender = fresh(directory);
    take(&mut sender, receipt(None).as_bytes(), now);
    let events: Vec<_> = std::iter::from_fn(|| sender.poll_event()).collect();
    let receipted = |event: &LinkEvent| {
        matches!(event, LinkEvent::Sender(0, SenderEvent::Receipted { digest: None, complete: false, .. }))
    };
    assert!(events.iter().any(receipted), "{events:?}");
}

#[test]
fn a_receiver_at_work_is_waited_for_by_its_pings_too() {
    let start = Instant::now();
    let file = small(0);
    let mut sender = offered(&file, &Options::default(), true, start);
    let stalled = (1..120).find(|&second| {
        let now = start + Duration::from_secs(second);
        // Busy for a minute, and then no more.
        take(&mut sender, Message::Ping { token: second, busy: second <= 60 }.to_frame().as_bytes(), now);
        said(&mut sender, now);
        sender.handle_timeout(now).is_err()
    });
    assert_eq!(stalled, Some(90));
}

/// The second at which a receiver gives its sender up, that sends a `ping` each second, and what `besides` does.
fn given_up(
    receiver: &mut Link,
    start: Instant,
    mut besides: impl FnMut(&mut Link, u64, Instant),
) -> Option<u64> {
    (1..5000).find(|&second| {
        let now = start + Duration::from_secs(second);
        take(receiver, Message::Ping { token: second, busy: false }.to_frame().as_bytes(), now);
        besides(receiver, second, now);
        while receiver.poll_event().is_some() {}
        receiver.handle_timeout(now).is_err()
    })
}

#[test]
fn offers_that_come_and_go_hold_no_name_for_ever() {
    let start = Instant::now();
    let mut receiver = receiver_of(&[small(0)], start);
    let mut number = 0;
    let second = given_up(&mut receiver, start, |receiver, second, now| {
        if second.is_multiple_of(100) {
            number += 1;
            say(receiver, &offer(number, &small(number)), now);
            assert!(matches!(receiver.poll_action(now), Some(Action::Open { .. })));
            receiver.done(number, Done::Opened(Opened::default()), now);
            let (code, reason) = (Code::Source, String::new());
            say(receiver, &Message::Cancel { transfer: number, code, reason, again: false }, now);
            receiver.take_unfinished(number);
        }
        said(receiver, now);
    });
    // The first of them may be what the sender turned to.
    assert!(second.is_some_and(|second| (300..=600).contains(&second)), "{second:?}");

    // Between them there may be hours in which nothing is open.
    let (mut receiver, later) = (receiver_of(&[], start), start + Duration::from_secs(9000));
    say(&mut receiver, &offer(0, &small(0)), later);
    assert_eq!(receiver.handle_timeout(later), Ok(()));
    receiver.poll_action(later);
    receiver.done(0, Done::Opened(Opened::default()), later);
    assert_eq!(given_up(&mut receiver, later, |receiver, _, now| drop(said(receiver, now))), Some(300));
}

#[test]
fn an_offer_that_waits_for_another_to_end_does_not_keep_that_one_open() {
    let start = Instant::now();
    let mut receiver = receiver_of(&[small(0)], start);
    say(&mut receiver, &offer(1, &small(1)), start);
    // It is never opened, as where there are no descriptors for more than the first.
    assert_eq!(given_up(&mut receiver, start, |receiver, _, now| drop(said(receiver, now))), Some(300));
    // Alone it is waited for.
    let mut receiver = receiver_of(&[], start);
    say(&mut receiver, &offer(0, &small(0)), start);
    assert_eq!(given_up(&mut receiver, start, |receiver, _, now| drop(said(receiver, now))), None);
}

#[test]
fn a_finish_that_counts_for_nothing_and_an_answer_that_is_not_read_move_nothing() {
    let start = Instant::now();
    let file = File::new(random(2 * B, 40));
    let holding = || {
        let mut receiver = greeted(&Options::default(), start);
        say(&mut receiver, &offer(0, &file), start);
        receiver.poll_action(start);
        let held = std::iter::once(0..2).collect();
        let opened = Opened { held, received: 2 * BLOCK, ..Opened::default() };
        receiver.done(0, Done::Opened(opened), start);
        said(&mut receiver, start);
        receiver
    };
    let mut receiver = holding();
    assert_eq!(receiver.poll_action(start), Some(Action::CheckBlock { transfer: 0, block: 0 }));
    receiver.done(0, Done::Checked(0, false), start);
    assert_eq!(said(&mut receiver, start), [Message::Repair { transfer: 0, blocks: vec![(0, 1)] }]);
    let second = given_up(&mut receiver, start, |receiver, second, now| {
        if second.is_multiple_of(100) {
            say(receiver, &finish(0, &file), now);
        }
        said(receiver, now);
    });
    assert_eq!(second, Some(300 + 2 * BLOCK / 20_000_000));

    let mut receiver = holding();
    let check = Message::Check { transfer: 0, first: 0, count: 2, tree: true };
    take(&mut receiver, check.to_frame().as_bytes(), start);
    while receiver.poll_action(start).is_some() {}
    receiver.done(0, Done::Digests(0, vec![BlockDigest::NONE; 2]), start);
    assert_eq!(given_up(&mut receiver, start, |_, _, _| {}), Some(300));
}

#[test]
fn a_sender_may_wait_for_its_own_input_as_long_as_it_holds_up_nothing_else() {
    let start = Instant::now();
    let endless = |receiver: &mut Link, transfer| {
        let offer = Offer { transfer, size: None, path: format!("endless {transfer}"), ..small(0).offer() };
        say(receiver, &Message::Offer(offer), start);
        receiver.poll_action(start);
        receiver.done(transfer, Done::Opened(Opened::default()), start);
        said(receiver, start);
    };
    let mut receiver = greeted(&Options::default(), start);
    endless(&mut receiver, 0);
    endless(&mut receiver, 1);
    assert_eq!(given_up(&mut receiver, start, |_, _, _| {}), Some(300 + 60 * 60));

    let mut receiver = greeted(&Options::default(), start);
    endless(&mut receiver, 0);
    say(&mut receiver, &offer(1, &small(1)), start);
    receiver.poll_action(start);
    receiver.done(1, Done::Opened(Opened::default()), start);
    assert_eq!(given_up(&mut receiver, start, |_, _, _| {}), Some(300));
}

#[test]
fn what_is_said_of_nothing_that_is_open_keeps_no_sender_waiting() {
    let start = Instant::now();
    let (code, again, reason) = (Code::Busy, false, String::new);
    for idle in [
        Message::Receipt { files: Vec::new() },
        Message::Receipt { files: vec![(0, None)] },
        Message::Reject { transfer: 0, code, reason: reason(), again },
    ] {
        let mut sender = offered(&small(0), &Options::default(), true, start);
        let file = small(1);
        sender.offer(file.offer(), file.sending(BLOCK)).unwrap();
        sender.cancel(0, Code::Source, "gone", false);
        said(&mut sender, start);
        let stalled = (1..120).find(|&second| {
            let now = start + Duration::from_secs(second);
            take(&mut sender, idle.to_frame().as_bytes(), now);
            sender.handle_timeout(now).is_err()
        });
        assert_eq!(stalled, Some(30), "{idle:?}");
    }
}

#[test]
fn of_many_blocks_that_are_begun_at_a_time_few_are_hashed_as_they_come() {
    let now = Instant::now();
    let file = File::new(random(6 * B, 41));
    let mut receiver = receiver_of(std::slice::from_ref(&file), now);
    let mut sequence = 0;
    for part in [0..3, 3..B] {
        for block in 0..6 {
            let at = block * B + part.start;
            let bytes = &file.bytes[at..block * B + part.end];
            take(&mut receiver, &frame(0, sequence, at as u64, bytes), now);
            sequence += 1;
        }
    }
    let actions: Vec<_> = std::iter::from_fn(|| receiver.poll_action(now)).collect();
    let read = |block| Action::HashBlock { transfer: 0, block };
    assert!(actions.contains(&read(4)) && !actions.contains(&read(0)), "{actions:?}");
    let synced = |action: &Action| match action {
        Action::Sync { blocks, .. } => blocks.iter().map(|(block, _)| *block).collect(),
        _ => Vec::new(),
    };
    assert_eq!(actions.iter().flat_map(synced).collect::<Vec<_>>(), [0, 1, 2, 3], "{actions:?}");
}

#[test]
fn a_sender_waits_from_when_it_began_to_wait() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let file = File::new(random(2 * B, 8));
    let mut sender = offered(&file, &Options::default(), true, start);
    let ask = Message::Check { transfer: 0, first: 0, count: 2, tree: true };
    assert_eq!(hear(&mut sender, Message::Accept(accept(&[(0, 2)])), start), (None, Some(ask)));
    hear(&mut sender, digests(0, file.hashes(0).digest()), start);
    // A slow source: meanwhile the receiver gives signs of life and owes nothing.
    for second in 1..=100 {
        take(&mut sender, Message::Ping { token: second, busy: false }.to_frame().as_bytes(), at(second));
        said(&mut sender, at(second));
        assert_eq!(sender.handle_timeout(at(second)), Ok(()), "after {second} s");
    }
    hashed(&mut sender, &file, 0, at(100));
    assert!(sender.poll_action(at(100)).is_none());
    assert_eq!(sender.handle_timeout(at(100)), Ok(()), "the question is not even out");
    assert_eq!(said(&mut sender, at(100)).len(), 1);
    assert_eq!(sender.handle_timeout(at(129)), Ok(()));
    take(&mut sender, Message::Ping { token: 0, busy: false }.to_frame().as_bytes(), at(129));
    assert!(sender.handle_timeout(at(130)).is_err());
}

#[test]
fn digests_that_were_asked_for_are_taken_also_when_an_earlier_block_is_to_be_compared_by_then() {
    let now = Instant::now();
    let file = File::new(random(2 * B, 9));
    let mut sender = offered(&file, &Options { window: 2 * BLOCK, ..Options::default() }, true, now);
    // Of the first block there are some bytes, of the second all.
    let accept = Accept { begun: vec![(0, BLOCK - 300)], ..accept(&[(1, 1)]) };
    let check = |first| Some(Message::Check { transfer: 0, first, count: 1, tree: true });
    assert_eq!(hear(&mut sender, Message::Accept(accept), now), (None, check(1)));
    next_frame(&mut sender, &file, now).unwrap();
    // The first is whole there before the answer of the second comes: it is to be compared as well.
    let ack = Message::Ack { sequence: 1, durable: Vec::new() };
    hear(&mut sender, ack, now);
    let mut compared = BTreeSet::new();
    let mut next = hear(&mut sender, digests(1, file.hashes(1).digest()), now);
    for _ in 0..10 {
        next = match next {
            (Some(Action::HashSource { block, .. }), _) => {
                compared.insert(block);
                hashed(&mut sender, &file, block, now);
                (sender.poll_action(now), sender.poll_message(now))
            }
            (None, Some(Message::Check { first, .. })) => {
                hear(&mut sender, digests(first, file.hashes(first).digest()), now)
            }
            (Some(Action::Confirm { .. }), None) => break,
            next => panic!("{next:?}"),
        };
    }
    assert_eq!(compared, BTreeSet::from([0, 1]));
    assert_eq!(sender.progress(0).unwrap().repaired_blocks, 0);
}

#[test]
fn every_fault_at_every_frame_of_several_transfers_ends_in_the_exact_files_or_typed_errors() {
    let of = |name: &str, len: usize, seed| File::named(name, random(len, seed));
    let files = [
        of("a", 10_000, 1),
        of("b", 20_000, 2).known(),
        of("c", 0, 3),
        sparse(random(B + 900, 4), &[0]),
        of("e", 3, 5),
    ];
    let mut disks = vec![Disk::default(); files.len()];
    // Of the first another version is there; the last has its name already.
    disks[0] = Disk::holding(&of("a", 10_000, 6), [0]);
    disks[4].sealed = Some(files[4].clone());
    let options = Options { chunk: 9000, ..Options::default() };
    let mut reference = disks.clone();
    let mut whole = Pair::new(&files, &mut reference, options);
    assert_eq!(whole.run(|_, _, _| Fault::Deliver), End::Receipted);
    let mut ends = BTreeSet::new();
    let mut next = [0, 0];
    for (direction, text) in &whole.log {
        let at = next[*direction as usize];
        next[*direction as usize] += 1;
        let flips = [0, 8 * 5, 8 * 20 + 1, 8 * 33, 8 * 44, 8 * 55 + 2, usize::MAX / 8 * 8 - 3];
        let faults =
            [Fault::Drop, Fault::Twice, Fault::Swap, Fault::Cut].into_iter().chain(flips.map(Fault::Flip));
        for fault in faults {
            let end = send_all_to_the_end(&files, &mut disks.clone(), options, |d, index, _| {
                if (d, index) == (*direction, at) { fault } else { Fault::Deliver }
            });
            let end = format!("{end:?}").split([' ', '(', '{']).next().unwrap().to_owned();
            // A chunk that came damaged is sent again: no file is the worse for it.
            if matches!(fault, Fault::Flip(bit) if bit > 7) && text.starts_with('C') {
                assert!(end == "Receipted" || end == "NoText", "{direction:?} {at} {fault:?}: {end}");
            }
            ends.insert(end);
        }
    }
    for end in ["Cut", "Violation", "Receipted"] {
        assert!(ends.contains(end), "{ends:?}");
    }
    assert!(next[0] > 12 && next[1] > 6, "{next:?}");
}
