//! Digests and features: what is told beforehand, and what both sides can.

use std::collections::BTreeSet;
use std::time::Instant;

use wsferry::protocol::{
    Accept, Action, BLOCK, Code, Done, LinkEvent, Message, NotOffered, Offer, OfferKind, Opened, SenderEvent,
};

use super::{B, finish, offer, receiver_of, refuse, said, small, take, zeros};
use crate::link::{Direction, Disk, End, Fault, File, Options, Outcome, Pair, plain_digest};
use crate::machines::{accept, digests, frame, greeted, hashed, hear, next_frame, offered, say, sparse};
use crate::support::random;

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
