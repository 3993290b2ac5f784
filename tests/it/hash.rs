//! `wsferry hash`.

use std::io::Write;
use std::process::Stdio;

use crate::support::{Place, Running, random, wsferry};

#[test]
fn digests_are_printed_as_b3sum_prints_them() {
    let place = Place::new();
    let bytes = random(5_000_000, 1);
    let file = place.file("photo.jpg", &bytes);
    let ended = Running::start(wsferry().arg("hash").arg(&file)).end();
    let digest = blake3::hash(&bytes).to_string();
    assert_eq!((ended.code(), ended.lines.as_slice()), (0, &[format!("{digest}  {}", file.display())][..]));
    let empty = place.file("empty", b"");
    let ended = Running::start(wsferry().arg("hash").args([&empty, &file]).arg("--json")).end();
    let events = ended.events("digest");
    assert_eq!((&events[0]["size"], &events[1]["size"]), (&0.into(), &5_000_000.into()));
    assert_eq!(events[0]["blake3"], "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    assert_eq!((&events[1]["blake3"], &events[1]["name"]), (&digest.into(), &file.to_str().unwrap().into()));
}

#[test]
fn standard_input_is_read_if_no_file_is_named_or_a_dash_is() {
    let bytes = random(3_000_001, 2);
    for files in [&[][..], &["-"]] {
        let mut hash = Running::start(wsferry().arg("hash").args(files).stdin(Stdio::piped()));
        hash.input().write_all(&bytes).unwrap();
        assert_eq!(hash.end().lines, [format!("{}  -", blake3::hash(&bytes))]);
    }
}

#[test]
fn a_name_that_does_not_fit_a_line_is_escaped_and_marked() {
    let place = Place::new();
    let file = place.file("a\nb\\c", b"x");
    let ended = Running::start(wsferry().arg("hash").arg(&file)).end();
    let shown = file.to_str().unwrap().replace('\\', "\\\\").replace('\n', "\\n");
    assert_eq!(ended.lines, [format!("\\{}  {shown}", blake3::hash(b"x"))]);
}

#[test]
fn what_cannot_be_read_is_told_and_the_others_are_hashed() {
    let place = Place::new();
    let file = place.file("f", b"x");
    let ended = Running::start(wsferry().arg("hash").arg(place.path("none")).arg(&file)).end();
    ended.assert_error(1, &["cannot read", "none", "No such file"]);
    assert_eq!(ended.lines.len(), 1);
    Running::start(wsferry().arg("hash").arg(place.path(""))).end().assert_error(1, &["Is a directory"]);
}
