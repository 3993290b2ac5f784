//! Terminals that go away, outputs that take nothing, signals that are ignored: none of them costs a transfer.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::hostile::{self, frame, frame_as, offer, offer_as};
use crate::proxy::{Plan, Proxy};
use crate::support::{Peer, Place, Process, Receiver, Running, random, send_well, wsferry};

/// The two ends of a new terminal: the one that shows, and the one that a program writes to.
pub fn terminal() -> (File, File) {
    let shows = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&shows).unwrap();
    unlockpt(&shows).unwrap();
    let name = ptsname(&shows, Vec::new()).unwrap().into_string().unwrap();
    let flags = (OFlags::NOCTTY | OFlags::CLOEXEC).bits() as i32;
    let written = File::options().read(true).write(true).custom_flags(flags).open(name).unwrap();
    (File::from(shows), written)
}

/// Starts the program with both outputs on this terminal.
pub fn start_on(terminal: File, command: &mut Command) -> Process {
    command.stdout(terminal.try_clone().unwrap()).stderr(terminal).env("TERM", "xterm");
    let process = Process::start(command);
    // The command holds the terminal's end as long as it is there.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    process
}

/// Says that the file is whole and waits for the receipt.
fn finish(peer: &mut Peer, transfer: u32, bytes: &[u8]) {
    peer.tell(&hostile::finish(transfer, bytes));
    peer.hear_type("receipt");
}

#[test]
fn a_terminal_is_no_place_for_the_file_that_is_received() {
    let (mut shows, written) = terminal();
    let mut command = wsferry();
    command.args(["receive", "--once", "--stdout", "--listen", "127.0.0.1:0"]);
    let mut receiver = start_on(written, &mut command);
    assert_eq!(receiver.end().code(), Some(2));
    let mut said = [0; 500];
    let len = shows.read(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said[..len]);
    assert!(said.contains("standard output is a terminal; redirect it, or pipe it on"), "{said}");
}

#[test]
fn a_terminal_that_is_closed_under_a_receiver_costs_no_transfer() {
    let place = Place::new();
    let (shows, written) = terminal();
    let mut command = wsferry();
    let command = command.arg("receive").arg(place.inbox()).args(["--listen", "127.0.0.1:0"]);
    let mut receiver = start_on(written, command);
    let mut shows = BufReader::new(shows);
    let mut line = String::new();
    while !line.contains("listening on ") {
        line.clear();
        shows.read_line(&mut line).unwrap();
    }
    let url = line.split_whitespace().find(|word| word.starts_with("ws://")).unwrap().trim_end_matches(',');
    let mut peer = Peer::dial(url);
    peer.tell(&offer("f", 6));
    peer.hear_type("accept");
    peer.say(frame(0, 0, b"abc"));
    // The bar is there.
    let mut drawn = Vec::new();
    while !String::from_utf8_lossy(&drawn).contains("0 B/6 B") {
        let mut bytes = [0; 1000];
        let count = shows.read(&mut bytes).unwrap();
        drawn.extend_from_slice(&bytes[..count]);
    }
    drop(shows);
    receiver.signal("-HUP");
    peer.say(frame(1, 3, b"def"));
    finish(&mut peer, 0, b"abcdef");
    drop(peer);
    // It took no other connection, and ends with the last transfer.
    assert_eq!(receiver.end().code(), Some(3));
    assert_eq!(place.received("f"), b"abcdef");
    assert_eq!(place.listing(), ["f"]);
}

#[test]
fn a_terminal_that_is_closed_without_a_word_costs_no_transfer_on_either_side() {
    let place = Place::new();
    let bytes = random(4_000_000, 1);
    for side in ["receive", "send"] {
        let (shows, written) = terminal();
        let (mut on_terminal, receiver);
        let file = place.file(side, &bytes);
        let close = Arc::new(Mutex::new(Some(shows)));
        let closing = close.clone();
        let hang_up: Arc<dyn Fn() + Send + Sync> = Arc::new(move || drop(closing.lock().unwrap().take()));
        let through = |address| {
            Proxy::start(address, move |_| {
                (Plan { pause: Some((2_000_000, hang_up.clone())), ..Plan::default() }, Plan::default())
            })
        };
        if side == "receive" {
            let mut command = wsferry();
            command.arg("receive").arg(place.inbox()).args(["--listen", "127.0.0.1:0"]);
            on_terminal = start_on(written, &mut command);
            let mut line = String::new();
            BufReader::new(close.lock().unwrap().as_ref().unwrap()).read_line(&mut line).unwrap();
            let url = line.split_whitespace().find(|word| word.starts_with("ws://")).unwrap();
            let proxy = through(url.trim_start_matches("ws://").trim_end_matches(',').parse().unwrap());
            send_well(&file, &proxy.url(), &[]);
            // It is not gone either: what is lost is the terminal.
            send_well(&place.file("another", b"one"), &proxy.url(), &[]);
            on_terminal.signal("-TERM");
            assert_eq!(on_terminal.end().code(), Some(3));
        } else {
            receiver = Receiver::start(&place, &[]);
            let proxy = through(receiver.address());
            let mut command = wsferry();
            on_terminal = start_on(written, command.arg("send").arg(&file).arg(proxy.url()));
            assert_eq!(on_terminal.end().code(), Some(0));
        }
        assert!(close.lock().unwrap().is_none(), "it was closed in mid-transfer");
        assert!(place.received(side) == bytes);
    }
}

