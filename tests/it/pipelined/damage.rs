//! Frames that come damaged, or not at all, while several transfers are open.

use std::collections::BTreeSet;
use std::time::Instant;

use wsferry::protocol::chunk::{self};
use wsferry::protocol::{Code, MAX_NAKS, Violation};

use super::{B, bytes, receiver_of, refuse, small, take};
use crate::link::{Direction, Disk, End, Fault, File, Options, Pair, send_all_to_the_end};
use crate::machines::{frame, sparse};
use crate::support::random;

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
