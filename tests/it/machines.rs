//! The two machines over a link that cuts, drops, duplicates, swaps and damages: the exact file or a typed error.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use wsferry::protocol::chunk::Header;
use wsferry::protocol::{
    Accept, Action, BLOCK, BlockDigest, Done, Due, Link, Message, Opened, Violation, chunk,
};

use crate::link::{Direction, Disk, End, Fault, File, Options, Pair, send_to_the_end};
use crate::support::random;

const B: usize = BLOCK as usize;

#[test]
fn files_at_every_edge_cross_at_several_chunk_sizes() {
    for chunk in [3, 24_546, 196_608, BLOCK] {
        let sizes =
            [0, 1, 2, 3, chunk as usize - 1, chunk as usize, chunk as usize + 1, B - 1, B, B + 1, 2 * B + 7];
        for size in sizes {
            if size as u64 / chunk > 5000 {
                continue;
            }
            let file = File::new(random(size, size as u64));
            let options = Options { chunk, ..Options::default() };
            let end = send_to_the_end(&file, &mut Disk::default(), options, |_, _, _| Fault::Deliver);
            assert!(matches!(end, End::Receipted), "{size} bytes in chunks of {chunk}: {end:?}");
        }
    }
}

#[test]
fn the_bodies_of_all_chunks_are_the_files_base64_also_after_a_resume_at_another_chunk_size() {
    let file = File::new(random(2 * B + 1_000_000, 1));
    let mut disk = Disk::default();
    let mut bodies = Vec::new();
    let mut collect = |link: &Pair| {
        for (direction, frame) in &link.log {
            if *direction == Direction::ToReceiver && frame.starts_with('C') {
                let mut bytes = Vec::new();
                let chunk = chunk::decode(frame.as_bytes(), &mut bytes).unwrap();
                bodies.push((chunk.header.offset, chunk.len as u64, frame[chunk::HEADER_LEN..].to_owned()));
            }
        }
    };
    let mut first = Pair::one(&file, &mut disk, Options { chunk: 99_999, ..Options::default() });
    let end = first.run(|direction, index, _| match (direction, index) {
        (Direction::ToReceiver, 51) => Fault::Cut,
        _ => Fault::Deliver,
    });
    assert_eq!(end, End::Cut);
    collect(&first);
    let mut second = Pair::one(&file, &mut disk, Options { chunk: 30_000, ..Options::default() });
    assert!(matches!(second.run(|_, _, _| Fault::Deliver), End::Receipted));
    collect(&second);

    // Each byte once: what was sent twice is taken from its second sending.
    let resumed_at = bodies[bodies.iter().rposition(|(_, len, _)| *len == 99_999).unwrap() + 1].0;
    assert!(resumed_at > BLOCK && !resumed_at.is_multiple_of(BLOCK), "resumed at {resumed_at}");
    let mut text = String::new();
    let mut next = 0;
    let second_run = bodies.iter().position(|(_, len, _)| *len == 30_000).unwrap();
    for (offset, len, body) in
        bodies[..second_run].iter().filter(|(offset, _, _)| *offset < resumed_at).chain(&bodies[second_run..])
    {
        assert_eq!(*offset, next);
        next += len;
        text.push_str(body);
    }
    assert_eq!(text, STANDARD.encode(&file.bytes));
}

/// A file with holes in the place of these blocks.
pub fn sparse(bytes: Vec<u8>, holes: &[u64]) -> File {
    let mut file = File::new(bytes);
    let geometry = file.geometry();
    for &block in holes.iter().filter(|&&block| block < geometry.blocks()) {
        file.bytes[geometry.block_start(block) as usize..geometry.block_end(block) as usize].fill(0);
        file.zeros.insert(block);
    }
    file
}

