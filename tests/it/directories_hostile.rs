//! Senders that want to reach what is not theirs by the paths that they offer: over real sockets, beside an honest one,
//! and with a look at everything around the destination before and after.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use crate::forest::{Forest, Grove, Kind, Tree, assert_same, look};
use crate::hostile::{finish, footprint, frame_as, offer_as};
use crate::offers::{greeted, peak_memory, wire};
use crate::support::{PATIENCE, Peer, Receiver, Running, message, random, send_well, wsferry};

/// A destination in which there is something already, among things that are none of its business.
fn surrounded() -> Grove {
    let grove = Grove::new();
    for (path, content) in
        [("outside/secret", "s"), ("outside/deep/x", "x"), ("beside", "b"), ("inbox/theirs", "t")]
    {
        grove.file(path, content.as_bytes());
    }
    symlink("../outside", grove.path("inbox/alias")).unwrap();
    symlink(grove.path("outside"), grove.path("outside/deep/loop")).unwrap();
    symlink("../beside", grove.path("inbox/file alias")).unwrap();
    symlink(".", grove.path("inbox/self")).unwrap();
    grove
}

/// A partial file, which is begun, and not ended.
fn begin_and_go(receiver: &Receiver) {
    let mut peer = Peer::dial(&receiver.url);
    peer.tell(&offer_as(0, "begun", 7 << 20));
    peer.hear_type("accept");
    peer.say(frame_as(0, 0, 0, &random(3 << 20, 1)));
    peer.hear_type("ack");
    drop(peer);
    receiver.running.wait_for(|event| event["event"] == "failed" && event["name"] == "begun");
}

/// Everything around and in the destination but for what was sent there.
fn surroundings(grove: &Grove, sent: &[&str]) -> Tree {
    let mut tree = look(&grove.path(""));
    let changes = ["inbox", "inbox/.wsferry"].map(Path::new);
    // These two directories are the receiver's own to write to, and have another time for it.
    tree.retain(|path, _| {
        !changes.contains(&&**path)
            && !sent.iter().any(|sent| path.starts_with(Path::new("inbox").join(sent)))
    });
    tree
}

/// A peer that offers one thing after another on one connection.
struct Offering {
    peer: Peer,
    transfer: u32,
    sequence: u64,
}

impl Offering {
    fn new(receiver: &Receiver) -> Self {
        Self { peer: Peer::dial(&receiver.url), transfer: 0, sequence: 0 }
    }

    /// Offers a thing, sends it if it is accepted, and gives the answer: a receipt or a reject.
    fn offer(&mut self, path: &str, fields: &Value, bytes: &[u8]) -> Value {
        let transfer = self.transfer;
        self.transfer += 1;
        let mut offer = offer_as(transfer, path, bytes.len() as u64);
        for (field, value) in fields.as_object().into_iter().flatten() {
            offer[field] = value.clone();
        }
        self.peer.tell(&offer);
        loop {
            let text = self.peer.hear().unwrap_or_else(|| panic!("{path:?} ended the connection"));
            let Some(message) = message(&text) else { continue };
            match message["type"].as_str().unwrap() {
                "accept" => {
                    if !bytes.is_empty() {
                        self.peer.say(frame_as(transfer, self.sequence, 0, bytes));
                        self.sequence += 1;
                    }
                    if offer["digest"].is_null() {
                        self.peer.tell(&finish(transfer, bytes));
                    }
                }
                "receipt" | "reject" => return message,
                "error" => panic!("{path:?}: {message}"),
                _ => {}
            }
        }
    }
}

