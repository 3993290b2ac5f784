//! Several files in one command, many of them on their way at a time.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use wsferry::runtime;
use wsferry::storage::{Root, Scan, ScanOptions};
use wsferry::transfer::{Event, RetryOptions, SendOptions, Session};
use wsferry::transport::Endpoint;

use crate::proxy::{Plan, Proxy};
use crate::support::{
    Ended, PATIENCE, Peer, Place, Receiver, Running, message, random, send, send_well, wsferry,
};

/// So many small files of different sizes.
fn files(place: &Place, count: u64) -> Vec<PathBuf> {
    (0..count).map(|number| place.file(&format!("f{number}"), &content(number))).collect()
}

fn content(number: u64) -> Vec<u8> {
    random(1000 + 97 * number as usize % 30_000, number)
}

fn start(files: &[PathBuf], url: &str, flags: &[&str]) -> Running {
    Running::start(wsferry().arg("send").args(files).arg(url).arg("--json").args(flags))
}

fn assert_received(place: &Place, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        assert!(place.received(&format!("f{number}")) == content(number), "f{number}");
    }
}

/// The files of these events by their names, each of which has the number that it has on the command line.
fn names(ended: &Ended, kind: &str) -> BTreeSet<String> {
    let events = ended.events(kind);
    for event in &events {
        let number = event["transfer"].as_u64().unwrap() - 1;
        assert_eq!(event["name"], format!("f{number}"), "{event}");
    }
    let names: BTreeSet<_> = events.iter().map(|event| event["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names.len(), events.len(), "each once: {events:?}");
    names
}

#[test]
fn one_of_many_is_refused_and_the_rest_arrive() {
    let place = Place::new();
    let files = files(&place, 300);
    std::fs::create_dir(place.inbox()).unwrap();
    std::fs::write(place.inbox().join("f150"), "precious").unwrap();
    let receiver = Receiver::start(&place, &["--once"]);
    let ended = start(&files, &receiver.url, &[]).end();
    ended.assert_error(4, &["f150", "already there"]);
    assert_eq!(names(&ended, "failed"), BTreeSet::from(["f150".to_owned()]));
    assert_eq!(names(&ended, "finished").len(), 299);
    let received = receiver.running.end();
    assert_eq!(received.code(), 4, "{received:?}");
    assert_received(&place, (0..300).filter(|&number| number != 150));
    assert_eq!(place.received("f150"), b"precious");
    assert_eq!(place.listing().len(), 300);
}

#[test]
fn one_of_many_that_changes_meanwhile_arrives_as_what_it_became_and_keeps_no_other() {
    let place = Place::new();
    let mut files = files(&place, 30);
    let large = place.file("f10", &random(20_000_000, 77));
    files[10] = large.clone();
    let receiver = Receiver::start(&place, &["--once"]);
    let growing: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        let mut file = std::fs::File::options().append(true).open(&large).unwrap();
        file.write_all(b"and more").unwrap();
    });
    let proxy = Proxy::start(receiver.address(), move |_| {
        (Plan { pause: Some((10_000_000, growing.clone())), ..Plan::default() }, Plan::default())
    });
    let ended = start(&files, &proxy.url(), &["--window", "1MiB"]).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(names(&ended, "finished").len(), 30);
    assert_eq!(names(&ended, "reconnecting"), BTreeSet::from(["f10".to_owned()]));
    assert!(place.received("f10") == [&random(20_000_000, 77)[..], b"and more"].concat());
    assert_received(&place, (0..30).filter(|&number| number != 10));
    let received = receiver.running.end();
    assert_eq!(received.code(), 0, "{received:?}");
}

#[test]
fn a_cut_while_a_thread_looks_at_what_is_next_loses_none_of_it() {
    let place = Place::new();
    let files = files(&place, 200);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint: Endpoint = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
    // Behind the first hundred the walk stands still until the cut was noticed.
    let (go_on, waiting) = std::sync::mpsc::channel();
    let scan = Scan::new(files.into_iter().map(Root::new), ScanOptions::default());
    let items = scan.enumerate().map(move |(number, item)| {
        if number == 100 {
            waiting.recv().unwrap();
        }
        item
    });
    let sender = std::thread::spawn(move || {
        let retry = RetryOptions { retry_for: PATIENCE, ..RetryOptions::default() };
        let mut session = Session::new(endpoint, SendOptions::default(), retry);
        let mut finished = 0;
        let mut observe = |_, event| match event {
            Event::Reconnecting { .. } => go_on.send(()).unwrap_or_default(),
            Event::Finished(_) => finished += 1,
            _ => {}
        };
        runtime::block_on(session.send_all(items, &mut observe)).unwrap();
        finished
    });
    let mut peer = Peer::receive(&listener, &json!({}));
    peer.hear_type("offer");
    peer.tell(&json!({"type": "accept", "transfer": 0}));
    while !peer.hear().unwrap().starts_with('C') {}
    drop(peer);
    let mut peer = Peer::receive(&listener, &json!({}));
    assert_eq!(take(&mut peer, 200).1.len(), 200);
    assert_eq!(sender.join().unwrap(), 200);
}