#[test]
fn every_fault_at_every_frame_of_a_small_transfer_ends_in_the_exact_file_or_a_typed_error() {
    let file = File::new(random(B + 500_000, 2));
    let with_hole = sparse(random(2 * B + 500_000, 2), &[1]);
    for (start, file, disk) in [
        ("fresh", &file, Disk::default()),
        ("resumed", &file, Disk::holding(&file, [0])),
        ("last block held", &file, Disk::holding(&file, [1])),
        ("sparse", &with_hole, Disk::default()),
        ("sparse, where something else is", &with_hole, Disk::holding(&File::new(random(2 * B, 5)), [0, 1])),
    ] {
        let mut reference = disk.clone();
        let mut link = Pair::one(file, &mut reference, Options::default());
        assert!(matches!(link.run(|_, _, _| Fault::Deliver), End::Receipted));
        let frames = |direction| link.log.iter().filter(|(d, _)| *d == direction).count();
        let counts = [frames(Direction::ToReceiver), frames(Direction::ToSender)];
        assert!(counts[0] > 4 && counts[1] > 2);
        let mut ends = BTreeSet::new();
        for direction in [Direction::ToReceiver, Direction::ToSender] {
            for at in 0..counts[direction as usize] {
                // Of a chunk: its kind, each field of its header, its body, its last character.
                let flips =
                    [0, 8 * 5, 8 * 20 + 1, 8 * 33, 8 * 44, 8 * 55 + 2, 8 * 101 + 5, usize::MAX / 8 * 8 - 3];
                for fault in [Fault::Drop, Fault::Twice, Fault::Swap, Fault::Cut]
                    .into_iter()
                    .chain(flips.map(Fault::Flip))
                {
                    let end = send_to_the_end(file, &mut disk.clone(), Options::default(), |d, index, _| {
                        if (d, index) == (direction, at) { fault } else { Fault::Deliver }
                    });
                    ends.insert(format!("{end:?}").split([' ', '(', '{']).next().unwrap().to_owned());
                }
            }
        }
        // The faults really did something, in more ways than one.
        assert!(
            ends.contains("Cut") && ends.contains("Violation") && ends.contains("Receipted"),
            "{start}: {ends:?}"
        );
    }
}

#[test]
fn every_flipped_bit_of_every_frame_of_a_tiny_transfer_is_harmless_or_noticed() {
    let file = File::new(b"hello".to_vec());
    for disk in [Disk::default(), Disk { sealed: Some(file.clone()), ..Disk::default() }] {
        let mut reference = disk.clone();
        let mut link = Pair::one(&file, &mut reference, Options::default());
        assert!(matches!(link.run(|_, _, _| Fault::Deliver), End::Receipted));
        let mut next = [0, 0];
        for (direction, text) in link.log {
            let at = next[direction as usize];
            next[direction as usize] += 1;
            for bit in 0..text.len() * 8 {
                send_to_the_end(&file, &mut disk.clone(), Options::default(), |d, index, _| {
                    if (d, index) == (direction, at) { Fault::Flip(bit) } else { Fault::Deliver }
                });
            }
        }
    }
}

#[test]
fn a_damaged_chunk_is_sent_again_and_nothing_else_is() {
    let file = File::new(random(B + 1000, 3));
    for at in 2..=11 {
        let mut disk = Disk::default();
        let mut link = Pair::one(&file, &mut disk, Options::default());
        let end = link.run(|direction, index, _| match (direction, index) {
            (Direction::ToReceiver, index) if index == at => Fault::Flip(8 * 60),
            _ => Fault::Deliver,
        });
        assert!(matches!(end, End::Receipted), "{end:?}");
        assert_eq!((link.progress[0].naks, link.receiver.naks()), (1, 1));
        assert_eq!(link.progress[0].resent, 256 * 1024 / 3 * 3);
        assert_eq!(disk.written.iter().map(|(_, len)| *len).sum::<usize>(), file.bytes.len());
    }
}

