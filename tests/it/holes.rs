//! Zeros that take no room, bytes here and there, and what a peer may order again and again.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use wsferry::protocol::message::transfer_id;
use wsferry::protocol::{CheckedOffer, Offer};
use wsferry::storage::{Inbox, InboxOptions, Sealed, StorageError};

use crate::link::File;
use crate::model::{Lie, Model};
use crate::support::{Place, random};

const B: u64 = 3 << 20;

fn offer(file: &File, repair: bool) -> CheckedOffer {
    Offer { repair, ..file.offer() }.check().unwrap().unwrap()
}

/// Nine blocks of zeros but for the third and the last bytes.
fn sparse() -> File {
    let mut bytes = vec![0; 9 * B as usize + 5];
    bytes[2 * B as usize..3 * B as usize].copy_from_slice(&random(B as usize, 1));
    bytes[9 * B as usize..].copy_from_slice(b"last!");
    File::new(bytes)
}

#[test]
fn zeros_are_holes_in_the_partial_file_and_in_what_it_becomes() {
    let place = Place::new();
    let file = sparse();
    let inbox = Inbox::open(&place.inbox(), InboxOptions::default()).unwrap();
    let receive = |end: u64| {
        let (target, opened) = inbox.begin(offer(&file, false)).unwrap();
        let held: Vec<_> = opened.held.runs().flatten().collect();
        let blocks: Vec<_> = (0..end).filter(|block| !held.contains(block)).collect();
        for &block in &blocks {
            let (start, end) = (block * B, file.bytes.len().min((block as usize + 1) * B as usize) as u64);
            match block {
                2 | 9 => target.write_at(&file.bytes[start as usize..end as usize], start).unwrap(),
                // What stood there before is gone.
                5 => {
                    target.write_at(&random(3000, 2), start).unwrap();
                    target.write_zeros(start..end).unwrap();
                }
                _ => target.write_zeros(start..end).unwrap(),
            }
        }
        let hashes: Vec<_> = blocks.iter().map(|&block| (block, file.hashes(block))).collect();
        target.sync(&hashes).unwrap();
        (target, held)
    };
    let (target, _) = receive(7);
    target.put_away(&[], None);
    drop(target);
    let (target, held) = receive(10);
    assert_eq!(held, (0..7).collect::<Vec<_>>(), "holes that are in the journal are held");
    assert_eq!(target.seal(blake3::hash(&file.bytes).into()).unwrap(), Sealed::Stored(Vec::new()));
    assert!(place.received(&file.name) == file.bytes);
    let allocated = std::fs::metadata(place.inbox().join(&file.name)).unwrap().blocks() * 512;
    assert!(allocated < 5 * B, "{allocated} bytes for 1 block and 5 bytes");
}

#[test]
fn holes_are_no_room_that_others_lack() {
    let place = Place::new();
    let free = rustix::fs::statvfs(place.path("")).unwrap();
    let free = free.f_bavail * free.f_frsize;
    let inbox = Inbox::open(&place.inbox(), InboxOptions::default()).unwrap();
    // More zeros than there is room for, and five bytes.
    let blocks = free / B * 2;
    let size = blocks * B + 5;
    let file = File::new(random(5, 6));
    let (name, mtime) = (file.name.as_str(), file.mtime);
    let id = transfer_id(name, size, mtime, 5, file.mode);
    let offered = Offer { size: Some(size), id, zeros: blocks * B, ..file.offer() };
    let (target, _) = inbox.begin(offered.clone().check().unwrap().unwrap()).unwrap();
    target.write_at(&file.bytes, blocks * B).unwrap();
    target.write_zeros(0..blocks / 2 * B).unwrap();
    // What has come as holes is not believed to follow as bytes.
    let other = File { name: "other".to_owned(), ..File::new(random(1000, 7)) };
    inbox.begin(offer(&other, false)).unwrap();
    drop(target);
    // Without a word of zeros, it does not fit.
    let dense = inbox.begin(Offer { zeros: 0, ..offered }.check().unwrap().unwrap()).map(drop);
    assert!(matches!(dense, Err(StorageError::NoSpace { .. })), "{dense:?}");
}

