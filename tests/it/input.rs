//! What comes on standard input: its size is not known, it cannot be read twice, and nothing of it may get lost.

use std::io::{self, Read, Write};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use wsferry::protocol::HeartbeatConfig;
use wsferry::runtime;
use wsferry::storage::{Inbox, InboxOptions};
use wsferry::transfer::{
    Event, Listener, ReceiveOptions, RetryOptions, SendOptions, ServeOptions, Session, Shutdown, serve,
};
use wsferry::transport::Endpoint;

use crate::gateway::{Gateway, Limits};
use crate::link::{Disk, End, Fault, File, Options, Pair};
use crate::support::{Ended, PATIENCE, Peer, Place, Receiver, Running, hello, random, wsferry};

const MIB: usize = 1 << 20;

/// `wsferry send - --name NAME URL --json`, which waits for its input.
fn sending(name: &str, url: &str, flags: &[&str]) -> Running {
    let mut command = wsferry();
    command.args(["send", "-", "--name", name, url, "--json"]).args(flags).stdin(Stdio::piped());
    Running::start(&mut command)
}

/// Writes all of this into it, in pieces of all lengths, and waits for its end.
fn feed(mut running: Running, bytes: &[u8], seed: u64) -> Ended {
    let mut input = running.input();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = rest.len().min(300_000);
        let (now, later) = rest.split_at(rng.random_range(1..=most));
        // A sender that gave up says why.
        if input.write_all(now).is_err() {
            break;
        }
        rest = later;
    }
    drop(input);
    running.end()
}

#[test]
fn input_of_any_length_arrives() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let lengths =
        [0, 1, 2, 3, 4, 1000, MIB, MIB + 1, 3 * MIB - 1, 3 * MIB, 3 * MIB + 1, 4 * MIB, 12 * MIB + 5];
    for (at, len) in lengths.into_iter().enumerate() {
        let (bytes, name) = (random(len, at as u64), format!("input-{len}"));
        let ended = feed(sending(&name, &receiver.url, &[]), &bytes, at as u64);
        assert_eq!(ended.code(), 0, "{len}: {ended:?}");
        let finished = ended.event("finished");
        assert_eq!(finished["size"], len, "{finished}");
        assert_eq!(finished["blake3"], blake3::hash(&bytes).to_hex().as_str(), "{len}");
        assert!(place.received(&name) == bytes, "{len}");
    }
    assert!(!place.inbox().join(".wsferry").exists());
}

/// What a test gives it, piece by piece.
struct Pieces(mpsc::Receiver<Vec<u8>>);