#[test]
fn a_path_that_damages_everything_is_given_up_with_a_count() {
    let file = File::new(random(B, 4));
    let mut disk = Disk::default();
    let options = Options { chunk: 3000, ..Options::default() };
    let end = Pair::one(&file, &mut disk, options).run(|direction, index, _| match (direction, index) {
        (Direction::ToReceiver, 2..) => Fault::Flip(8 * 60),
        _ => Fault::Deliver,
    });
    assert_eq!(end, End::Violation(Direction::ToReceiver, Violation::Damaged(101)));
}

#[test]
fn a_resume_sends_only_what_is_missing() {
    let file = File::new(random(4 * B + 5, 5));
    let mut disk = Disk::holding(&file, [0, 1, 3]);
    let mut link = Pair::one(&file, &mut disk, Options::default());
    assert!(matches!(link.run(|_, _, _| Fault::Deliver), End::Receipted));
    let progress = link.progress[0];
    assert_eq!((progress.held, progress.verified), (3 * BLOCK, 3 * BLOCK));
    // Block 2 had been reached by an earlier run, as far as the partial file's length tells: it counts as re-sent.
    assert_eq!((progress.resent, progress.repaired_blocks), (BLOCK, 0));
    assert_eq!(disk.written.iter().map(|(_, len)| *len).sum::<usize>(), B + 5);
}

#[test]
fn a_held_block_that_differs_is_sent_again_that_block_alone() {
    let file = File::new(random(4 * B, 6));
    // The source changed after the first run: its block 1 is another now.
    let mut old = file.clone();
    old.bytes[B + 77] ^= 1;
    let mut disk = Disk::holding(&old, [0, 1, 2]);
    let mut link = Pair::one(&file, &mut disk, Options::default());
    assert!(matches!(link.run(|_, _, _| Fault::Deliver), End::Receipted));
    assert_eq!(link.progress[0].repaired_blocks, 1);
    assert_eq!(disk.written.iter().map(|(_, len)| *len).sum::<usize>(), 2 * B);
    assert_eq!(disk.sealed.as_ref(), Some(&file));

    // The receiver's disk rotted: its journal is right and its bytes are not.
    let mut disk = Disk::holding(&file, [0, 1, 2]);
    disk.part[5] ^= 1;
    let mut link = Pair::one(&file, &mut disk, Options::default());
    assert!(matches!(link.run(|_, _, _| Fault::Deliver), End::Receipted));
    assert_eq!(disk.written.iter().map(|(_, len)| *len).sum::<usize>(), 2 * B);
    assert_eq!(disk.sealed.as_ref(), Some(&file));
}

#[test]
fn the_first_new_chunk_goes_out_before_any_held_block_is_read() {
    let file = File::new(random(6 * B, 7));
    let mut disk = Disk::holding(&file, 0..5);
    let mut link = Pair::one(&file, &mut disk, Options::default());
    link.run(|_, _, _| Fault::Deliver);
    let position = |what: &str| link.log.iter().position(|(_, text)| text.contains(what)).unwrap();
    assert!(position("C 00000000 000000000000 ") < position("\"digests\""));
}

#[test]
fn a_lost_receipt_is_answered_without_sending_the_file_again() {
    let file = File::new(random(B + 5, 8));
    let mut disk = Disk::default();
    let end = Pair::one(&file, &mut disk, Options::default())
        .run(|_, _, text| if text.contains("receipt") { Fault::Cut } else { Fault::Deliver });
    assert_eq!(end, End::Cut);
    let written = disk.written.len();
    let mut link = Pair::one(&file, &mut disk, Options::default());
    assert!(matches!(link.run(|_, _, _| Fault::Deliver), End::Receipted));
    assert_eq!(disk.written.len(), written);
}

