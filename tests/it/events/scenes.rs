//! Scenes in which the program tells its events: each gives what was told, in order, without what varies.

use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

use super::redact::Redactor;
use crate::dial::head;
use crate::gateway::{Gateway, Limits, TooLarge};
use crate::proxy::{Plan, Proxy};
use crate::support::{Ended, Peer, Place, Receiver, Running, random, send, send_well, wsferry};

/// The name of a snapshot, and what plays its scene.
pub type Scene = (&'static str, fn() -> Vec<Value>);

pub const SCENES: [Scene; 12] = [
    ("bench", bench),
    ("config", config),
    ("connecting", connecting),
    ("cut", cut),
    ("directory", directory),
    ("dry-run", dry_run),
    ("floods", floods),
    ("hash", hash),
    ("offer", offer),
    ("probe", probe),
    ("profiles", profiles),
    ("receive", receive),
];

fn redactor(place: &Place) -> Redactor {
    Redactor::of(place.path("").to_str().unwrap())
}

/// All that a program told, but how far it was and that it dials: whether those are told depends on the time.
fn told(ended: &Ended) -> Vec<Value> {
    let events =
        ended.lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"));
    events.filter(|event| !["progress", "connecting"].contains(&event["event"].as_str().unwrap())).collect()
}

fn redacted(place: &Place, events: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let redactor = redactor(place);
    events.into_iter().map(|event| redactor.apply(&event)).collect()
}

fn end(command: &mut Command) -> Ended {
    Running::start(command).end()
}

fn bench() -> Vec<Value> {
    let place = Place::new();
    let flags = ["--json", "--size", "1MB", "--runs", "1", "--chunk-sizes", "24KiB", "--windows", "1MiB"];
    redacted(&place, told(&end(wsferry().arg("bench").args(flags).arg("--dir").arg(place.path("")))))
}

/// A flag from the file, one from the environment, and what belongs to none.
fn config() -> Vec<Value> {
    let place = Place::new();
    let file = place.file("config.toml", b"older-than = \"1h\"\n");
    let mut command = wsferry();
    command.args(["config", "status", "--json"]);
    command.env("WSFERRY_CONFIG", file).env("WSFERRY_PRUNE", "true").env("WSFERRY_PRUNES", "1");
    redacted(&place, told(&end(&mut command)))
}

/// A connection that takes its time, and one that is told of at once.
fn connecting() -> Vec<Value> {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let sender = Running::start(wsferry().arg("send").arg(place.file("f", b"x")).args([&url, "--json"]));
    let (mut stream, _) = listener.accept().unwrap();
    head(&mut stream);
    let connecting = sender.wait_for(|event| event["event"] == "connecting");
    drop(stream);
    redacted(&place, [vec![connecting], told(&sender.end())].concat())
}

/// A path that breaks: a sender that goes on, one that may not, what is left of that, and what is done about it.
fn cut() -> Vec<Value> {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let file = place.file("f", &random(8_000_000, 1));
    let broken = Plan { cut_after: Some(6_000_000), rate: Some(30_000_000), ..Plan::default() };
    let once = broken.clone();
    let proxy = Proxy::start(receiver.address(), move |number| {
        (if number == 0 { once.clone() } else { Plan::default() }, Plan::default())
    });
    let ended = send(&file, &proxy.url(), &[]);
    // How far it was when the path broke is told in any case.
    let moving =
        ended.events("progress").into_iter().find(|progress| progress["bytes_per_second"].is_number());
    let mut events: Vec<Value> = moving.into_iter().chain(told(&ended)).collect();

    let file = place.file("g", &random(8_000_000, 2));
    let proxy = Proxy::start(receiver.address(), move |_| (broken.clone(), Plan::default()));
    events.extend(told(&send(&file, &proxy.url(), &["--retry-for", "0s"])));
    events.push(receiver.running.wait_for(|event| event["event"] == "failed" && event["name"] == "g"));
    let status =
        |flags: &[&str]| told(&end(wsferry().arg("status").arg(place.inbox()).arg("--json").args(flags)));
    let partial = status(&[]);
    // It stands for a version of the file, which has the time in it.
    let id = partial[0]["id"].as_str().unwrap().to_owned();
    events.extend(partial);
    events.extend(status(&["--prune", "--older-than", "0s"]));
    let redactor = redactor(&place).and(&id, "[ID]");
    events.iter().map(|event| redactor.apply(event)).collect()
}

/// A directory with what is not sent, and a file that is not there.
fn directory() -> Vec<Value> {
    let place = Place::new();
    place.file("tree/a", &random(1000, 1));
    std::os::unix::fs::symlink("a", place.path("tree/link")).unwrap();
    let receiver = Receiver::start(&place, &[]);
    let sent = send(&place.path("tree"), &receiver.url, &[]);
    let missing = send(&place.path("none"), &receiver.url, &[]);
    // Which of a directory's transfers ends first is a race.
    let mut events = told(&sent);
    events.sort_by_key(|event| (event["transfer"].as_u64(), event["event"] == "finished"));
    redacted(&place, [events, told(&missing)].concat())
}

fn dry_run() -> Vec<Value> {
    let place = Place::new();
    let there = place.file("tree/there", &random(1000, 1));
    place.file("tree/new", &random(2000, 2));
    place.file("tree/deep/f", &random(3000, 3));
    let receiver = Receiver::start(&place, &[]);
    send_well(&there, &receiver.url, &[]);
    // The slash: what is in it.
    let mut events = told(&send(&place.path("tree/"), &receiver.url, &["--dry-run", "--quick"]));
    events.sort_by_key(|event| event["transfer"].as_u64());
    redacted(&place, events)
}

/// Strangers, and more offers that are refused than are told one by one.
fn floods() -> Vec<Value> {
    let place = Place::new();
    let mut command = wsferry();
    command.arg("send");
    for number in 0..22 {
        command.arg(place.file(&format!("f{number:02}"), b"another"));
        place.file(&format!("inbox/f{number:02}"), b"there");
    }
    let receiver = Receiver::start(&place, &["--once"]);
    for _ in 0..2 {
        let mut stranger = Peer::dial_silently(&receiver.url);
        stranger.say("What is this?");
        // The receiver lets go of the connection when it has told.
        while stranger.socket.read().is_ok() {}
    }
    let sender = end(command.args([&receiver.url, "--json"]));
    assert_eq!(sender.code(), 4, "{sender:?}");
    let events = told(&receiver.running.end());
    let (failed, counts): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event["event"] == "failed");
    assert_eq!(failed.len(), 1 + 20, "{failed:?}");
    redacted(&place, failed.into_iter().take(2).chain(counts))
}

