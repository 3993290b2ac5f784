//! What has to hold for any bytes: shared by the fuzz targets and by the test that runs what they found.

use std::sync::Arc;
use std::time::Instant;

use wsferry::protocol::message::transfer_id;
use wsferry::protocol::{
    Action, BlockSet, ChunkSize, HeartbeatConfig, Message, Offer, Opened, Receiver, ReceiverConfig, Sender,
    SenderConfig, chunk,
};
use wsferry::storage::{Folder, Inbox, InboxOptions};

use crate::model::{Lie, Model};

fn offer(size: u64) -> Offer {
    Offer {
        id: transfer_id("f", size, 0, 0, None),
        name: "f".to_owned(),
        size,
        mtime: 0,
        mtime_ns: 0,
        mode: None,
        frame_limit: 32_768,
        window: 1 << 20,
        repair: false,
        discard: false,
    }
}

/// A frame that reads as a chunk is the frame that is written for it.
pub fn chunk(data: &[u8]) {
    let mut bytes = Vec::new();
    if let Ok(chunk) = chunk::decode(data, &mut bytes) {
        let mut frame = vec![0; chunk::frame_len(chunk.len)];
        chunk::encode(chunk.sequence, chunk.offset, &bytes[..chunk.len], &mut frame);
        assert_eq!(frame, data);
    }
}

/// Lines of text, taken as frames by both machines in mid-transfer, panic nothing; and a message that reads is
/// written as one that reads the same.
pub fn control(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let now = Instant::now();
    let size = 10 << 20;
    let config = SenderConfig {
        chunk: ChunkSize::LARGEST_AUTO,
        already_sent: 0,
        heartbeat: HeartbeatConfig::default(),
    };
    let mut sender = Sender::new(offer(size), config, now);
    let mut receiver = Receiver::new(ReceiverConfig::default(), now);
    let first = sender.poll_message(now).expect("a sender begins with an offer").to_text();
    receiver.handle_frame(first.as_bytes(), &mut Vec::new(), now).expect("its offer is good");
    let mut held = BlockSet::new();
    held.insert_run(0..2);
    receiver.opened(Opened { held, received: 7 << 20, complete: false });
    assert!(matches!(receiver.poll_action(now), Some(Action::Open(_))));
    let accept = receiver.poll_message(now).expect("an opened offer is accepted").to_text();
    sender.handle_frame(accept.as_bytes(), now).expect("its accept is good");
    for line in text.lines() {
        if let Ok(message) = Message::parse(line.as_bytes()) {
            assert_eq!(Message::parse(message.to_text().as_bytes()).as_ref(), Ok(&message));
        }
        let (at_sender, at_receiver) = (
            sender.handle_frame(line.as_bytes(), now),
            receiver.handle_frame(line.as_bytes(), &mut Vec::new(), now),
        );
        while sender.poll_message(now).is_some() || receiver.poll_message(now).is_some() {}
        if let Some((_, len)) = sender.next_chunk() {
            let mut frame = vec![0; chunk::frame_len(len)];
            sender.encode_chunk(&vec![7; len], &mut frame, now);
        }
        let _ = (sender.next_check(), receiver.poll_action(now), sender.poll_event(), receiver.poll_event());
        if at_sender.is_err() || at_receiver.is_err() {
            return;
        }
    }
}

/// Any bytes as a journal: opened or refused; and a block that it vouches for, and that passes its check, is there.
pub fn journal(data: &[u8]) {
    const CONTENT: &[u8] = b"hello";
    let model = Model::new(Lie::No);
    let name = blake3::hash(b"f").to_hex()[..32].to_owned();
    for (ending, bytes) in [("journal", data), ("part", CONTENT)] {
        let file =
            model.open(&format!(".wsferry/{name}.{ending}"), Some(0o600)).expect("the model makes files");
        file.write_all_at(bytes, 0).expect("the model has power");
    }
    let inbox = Inbox::new(Arc::new(model.clone()), InboxOptions::default());
    let _ = inbox.resumable();
    let offer = offer(5).check().expect("it is a good offer").expect("with a good name");
    let Ok((target, opened)) = inbox.begin(offer) else { return };
    let partial = target.partial().expect("there is no final file");
    assert!(opened.held.contains(0), "what is in the partial file is held");
    if partial.check_block(0).expect("the model has power") {
        target.seal(blake3::hash(CONTENT).into()).expect("the journal vouches for the content");
        assert_eq!(model.content("f").as_deref(), Some(CONTENT));
    }
}
