//! What the fuzzers start from and what they found: `fixtures/fuzz`.

use std::path::Path;

use crate::{differential, properties};

fn each(target: &str, property: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fuzz").join(target);
    let mut inputs = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        property(&std::fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 2, "{target}: {inputs} inputs");
}

#[test]
fn the_corpus_of_chunk_frames_keeps_its_property() {
    each("chunk", properties::chunk);
}

#[test]
fn the_corpus_of_control_messages_keeps_its_property() {
    each("control", properties::control);
}

#[test]
fn the_corpus_of_journals_keeps_its_property() {
    each("journal", properties::journal);
}

#[test]
fn the_corpus_of_frames_means_the_same_to_another_reader() {
    each("frame", differential::frame);
}
