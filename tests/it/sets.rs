//! Small sets of files over one connection after another: whatever a seed does to the frames, the exact files or typed errors.

use fastrand::Rng;
use wsferry::protocol::BLOCK;

use crate::link::{Direction, Disk, End, Fault, File, Options, send_all_to_the_end};
use crate::support::random;

/// Schedules that run with all other tests; the others are there to be asked for.
const FEW: u64 = 1000;
const ALL: u64 = 20_000;

/// A size at an edge, or anything that is small; seldom more than a block.
fn size(rng: &mut Rng) -> usize {
    match rng.u8(..20) {
        0 => 0,
        1 => rng.usize(1..4),
        2 => BLOCK as usize - 1 + rng.usize(..3),
        3 => rng.usize(..2 * BLOCK as usize),
        _ => rng.usize(..60_000),
    }
}

/// A file, and what the receiver has of it: nothing, something, something else, or all of it under its name.
fn file(name: usize, rng: &mut Rng) -> (File, Disk) {
    let mut file = File::named(&format!("{name}.bin"), random(size(rng), rng.u64(..)));
    let blocks = file.geometry().blocks();
    if blocks > 0 && rng.u8(..8) == 0 {
        let (block, geometry) = (rng.u64(..blocks), file.geometry());
        let hole = geometry.block_start(block) as usize..geometry.block_end(block) as usize;
        file.bytes[hole].fill(0);
        file.zeros.insert(block);
    }
    if blocks < 2 && rng.bool() {
        file = file.known();
    }
    let mut old = file.clone();
    if !old.bytes.is_empty() && rng.u8(..3) == 0 {
        let at = rng.usize(..old.bytes.len());
        old.bytes[at] ^= 0x40;
    }
    let mut disk = Disk::default();
    match rng.u8(..6) {
        0 => disk = Disk::holding(&old, (0..blocks).filter(|_| rng.bool())),
        1 => {
            disk = Disk::holding(&old, 0..blocks);
            disk.part.truncate(rng.usize(..=old.bytes.len()));
            let geometry = old.geometry();
            disk.journal.retain(|&block, _| geometry.block_end(block) <= disk.part.len() as u64);
        }
        2 => disk.sealed = Some(old),
        _ => {}
    }
    (file, disk)
}

/// Runs one schedule; gives how its first connection ended, and whether anything was done to it.
fn run(seed: u64) -> (End, bool) {
    let mut rng = Rng::with_seed(seed);
    let count = rng.usize(1..9);
    let (files, mut disks): (Vec<File>, Vec<Disk>) = (0..count).map(|name| file(name, &mut rng)).unzip();
    let options = Options {
        chunk: rng.u64(3_000..60_000),
        window: rng.u64(1..300_000),
        turns_per_action: rng.usize(1..30),
        features: rng.u8(..4) > 0,
        ..Options::default()
    };
    let faults: Vec<(bool, usize, Fault)> = (0..rng.usize(..5))
        .map(|_| {
            let fault = match rng.u8(..10) {
                0 => Fault::Drop,
                1 => Fault::Twice,
                2 => Fault::Swap,
                3 => Fault::Cut,
                _ => Fault::Flip(rng.usize(..1_000_000)),
            };
            (rng.bool(), rng.usize(..10 * count), fault)
        })
        .collect();
    let mut is_hit = false;
    let end = send_all_to_the_end(&files, &mut disks, options, |direction, index, _| {
        let to_sender = direction == Direction::ToSender;
        let fault = faults.iter().find(|&&(side, at, _)| (side, at) == (to_sender, index));
        is_hit |= fault.is_some();
        fault.map_or(Fault::Deliver, |(_, _, fault)| *fault)
    });
    assert!(files.iter().zip(&disks).all(|(file, disk)| disk.sealed.as_ref() == Some(file)), "seed {seed}");
    (end, is_hit)
}

fn run_all(seeds: std::ops::Range<u64>) {
    let (mut undisturbed, mut mended, mut ended) = (0, 0, 0);
    for seed in seeds {
        // The seed of one that panics.
        let ran = std::panic::catch_unwind(|| run(seed));
        match ran.unwrap_or_else(|_| panic!("seed {seed}")) {
            (end, false) => {
                assert_eq!(end, End::Receipted, "seed {seed}: without a fault");
                undisturbed += 1;
            }
            (End::Receipted, true) => mended += 1,
            (_, true) => ended += 1,
        }
    }
    println!("{undisturbed} were not disturbed, {mended} were mended, {ended} connections ended");
    assert!(undisturbed > 10 && mended > 10 && ended > 10, "{undisturbed}, {mended}, {ended}");
}

#[test]
fn a_thousand_seeded_schedules_over_sets_of_files_end_in_the_exact_files_or_typed_errors() {
    run_all(0..FEW);
}

#[test]
#[ignore = "takes minutes: twenty thousand schedules"]
fn twenty_thousand_seeded_schedules_over_sets_of_files_end_in_the_exact_files_or_typed_errors() {
    run_all(FEW..ALL);
}
