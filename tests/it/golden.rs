//! Golden frames: what is in `fixtures/frames` drives both directions.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde::Deserialize;
use wsferry::protocol::{Message, Receiver, ReceiverConfig, chunk};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChunkFixture {
    why: String,
    frame: String,
    /// The fields of a valid frame; an invalid one has the error instead.
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
                assert_eq!(
                    (Some(chunk.sequence), Some(chunk.offset)),
                    (fixture.sequence, fixture.offset),
                    "{name}"
                );
                assert_eq!(&bytes[..chunk.len], expected.as_bytes(), "{name}");
                let mut frame = vec![0; chunk::frame_len(chunk.len)];
                chunk::encode(chunk.sequence, chunk.offset, expected.as_bytes(), &mut frame);
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
                let fields = (Some(zeros.sequence), Some(zeros.offset), Some(zeros.len));
                assert_eq!(fields, (fixture.sequence, fixture.offset, fixture.len), "{name}");
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
                assert_eq!(message.to_text(), fixture.frame, "{name}");
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
        let mut receiver = Receiver::new(ReceiverConfig::default(), now);
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
fn the_transcript_in_the_protocol_document_is_what_the_machines_say() {
    let document = include_str!("../../src/protocol/PROTOCOL.md");
    let transcript = document.split("## A transcript").nth(1).unwrap();
    let lines: Vec<&str> = transcript.lines().filter_map(|line| line.strip_prefix("> ")).collect();
    let Ok(Message::Offer(offer)) = Message::parse(lines[0].as_bytes()) else { panic!("{}", lines[0]) };
    assert!(offer.check().unwrap().is_ok());
    let mut frame = vec![0; chunk::frame_len(5)];
    chunk::encode(0, 0, b"hello", &mut frame);
    assert_eq!(lines[1].as_bytes(), frame);
    let digest = blake3::hash(b"hello").to_string();
    assert!(lines[2].contains(&digest) && transcript.matches(&digest).count() == 2);
}
