//! A sender that listens, and a receiver that dials: what holds where the sender dials holds there too.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use fastrand::Rng;

use crate::directories::to_the_end;
use crate::forest::{Forest, Grove, assert_same, bytes_of, look};
use crate::http::ask;
use crate::proxy::{Plan, Proxy};
use crate::support::{Ended, Place, Receiver, Running, random, send, wsferry};
use crate::tap::{Ledger, Tap};

/// The most bytes in flight; what a cut may cost.
const WINDOW: u64 = 256 << 10;

/// `wsferry send --json --listen` on a free port.
pub struct Sender {
    pub running: Running,
    pub url: String,
}

impl Sender {
    pub fn start(files: &[&Path], flags: &[&str]) -> Self {
        Self::launch(wsferry().args(["send", "--json", "--listen", "127.0.0.1:0"]).args(files).args(flags))
    }

    fn launch(command: &mut Command) -> Self {
        let Receiver { running, url } = Receiver::launch(command);
        Self { running, url }
    }

    pub fn address(&self) -> SocketAddr {
        self.url.strip_prefix("ws://").unwrap().parse().unwrap()
    }
}

fn fetching(place: &Place, url: &str, flags: &[&str]) -> Running {
    let mut command = wsferry();
    command.args(["receive", url]).arg(place.inbox()).arg("--json").args(flags);
    Running::start(&mut command)
}

/// `wsferry receive --json URL inbox`, to its end.
pub fn fetch(place: &Place, url: &str, flags: &[&str]) -> Ended {
    fetching(place, url, flags).end()
}

#[test]
fn a_receiver_that_dials_gets_files_and_trees_as_they_are_and_nothing_a_second_time() {
    let grove = Grove::new();
    let bytes = random(5_000_000, 1);
    let file = grove.file("photo.jpg", &bytes);
    Forest { seed: 2, directories: 8, files: 40, largest: 100_000 }.plant(&grove.path("t"));
    let expected = look(&grove.path("t"));
    let sender = Sender::start(&[&file, &grove.path("t")], &[]);
    let ended = fetch(&grove, &sender.url, &[]);
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(grove.received("photo.jpg") == bytes, "the file differs");
    assert_same(&expected, &look(&grove.inbox().join("t")));
    assert_eq!(grove.listing(), ["photo.jpg", "t"]);

    // Again, by another run: all of it is there.
    let ended = fetch(&grove, &sender.url, &[]);
    assert_eq!(ended.code(), 0, "{ended:?}");
    let new: u64 = ended.events("finished").iter().map(|event| event["new_bytes"].as_u64().unwrap()).sum();
    assert_eq!(new, 0, "{ended:?}");
    sender.running.signal("-INT");
    assert_eq!(sender.running.end().code(), 130);
}

#[test]
fn several_receivers_dial_one_sender_and_each_gets_everything() {
    let source = Place::new();
    let bytes = [random(7_000_001, 3), random(10, 4)];
    let files = [source.file("large", &bytes[0]), source.file("small", &bytes[1])];
    let sender = Sender::start(&[&files[0], &files[1]], &[]);
    let places = [(); 3].map(|()| Place::new());
    let all: Vec<_> = places.iter().map(|place| fetching(place, &sender.url, &[])).collect();
    for (receiver, place) in all.into_iter().zip(&places) {
        let ended = receiver.end();
        assert_eq!(ended.code(), 0, "{ended:?}");
        assert!(place.received("large") == bytes[0] && place.received("small") == bytes[1]);
    }
}

#[test]
fn a_tree_that_is_fetched_over_ten_cuts_arrives_whole_and_nothing_that_was_acknowledged_crosses_again() {
    let grove = Grove::new();
    let forest = Forest { seed: 11, directories: 40, files: 400, largest: 64 << 10 };
    forest.plant(&grove.path("t"));
    let expected = look(&grove.path("t"));
    let size = bytes_of(&expected);
    let mut rng = Rng::with_seed(forest.seed);
    let sender = Sender::start(&[&grove.path("t")], &["--once", "--window", "256KiB"]);
    // Half of them by what comes from the sender, the others by what goes there, which is little.
    let (back, there) = (size * 4 / 3 / 8, 60 * forest.files as u64 / 8);
    let points: Vec<(u64, bool)> = (0..10)
        .map(|number| number % 2 == 0)
        .map(|is_back| (rng.u64(500..if is_back { back } else { there }), is_back))
        .collect();
    let proxy = Proxy::start(sender.address(), move |number| {
        let plan = |direction| Plan {
            cut_after: points.get(number).filter(|&&(_, is_back)| is_back == direction).map(|&(at, _)| at),
            ..Plan::default()
        };
        (plan(false), plan(true))
    });
    let ledger = Arc::<Mutex<Ledger>>::default();
    let tap = Tap::start_at_sender(proxy.address(), &ledger);
    let (events, code) = to_the_end(fetching(&grove, &tap.url(), &[]));
    tap.end();
    let ledger = ledger.lock().unwrap();
    assert_eq!(code, 0, "{events:?}");
    assert!(ledger.connections >= 11, "each cut was one: {ledger}");
    let ended = sender.running.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_same(&expected, &look(&grove.inbox().join("t")));
    assert_eq!(grove.listing(), ["t"]);
    println!("{size} bytes: {ledger}");
    assert_eq!((ledger.again_after_receipt, ledger.again_after_ack), (0, 0), "{ledger}");
    assert!((size..=size + 10 * WINDOW).contains(&ledger.payload), "{ledger}");
    // The sender knows who is back, and what it has: little more is asked again than what a cut took along.
    assert!(ledger.receipts < 2 * expected.len() as u64, "{} entries: {ledger}", expected.len());
}