impl Read for Pieces {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let Ok(piece) = self.0.recv() else { return Ok(0) };
        bytes[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

#[test]
fn what_comes_right_behind_what_was_told_is_told_too_although_nothing_else_happens() {
    let place = Place::new();
    let inbox = Arc::new(Inbox::open(&place.inbox(), InboxOptions::default()).unwrap());
    // Neither side says anything by itself.
    let day = Duration::from_secs(24 * 60 * 60);
    let heartbeat = HeartbeatConfig { interval: day, stall: 2 * day };
    let (address, bound) = mpsc::channel();
    let receiver = thread::spawn(move || {
        runtime::block_on(async {
            let listener = Listener::bind("127.0.0.1:0").await.unwrap();
            address.send(format!("ws://{}", listener.address())).unwrap();
            let receive = ReceiveOptions { heartbeat, ..ReceiveOptions::default() };
            let options = ServeOptions { receive, once: true, ..ServeOptions::default() };
            let (_stop, shutdown) = Shutdown::new();
            serve(&listener, &inbox, options, shutdown, Arc::new(|_, _, _| {})).await.unwrap()
        })
    });
    let url: Endpoint = bound.recv().unwrap().parse().unwrap();
    let (input, pieces) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let sender = thread::spawn(move || {
        let options = SendOptions { heartbeat, ..SendOptions::default() };
        let mut session = Session::new(url, options, RetryOptions::default());
        let mut observer = |event| {
            if let Event::Progress(progress) = event {
                let _ = tell.send(progress.acknowledged);
            }
        };
        runtime::block_on(async {
            let sent =
                session.send_stream(Pieces(pieces), "f".parse().unwrap(), &mut observer).await.unwrap();
            session.close().await;
            sent.size()
        })
    });
    for all in 1..=5 {
        input.send(random(3000, all)).unwrap();
        while told.recv_timeout(PATIENCE).expect("it is told") < 3000 * all {}
    }
    drop(input);
    assert_eq!(sender.join().unwrap(), 15_000);
    assert_eq!(receiver.join().unwrap(), Some(Ok(())));
}

#[test]
fn arbitrary_schedules_lose_nothing_of_an_input_and_ask_for_nothing_that_was_let_go() {
    let (mut connections, mut lost) = (0, 0);
    for seed in 0..150 {
        let mut rng = StdRng::seed_from_u64(seed);
        let len =
            if rng.random_ratio(1, 4) { rng.random_range(0..10) } else { rng.random_range(0..14 * MIB) };
        let file = File::new(random(len, seed)).input();
        let options = Options {
            chunk: rng.random_range(3..400_000),
            turns_per_action: rng.random_range(1..6),
            window: rng.random_range(1..4 << 20),
            ..Options::default()
        };
        let mut disk = Disk::default();
        for attempt in 0.. {
            let faults = if attempt < 20 { 40 } else { 0 };
            let mut pair = Pair::one(&file, &mut disk, options);
            let end = pair.run(|_, _, text| match rng.random_range(0..1000) {
                fault if fault >= faults => Fault::Deliver,
                0..4 => Fault::Cut,
                4..20 => Fault::Flip(rng.random_range(0..8 * text.len())),
                20..24 => Fault::Twice,
                24..28 => Fault::Swap,
                28..30 => Fault::Drop,
                _ => Fault::Deliver,
            });
            connections += 1;
            match end {
                End::Receipted => break,
                End::Rejected(_) => {
                    // A file of another digest, since something was lost that cannot be read twice.
                    panic!("seed {seed}: {end:?}");
                }
                _ => lost += 1,
            }
        }
        assert!(disk.sealed.is_some_and(|sealed| sealed.bytes == file.bytes), "seed {seed}");
    }
    println!("{connections} connections, {lost} of them ended early");
    assert!(lost > 150, "the faults end connections: {lost}");
}

#[test]
fn nothing_of_an_input_is_read_again_although_its_last_block_ends_before_that_is_known() {
    for len in [1, 100_000, MIB, 3 * MIB, 3 * MIB + 1, 4 * MIB, 7 * MIB + 5] {
        let file = File::new(random(len, len as u64)).input();
        let mut disk = Disk::default();
        let end = Pair::one(&file, &mut disk, Options { chunk: 100_000, ..Options::default() })
            .run(|_, _, _| Fault::Deliver);
        assert_eq!((end, &disk.read_back[..]), (End::Receipted, &[][..]), "{len} bytes");
        assert!(disk.sealed.is_some_and(|sealed| sealed.bytes == file.bytes), "{len} bytes");
    }
}

#[test]
fn a_size_that_is_not_known_is_not_made_up() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let mut running = sending("f", &receiver.url, &[]);
    let mut input = running.input();
    input.write_all(&random(100_001, 1)).unwrap();
    for side in [&running, &receiver.running] {
        let started = side.wait_for(|event| event["event"] == "started");
        assert!(started["size"].is_null(), "{started}");
    }
    // What has come is sent while more is waited for: all of it, but for what makes no group of three.
    receiver.running.wait_for(|event| event["event"] == "progress" && event["acknowledged"] == 99_999);
    drop(input);
    assert_eq!(running.end().event("finished")["size"], 100_001);
}

#[test]
fn connections_that_are_cut_lose_nothing_of_it_and_keep_its_memory_flat() {
    for (seed, limits) in [
        (1, Limits { bytes: Some(9_000_000), ..Limits::default() }),
        (2, Limits { bytes: Some(2_500_001), ..Limits::default() }),
        (3, Limits { life: Some(Duration::from_millis(300)), rate: Some(40_000_000), ..Limits::default() }),
    ] {
        let place = Place::new();
        let receiver = Receiver::start(&place, &[]);
        let gateway = Gateway::start(receiver.address(), limits);
        let bytes = random(60 * MIB + 1234, seed);
        let ended = feed(sending("f", &gateway.url(), &[]), &bytes, seed);
        assert_eq!(ended.code(), 0, "{limits:?}: {ended:?}");
        assert!(place.received("f") == bytes, "{limits:?}");
        let connections = gateway.connections.load(Ordering::Relaxed);
        assert!(connections > 3, "{limits:?}: {connections} connections");
        let finished = ended.event("finished");
        let memory = finished["peak_memory"].as_u64().unwrap();
        println!("{limits:?}: {connections} connections, {finished}");
        // What may be kept, twice: the allocator gives back late.
        assert!(memory < 150 << 20, "{memory} bytes");
    }
}

#[test]
fn a_receiver_that_is_killed_and_comes_back_gets_the_rest() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, &[]);
    let address = receiver.address();
    // Slow enough that it is killed on the way.
    let gateway = Gateway::start(address, Limits { rate: Some(12_000_000), ..Limits::default() });
    let bytes = random(30 * MIB + 7, 5);
    let mut running = sending("f", &gateway.url(), &[]);
    let (mut input, sent) = (running.input(), bytes.clone());
    let writing = thread::spawn(move || input.write_all(&sent).unwrap());
    // So much survives.
    receiver.running.wait_for(|event| event["durable"].as_u64() >= Some(9 << 20));
    receiver.running.kill();
    running.wait_for(|event| event["event"] == "reconnecting");
    let _receiver = Receiver::start_on(&place, &address.to_string(), &[]);
    let resumed = running.wait_for(|event| event["event"] == "resumed");
    assert!(resumed["offset"].as_u64() >= Some(9 << 20), "{resumed}");
    writing.join().unwrap();
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(place.received("f") == bytes);
}

