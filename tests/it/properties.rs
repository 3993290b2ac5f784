//! What has to hold for any bytes: shared by the fuzz targets and by the test that runs what they found.

use std::sync::Arc;

use wsferry::protocol::message::frame_of;
use wsferry::protocol::{Message, chunk};
use wsferry::storage::{Folder, Inbox, InboxOptions};

use crate::link::{Direction, Disk, Fault, File, Options, Pair, send_to_the_end};
use crate::model::{Lie, Model};

/// A frame that reads as a chunk is the frame that is written for it.
pub fn chunk(data: &[u8]) {
    let mut bytes = Vec::new();
    if let Ok(chunk) = chunk::decode(data, &mut bytes) {
        let mut frame = vec![0; chunk::frame_len(chunk.len)];
        chunk::encode(chunk.header, &bytes[..chunk.len], &mut frame);
        assert_eq!(frame, data);
    }
}

/// Lines of text that come between the frames of a transfer, in both directions, panic nothing and hang nothing; what
/// gets the final name is the file, and the next connection gets it there. A message that reads is written as one that
/// reads the same. A line that is an object of JSON comes in a frame whose CRC-32 is right: none would be read else.
pub fn control(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let frames: Vec<String> = text
        .lines()
        .map(|line| if line.starts_with('{') { frame_of(line) } else { line.to_owned() })
        .collect();
    for frame in &frames {
        if let Ok(message) = Message::parse(frame.as_bytes()) {
            assert_eq!(Message::parse(message.to_frame().as_bytes()).as_ref(), Ok(&message));
        }
    }
    let mut bytes = vec![0; 30_000];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    let file = File::new(bytes);
    let options = Options { chunk: 6000, window: 12_000, ..Options::default() };
    for mut disk in [Disk::default(), Disk::holding(&file, [0])] {
        let mut link = Pair::one(&file, &mut disk, options);
        for (at, frame) in frames.iter().enumerate() {
            for direction in [Direction::ToReceiver, Direction::ToSender] {
                link.forged.insert((direction, at + 1), frame.clone());
            }
        }
        link.run(|_, _, _| Fault::Deliver);
        assert!(disk.sealed.as_ref().is_none_or(|sealed| *sealed == file), "another file was sealed");
        send_to_the_end(&file, &mut disk, options, |_, _, _| Fault::Deliver);
        assert_eq!(disk.sealed, Some(file.clone()));
    }
}

/// Any bytes as a journal: opened or refused; and a block that it vouches for, and that passes its check, is there.
pub fn journal(data: &[u8]) {
    const CONTENT: &[u8] = b"hello";
    let model = Model::new(Lie::No);
    let name = blake3::hash(b"f").to_hex()[..32].to_owned();
    model.create_dir(".wsferry", 0o700).expect("the model makes directories");
    let shelf = model.open_dir(".wsferry").expect("it is there");
    for (ending, bytes) in [("journal", data), ("part", CONTENT)] {
        let file = shelf.create(&format!("{name}.{ending}"), 0o600).expect("the model makes files");
        file.write_all_at(bytes, 0).expect("the model has power");
    }
    let inbox = Inbox::new(Arc::new(model.clone()), InboxOptions::default()).expect("it is ours");
    let _ = inbox.resumable();
    let offer = File { mode: None, ..File::named("f", CONTENT.to_vec()) }
        .offer()
        .check()
        .expect("it is a good offer")
        .expect("with a good name");
    let Ok((target, opened)) = inbox.begin(offer) else { return };
    assert!(!opened.complete, "there is no final file");
    let there = opened.held.contains(0) || opened.unhashed.contains(0);
    assert!(there, "what is in the partial file counts");
    if target.check_block(0).expect("the model has power") {
        target.seal(blake3::hash(CONTENT).into()).expect("the journal vouches for the content");
        assert_eq!(model.content("f").as_deref(), Some(CONTENT));
    }
}