#[test]
fn bytes_in_flight_never_exceed_the_window() {
    let file = File::new(random(2 * B, 9));
    let options = Options { chunk: 30_000, window: 100_000, ..Options::default() };
    let mut disk = Disk::default();
    let mut link = Pair::one(&file, &mut disk, options);
    assert!(matches!(link.run(|_, _, _| Fault::Deliver), End::Receipted));
    let (mut sent, mut acknowledged) = (0u64, 0u64);
    for (direction, text) in &link.log {
        if *direction == Direction::ToReceiver && text.starts_with('C') {
            sent += 1;
        } else if let Ok(Message::Ack { sequence, .. }) = Message::parse(text.as_bytes()) {
            acknowledged = sequence;
        }
        assert!((sent - acknowledged) * 30_000 <= 100_000, "{sent} sent, {acknowledged} acknowledged");
    }
}

fn schedule() -> impl Strategy<Value = Vec<(bool, usize, u8, usize)>> {
    prop::collection::vec((any::<bool>(), 0usize..60, 0u8..6, any::<usize>()), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 100, ..ProptestConfig::default() })]

    /// Any faults, any sizes, any stock at the receiver, rotten and outdated blocks included.
    #[test]
    fn arbitrary_schedules_end_in_the_exact_file_or_a_typed_error(
        size in prop_oneof![0usize..100, B - 50..B + 50, 0usize..3 * B],
        chunk in prop_oneof![90_000u64..400_000, Just(BLOCK)],
        window in 1u64..4_000_000,
        held in prop::collection::vec(0u64..3, 0..4),
        rot in prop::option::of(any::<usize>()),
        outdated in prop::option::of(any::<usize>()),
        turns_per_action in 1usize..40,
        holes in prop::collection::vec(0u64..3, 0..3),
        faults in schedule(),
        seed: u64,
    ) {
        let file = sparse(random(size, seed), &holes);
        let mut old = file.clone();
        if let (Some(at), false) = (outdated, size == 0) {
            old.bytes[at % size] ^= 0x40;
        }
        let blocks = file.geometry().blocks();
        let mut disk = Disk::holding(&old, held.into_iter().filter(|block| *block < blocks));
        if let (Some(at), false) = (rot, disk.part.is_empty()) {
            let at = at % disk.part.len();
            disk.part[at] ^= 1;
        }
        let options = Options { chunk, window, turns_per_action, ..Options::default() };
        let end = send_to_the_end(&file, &mut disk, options, |direction, index, _| {
            let fault = faults.iter().find(|(to_sender, at, ..)| {
                (*to_sender == (direction == Direction::ToSender)) && *at == index
            });
            match fault {
                Some((_, _, 0, _)) => Fault::Drop,
                Some((_, _, 1, _)) => Fault::Twice,
                Some((_, _, 2, _)) => Fault::Swap,
                Some((_, _, 3, _)) => Fault::Cut,
                Some((_, _, _, bit)) => Fault::Flip(*bit),
                None => Fault::Deliver,
            }
        });
        prop_assert!(!faults.is_empty() || matches!(end, End::Receipted), "without a fault: {:?}", end);
    }
}

#[test]
fn signs_of_life_keep_a_connection_up_while_a_receiver_is_at_work_and_no_longer() {
    let start = Instant::now();
    let mut sender = Options::default().link(true, start);
    let mut receiver = Options::default().link(true, start);
    let file = File::new(Vec::new());
    sender.offer(file.offer(), file.sending(BLOCK)).unwrap();
    let mut pings = 0;
    // The receiver opens the file for ten minutes; then it does so, its `accept` is lost, and it is idle.
    let mut stalled = None;
    for second in 0..1200 {
        let now = start + Duration::from_secs(second);
        while let Some(message) = sender.poll_message(now) {
            receiver.handle_frame(message.to_frame().as_bytes(), &mut Vec::new(), now).unwrap();
        }
        while let Some(message) = receiver.poll_message(now) {
            pings += usize::from(message.kind() == "ping" || message.kind() == "pong");
            assert!(message.to_frame().len() > 6, "some gateways count less as silence");
            if message.kind() != "accept" {
                sender.handle_frame(message.to_frame().as_bytes(), &mut Vec::new(), now).unwrap();
            }
        }
        if second == 600 {
            assert!(matches!(receiver.poll_action(now), Some(Action::Open { .. })));
            receiver.done(0, Done::Opened(Opened::default()), now);
        }
        if let Err(waited) = sender.handle_timeout(now) {
            stalled = Some((second, waited));
            break;
        }
        receiver.handle_timeout(now).unwrap();
    }
    assert!(pings >= 29, "{pings}");
    let (second, waited) = stalled.expect("a receiver that is alive and does nothing is given up");
    let stall = Duration::from_secs(30);
    assert!((600..=640).contains(&second) && waited >= stall, "after {second} s: {waited:?}");
}