#[test]
fn no_path_that_is_offered_leads_outside_and_a_sender_beside_is_not_harmed() {
    let grove = surrounded();
    Forest { seed: 21, directories: 30, files: 200, largest: 64 << 10 }.plant(&grove.path("t"));
    let receiver = Receiver::start(&grove, &["--overwrite"]);
    begin_and_go(&receiver);
    let sent = ["t", "Twin", "twin"];
    let before = surroundings(&grove, &sent);
    let partial = before.keys().find(|path| path.starts_with("inbox/.wsferry")).expect("a partial file");
    let partial = partial.strip_prefix("inbox").unwrap().to_str().unwrap().to_owned();
    let honest = Running::start(wsferry().arg("send").arg(grove.path("t")).arg(&receiver.url).arg("--json"));
    let mut offering = Offering::new(&receiver);
    let (levels, long) = (format!("{}a", "a/".repeat(4096)), "n".repeat(256));
    let upper = partial.to_uppercase();
    let no_names = [
        "",
        "/",
        ".",
        "..",
        "./x",
        "../x",
        "../outside/secret",
        "../inbox/x",
        "/etc/x",
        "//x",
        "a//b",
        "a/",
        "a/./b",
        "a/..",
        "a/../../outside/x",
        "a/b/../../../x",
        "..\\x",
        "a\\..\\..\\x",
        "C:\\x",
        "a\0b",
        "a/b\0/c",
        "a\nb",
        ".wsferry",
        ".wsferry/x",
        "a/.wsferry/x",
        ".WsFerry/x",
        &*partial,
        &*upper,
        &*levels,
        &*long,
    ];
    // A step that is no directory, or a last name that is something else, in a destination that may be overwritten.
    let occupied = [
        "theirs/x",
        "theirs/x/y",
        "alias/x",
        "alias/secret",
        "alias/deep/x",
        "alias/deep/loop/secret",
        "self/x",
        "self/self/x",
        "self/alias/secret",
        "file alias/x",
    ];
    let kinds = [
        (json!({}), &b"bytes"[..]),
        (json!({"digest": blake3::hash(b"bytes").to_string()}), b"bytes"),
        (json!({"kind": "directory", "mode": 0o777}), b""),
        (json!({"kind": "link", "target": "x"}), b""),
    ];
    for (fields, bytes) in &kinds {
        for path in no_names {
            let answer = offering.offer(path, fields, bytes);
            assert_eq!(answer["code"], "name", "{path:.80?}, {fields}: {answer}");
        }
        for path in occupied {
            let answer = offering.offer(path, fields, bytes);
            assert_eq!(answer["code"], "exists", "{path:?}, {fields}: {answer}");
        }
        // A link may be replaced by another link, since that is allowed here, and by nothing else.
        let is_link = fields["kind"] == "link";
        for path in ["alias", "self", "file alias"].into_iter().filter(|_| !is_link) {
            let answer = offering.offer(path, fields, bytes);
            assert_eq!(answer["type"], "reject", "{path:?}, {fields}: {answer}");
        }
    }
    for target in ["/", "/etc/passwd", "..", "../beside", "a/../../beside", "a/../..", "./.."] {
        let answer = offering.offer("link", &json!({"kind": "link", "target": target}), b"");
        assert_eq!(answer["code"], "kind", "{target:?}: {answer}");
    }
    for target in ["../..", "../../beside", "../../inbox/x", "x/../../.."] {
        let answer = offering.offer("some/link", &json!({"kind": "link", "target": target}), b"");
        assert_eq!(answer["code"], "kind", "{target:?}: {answer}");
    }
    // Links that are its own to make are no way for what follows.
    assert_eq!(
        offering.offer("t link", &json!({"kind": "link", "target": "theirs"}), b"")["type"],
        "receipt"
    );
    assert_eq!(offering.offer("t link/x", &json!({}), b"bytes")["type"], "reject");
    // Two names that some file systems take for one are two files here, and neither has the other's bytes.
    for (name, content) in [("Twin", b"one"), ("twin", b"two")] {
        assert_eq!(offering.offer(name, &json!({}), content)["type"], "receipt");
    }
    assert_eq!((grove.received("Twin"), grove.received("twin")), (b"one".to_vec(), b"two".to_vec()));
    let honest = honest.end();
    assert_eq!(honest.code(), 0, "{honest:?}");
    assert_same(&look(&grove.path("t")), &look(&grove.inbox().join("t")));
    let made = ["t", "Twin", "twin", "t link", "some"];
    assert_same(&before, &surroundings(&grove, &made));
    // What was begun is gone on with.
    let bytes = [random(3 << 20, 1), random(4 << 20, 2)].concat();
    send_well(&grove.file("begun", &bytes), &receiver.url, &[]);
    assert!(grove.received("begun") == bytes);
}

