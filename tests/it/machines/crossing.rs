//! What crosses, where nothing is in its way but one cut: which bytes, how many of them, in which order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wsferry::protocol::{BLOCK, Message, chunk};

use super::B;
use crate::link::{Direction, Disk, End, Fault, File, Options, Pair, send_to_the_end};
use crate::support::random;

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