/// Takes what is offered, and gives receipts for so many files; their names, and those that were offered. Behind a cut chunks
/// may be smaller than a file.
fn take(peer: &mut Peer, most: usize) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut offered, mut digests, mut receipted) =
        (Vec::<(String, usize)>::new(), Vec::new(), BTreeSet::new());
    let mut sequence = 0;
    while receipted.len() < most {
        let frame = peer.hear().expect("more is to come");
        if frame.starts_with('C') {
            sequence += 1;
            peer.tell(&json!({"type": "ack", "sequence": sequence}));
            let field = |range| usize::from_str_radix(&frame[range], 16).unwrap();
            let (transfer, offset, body) = (field(2..10), field(24..38), &frame[48..]);
            let len = body.len() / 4 * 3 - body.bytes().filter(|&byte| byte == b'=').count();
            let (name, size) = &offered[transfer];
            if offset + len < *size {
                continue;
            }
            receipted.insert(name.clone());
            peer.tell(&json!({"type": "receipt", "files": [[transfer, digests[transfer]]]}));
            continue;
        }
        let message = message(&frame).unwrap();
        if message["type"] == "offer" {
            digests.push(message["digest"].clone());
            let size = message["size"].as_u64().unwrap() as usize;
            offered.push((message["path"].as_str().unwrap().to_owned(), size));
            peer.tell(&json!({"type": "accept", "transfer": message["transfer"]}));
        }
    }
    (offered.into_iter().map(|(name, _)| name).collect(), receipted)
}

#[test]
fn after_a_cut_in_the_middle_of_many_files_nothing_that_was_receipted_is_offered_again() {
    let place = Place::new();
    let files = files(&place, 200);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let sender = start(&files, &url, &[]);
    let mut peer = Peer::receive(&listener, &json!({}));
    let (_, before) = take(&mut peer, 90);
    // The receipts have arrived by then.
    for _ in 0..90 {
        sender.wait_for(|event| event["event"] == "finished");
    }
    drop(peer);
    let mut peer = Peer::receive(&listener, &json!({}));
    let (offered, after) = take(&mut peer, 110);
    assert!(offered.is_disjoint(&before), "{:?}", offered.intersection(&before));
    assert_eq!(before.len() + after.len(), 200);
    let ended = sender.end();
    assert_eq!((ended.code(), ended.events("finished").len()), (0, 110), "{ended:?}");
}

#[test]
fn many_files_go_over_cuts_to_a_receiver_of_one_sender() {
    let place = Place::new();
    let files = files(&place, 400);
    let total: u64 = (0..400).map(|number| content(number).len() as u64).sum();
    let receiver = Receiver::start(&place, &["--once"]);
    let proxy = Proxy::start(receiver.address(), move |number| {
        let cut_after = [Some(total / 3), Some(2000), Some(total / 5)].get(number).copied().flatten();
        (Plan { cut_after, ..Plan::default() }, Plan::default())
    });
    let ended = start(&files, &proxy.url(), &["--retry-for", "20s"]).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(names(&ended, "finished").len(), 400);
    let received = receiver.running.end();
    assert_eq!(received.code(), 0, "{received:?}");
    assert_received(&place, 0..400);
    assert_eq!(place.listing().len(), 400, "no litter");
}

#[test]
fn a_connection_that_ends_for_good_is_said_once_and_names_what_was_on_its_way() {
    let place = Place::new();
    let files = files(&place, 5);
    for accepted in [0, 2] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let missing = place.path("missing");
        let all = [&files[..1], &[missing], &files[2..]].concat();
        let sender = start(&all, &url, &["--retry-for", "0s"]);
        let mut peer = Peer::receive(&listener, &json!({}));
        (0..4).for_each(|_| drop(peer.hear_type("offer")));
        for transfer in 1..=accepted {
            peer.tell(&json!({"type": "accept", "transfer": transfer}));
            sender.wait_for(|event| event["event"] == "started");
        }
        peer.tell(&json!({"type": "error", "code": "shutdown", "reason": "enough"}));
        let ended = sender.end();
        let failed = ended.events("failed");
        let failed: Vec<_> = failed
            .iter()
            .map(|event| (event["name"].as_str().unwrap(), event["transfer"].as_u64().unwrap()))
            .collect();
        if accepted == 0 {
            // The first that had not ended.
            assert_eq!(failed, [("missing", 2), ("f0", 1)], "{ended:?}");
        } else {
            assert_eq!(&failed[failed.len() - 2..], [("f2", 3), ("f3", 4)], "{ended:?}");
        }
        assert_eq!(ended.errors.matches("enough").count(), 1, "{ended:?}");
        // The first of them in the order of the command line.
        assert_eq!(ended.code(), if accepted == 0 { 3 } else { 1 }, "{ended:?}");
    }
}

