//! A link that cuts, drops, duplicates, swaps and damages: the exact file or a typed error.

use std::collections::BTreeSet;

use proptest::prelude::*;
use wsferry::protocol::{BLOCK, Violation};

use super::{B, sparse};
use crate::link::{Direction, Disk, End, Fault, File, Options, Pair, send_to_the_end};
use crate::support::random;

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
