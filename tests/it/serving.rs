//! A receiver among strangers: whose transfer `--once` waits for, what is told of connections that carry none, and what
//! happens when descriptors are few.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use crate::hostile::{self, frame, offer, offer_as};
use crate::proxy::{Plan, Proxy};
use crate::support::{Peer, Place, Receiver, Running, random, send, send_well, wsferry};

/// Sends what is left of a file of three bytes and waits for the receipt.
pub fn finish(peer: &mut Peer) {
    peer.say(frame(0, 0, b"abc"));
    peer.tell(&hostile::finish(0, b"abc"));
    peer.hear_type("receipt");
}

#[test]
fn a_receiver_of_one_sender_waits_for_all_its_files_over_any_cut() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--once"]);
    let files = [("a", 1000), ("b", 4_000_000), ("c", 5)];
    let paths = files.map(|(name, size)| place.file(name, &random(size, 1)));
    // In the middle of the second file; then again, and then between two frames of the last.
    let proxy = Proxy::start(receiver.address(), |number| {
        let cut_after = [Some(2_000_000), Some(1_000_000)].get(number).copied().flatten();
        (Plan { cut_after, ..Plan::default() }, Plan::default())
    });
    let mut command = wsferry();
    let sender = command.arg("send").args(&paths).arg(proxy.url()).args(["--json", "--retry-for", "20s"]);
    let sent = Running::start(sender).end();
    assert_eq!(sent.code(), 0, "{sent:?}");
    assert!(!sent.events("reconnecting").is_empty(), "{sent:?}");
    let received = receiver.running.end();
    assert_eq!(received.code(), 0, "{received:?}");
    for (name, size) in files {
        assert!(place.received(name) == random(size, 1), "{name}");
    }
}

#[test]
fn strangers_who_send_or_are_refused_do_not_end_a_receiver_of_one_sender() {
    let place = Place::new();
    std::fs::create_dir(place.inbox()).unwrap();
    std::fs::write(place.inbox().join("there"), "other").unwrap();
    let receiver = Receiver::start(&place, &["--once"]);
    let mut one = Peer::dial(&receiver.url);
    one.tell(&offer("one", 3));
    one.hear_type("accept");
    // Refused, done, cut.
    let mut stranger = Peer::dial(&receiver.url);
    stranger.tell(&offer("there", 3));
    assert_eq!(stranger.hear_type("reject")["code"], "exists");
    send(&place.file("there", b"refused too"), &receiver.url, &[]).assert_error(4, &["already there"]);
    send_well(&place.file("whole", b"whole"), &receiver.url, &[]);
    drop(stranger);
    finish(&mut one);
    drop(one);
    let ended = receiver.running.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(place.listing(), ["one", "there", "whole"]);
}

#[test]
fn the_exit_code_of_a_receiver_of_one_sender_is_that_of_all_it_meant_to_send() {
    let put = |place: &Place| {
        std::fs::create_dir(place.inbox()).unwrap();
        std::fs::write(place.inbox().join("b"), "other").unwrap();
        let files = ["a", "b", "c"].map(|name| place.file(name, name.repeat(9).as_bytes()));
        std::fs::remove_file(if place.path("x").exists() { &files[1] } else { &files[2] }).unwrap();
        files
    };
    // A refused file among others, and a last one that cannot be read.
    let place = Place::new();
    let files = put(&place);
    let receiver = Receiver::start(&place, &["--once"]);
    let mut command = wsferry();
    let sent = Running::start(command.arg("send").args(&files).arg(&receiver.url)).end();
    assert_eq!(sent.code(), 4, "{sent:?}");
    let received = receiver.running.end();
    assert_eq!(received.code(), 4, "{received:?}");
    // The same without a refusal: what could not be read was meant to be sent.
    let place = Place::new();
    place.file("x", b"");
    let [a, b, c] = put(&place);
    std::fs::remove_file(place.inbox().join("b")).unwrap();
    std::fs::remove_file(&c).unwrap();
    let receiver = Receiver::start(&place, &["--once"]);
    let mut command = wsferry();
    let sent = Running::start(command.arg("send").args([a, b, c]).arg(&receiver.url)).end();
    assert_eq!(sent.code(), 1, "{sent:?}");
    let received = receiver.running.end();
    assert_eq!(received.code(), 1, "{received:?}");
    assert_eq!(place.listing(), ["a"]);
}