#[test]
fn an_acknowledgement_that_waits_for_the_socket_does_not_spin_the_clock() {
    let file = File::new(random(1000, 10));
    let mut disk = Disk::default();
    let mut link = Pair::one(&file, &mut disk, Options { chunk: 300, ..Options::default() });
    // Cut off just after the first chunk: its acknowledgement is due and nobody takes it.
    link.run(|direction, index, _| match (direction, index) {
        (Direction::ToReceiver, 3) => Fault::Cut,
        _ => Fault::Deliver,
    });
    let later = Instant::now() + Duration::from_secs(5);
    assert!(link.receiver.timeout(later) > later);
}

/// Hands a message to a machine; gives what it says to that.
pub fn say(link: &mut Link, message: &Message, now: Instant) -> Vec<Message> {
    link.handle_frame(message.to_frame().as_bytes(), &mut Vec::new(), now).unwrap();
    std::iter::from_fn(|| link.poll_message(now)).collect()
}

/// A receiver that heard `hello`, and whose own was taken.
pub fn greeted(options: &Options, now: Instant) -> Link {
    let mut receiver = options.link(true, now);
    let said = say(&mut receiver, &Message::Hello(options.hello(true)), now);
    assert!(matches!(said[..], [Message::Hello(_)]), "{said:?}");
    receiver
}

/// A receiver that holds the first `held` blocks of a file, transfer 0, and all that it said so far taken.
fn accepted(file: &File, held: u64, now: Instant) -> Link {
    let mut receiver = greeted(&Options::default(), now);
    assert_eq!(say(&mut receiver, &Message::Offer(file.offer()), now), []);
    assert!(matches!(receiver.poll_action(now), Some(Action::Open { transfer: 0, .. })));
    let held_blocks = std::iter::once(0..held).collect();
    let opened = Opened { held: held_blocks, received: held * BLOCK, ..Opened::default() };
    receiver.done(0, Done::Opened(opened), now);
    assert!(matches!(receiver.poll_message(now), Some(Message::Accept(_))));
    receiver
}

/// The frame of a chunk.
pub fn frame(transfer: u32, sequence: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; chunk::frame_len(bytes.len())];
    chunk::encode(Header { transfer, sequence, offset }, bytes, &mut frame);
    frame
}

/// Hands a chunk of transfer 0 to the receiver, damaged or not.
fn chunk(receiver: &mut Link, sequence: u64, offset: u64, bytes: &[u8], damaged: bool, now: Instant) {
    let mut frame = frame(0, sequence, offset, bytes);
    if damaged {
        frame[chunk::HEADER_LEN - 2] ^= 1;
    }
    receiver.handle_frame(&frame, &mut Vec::new(), now).unwrap();
}

fn finish(file: &File) -> Message {
    Message::Finish { transfer: 0, digest: file.digest() }
}

fn repair(blocks: &[(u64, u64)]) -> Message {
    Message::Repair { transfer: 0, blocks: blocks.to_vec() }
}

fn check(first: u64, count: u64) -> Message {
    Message::Check { transfer: 0, first, count, tree: true }
}

fn check_block(block: u64) -> Action {
    Action::CheckBlock { transfer: 0, block }
}

fn sync(file: &File, blocks: &[u64]) -> Action {
    Action::Sync { transfer: 0, blocks: blocks.iter().map(|&block| (block, file.hashes(block))).collect() }
}