#[test]
fn a_hangup_stops_no_sender_and_lets_a_receiver_finish_what_runs() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let file = place.file("f", &random(4_000_000, 2));
    let pid = Arc::new(Mutex::new(None::<u32>));
    let sender = pid.clone();
    let hang_up: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        let pid = loop {
            if let Some(pid) = *sender.lock().unwrap() {
                break pid;
            }
        };
        assert!(Command::new("kill").args(["-HUP", &pid.to_string()]).status().unwrap().success());
    });
    let proxy = Proxy::start(receiver.address(), move |_| {
        (Plan { pause: Some((2_000_000, hang_up.clone())), ..Plan::default() }, Plan::default())
    });
    let running = Running::start(wsferry().arg("send").arg(&file).arg(proxy.url()).arg("--json"));
    *pid.lock().unwrap() = Some(running.pid());
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{ended:?}");

    let mut idle = Peer::dial(&receiver.url);
    let mut peer = Peer::dial(&receiver.url);
    // Two files, the second of which is offered behind the signal.
    let mut first = offer("a", 3);
    first["left"] = 1.into();
    peer.tell(&first);
    peer.hear_type("accept");
    receiver.running.signal("-HUP");
    // A connection that carries nothing is hung up on; what it hears first is that.
    assert_eq!(idle.hear_type("error")["code"], "shutdown");
    drop(idle);
    peer.say(frame(0, 0, b"abc"));
    finish(&mut peer, 0, b"abc");
    peer.tell(&offer_as(1, "b", 3));
    peer.hear_type("accept");
    peer.say(frame_as(1, 1, 0, b"def"));
    finish(&mut peer, 1, b"def");
    let ended = receiver.running.end();
    assert_eq!((ended.code(), ended.errors.as_str()), (3, ""), "{ended:?}");
    assert_eq!(place.listing(), ["a", "b", "f"]);
}

#[test]
#[cfg(target_os = "linux")]
fn signals_that_were_ignored_at_the_start_stay_so() {
    let place = Place::new();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP INT; exec \"$@\"", "sh"]).arg(wsferry().get_program());
    command.arg("receive").arg(place.inbox()).args(["--json", "--listen", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let receiver = Receiver::launch(&mut command);
    for signal in ["-HUP", "-INT", "-HUP", "-INT"] {
        receiver.running.signal(signal);
        send_well(&place.file(signal, b"still there"), &receiver.url, &[]);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", receiver.running.pid())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(mask, 16).unwrap() & 0b11, 0b11, "SIGHUP and SIGINT: {mask}");
    receiver.running.signal("-TERM");
    assert_eq!(receiver.running.end().code(), 3);
}

/// A pipe that is full: whoever writes to it waits.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    while writer.write(b"\n").is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

#[test]
fn a_standard_error_that_takes_nothing_costs_no_transfer() {
    let full_disk = || File::options().write(true).open("/dev/full").unwrap();
    let (reader, writer) = full_pipe();
    for (kind, stderr) in
        [("a pipe that nobody reads", OwnedFd::from(writer)), ("a full disk", full_disk().into())]
    {
        let place = Place::new();
        let mut command = wsferry();
        command.arg("receive").arg(place.inbox()).args(["--json", "--listen", "127.0.0.1:0"]).stderr(stderr);
        let mut receiver = Process::start(command.stdout(Stdio::piped()));
        let mut lines = BufReader::new(receiver.output()).lines();
        let listening: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let url = listening["url"].as_str().unwrap();
        // Something is to be said.
        let mut peer = Peer::dial(url);
        peer.say("{");
        while peer.hear().is_some() {}
        drop(peer);
        send_well(&place.file("f", &random(4_000_000, 3)), url, &[]);
        assert!(place.received("f") == random(4_000_000, 3), "{kind}");
        receiver.signal("-TERM");
        assert_eq!(receiver.end().code(), Some(3), "{kind}");
    }
    drop(reader);
    // A sender has a standard error too, and a standard output.
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let mut command = wsferry();
    let file = place.file("f", b"content");
    let status = command.arg("send").arg(&file).arg(&receiver.url).stderr(full_disk()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    let script = "exec \"$@\" <&- >&- 2>&-";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(wsferry().get_program());
    let file = place.file("g", b"content");
    assert_eq!(command.arg("send").arg(&file).arg(&receiver.url).status().unwrap().code(), Some(0));
    assert_eq!(place.received("g"), b"content");
}

#[test]
fn a_standard_output_that_nobody_reads_costs_no_transfer() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let file = place.file("f", &random(4_000_000, 4));
    let (mut reader, writer) = full_pipe();
    let mut command = wsferry();
    command.arg("send").arg(&file).arg(&receiver.url).arg("--json").stdout(writer);
    let mut sender = Process::start(&mut command);
    drop(command);
    receiver.running.wait_for(|event| event["event"] == "finished");
    assert!(place.received("f") == random(4_000_000, 4));
    // Once it is read, it is all there.
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(sender.end().code(), Some(0));
    assert!(said.contains("\"event\":\"started\"") && said.contains("\"event\":\"finished\""), "{said}");
}