#[test]
fn a_large_file_goes_on_behind_its_last_block_after_a_cut_and_after_kill_nine_of_the_receiver() {
    let place = Place::new();
    let bytes = random(40 << 20, 5);
    let file = place.file("large", &bytes);
    let sender = Sender::start(&[&file], &["--window", "1MiB"]);
    let ledger = Arc::<Mutex<Ledger>>::default();
    let proxy = Proxy::start(sender.address(), |number| {
        let cut_after = (number == 0).then_some(20 << 20);
        // The second one is slow enough to be killed in the middle.
        let rate = (number == 1).then_some(20_000_000);
        (Plan::default(), Plan { cut_after, rate, ..Plan::default() })
    });
    let tap = Tap::start_at_sender(proxy.address(), &ledger);
    let mut receiver = fetching(&place, &tap.url(), &[]);
    receiver.wait_for(|event| event["event"] == "reconnecting");
    receiver.wait_for(|event| event["event"] == "progress" && event["durable"].as_u64() > Some(18 << 20));
    receiver.kill();
    tap.end();
    {
        let ledger = ledger.lock().unwrap();
        assert_eq!(ledger.again_after_ack, 0, "{ledger}");
    }
    let ended = fetch(&place, &sender.url, &[]);
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(place.received("large") == bytes, "the file differs");
    let offset = ended.event("resumed")["offset"].as_u64().unwrap();
    assert!(offset >= 18 << 20, "{offset}");
    assert_eq!(place.listing(), ["large"]);
}

#[test]
fn a_sender_that_is_stopped_is_waited_for_and_goes_on_with_what_is_there() {
    let place = Place::new();
    // Slow enough at first to be stopped in the middle.
    let bytes = random(24 << 20, 6);
    let file = place.file("large", &bytes);
    let sender = Sender::start(&[&file], &[]);
    let address = sender.address().to_string();
    let proxy = Proxy::start(sender.address(), |number| {
        let rate = (number == 0).then_some(10_000_000);
        (Plan::default(), Plan { rate, ..Plan::default() })
    });
    let receiver = fetching(&place, &proxy.url(), &[]);
    receiver.wait_for(|event| event["event"] == "progress" && event["durable"].as_u64() > Some(3 << 20));
    sender.running.signal("-INT");
    let ended = sender.running.end();
    assert_eq!(ended.code(), 130, "{ended:?}");
    let cut = receiver.wait_for(|event| event["event"] == "reconnecting");
    assert!(cut["reason"].as_str().unwrap().contains("stopped"), "{cut}");
    let again = Sender::launch(wsferry().args(["send", "--json", "--once", "--listen", &address]).arg(&file));
    let ended = receiver.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(place.received("large") == bytes, "the file differs");
    let ended = again.running.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(ended.event("resumed")["offset"].as_u64() >= Some(3 << 20), "{ended:?}");
    // One that never comes back is given up.
    let ended = fetch(&place, &format!("ws://{address}"), &["--retry-for", "100ms"]);
    ended.assert_error(1, &["cannot connect to", &address]);
}

#[test]
fn once_ends_both_sides_with_the_code_of_the_first_failure() {
    let place = Place::new();
    let files = [place.file("a", &random(1000, 7)), place.file("b", &random(1000, 8))];
    place.file("inbox/a", &random(1000, 9));
    let sender = Sender::start(&[&files[0], &files[1]], &["--once"]);
    let ended = fetch(&place, &sender.url, &[]);
    assert_eq!(ended.code(), 4, "{ended:?}");
    assert_eq!(sender.running.end().code(), 4);
    assert!(place.received("b") == random(1000, 8));
    let sender = Sender::start(&[&files[0], &files[1]], &["--once"]);
    assert_eq!(fetch(&place, &sender.url, &["--overwrite"]).code(), 0);
    assert_eq!(sender.running.end().code(), 0);
    assert!(place.received("a") == random(1000, 7));
}

