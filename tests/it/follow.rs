//! A file that is sent while it grows.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use crate::gateway::{Gateway, Limits};
use crate::pipes::Pipe;
use crate::support::{Place, Receiver, Running, random, wsferry};

fn following(file: &Path, url: &str, flags: &[&str]) -> Running {
    let mut command = wsferry();
    Running::start(command.arg("send").arg(file).args([url, "--json", "--follow"]).args(flags))
}

fn appending(file: &Path) -> File {
    OpenOptions::new().append(true).open(file).unwrap()
}

#[test]
fn what_is_added_comes_as_it_is_added_and_ctrl_c_ends_the_file_whole() {
    let place = Place::new();
    let mut pipe = Pipe::start(&[]);
    let mut output = pipe.output();
    let bytes = random(9_000, 1);
    let file = place.file("log", &bytes[..3000]);
    let sender = following(&file, &pipe.url, &[]);
    let mut growing = appending(&file);
    for upto in [3000, 6000, 9000] {
        let mut came = [0; 3000];
        output.read_exact(&mut came).unwrap();
        assert!(came == bytes[upto - 3000..upto]);
        growing.write_all(&bytes[upto..(upto + 3000).min(9000)]).unwrap();
    }
    growing.write_all(b"?").unwrap();
    sender.signal("-INT");
    let ended = sender.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let digest = blake3::hash(&std::fs::read(&file).unwrap());
    assert_eq!(ended.event("finished")["blake3"], digest.to_hex().as_str());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), pipe.end().0), ("?", 0));
}

#[test]
fn a_file_that_has_not_grown_for_so_long_has_ended_also_over_cuts() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let limits = Limits { bytes: Some(3_000_000), ..Limits::default() };
    let gateway = Gateway::start(receiver.address(), limits);
    let bytes = random(12_000_000, 2);
    let file = place.file("log", b"");
    let sender = following(&file, &gateway.url(), &["--until", "2s", "--name", "other"]);
    let mut growing = appending(&file);
    for piece in bytes.chunks(1_000_000) {
        growing.write_all(piece).unwrap();
    }
    let ended = sender.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(ended.events("reconnecting").len() >= 3, "{ended:?}");
    assert!(place.received("other") == bytes);
}

#[test]
fn a_log_that_is_rotated_away_ends_with_all_that_it_had() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let file = place.file("log", b"one");
    let sender = following(&file, &receiver.url, &[]);
    receiver.running.wait_for(|event| event["event"] == "started");
    let mut growing = appending(&file);
    std::fs::rename(&file, place.path("log.1")).unwrap();
    // Its writer goes on for a moment.
    growing.write_all(b"two").unwrap();
    place.file("log", b"three");
    let ended = sender.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(place.received("log"), b"onetwo");
}

#[test]
fn a_log_that_is_cut_short_is_an_error() {
    let place = Place::new();
    let mut pipe = Pipe::start(&[]);
    let mut output = pipe.output();
    let file = place.file("log", &random(6000, 3));
    let sender = following(&file, &pipe.url, &[]);
    output.read_exact(&mut [0; 6000]).unwrap();
    File::create(&file).unwrap();
    sender.end().assert_error(1, &["log", "cut short to 0 bytes"]);
}

#[test]
fn what_does_not_grow_at_its_end_is_not_followed() {
    let place = Place::new();
    let file = place.file("f", b"");
    let dir = place.path("");
    for (args, code, word) in [
        (vec![dir.to_str().unwrap()], 2, "--follow goes with one file"),
        (vec![file.to_str().unwrap(), "Cargo.toml"], 2, "--follow goes with one file"),
        (vec!["-", "--name", "f"], 2, "--follow goes with one file"),
        (vec!["/dev/null"], 1, "not a regular file"),
        (vec!["/nowhere/at/all"], 1, "cannot open"),
    ] {
        let mut command = wsferry();
        let ended =
            Running::start(command.args(["send", "--follow", "--json"]).args(args).arg("ws://127.0.0.1:1"))
                .end();
        ended.assert_error(code, &[word]);
    }
}
