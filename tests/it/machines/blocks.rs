//! Blocks that are compared, repaired and filled again, while other messages cross: each is done once, and counts if it still may.

use std::time::Instant;

use wsferry::protocol::{Action, BLOCK, BlockDigest, Done, Message, Violation};

use super::{
    B, accept, accepted, check, check_block, chunk, digests, finish, hashed, hear, next_frame, offered,
    repair, say, sync,
};
use crate::link::{Direction, Disk, End, Fault, File, Options, Pair};
use crate::support::random;

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