#[test]
fn a_receiver_without_the_token_gets_nothing_and_pages_are_answered() {
    let place = Place::new();
    let bytes = random(1000, 10);
    let file = place.file("secret", &bytes);
    let sender = Sender::start(&[&file], &["--token", "0123456789abcdef", "--path", "/ferry"]);
    let ended = fetch(&place, &sender.url, &["--retry-for", "0s"]);
    ended.assert_error(4, &["401", "--token"]);
    assert!(!place.inbox().join("secret").exists());
    assert_eq!(fetch(&place, &sender.url, &["--token", "0123456789abcdef"]).code(), 0);
    assert!(place.received("secret") == bytes);
    let address = sender.url.strip_prefix("ws://").unwrap().strip_suffix("/ferry").unwrap();
    let reply = ask(address.parse().unwrap(), b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((reply.status, reply.body.trim()), (200, "ok"), "{reply:?}");
    // Whoever lets other machines in says so.
    let ended = Running::start(wsferry().args(["send", "--listen", "0.0.0.0:0"]).arg(&file)).end();
    ended.assert_error(2, &["could read what is sent", "--token-file FILE", "--open"]);
}

#[test]
fn two_sides_that_do_the_same_say_so_at_both_ends_at_once() {
    let place = Place::new();
    let file = place.file("f", &random(1000, 11));
    let receiver = Receiver::start(&place, &[]);
    let other = Place::new();
    fetch(&other, &receiver.url, &[]).assert_error(1, &["receives too", "one has to send"]);
    receiver.running.wait_for(|event| {
        event["event"] == "failed"
            && event["reason"].as_str().unwrap().contains("receives too: where both sides receive")
    });
    let sender = Sender::start(&[&file], &[]);
    send(&file, &sender.url, &[]).assert_error(1, &["sends too", "one has to receive"]);
    sender.running.wait_for(|event| {
        event["event"] == "failed"
            && event["reason"].as_str().unwrap().contains("sends too: where both sides send")
    });
    // Both serve on.
    assert_eq!(send(&file, &receiver.url, &[]).code(), 0);
    assert_eq!(fetch(&other, &sender.url, &[]).code(), 0);
}

#[test]
fn a_receiver_that_dials_says_how_large_frames_may_be() {
    let place = Place::new();
    let bytes = random(2_000_000, 12);
    let sender = Sender::start(&[&place.file("f", &bytes)], &[]);
    let ledger = Arc::<Mutex<Ledger>>::default();
    let tap = Tap::start_at_sender(sender.address(), &ledger);
    assert_eq!(fetch(&place, &tap.url(), &["--profile", "tomcat"]).code(), 0);
    tap.end();
    assert!(place.received("f") == bytes);
    let largest = ledger.lock().unwrap().largest_frame;
    assert!((4096..=8192).contains(&largest), "{largest}");
}

#[test]
fn flags_of_the_other_way_are_refused_in_one_line() {
    let place = Place::new();
    let file = place.file("f", b"x");
    let file = file.to_str().unwrap();
    for (line, words) in [
        (&["receive", "ws://h", "d", "--listen", "127.0.0.1:0"][..], &["--listen", "a URL is dialled"][..]),
        (&["receive", "ws://h", "d", "--plain"], &["--plain"]),
        (&["receive", "d", "ws://h"], &["the URL comes before the directory"]),
        (&["receive", "d", "e"], &["one directory", "d stands before it"]),
        (&["receive", "d", "--insecure"], &["--insecure", "side that dials"]),
        (&["receive", "d", "--retry-for", "1s"], &["--retry-for", "side that dials"]),
        (&["receive", "ws://me:SECRET@h", "--via", "true"], &["--via takes the place of a URL"]),
        (&["receive", "--stdio", "--open", "d"], &["--open", "standard input and output"]),
        (&["send", file, "ws://h", "--open"], &["--open", "--listen"]),
        (&["send", file, "ws://h", "--listen", "127.0.0.1:0"], &["no URL is sent to"]),
        (&["send", file, "--listen", "127.0.0.1:0", "--proxy", "http://p"], &["--proxy", "receivers dial"]),
        (&["send", "-", "--name", "n", "--listen", "127.0.0.1:0"], &["standard input", "--listen"]),
        (&["send", file, "--via", "true", "--user", "a:b"], &["--user", "a command is started"]),
        (&["send", file, "--stdio", "--plain"], &["--plain", "--stdio"]),
    ] {
        let ended = Running::start(wsferry().args(line).current_dir(place.path(""))).end();
        ended.assert_error(2, words);
        assert!(!ended.errors.contains("SECRET"), "{ended:?}");
    }
    let ended = Running::start(wsferry().args(["send", "missing", "--listen", "127.0.0.1:0"])).end();
    ended.assert_error(1, &["cannot read missing"]);
}

#[test]
fn a_sender_that_listens_prints_what_to_type_at_the_other_side() {
    let place = Place::new();
    let file = place.file("f", b"x");
    let running = Running::start(wsferry().args(["send", "--listen", "127.0.0.1:0"]).arg(&file));
    let listening = running.line();
    let url = listening.strip_prefix("listening on ").and_then(|rest| rest.split(',').next()).unwrap();
    assert_eq!(running.line(), format!("from this machine:  wsferry receive {url} DIR"));
}