fn hash() -> Vec<Value> {
    let place = Place::new();
    let file = place.file("f", &random(1000, 1));
    redacted(&place, told(&end(wsferry().args(["hash", "--json"]).arg(file))))
}

/// A sender that listens, and the receiver that dials it.
fn offer() -> Vec<Value> {
    let place = Place::new();
    let file = place.file("f", &random(1000, 1));
    let mut command = wsferry();
    command.arg("send").arg(file).args(["--listen", "127.0.0.1:0", "--once", "--json"]);
    let sender = Running::start(&mut command);
    let listening = sender.wait_for(|event| event["event"] == "listening");
    let url = listening["url"].as_str().unwrap();
    let received = end(wsferry().args(["receive", "--json", url]).arg(place.inbox()));
    redacted(&place, [vec![listening.clone()], told(&sender.end()), told(&received)].concat())
}

/// A gateway that takes frames up to a size, and TLS.
fn probe() -> Vec<Value> {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let limits = Limits { frame: Some((8192, TooLarge::Close(1009))), ..Limits::default() };
    let gateway = Gateway::start(receiver.address(), limits);
    redacted(&place, told(&end(wsferry().args(["probe", "--json", &gateway.url(), "--patience", "300ms"]))))
}

/// The first of many.
fn profiles() -> Vec<Value> {
    let place = Place::new();
    let told = told(&end(wsferry().args(["probe", "--profiles", "--json"])));
    redacted(&place, told.into_iter().take(1))
}

/// A receiver and its command, and the sender of a file.
fn receive() -> Vec<Value> {
    let place = Place::new();
    let file = place.file("f", &random(1000, 1));
    let mut command = wsferry();
    command.arg("receive").arg(place.inbox()).args(["--listen", "127.0.0.1:0", "--once", "--json"]);
    let receiver = Running::start(command.args(["--exec", "exit 7"]));
    let listening = receiver.wait_for(|event| event["event"] == "listening");
    let sent = send(&file, listening["url"].as_str().unwrap(), &[]);
    redacted(&place, [vec![listening], told(&receiver.end()), told(&sent)].concat())
}
