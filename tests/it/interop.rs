//! The exercise with other people's libraries, both ways: Autobahn, `websockets`, Node's `ws`; and the protocol with two
//! other implementations, which were written from its document alone: `client.py`, and `minimal.py`, the least there is.
//!
//! `.ci/run` installs them and says where in `WSFERRY_INTEROP`; by hand:
//!
//! ```sh
//! export WSFERRY_INTEROP=$(mktemp -d)
//! .ci/interop "$WSFERRY_INTEROP"
//! cargo test --release --test it -- --ignored interop
//! ```

use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::proxy::{Plan, Proxy};
use crate::support::{Place, Receiver, Running, random, send, send_well, wsferry};

const WAYS: [&str; 2] = ["frame", "fragments"];

/// Python or Node with one of the scripts, and the libraries that it needs.
fn run(script: &str) -> Command {
    let place = std::env::var_os("WSFERRY_INTEROP")
        .expect("WSFERRY_INTEROP is not set: it names a directory with the libraries; see CONTRIBUTING.md");
    let place = PathBuf::from(place);
    let python = place.join("bin/python");
    let mut command =
        Command::new(if script.ends_with(".py") { python.as_path() } else { Path::new("node") });
    command.env("NODE_PATH", place.join("node_modules"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A library's script, with everything but the role's arguments.
fn script(library: &str) -> Command {
    if library == "ws" {
        return run("exercise.cjs");
    }
    let mut command = run("exercise.py");
    command.arg(library);
    command
}

fn exercise(library: &str) {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    let picture = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ferry.png")).unwrap();
    for (name, bytes) in [("ferry.png", picture), ("random", random(32 << 20, 32))] {
        let file = place.file(name, &bytes);
        for way in WAYS {
            let url = format!("{}/{way}-{name}", receiver.url);
            let mut client = script(library);
            client.args(["client", &url]).arg(&file).arg(way);
            let ended = Running::start(&mut client).end();
            assert_eq!(ended.code(), 0, "{library} {name} {way}: {ended:?}");
            assert!(place.received(&format!("{way}-{name}")) == bytes, "{library} {name} {way}");
        }
        for (way, flags) in
            [("frame", &["--plain"][..]), ("fragments", &["--plain"]), ("frame", &["--plain", "--one-frame"])]
        {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let target = place.path("saved");
            let mut server = script(library);
            server.args(["server", &port.to_string()]).arg(&target).arg(way);
            let server = Running::start(&mut server);
            assert_eq!(server.line(), "ready");
            let sent = send(&file, &format!("ws://127.0.0.1:{port}"), flags);
            assert_eq!(sent.code(), 0, "{library} {name} {way} {flags:?}: {sent:?}");
            let ended = server.end();
            assert_eq!(ended.code(), 0, "{library} {name} {way} {flags:?}: {ended:?}");
            assert!(std::fs::read(&target).unwrap() == bytes, "{library} {name} {way} {flags:?}");
        }
    }
}

#[test]
#[ignore = "needs Python and Autobahn"]
fn the_exercise_with_autobahn_as_client_and_as_server() {
    exercise("autobahn");
}

#[test]
#[ignore = "needs Python and websockets"]
fn the_exercise_with_websockets_as_client_and_as_server() {
    exercise("websockets");
}

#[test]
#[ignore = "needs Node and ws"]
fn the_exercise_with_ws_as_client_and_as_server() {
    exercise("ws");
}

const BLOCK: u64 = 3 << 20;
/// What the client in Python has in flight at most, and so what a cut may cost it.
const WINDOW: u64 = 1 << 20;
const SIZES: [usize; 6] = [0, 1, 5, 3 << 20, (3 << 20) + 1, 10_000_000];
const LARGE: u64 = 10_000_000;

/// The client in Python sends a file, or a part of it; gives the bytes of the chunks that it sent.
fn python_sends(file: &Path, url: &str, flags: &[&str]) -> u64 {
    sends("client.py", file, url, flags)
}

/// The same, by either script.
fn sends(script: &str, file: &Path, url: &str, flags: &[&str]) -> u64 {
    let ended = Running::start(run(script).arg("send").arg(file).arg(url).args(flags)).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let report: Value = serde_json::from_str(&ended.lines[0]).expect("a line of JSON");
    report["sent"].as_u64().expect("the bytes that were sent")
}

/// The client in Python as a receiver.
struct PythonReceiver {
    running: Running,
    url: String,
}

impl PythonReceiver {
    fn start(place: &Place, flags: &[&str]) -> Self {
        Self::of("client.py", place, flags)
    }

    fn of(script: &str, place: &Place, flags: &[&str]) -> Self {
        let running = Running::start(run(script).arg("receive").arg(place.inbox()).arg("0").args(flags));
        let port = Self::number(&running, "port");
        Self { running, url: format!("ws://127.0.0.1:{port}") }
    }

    /// The bytes of the chunks that came on the next connection that has ended.
    fn received(&self) -> u64 {
        Self::number(&self.running, "received")
    }

    fn number(running: &Running, field: &str) -> u64 {
        let line: Value = serde_json::from_str(&running.line()).expect("a line of JSON");
        line[field].as_u64().unwrap_or_else(|| panic!("{field} is missing: {line}"))
    }
}

/// Changes a byte of a file's first block, and leaves it its time.
fn change(file: &Path) {
    let file = std::fs::File::options().read(true).write(true).open(file).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1_000_000).unwrap();
    file.write_all_at(&[!byte[0]], 1_000_000).unwrap();
    file.set_modified(modified).unwrap();
}

/// Changes the first block of the partial file in this directory, which a receiver has for held.
fn rot(directory: &Path) {
    let mut files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    change(&files.find(|path| path.extension().is_some_and(|e| e == "part")).expect("a partial file"));
}

fn assert_between(bytes: u64, expected: RangeInclusive<u64>) {
    assert!(expected.contains(&bytes), "{bytes} bytes crossed, expected {expected:?}");
}

#[test]
#[ignore = "needs Python, websockets and blake3"]
fn a_second_implementation_sends_files_of_all_sizes() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    for size in SIZES {
        let name = format!("file-{size}");
        let bytes = random(size, size as u64);
        let file = place.file(&name, &bytes);
        assert_eq!(python_sends(&file, &receiver.url, &[]), size as u64);
        assert!(place.received(&name) == bytes, "{name}");
        assert_eq!(python_sends(&file, &receiver.url, &[]), 0, "{name} is there already");
    }
}

#[test]
#[ignore = "needs Python, websockets and blake3"]
fn a_second_implementation_receives_files_of_all_sizes() {
    let place = Place::new();
    let receiver = PythonReceiver::start(&place, &[]);
    for size in SIZES {
        let name = format!("file-{size}");
        let bytes = random(size, size as u64);
        let file = place.file(&name, &bytes);
        send_well(&file, &receiver.url, &[]);
        assert_eq!(receiver.received(), size as u64);
        assert!(place.received(&name) == bytes, "{name}");
        assert_eq!(send_well(&file, &receiver.url, &[])["already_there"], true, "{name}");
        assert_eq!(receiver.received(), 0, "{name} is there already");
    }
}

#[test]
#[ignore = "needs Python, websockets and blake3"]
fn a_second_implementation_is_cut_twice_as_a_sender_and_sends_no_block_twice() {
    let place = Place::new();
    let bytes = random(LARGE as usize, 2);
    let file = place.file("cut", &bytes);
    let receiver = Receiver::start(&place, &[]);
    let mut sent = 0;
    for cut in [&["--cut", "4000000"][..], &["--cut", "4000000"], &[]] {
        sent += python_sends(&file, &receiver.url, cut);
    }
    assert_between(sent, LARGE..=LARGE + 2 * WINDOW);
    assert!(place.received("cut") == bytes);
}

#[test]
#[ignore = "needs Python, websockets and blake3"]
fn a_second_implementation_is_cut_twice_as_a_receiver_and_gets_nothing_twice() {
    let place = Place::new();
    let bytes = random(LARGE as usize, 3);
    let file = place.file("cut", &bytes);
    let receiver = PythonReceiver::start(&place, &["--cut", "4000000", "8000000"]);
    send_well(&file, &receiver.url, &[]);
    let received = [receiver.received(), receiver.received(), receiver.received()];
    assert!(received[0] >= 4_000_000 && received[0] + received[1] >= 8_000_000, "{received:?}");
    assert_eq!(received.iter().sum::<u64>(), LARGE, "{received:?}");
    assert!(place.received("cut") == bytes);
}

#[test]
#[ignore = "needs Python, websockets and blake3"]
fn a_second_implementation_sends_the_held_block_that_has_rotted_again() {
    let place = Place::new();
    let bytes = random(LARGE as usize, 4);
    let file = place.file("rotten", &bytes);
    let receiver = Receiver::start(&place, &[]);
    let before = python_sends(&file, &receiver.url, &["--cut", "7000000"]);
    receiver.running.wait_for(|event| event["event"] == "failed");
    rot(&place.inbox().join(".wsferry"));
    let behind = python_sends(&file, &receiver.url, &[]);
    assert_between(before + behind, LARGE + BLOCK..=LARGE + BLOCK + WINDOW);
    assert!(place.received("rotten") == bytes);
}

#[test]
#[ignore = "needs Python, websockets and blake3"]
fn a_second_implementation_is_sent_the_held_block_that_has_rotted_again() {
    let place = Place::new();
    let bytes = random(LARGE as usize, 5);
    let file = place.file("rotten", &bytes);
    let receiver = PythonReceiver::start(&place, &["--cut", "7000000"]);
    let cut = send(&file, &receiver.url, &["--retry-for", "0s"]);
    assert_ne!(cut.code(), 0, "{cut:?}");
    let before = receiver.received();
    rot(&place.inbox());
    assert_eq!(send_well(&file, &receiver.url, &[])["repaired_blocks"], 1);
    assert_eq!(before + receiver.received(), LARGE + BLOCK);
    assert!(place.received("rotten") == bytes);
}

/// The receiver cannot know of this one: it is the sender's `check` that finds it.
#[test]
#[ignore = "needs Python, websockets and blake3"]
fn a_second_implementation_sends_the_held_block_that_its_source_has_changed_again() {
    let place = Place::new();
    let file = place.file("changed", &random(LARGE as usize, 6));
    let receiver = Receiver::start(&place, &[]);
    let before = python_sends(&file, &receiver.url, &["--cut", "7000000"]);
    change(&file);
    let behind = python_sends(&file, &receiver.url, &[]);
    assert_between(before + behind, LARGE + BLOCK..=LARGE + BLOCK + WINDOW);
    assert!(place.received("changed") == std::fs::read(&file).unwrap());
}

const LEAST: &str = "minimal.py";
const SIZE: u64 = 20_000_000;
/// What the least implementation has in flight, and so what a cut may cost it.
const CHUNK: u64 = 192 << 10;

#[test]
#[ignore = "needs Python, websockets and blake3"]
fn the_least_implementation_sends_over_two_cuts_and_sends_nothing_twice() {
    let place = Place::new();
    let bytes = random(SIZE as usize, 7);
    let file = place.file("least", &bytes);
    let receiver = Receiver::start(&place, &[]);
    let cut = ["--cut", "8000000"];
    let sent = [&cut[..], &cut, &[]].map(|flags| sends(LEAST, &file, &receiver.url, flags));
    assert!(sent[0] >= 8_000_000 && sent[1] >= 8_000_000, "{sent:?}");
    assert_between(sent.iter().sum(), SIZE..=SIZE + 2 * CHUNK);
    assert!(place.received("least") == bytes);
    assert_eq!(sends(LEAST, &file, &receiver.url, &[]), 0, "it is there already");
}

#[test]
#[ignore = "needs Python, websockets and blake3"]
fn the_least_implementation_receives_over_a_cut_and_gets_no_held_block_twice() {
    let place = Place::new();
    let bytes = random(SIZE as usize, 8);
    let file = place.file("least", &bytes);
    let receiver = PythonReceiver::of(LEAST, &place, &["--cut", "8000000"]);
    send_well(&file, &receiver.url, &[]);
    let received = [receiver.received(), receiver.received()];
    assert!(received[0] >= 8_000_000, "{received:?}");
    assert_eq!(received[1], SIZE - received[0] / BLOCK * BLOCK, "{received:?}");
    assert!(place.received("least") == bytes);
    assert_eq!(send_well(&file, &receiver.url, &[])["already_there"], true);
    assert_eq!(receiver.received(), 0, "it is there already");
}

#[test]
#[ignore = "needs Python, websockets and blake3"]
fn the_least_implementation_sends_the_held_block_that_its_source_has_changed_again() {
    let place = Place::new();
    let file = place.file("least", &random(SIZE as usize, 9));
    let receiver = Receiver::start(&place, &[]);
    let before = sends(LEAST, &file, &receiver.url, &["--cut", "8000000"]);
    change(&file);
    let behind = sends(LEAST, &file, &receiver.url, &[]);
    assert_between(before + behind, SIZE + BLOCK..=SIZE + BLOCK + CHUNK);
    assert!(place.received("least") == std::fs::read(&file).unwrap());
}

#[test]
#[ignore = "needs Python, websockets and blake3"]
fn the_least_implementation_is_sent_the_held_block_that_has_rotted_again() {
    let place = Place::new();
    let bytes = random(SIZE as usize, 10);
    let file = place.file("least", &bytes);
    let receiver = PythonReceiver::of(LEAST, &place, &["--cut", "8000000"]);
    let cut = send(&file, &receiver.url, &["--retry-for", "0s"]);
    assert_ne!(cut.code(), 0, "{cut:?}");
    let before = receiver.received();
    rot(&place.inbox().join(".wsferry"));
    assert_eq!(send_well(&file, &receiver.url, &[])["repaired_blocks"], 1);
    assert_eq!(receiver.received(), SIZE - before / BLOCK * BLOCK + BLOCK);
    assert!(place.received("least") == bytes);
}

/// A file of this size and time is there: only `finish` tells that it is another, and `repair` asks for all of its blocks.
#[test]
#[ignore = "needs Python, websockets and blake3"]
fn the_least_implementation_sends_what_is_asked_for_behind_its_finish() {
    let place = Place::new();
    let file = place.file("least", &random(SIZE as usize, 11));
    let receiver = Receiver::start(&place, &["--overwrite"]);
    assert_eq!(sends(LEAST, &file, &receiver.url, &[]), SIZE);
    change(&file);
    assert_eq!(sends(LEAST, &file, &receiver.url, &[]), SIZE);
    assert!(place.received("least") == std::fs::read(&file).unwrap());
}

#[test]
#[ignore = "needs Python, websockets and blake3"]
fn the_least_implementation_sends_a_chunk_that_was_damaged_again() {
    let place = Place::new();
    let bytes = random(SIZE as usize, 12);
    let file = place.file("least", &bytes);
    let receiver = Receiver::start(&place, &[]);
    let damage = || Plan { flip_at: Some(5_000_000), ..Plan::default() };
    let proxy = Proxy::start(receiver.address(), move |_| (damage(), Plan::default()));
    assert_eq!(sends(LEAST, &file, &proxy.url(), &[]), SIZE + CHUNK);
    assert!(place.received("least") == bytes);
}

#[test]
#[ignore = "needs Python, websockets and blake3"]
fn the_least_implementation_is_sent_a_chunk_that_was_damaged_again() {
    let place = Place::new();
    let bytes = random(SIZE as usize, 13);
    let file = place.file("least", &bytes);
    let receiver = PythonReceiver::of(LEAST, &place, &[]);
    let address = receiver.url.trim_start_matches("ws://").parse().unwrap();
    let damage = || Plan { flip_at: Some(5_000_000), ..Plan::default() };
    let proxy = Proxy::start(address, move |_| (damage(), Plan::default()));
    let finished = send_well(&file, &proxy.url(), &["--chunk-size", "30000B"]);
    assert_eq!(
        (&finished["damaged_chunks"], &finished["resent_bytes"]),
        (&1.into(), &30_000.into()),
        "{finished}"
    );
    assert_eq!(receiver.received(), SIZE);
    assert!(place.received("least") == bytes);
}

/// It answers an offer when the file before has ended; the sender makes more of them at once.
#[test]
#[ignore = "needs Python, websockets and blake3"]
fn the_least_implementation_receives_several_files_one_behind_the_other() {
    let place = Place::new();
    let receiver = PythonReceiver::of(LEAST, &place, &[]);
    let files = SIZES.map(|size| (format!("file-{size}"), random(size, size as u64)));
    let mut command = wsferry();
    command.arg("send").args(files.iter().map(|(name, bytes)| place.file(name, bytes))).arg(&receiver.url);
    let ended = Running::start(&mut command).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(receiver.received(), SIZES.iter().sum::<usize>() as u64);
    for (name, bytes) in files {
        assert!(place.received(&name) == bytes, "{name}");
    }
}