/// Says that it is over when it is dropped.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_directory_that_turns_into_a_link_and_back_while_files_come_never_leads_outside() {
    let grove = surrounded();
    let receiver = Receiver::start(&grove, &["--overwrite"]);
    std::fs::create_dir(grove.path("inbox/flips")).unwrap();
    symlink(grove.path("outside"), grove.path("flips")).unwrap();
    let outside = look(&grove.path("outside"));
    let is_over = AtomicBool::new(false);
    let (mut receipts, mut rejects) = (Vec::new(), 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (dir, link) = (grove.path("inbox/flips"), grove.path("flips"));
            let flip = || renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                flip();
                flip();
            }
        });
        // Also if an assertion fails: the thread is waited for.
        let _over = OnDrop(&is_over);
        let started = Instant::now();
        let mut offering = Offering::new(&receiver);
        for number in 0.. {
            if (receipts.len() >= 100 && rejects >= 100) || started.elapsed() > PATIENCE {
                break;
            }
            let path = format!("flips/{number}");
            let fields = match number % 3 {
                0 => json!({}),
                1 => json!({"digest": blake3::hash(b"bytes").to_string()}),
                _ => json!({"kind": "directory"}),
            };
            let bytes = if number % 3 == 2 { &b""[..] } else { b"bytes" };
            if offering.offer(&path, &fields, bytes)["type"] == "receipt" {
                receipts.push(number.to_string());
            } else {
                rejects += 1;
            }
        }
    });
    println!("{} receipts, {rejects} rejects", receipts.len());
    assert!(!receipts.is_empty() && rejects > 0, "both were met");
    assert_same(&outside, &look(&grove.path("outside")));
    // What there is a receipt for lies in the directory, wherever that is now.
    let found = look(&grove.path("inbox/flips"));
    for number in receipts {
        let node = found.get(Path::new(&number)).unwrap_or_else(|| panic!("{number} is not there"));
        assert!(matches!(node.what, Kind::File { len: 5, .. } | Kind::Directory), "{number}: {node:?}");
    }
}

/// So many offers of paths that are refused for all kinds of reasons, each of them another path.
fn flood(count: u32) {
    let grove = surrounded();
    Forest { seed: 22, directories: 10, files: 100, largest: 64 << 10 }.plant(&grove.path("t"));
    let receiver = Receiver::start(&grove, &[]);
    send_well(&grove.file("warm", b"warm"), &receiver.url, &[]);
    let after = grove.file("after", b"after");
    let before = surroundings(&grove, &["t", "after"]);
    let memory = footprint(receiver.running.pid()).2;
    let (_peer, mut stream) = greeted(&receiver);
    let mut ear = stream.try_clone().unwrap();
    let listening = thread::spawn(move || std::io::copy(&mut ear, &mut std::io::sink()));
    let mut honest =
        Some(Running::start(wsferry().arg("send").arg(grove.path("t")).arg(&receiver.url).arg("--json")));
    let started = Instant::now();
    let refused = |number: u32| {
        let path = match number % 6 {
            0 => format!("{number}/../../x"),
            1 => format!(".wsferry/{number}"),
            2 => format!("theirs/{number}/{}", "d/".repeat(100) + "f"),
            3 => format!("alias/{number}"),
            4 => format!("{}/\0{number}", "n".repeat(200)),
            _ => format!("{number}"),
        };
        let mut offer = offer_as(number, &path, 3);
        if number % 6 == 5 {
            offer["kind"] = "link".into();
            offer["size"] = 0.into();
            offer["target"] = format!("../{number}").into();
        }
        vec![offer]
    };
    for first in (0..count).step_by(1000) {
        stream.write_all(&wire(first..first + 1000, refused)).unwrap();
        if first == count / 2000 * 1000 {
            let honest = honest.take().unwrap().end();
            assert_eq!(honest.code(), 0, "{honest:?}");
        }
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    listening.join().unwrap().unwrap();
    send_well(&after, &receiver.url, &[]);
    let peak = peak_memory(&receiver);
    println!("{count} offers in {:?}: {memory} KiB, at peak {peak} KiB", started.elapsed());
    assert!(peak < memory + 32 * 1024, "{memory} KiB, at peak {peak} KiB");
    assert_same(&look(&grove.path("t")), &look(&grove.inbox().join("t")));
    assert_same(&before, &surroundings(&grove, &["t", "after"]));
}

#[test]
fn a_hundred_thousand_different_paths_that_are_refused_take_no_memory_and_change_nothing() {
    flood(100_000);
}

#[test]
#[ignore = "takes minutes: a million offers"]
fn a_million_different_paths_that_are_refused_take_no_memory_and_change_nothing() {
    flood(1_000_000);
}