#[test]
fn connections_without_a_transfer_are_said_once_and_counted() {
    let place = Place::new();
    for flags in [&["--json"][..], &[]] {
        let mut command = wsferry();
        command.arg("receive").arg(place.inbox()).args(["--listen", "127.0.0.1:0"]).args(flags);
        let running = Running::start(&mut command);
        let line = running.line();
        let address = line.split("ws://").nth(1).unwrap().split(['"', ',']).next().unwrap().to_owned();
        for number in 0..50 {
            let mut stream = TcpStream::connect(&address).unwrap();
            if number % 2 == 0 {
                stream.write_all(b"GET / HTTP/1.1\r\nHost: me@x\r\n\r\n").unwrap();
            } else {
                stream.write_all(b"SSH").unwrap();
            }
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }
        // It was told what each of them was by the time this one is done.
        send_well(&place.file("f", b"f"), &format!("ws://{address}"), &[]);
        running.signal("-TERM");
        let ended = running.end();
        if flags.is_empty() {
            let lines: Vec<&str> = ended.errors.lines().collect();
            assert_eq!(lines.len(), 2, "{lines:?}");
            assert!(
                lines[1].starts_with("49 more connections ended before a transfer in the last "),
                "{lines:?}"
            );
        } else {
            assert_eq!(ended.events("failed").len(), 1, "{ended:?}");
            let counts = ended.events("unserved");
            assert_eq!((counts.len(), &counts[0]["count"]), (1, &json!(49)), "{ended:?}");
        }
    }
}

#[test]
fn refused_offers_without_end_are_counted_too() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let mut peer = Peer::dial(&receiver.url);
    for number in 0..500 {
        peer.tell(&offer_as(number, "..", 3));
        peer.hear_type("reject");
    }
    drop(peer);
    send_well(&place.file("f", b"f"), &receiver.url, &[]);
    receiver.running.signal("-TERM");
    let ended = receiver.running.end();
    assert_eq!(ended.events("failed").len(), 20, "{ended:?}");
    assert_eq!(ended.event("refused")["count"], 480);
}

#[test]
fn few_descriptors_make_senders_wait_and_fail_none() {
    let place = Place::new();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]).arg(wsferry().get_program());
    command.arg("receive").arg(place.inbox()).args(["--json", "--listen", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let receiver = Receiver::launch(&mut command);
    // More strangers than there are places: the last ones wait for the first to go.
    let strangers: Vec<_> = (0..3).map(|_| Peer::dial(&receiver.url)).collect();
    let senders: Vec<_> = (0..40)
        .map(|number| {
            let file = place.file(&format!("{number}"), &random(300_000 + number, number as u64));
            Running::start(wsferry().arg("send").arg(file).arg(&receiver.url))
        })
        .collect();
    for (number, sender) in senders.into_iter().enumerate() {
        let ended = sender.end();
        assert_eq!(ended.code(), 0, "{ended:?}");
        assert!(place.received(&format!("{number}")) == random(300_000 + number, number as u64));
    }
    drop(strangers);
    receiver.running.signal("-TERM");
    let ended = receiver.running.end();
    assert_eq!(ended.events("failed"), [""; 0], "{ended:?}");
    assert_eq!(ended.errors, "");
}

/// The soft and the hard limit of a process's descriptors.
fn descriptors(receiver: &Receiver) -> Rlimit {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", receiver.running.pid())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
    Rlimit { current: numbers.next().unwrap(), maximum: numbers.next().unwrap() }
}

#[test]
#[cfg(target_os = "linux")]
fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let place = Place::new();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 100; exec \"$@\"", "sh"]).arg(wsferry().get_program());
    command.arg("receive").arg(place.inbox()).args(["--json", "--listen", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Rlimit { current, maximum } = descriptors(&Receiver::launch(&mut command));
    assert_eq!(current, maximum);
    assert_ne!(current, Some(100));
}

#[test]
#[cfg(target_os = "linux")]
fn without_a_descriptor_for_another_connection_those_that_are_served_go_on() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let pid = Pid::from_raw(receiver.running.pid() as i32);
    let mut one = Peer::dial(&receiver.url);
    one.tell(&offer("one", 3));
    one.hear_type("accept");
    let before = descriptors(&receiver);
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(4), maximum: before.maximum }).unwrap();
    // It cannot be accepted, and it waits.
    let waiting = TcpStream::connect(receiver.address()).unwrap();
    let start = Instant::now();
    for token in 0..50 {
        one.tell(&json!({"type": "ping", "token": token}));
        assert_eq!(one.hear_type("pong")["token"], token);
    }
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    prlimit(pid, Resource::Nofile, before).unwrap();
    finish(&mut one);
    send_well(&place.file("f", b"there is room again"), &receiver.url, &[]);
    drop(waiting);
}