#[test]
fn a_finish_without_a_chunk_is_answered_with_what_is_missing() {
    let now = Instant::now();
    let file = File::new(random(3 * B, 11));
    let mut receiver = accepted(&file, 2, now);
    assert!(receiver.poll_action(now).is_none(), "nothing is read back before the first new chunk");
    assert_eq!(say(&mut receiver, &finish(&file), now), []);
    while let Some(action) = receiver.poll_action(now) {
        let Action::CheckBlock { block, .. } = action else { panic!("{action:?}") };
        receiver.done(0, Done::Checked(block, true), now);
    }
    let said: Vec<_> = std::iter::from_fn(|| receiver.poll_message(now)).collect();
    assert_eq!(said, [repair(&[(2, 1)])]);
}

#[test]
fn a_finish_that_crosses_a_repair_counts_for_nothing_also_while_blocks_are_still_checked() {
    let now = Instant::now();
    let file = File::new(random(3 * B, 12));
    let mut receiver = accepted(&file, 3, now);
    // Of three held blocks the first is rotten; the others are not read yet when the sender is done.
    assert_eq!(receiver.poll_action(now), Some(check_block(0)));
    receiver.done(0, Done::Checked(0, false), now);
    assert_eq!(receiver.poll_message(now), Some(repair(&[(0, 1)])));
    assert_eq!(say(&mut receiver, &finish(&file), now), []);
    chunk(&mut receiver, 0, 0, &file.bytes[..B], false, now);
    for block in [1, 2] {
        while receiver.poll_action(now) != Some(check_block(block)) {}
        receiver.done(0, Done::Checked(block, true), now);
    }
    say(&mut receiver, &finish(&file), now);
    assert_eq!(receiver.poll_action(now), Some(sync(&file, &[0])));
    receiver.done(0, Done::Synced, now);
    assert!(matches!(receiver.poll_action(now), Some(Action::Seal { .. })));
}

#[test]
fn the_last_blocks_are_synced_while_the_finish_is_still_on_its_way() {
    let now = Instant::now();
    let file = File::new(random(2 * B, 16));
    let mut receiver = accepted(&file, 0, now);
    chunk(&mut receiver, 0, 0, &file.bytes[..B], false, now);
    assert_eq!(receiver.poll_action(now), None);
    chunk(&mut receiver, 1, B as u64, &file.bytes[B..], false, now);
    assert_eq!(receiver.poll_action(now), Some(sync(&file, &[0, 1])));
}

#[test]
fn a_check_of_a_block_that_is_filled_again_meanwhile_counts_for_nothing() {
    let now = Instant::now();
    let file = File::new(random(2 * B, 15));
    let mut receiver = accepted(&file, 2, now);
    assert_eq!(receiver.poll_action(now), Some(check_block(0)));
    // While it is read the sender, whose block is another, sends its own: the reader sees some of each.
    let half = B / 2;
    chunk(&mut receiver, 0, 0, &file.bytes[..half], false, now);
    receiver.done(0, Done::Checked(0, false), now);
    chunk(&mut receiver, 1, half as u64, &file.bytes[half..B], false, now);
    assert_eq!(receiver.poll_action(now), Some(check_block(1)));
    chunk(&mut receiver, 2, B as u64, &file.bytes[B..], false, now);
    receiver.done(0, Done::Checked(1, false), now);
    let said: Vec<_> = std::iter::from_fn(|| receiver.poll_message(now)).collect();
    assert!(!said.iter().any(|message| matches!(message, Message::Repair { .. })), "{said:?}");
    say(&mut receiver, &finish(&file), now);
    assert_eq!(receiver.poll_action(now), Some(sync(&file, &[0, 1])));
}