#[test]
fn what_the_receiver_called_durable_and_lost_is_said_to_be_gone() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, &[]);
    let address = receiver.address().to_string();
    let bytes = random(80 * MIB, 6);
    let mut running = sending("f", &receiver.url, &[]);
    let mut input = running.input();
    // It goes on for as long as somebody takes it.
    let writing = thread::spawn(move || while input.write_all(&bytes).is_ok() {});
    // More than is kept has come by then.
    receiver.running.wait_for(|event| event["durable"].as_u64() >= Some(60 << 20));
    receiver.running.kill();
    std::fs::remove_dir_all(place.inbox().join(".wsferry")).unwrap();
    let _receiver = Receiver::start_on(&place, &address, &[]);
    running.wait_for(|event| event["event"] == "failed");
    let ended = running.end();
    writing.join().unwrap();
    ended.assert_error(1, &["cannot be read twice", "byte 0 "]);
    assert!(!place.inbox().join("f").exists());
}

#[test]
fn input_that_turns_out_too_large_leaves_nothing_under_its_name() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--max-file-size", "5MiB"]);
    let ended = feed(sending("f", &receiver.url, &[]), &random(20 * MIB, 8), 8);
    ended.assert_error(4, &["5242880 bytes at most"]);
    assert!(!place.inbox().join("f").exists());
}

#[test]
fn a_name_that_is_taken_is_refused_before_it_is_waited_for_input() {
    let place = Place::new();
    std::fs::create_dir_all(place.inbox()).unwrap();
    std::fs::write(place.inbox().join("f"), b"somebody else's").unwrap();
    let receiver = Receiver::start(&place, &[]);
    let mut running = sending("f", &receiver.url, &[]);
    let input = running.input();
    running.wait_for(|event| event["event"] == "failed");
    drop(input);
    running.end().assert_error(4, &["f", "there"]);
    assert_eq!(place.received("f"), b"somebody else's");

    let replacing = Receiver::start(&place, &["--overwrite"]);
    let bytes = random(4 * MIB, 9);
    assert_eq!(feed(sending("f", &replacing.url, &[]), &bytes, 9).code(), 0);
    assert!(place.received("f") == bytes);
}

#[test]
fn blocks_of_another_input_of_that_name_are_not_taken_for_its_own() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let mut first = sending("f", &receiver.url, &[]);
    let mut input = first.input();
    input.write_all(&random(10 * MIB, 10)).unwrap();
    receiver.running.wait_for(|event| event["durable"].as_u64() >= Some(6 << 20));
    first.kill();
    receiver.running.wait_for(|event| event["event"] == "failed");

    let bytes = random(12 * MIB, 11);
    let mut second = sending("f", &receiver.url, &[]);
    let mut input = second.input();
    input.write_all(&bytes[..4 * MIB]).unwrap();
    second.wait_for(|event| event["event"] == "progress" && event["acknowledged"].as_u64() >= Some(3 << 20));
    input.write_all(&bytes[4 * MIB..]).unwrap();
    drop(input);
    let ended = second.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(ended.event("finished")["resumed_at"], 0);
    assert!(place.received("f") == bytes);
}

#[test]
fn a_receiver_that_wants_sizes_is_told_of_as_such() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let mut running = sending("f", &url, &[]);
    let mut fields = hello();
    fields["features"] = json!(["zeros", "trees", "tree-digests"]);
    let mut peer = Peer::receive(&listener, &fields);
    running.wait_for(|event| event["event"] == "failed");
    drop(running.input());
    running.end().assert_error(4, &["nothing whose size is not known"]);
    while peer.hear().is_some() {}
}

#[test]
fn what_makes_no_sense_with_it_is_said_beforehand() {
    for (args, words) in [
        (&["send", "-", "ws://127.0.0.1:1"][..], ["has no name", "--name"]),
        (&["send", "-", "-", "--name", "f", "ws://127.0.0.1:1"], ["several", "--name"]),
        (&["send", "-", "Cargo.toml", "ws://127.0.0.1:1"], ["goes alone", "./-"]),
        (&["send", "-", "--name", "f", "--repair", "ws://127.0.0.1:1"], ["--repair", "cannot be read twice"]),
    ] {
        let mut command = wsferry();
        Running::start(command.args(args).arg("--json").stdin(Stdio::null())).end().assert_error(2, &words);
    }
}
