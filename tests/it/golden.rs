//! Golden frames: what is in `fixtures/frames` drives both directions.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde::Deserialize;
use wsferry::protocol::chunk::{Header, Zeros};
use wsferry::protocol::{LinkEvent, Message, chunk};

use crate::link::Options;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChunkFixture {
    why: String,
    frame: String,
    /// The fields of a valid frame; an invalid one has the error instead.
    transfer: Option<u32>,
    sequence: Option<u64>,
    offset: Option<u64>,
    bytes: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZerosFixture {
    why: String,
    frame: String,
    transfer: Option<u32>,
    sequence: Option<u64>,
    offset: Option<u64>,
    len: Option<u64>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ControlFixture {
    why: String,
    frame: String,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

fn fixtures<T: for<'de> Deserialize<'de>>(file: &str) -> BTreeMap<String, T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/frames").join(file);
    let fixtures: BTreeMap<String, T> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(fixtures.len() >= 8);
    fixtures
}

#[test]
fn golden_chunk_frames_read_and_write_as_they_stand() {
    for (name, fixture) in fixtures::<ChunkFixture>("chunks.json") {
        assert!(!fixture.why.is_empty(), "{name}");
        let mut bytes = Vec::new();
        match (chunk::decode(fixture.frame.as_bytes(), &mut bytes), fixture.error) {
            (Ok(chunk), None) => {
                let expected = fixture.bytes.unwrap();
                let Header { transfer, sequence, offset } = chunk.header;
                let fields = (Some(transfer), Some(sequence), Some(offset));
                assert_eq!(fields, (fixture.transfer, fixture.sequence, fixture.offset), "{name}");
                assert_eq!(&bytes[..chunk.len], expected.as_bytes(), "{name}");
                let mut frame = vec![0; chunk::frame_len(chunk.len)];
                chunk::encode(chunk.header, expected.as_bytes(), &mut frame);
                assert_eq!(frame, fixture.frame.as_bytes(), "{name}");
            }
            (Err(error), Some(expected)) => assert_eq!(error.to_string(), expected, "{name}"),
            (came, expected) => panic!("{name}: {came:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn golden_runs_of_zeros_read_and_write_as_they_stand() {
    for (name, fixture) in fixtures::<ZerosFixture>("zeros.json") {
        assert!(!fixture.why.is_empty(), "{name}");
        match (chunk::decode_zeros(fixture.frame.as_bytes()), fixture.error) {
            (Ok(zeros), None) => {
                let Zeros { header: Header { transfer, sequence, offset }, len } = zeros;
                let fields = (Some(transfer), Some(sequence), Some(offset), Some(len));
                let expected = (fixture.transfer, fixture.sequence, fixture.offset, fixture.len);
                assert_eq!(fields, expected, "{name}");
                assert_eq!(chunk::encode_zeros(zeros), fixture.frame.as_bytes(), "{name}");
            }
            (Err(error), Some(expected)) => assert_eq!(error.to_string(), expected, "{name}"),
            (came, expected) => panic!("{name}: {came:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn golden_control_messages_read_and_write_as_they_stand() {
    for (name, fixture) in fixtures::<ControlFixture>("control.json") {
        assert!(!fixture.why.is_empty(), "{name}");
        match (Message::parse(fixture.frame.as_bytes()), fixture.error) {
            (Ok(message), None) => {
                assert_eq!(Some(message.kind()), fixture.kind.as_deref(), "{name}");
                // What this version does not know it does not write.
                if !name.starts_with("unknown") {
                    assert_eq!(message.to_frame(), fixture.frame, "{name}");
                }
            }
            (Err(error), Some(expected)) => {
                assert!(error.to_string().contains(&expected), "{name}: {error}");
            }
            (came, expected) => panic!("{name}: {came:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn golden_offers_are_taken_or_refused_for_the_reason_that_is_given() {
    for (name, fixture) in fixtures::<ControlFixture>("offers.json") {
        let now = Instant::now();
        let mut receiver = crate::machines::greeted(&Options::default(), now);
        let handled = receiver.handle_frame(fixture.frame.as_bytes(), &mut Vec::new(), now);
        let came = match handled {
            Err(violation) => violation.to_string(),
            Ok(_) => match receiver.poll_message(now) {
                Some(Message::Reject { reason, .. }) => reason,
                _ => "taken".to_owned(),
            },
        };
        assert!(came.contains(fixture.error.as_deref().unwrap_or("taken")), "{name}: {came}");
    }
}

#[test]
fn golden_hellos_are_taken_or_refused_for_the_reason_that_is_given() {
    for (name, fixture) in fixtures::<ControlFixture>("hellos.json") {
        assert!(!fixture.why.is_empty(), "{name}");
        let now = Instant::now();
        let mut link = Options::default().link(true, now);
        let came = match link.handle_frame(fixture.frame.as_bytes(), &mut Vec::new(), now) {
            Err(violation) => violation.to_string(),
            Ok(_) if matches!(link.poll_event(), Some(LinkEvent::Greeted(_))) => "taken".to_owned(),
            Ok(_) => "ignored".to_owned(),
        };
        assert!(came.contains(fixture.error.as_deref().unwrap_or("taken")), "{name}: {came}");
    }
}

#[test]
fn the_transcript_in_the_protocol_document_is_what_the_machines_say() {
    let document = include_str!("../../src/protocol/PROTOCOL.md");
    let transcript = document.split("## A transcript").nth(1).unwrap();
    let now = Instant::now();
    let mut sender = Options::default().link(true, now);
    let mut receiver = Options::default().link(true, now);
    let mut kinds = Vec::new();
    let hash = |bytes| blake3::hash(bytes).to_string();
    for line in transcript.lines() {
        let Some((side, frame)) = line.split_once(' ').filter(|(side, _)| [">", "<"].contains(side)) else {
            continue;
        };
        if let Some(chunk) = frame.strip_prefix("C ") {
            kinds.push((side, "chunk"));
            let header = Header { transfer: 0, sequence: 0, offset: 0 };
            let mut expected = vec![0; chunk::frame_len(5)];
            chunk::encode(header, b"hello", &mut expected);
            assert_eq!(["C ", chunk].concat().as_bytes(), expected);
            let write = receiver.handle_frame(frame.as_bytes(), &mut Vec::new(), now);
            assert!(write.unwrap().is_some(), "the receiver takes it");
            continue;
        }
        let message = Message::parse(frame.as_bytes()).unwrap();
        kinds.push((side, message.kind()));
        assert_eq!(message.to_frame(), frame, "as this version writes it");
        // The other side takes what is said, in the state that the lines before have brought it to.
        let hears = if side == ">" { &mut receiver } else { &mut sender };
        let is_offer = matches!(message, Message::Offer(_));
        if let Message::Offer(offer) = message.clone() {
            assert!(offer.clone().check().unwrap().is_ok());
            let sending = crate::link::File::new(b"hello".to_vec()).sending(3000);
            sender.offer(offer, sending).unwrap();
            receiver.handle_frame(frame.as_bytes(), &mut Vec::new(), now).unwrap();
        } else {
            hears.handle_frame(frame.as_bytes(), &mut Vec::new(), now).unwrap();
        }
        if is_offer {
            receiver.done(0, wsferry::protocol::Done::Opened(Default::default()), now);
        }
        if matches!(message, Message::Accept(_)) {
            sender.next_chunk().expect("it was accepted");
            sender.encode_chunk(b"hello", &mut vec![0; chunk::frame_len(5)], now);
        }
        if matches!(message, Message::Ack { .. }) {
            sender.done(0, wsferry::protocol::Done::Confirmed, now);
        }
    }
    let expected = [
        (">", "hello"),
        ("<", "hello"),
        (">", "offer"),
        ("<", "accept"),
        (">", "chunk"),
        ("<", "ack"),
        (">", "finish"),
        ("<", "receipt"),
    ];
    assert_eq!(kinds, expected);
    assert!(!sender.is_busy(), "the sender has its receipt");
    assert_eq!(transcript.matches(&hash(b"hello")).count(), 2);
}