/// A sender that offered a file as transfer 0 to a receiver with these features; all that it said was taken.
pub fn offered(file: &File, options: &Options, features: bool, now: Instant) -> Link {
    let mut sender = options.link(true, now);
    assert_eq!(sender.offer(file.offer(), file.sending(options.chunk)), Ok(0));
    let said = say(&mut sender, &Message::Hello(options.hello(features)), now);
    assert!(matches!(said[..], [Message::Hello(_), Message::Offer(_)]), "{said:?}");
    sender
}

pub fn accept(held: &[(u64, u64)]) -> Accept {
    let received = held.last().map_or(0, |(first, count)| (first + count) * BLOCK);
    Accept { transfer: 0, held: held.to_vec(), begun: Vec::new(), received, complete: false, discard: false }
}

pub fn digests(first: u64, digest: BlockDigest) -> Message {
    Message::Digests { transfer: 0, first, digests: STANDARD.encode(digest.0) }
}

/// The hashes of a block, to a sender that asked for them.
pub fn hashed(sender: &mut Link, file: &File, block: u64, now: Instant) {
    let hashes = file.hashes(block);
    let digest = hashes.digest();
    sender.done(0, Done::HashedSource(block, hashes, digest), now);
}

/// Hands a message to a sender; gives what it wants done, and says.
pub fn hear(sender: &mut Link, message: Message, now: Instant) -> (Option<Action>, Option<Message>) {
    sender.handle_frame(message.to_frame().as_bytes(), &mut Vec::new(), now).unwrap();
    (sender.poll_action(now), sender.poll_message(now))
}

/// Puts the next chunk into a frame, if one is due.
pub fn next_frame(sender: &mut Link, file: &File, now: Instant) -> Option<Vec<u8>> {
    let Due { offset, len, .. } = sender.next_chunk()?;
    let mut frame = vec![0; chunk::frame_len(len)];
    sender.encode_chunk(&file.bytes[offset as usize..][..len], &mut frame, now);
    Some(frame)
}

#[test]
fn a_block_that_a_repair_asked_for_is_sent_once_whatever_its_comparison_says() {
    let now = Instant::now();
    let file = File::new(random(2 * B, 18));
    let mut sender = offered(&file, &Options { window: 2 * BLOCK, ..Options::default() }, true, now);
    let hash_source = |block| Some(Action::HashSource { transfer: 0, block, tree: true });
    assert_eq!(hear(&mut sender, Message::Accept(accept(&[(0, 2)])), now), (None, Some(check(0, 2))));
    let first = digests(0, file.hashes(0).digest());
    assert_eq!(hear(&mut sender, first, now), (hash_source(0), None));
    hashed(&mut sender, &file, 0, now);
    assert_eq!((sender.poll_action(now), sender.poll_message(now)), (None, Some(check(1, 1))));
    hear(&mut sender, repair(&[(1, 1)]), now);
    let mut frames = 0;
    while next_frame(&mut sender, &file, now).is_some() {
        frames += 1;
        hear(&mut sender, Message::Ack { sequence: frames, durable: Vec::new() }, now);
    }
    assert_eq!(frames, 13);
    assert_eq!(hear(&mut sender, digests(1, BlockDigest::NONE), now), (hash_source(1), None));
    hashed(&mut sender, &file, 1, now);
    assert_eq!(sender.next_chunk(), None, "the block is on its way");
}

#[test]
fn a_receiver_that_asks_for_repairs_without_end_is_given_up() {
    let file = File::new(random(1000, 19));
    let mut disk = Disk::default();
    let mut link = Pair::one(&file, &mut disk, Options::default());
    // Frames to the sender: `hello`, `accept`, then an `ack` and a forged `repair` in turns.
    let repair = repair(&[(0, 1)]).to_frame();
    link.forged = (2..1000).map(|at| ((Direction::ToSender, at), repair.clone())).collect();
    let End::Violation(Direction::ToSender, violation) = link.run(|_, _, _| Fault::Deliver) else {
        panic!("it goes on")
    };
    assert_eq!(violation.to_string(), "repair.blocks is 103 in all, expected at most 102 in a file of 1");
}