#[test]
fn what_cannot_be_opened_needs_no_receiver() {
    let place = Place::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("ws://127.0.0.1:{port}");
    let ended = start(&[place.path("a"), place.path("b")], &url, &[]).end();
    assert_eq!((ended.code(), ended.events("failed").len()), (1, 2), "{ended:?}");
    send(&place.path("a"), &url, &[]).assert_error(1, &["cannot open", "No such file"]);
}

#[test]
fn a_small_file_on_a_slow_path_is_seen_to_move() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { rate: Some(400_000), ..Plan::default() }, Plan::default())
    });
    let file = place.file("f", &random(900_000, 5));
    let ended = start(&[file], &proxy.url(), &["--chunk-size", "30kB", "--window", "60kB"]).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let moves = |event: &Value| (1..900_000).contains(&event["acknowledged"].as_u64().unwrap());
    assert!(ended.events("progress").iter().any(moves), "{ended:?}");
}

/// A receiver whose files cannot grow beyond that size: it stands for a disk that is full.
fn receiver_with_room_for(place: &Place, bytes: u64, flag: &str) -> Receiver {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -f {}; exec \"$@\"", bytes / 512), "sh"]);
    command.arg(wsferry().get_program()).arg("receive").arg(place.inbox());
    command.args(["--json", "--listen", "127.0.0.1:0", flag]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Receiver::launch(&mut command)
}

#[test]
fn a_session_sends_one_file_after_another_over_one_connection() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let endpoint: Endpoint = receiver.url.parse().unwrap();
    let mut session = Session::new(endpoint, SendOptions::default(), RetryOptions::default());
    for number in 0..3 {
        let bytes = random(100_000 + 4_000_000 * number as usize, number);
        let path = place.file(&format!("f{number}"), &bytes);
        let sent = runtime::block_on(session.send(&path, None, &mut |_| {}));
        let summary = sent.unwrap_or_else(|error| panic!("file {number}: {error}"));
        assert_eq!(summary.size(), bytes.len() as u64);
        assert!(place.received(&format!("f{number}")) == bytes, "{number}");
    }
    let name = "input".parse().unwrap();
    runtime::block_on(session.send_stream(&b"hello"[..], name, &mut |_| {})).unwrap();
    assert_eq!(place.received("input"), b"hello");
    runtime::block_on(session.close());
}

#[test]
fn each_transfer_that_fails_on_its_way_is_told_however_many_there_are() {
    let place = Place::new();
    let receiver = receiver_with_room_for(&place, 1 << 20, "--overwrite");
    let files: Vec<_> =
        (0..30).map(|number| place.file(&format!("f{number}"), &random(1_200_000, number))).collect();
    let good = place.file("f30", &content(30));
    let ended = start(&[&files[..], &[good]].concat(), &receiver.url, &[]).end();
    assert_eq!(ended.code(), 3, "{ended:?}");
    assert_eq!(names(&ended, "failed").len(), 30);
    assert_received(&place, [30]);
    receiver.running.signal("-TERM");
    let received = receiver.running.end();
    let numbers = |kind: &str| -> BTreeSet<u64> {
        received.events(kind).iter().map(|event| event["transfer"].as_u64().unwrap()).collect()
    };
    assert_eq!((numbers("started").len(), numbers("failed").len()), (31, 30), "{received:?}");
}

#[test]
fn a_receiver_of_one_sender_waits_for_it_also_when_its_disk_was_full() {
    let place = Place::new();
    let receiver = receiver_with_room_for(&place, 1 << 20, "--once");
    let file = place.file("f0", &random(1_200_000, 1));
    send(&file, &receiver.url, &[]).assert_error(3, &["cannot write f0", "same command"]);
    receiver.running.wait_for(|event| event["event"] == "failed");
    // As after room was made.
    std::fs::write(&file, content(0)).unwrap();
    send_well(&file, &receiver.url, &[]);
    let received = receiver.running.end();
    assert_eq!(received.code(), 0, "{received:?}");
}