#[test]
fn a_repair_keeps_holes_and_its_own_blocks() {
    let place = Place::new();
    let mut file = sparse();
    std::fs::create_dir_all(place.inbox()).unwrap();
    let path = place.inbox().join(&file.name);
    let old = std::fs::File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&old, &file.bytes[2 * B as usize..3 * B as usize], 2 * B)
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&old, b"first", 9 * B).unwrap();
    file.bytes[..3].copy_from_slice(b"new");
    let options = InboxOptions { overwrite: true, ..InboxOptions::default() };
    let inbox = Inbox::open(&place.inbox(), options).unwrap();
    let (target, opened) = inbox.begin(offer(&file, true)).unwrap();
    assert_eq!(opened.unhashed.runs().collect::<Vec<_>>(), std::iter::once(0..10).collect::<Vec<_>>());
    // The first block comes while it waits to be taken over: it is not taken over any more.
    target.write_at(&file.bytes[..B as usize], 0).unwrap();
    let mut hashes = vec![(0, file.hashes(0))];
    for block in 1..10 {
        let taken = target.hash_block(block).unwrap().unwrap();
        if taken != file.hashes(block) {
            assert_eq!(block, 9);
            target.write_at(b"last!", 9 * B).unwrap();
        }
        hashes.push((block, file.hashes(block)));
    }
    target.sync(&hashes).unwrap();
    assert_eq!(target.hash_block(0).unwrap(), Some(file.hashes(0)), "what came was not overwritten");
    assert_eq!(target.seal(blake3::hash(&file.bytes).into()).unwrap(), Sealed::Stored(Vec::new()));
    assert!(place.received(&file.name) == file.bytes);
    let allocated = std::fs::metadata(&path).unwrap().blocks() * 512;
    assert!(allocated < 5 * B, "{allocated} bytes");
}

#[test]
fn bytes_far_behind_make_no_whole_blocks_before_them() {
    let place = Place::new();
    let file = File::new(random(40 * B as usize, 3));
    let inbox = Inbox::open(&place.inbox(), InboxOptions::default()).unwrap();
    let (target, _) = inbox.begin(offer(&file, false)).unwrap();
    target.write_at(&file.bytes[30 * B as usize..31 * B as usize], 30 * B).unwrap();
    target.put_away(&[], None);
    drop(target);
    let (_, opened) = inbox.begin(offer(&file, false)).unwrap();
    assert!(opened.held.is_empty());
    assert_eq!(opened.unhashed.runs().collect::<Vec<_>>(), std::iter::once(30..31).collect::<Vec<_>>());
    assert_eq!(opened.received, 31 * B);
}

#[test]
fn a_file_that_is_compared_again_and_again_is_read_once() {
    let file = File::new(random(100_000, 4));
    let model = Model::new(Lie::No);
    model.put(&file.name, &file.bytes);
    let inbox = Inbox::new(Arc::new(model.clone()), InboxOptions::default()).unwrap();
    let reads = || {
        model.disturb(&[], &[]);
        let (target, opened) = inbox.begin(offer(&file, false)).unwrap();
        assert!(opened.complete);
        let wrong = target.seal(blake3::hash(b"another").into());
        assert!(matches!(wrong, Err(StorageError::Exists { .. })), "{wrong:?}");
        model.log().iter().filter(|&&operation| operation == "read").count()
    };
    assert!(reads() > 0);
    assert_eq!((reads(), reads()), (0, 0));
    // Another version is read.
    wsferry::storage::Folder::open(&model, &file.name, true).unwrap().write_all_at(b"x", 0).unwrap();
    assert!(reads() > 0);
}

#[test]
fn a_name_is_claimed_once_at_once_and_free_again() {
    let place = Place::new();
    let file = File::new(random((3 << 20) + 1000, 5));
    let inbox = Inbox::open(&place.inbox(), InboxOptions::default()).unwrap();
    let (target, _) = inbox.begin(offer(&file, false)).unwrap();
    let asked = std::time::Instant::now();
    let busy = inbox.begin(offer(&file, false)).map(drop);
    assert!(matches!(busy, Err(StorageError::Busy { .. })), "{busy:?}");
    assert!(asked.elapsed() < std::time::Duration::from_secs(1), "nobody waits");
    // Another process has it as well once something was written.
    let other = Inbox::open(&place.inbox(), InboxOptions::default()).unwrap();
    target.write_at(&file.bytes[..B as usize], 0).unwrap();
    let busy = other.begin(offer(&file, false)).map(drop);
    assert!(matches!(busy, Err(StorageError::Busy { .. })), "{busy:?}");
    drop(target);
    other.begin(offer(&file, false)).unwrap();
}