#[test]
fn a_check_of_a_block_that_is_not_held_any_more_is_answered_with_no_blocks_digest() {
    let now = Instant::now();
    let file = File::new(random(3 * B, 17));
    let mut receiver = accepted(&file, 2, now);
    // It is begun again: what its journal entry says is not what is there.
    chunk(&mut receiver, 0, 0, &file.bytes[..3], false, now);
    let heard = say(&mut receiver, &check(0, 2), now);
    assert_eq!(heard[0], digests(0, BlockDigest::NONE));
    // The next is as it was.
    while receiver.poll_action(now).is_some() {}
    say(&mut receiver, &check(1, 1), now);
    let read = Action::ReadDigests { transfer: 0, first: 1, count: 1, tree: true };
    assert_eq!(receiver.poll_action(now), Some(read));
}

#[test]
fn a_check_is_not_taken_before_the_answer_to_the_last_one_is_on_its_way() {
    let now = Instant::now();
    let mut receiver = accepted(&File::new(random(3 * B, 13)), 2, now);
    let check = check(0, 1).to_frame();
    receiver.handle_frame(check.as_bytes(), &mut Vec::new(), now).unwrap();
    let read = Action::ReadDigests { transfer: 0, first: 0, count: 1, tree: true };
    assert_eq!(receiver.poll_action(now), Some(read));
    receiver.done(0, Done::Digests(0, vec![BlockDigest([1; 32])]), now);
    // A peer that does not read would have its answers pile up here.
    let error = receiver.handle_frame(check.as_bytes(), &mut Vec::new(), now).unwrap_err();
    assert!(matches!(error, Violation::Unexpected { came: "check", .. }), "{error}");
    assert!(matches!(receiver.poll_message(now), Some(Message::Digests { .. })));
    receiver.handle_frame(check.as_bytes(), &mut Vec::new(), now).unwrap();
}

#[test]
fn a_block_that_is_filled_out_of_order_again_and_again_is_read_back_one_at_a_time() {
    let now = Instant::now();
    let file = File::new(random(6, 14));
    let mut receiver = accepted(&file, 0, now);
    chunk(&mut receiver, 0, 0, &file.bytes[..3], true, now);
    let mut jobs = 0;
    for turn in 0..50 {
        chunk(&mut receiver, 1 + 2 * turn, 3, &file.bytes[3..], false, now);
        chunk(&mut receiver, 2 + 2 * turn, 0, &file.bytes[..3], false, now);
        jobs += u32::from(receiver.poll_action(now).is_some());
    }
    assert_eq!(jobs, 1);
    // What that job read may be what stood there before: it does not count.
    receiver.done(0, Done::Hashed(0, Some(file.hashes(0))), now);
    assert_eq!(receiver.poll_action(now), Some(Action::HashBlock { transfer: 0, block: 0 }));
    receiver.done(0, Done::Hashed(0, Some(file.hashes(0))), now);
    say(&mut receiver, &finish(&file), now);
    // A file of one block has no journal before its end: the hashes go with it.
    let (digest, hashes) = (file.digest(), Some(file.hashes(0)));
    assert_eq!(receiver.poll_action(now), Some(Action::Seal { transfer: 0, digest, hashes }));
}

#[test]
fn an_acknowledgement_of_nothing_new_keeps_no_sender_waiting() {
    let now = Instant::now();
    let file = File::new(random(1000, 91));
    let mut sender = offered(&file, &Options::default(), true, now);
    hear(&mut sender, Message::Accept(accept(&[])), now);
    next_frame(&mut sender, &file, now).unwrap();
    let stalled = (1..60).find(|&second| {
        let now = now + Duration::from_secs(second);
        hear(&mut sender, Message::Ack { sequence: 0, durable: Vec::new() }, now);
        sender.handle_timeout(now).is_err()
    });
    assert_eq!(stalled, Some(30), "the stall timeout");
}
