//! Cut, killed, interrupted: the same command goes on where it was.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use serde_json::json;

use crate::proxy::{Plan, Proxy};
use crate::support::{Peer, Place, Receiver, Running, random, send, send_well, wsferry};

const B: usize = 3 << 20;

/// Runs `send --json` until that many bytes are acknowledged.
fn send_until(place: &Place, name: &str, url: &str, acknowledged: u64) -> Running {
    let sender = Running::start(wsferry().arg("send").arg(place.path(name)).arg(url).args([
        "--json",
        "--retry-for",
        "0s",
    ]));
    sender.wait_for(|event| {
        event["event"] == "progress" && event["acknowledged"].as_u64() >= Some(acknowledged)
    });
    sender
}

/// A proxy that is slow enough for a test to act in mid-file.
fn slow(receiver: &Receiver) -> Proxy {
    Proxy::start(receiver.address(), |_| {
        (Plan { rate: Some(60_000_000), ..Plan::default() }, Plan::default())
    })
}

#[test]
fn a_killed_sender_resumes_where_it_was() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let proxy = slow(&receiver);
    let bytes = random(40 * B + 5, 1);
    let file = place.file("f", &bytes);
    send_until(&place, "f", &proxy.url(), 20_000_000).kill();
    assert_eq!(place.listing(), [".wsferry"], "the final name does not appear before the file is whole");
    let finished = send_well(&file, &receiver.url, &[]);
    assert!(finished["resumed_at"].as_u64().unwrap() > 12_000_000, "{finished}");
    assert!(finished["resent_bytes"].as_u64().unwrap() <= (16 << 20) + B as u64, "{finished}");
    assert!(place.received("f") == bytes);
    assert_eq!(place.listing(), ["f"]);
}

#[test]
fn room_is_set_aside_ahead_of_the_bytes_and_given_back_when_the_connection_ends() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let proxy = slow(&receiver);
    let file = place.file("f", &random(40 * B, 19));
    let mut sender = Running::start(wsferry().arg("send").arg(&file).arg(proxy.url()).arg("--json"));
    let partial = || {
        let entries = std::fs::read_dir(place.inbox().join(".wsferry")).unwrap();
        let mut entries = entries.map(|entry| entry.unwrap());
        let part = entries.find(|entry| entry.path().extension().is_some_and(|ending| ending == "part"));
        part.unwrap().metadata().unwrap()
    };
    // Bytes on the disk behind the file's end; a file system that lays out by larger pieces has a few of its own.
    let ahead = || partial().blocks() * 512 > partial().len() + (1 << 20);
    let moved = |event: &serde_json::Value| event["acknowledged"].as_u64() > Some(10_000_000);
    let probe = std::fs::File::create(place.path("probe")).unwrap();
    let has_room = rustix::fs::major(probe.metadata().unwrap().dev()) != 0
        && rustix::fs::fallocate(&probe, rustix::fs::FallocateFlags::KEEP_SIZE, 0, 1 << 20).is_ok();
    sender.wait_for(|event| moved(event) && (ahead() || !has_room));
    sender.kill();
    receiver.running.wait_for(|event| event["event"] == "failed");
    assert!(partial().len() > 10_000_000 && !ahead(), "{:?}", partial());
}

/// A receiver that is killed in the middle of a file, whose sender does not wait for it: the file, and its bytes.
fn killed_receiver(place: &Place) -> (PathBuf, Vec<u8>) {
    let mut receiver = Receiver::start(place, &[]);
    let proxy = slow(&receiver);
    let bytes = random(40 * B + 5, 2);
    let file = place.file("f", &bytes);
    let sender = send_until(place, "f", &proxy.url(), 20_000_000);
    receiver.running.kill();
    sender.end().assert_error(3, &["same command", "resume"]);
    (file, bytes)
}

#[test]
fn a_killed_receiver_resumes_where_it_was() {
    let place = Place::new();
    let (file, bytes) = killed_receiver(&place);
    let receiver = Receiver::start(&place, &[]);
    let finished = send_well(&file, &receiver.url, &[]);
    // What was written and not yet in the journal was hashed and kept: less than a block is sent again.
    assert!(finished["resumed_at"].as_u64().unwrap() > 12_000_000, "{finished}");
    assert!(finished["resent_bytes"].as_u64().unwrap() <= B as u64, "{finished}");
    assert!(place.received("f") == bytes);
    assert_eq!(place.listing(), ["f"]);
}

#[test]
fn what_a_killed_receiver_was_just_putting_in_order_is_not_left_behind() {
    let place = Place::new();
    let (file, bytes) = killed_receiver(&place);
    // As if that had been in the middle of a renewal.
    let shelf = place.inbox().join(".wsferry");
    let entries = std::fs::read_dir(&shelf).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for name in names.collect::<Vec<_>>() {
        std::fs::write(shelf.join(format!("{name}-new")), b"half").unwrap();
        if name.ends_with(".part") {
            std::fs::hard_link(shelf.join(&name), shelf.join(format!("{name}-whole"))).unwrap();
        }
    }
    let receiver = Receiver::start(&place, &[]);
    send_well(&file, &receiver.url, &[]);
    assert!(place.received("f") == bytes);
    assert_eq!(place.listing(), ["f"]);
}

#[test]
fn a_receiver_that_is_killed_just_before_the_final_name_is_resumed_although_the_file_is_read_only_by_then() {
    let place = Place::new();
    let (file, bytes) = killed_receiver(&place);
    let shelf = place.inbox().join(".wsferry");
    let mut entries = std::fs::read_dir(&shelf).unwrap().map(|entry| entry.unwrap().path());
    let part = entries.find(|path| path.extension().is_some_and(|ending| ending == "part")).unwrap();
    std::fs::set_permissions(&part, Permissions::from_mode(0o444)).unwrap();
    let receiver = Receiver::start(&place, &[]);
    let finished = send_well(&file, &receiver.url, &[]);
    assert!(finished["resumed_at"].as_u64().unwrap() > 12_000_000, "{finished}");
    assert!(place.received("f") == bytes);
    assert_eq!(place.listing(), ["f"]);
}

#[test]
fn a_stopped_receiver_says_what_can_be_resumed_and_the_sender_how() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let quiet = Receiver::start(&place, &[]);
    let proxy = slow(&receiver);
    let bytes = random(40 * B, 3);
    let file = place.file("f", &bytes);
    let sender = send_until(&place, "f", &proxy.url(), 10_000_000);
    receiver.running.signal("-INT");
    let ended = receiver.running.end();
    assert_eq!(ended.code(), 130, "{ended:?}");
    sender.end().assert_error(3, &["stop", "same command"]);

    // A human is told by name.
    let mut command = wsferry();
    let human = Running::start(command.arg("receive").arg(place.inbox()).args(["--listen", "127.0.0.1:0"]));
    assert!(human.line().starts_with("listening on ws://127.0.0.1:"));
    human.signal("-TERM");
    let ended = human.end();
    assert_eq!(ended.code(), 3, "{ended:?}");
    assert!(ended.errors.contains("can be resumed: f, "), "{ended:?}");

    let finished = send_well(&file, &quiet.url, &[]);
    assert!(finished["resumed_at"].as_u64() > Some(5_000_000), "{finished}");
    assert!(place.received("f") == bytes);
}

#[test]
fn ctrl_c_on_the_sender_exits_130_and_says_how_to_resume_and_the_receiver_says_who_stopped() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let proxy = slow(&receiver);
    place.file("f", &random(40 * B, 4));
    let sender = send_until(&place, "f", &proxy.url(), 10_000_000);
    sender.signal("-INT");
    sender.end().assert_error(130, &["same command", "resume"]);
    let failed = receiver.running.wait_for(|event| event["event"] == "failed");
    assert_eq!((&failed["name"], &failed["exit_code"]), (&json!("f"), &json!(3)), "{failed}");
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.ends_with(" ended the transfer: stopped"), "{failed}");
}

#[test]
fn a_connection_cut_anywhere_resumes_at_another_chunk_size() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(6 * B + 7, 5);
    // In the handshake, in the offer, in the first chunk, in mid-file, in the last bytes.
    for (number, cut) in [100u64, 400, 5000, 9_000_000, 20_000_000, 25_100_000].into_iter().enumerate() {
        let name = format!("f{number}");
        let file = place.file(&name, &bytes);
        let proxy = Proxy::start(receiver.address(), move |_| {
            (Plan { cut_after: Some(cut), ..Plan::default() }, Plan::default())
        });
        let first = send(&file, &proxy.url(), &["--retry-for", "0s"]);
        assert!(matches!(first.code(), 1 | 3), "cut at {cut}: {first:?}");
        let finished = send_well(&file, &receiver.url, &["--frame-limit", "32KiB"]);
        assert_eq!(finished["resumed_at"].as_u64().unwrap() % 3, 0);
        if cut > 9_000_000 {
            assert!(finished["resumed_at"].as_u64().unwrap() > 0);
        }
        assert!(place.received(&name) == bytes, "cut at {cut}");
    }
    assert!(!place.listing().contains(&".wsferry".to_owned()));
}

#[test]
fn a_receipt_that_was_lost_costs_nothing() {
    let place = Place::new();
    let bytes = random(2 * B, 6);
    for flags in [&[][..], &["--overwrite"]] {
        let receiver = Receiver::start(&place, flags);
        let name = format!("f{}", flags.len());
        let file = place.file(&name, &bytes);
        // The way back is cut as soon as the receipt might come: every such point until it succeeds.
        let proxy = Proxy::start(receiver.address(), |_| {
            (Plan::default(), Plan { stall_after: Some(700), ..Plan::default() })
        });
        let impatient = ["--json", "--stall-timeout", "2s"];
        let sender = Running::start(wsferry().arg("send").arg(&file).arg(proxy.url()).args(impatient));
        receiver.running.wait_for(|event| event["event"] == "finished");
        drop(sender);
        let finished = send_well(&file, &receiver.url, &[]);
        assert_eq!((&finished["already_there"], &finished["new_bytes"]), (&true.into(), &0.into()));
    }
}

#[test]
fn a_receipt_that_comes_together_with_the_end_of_the_connection_counts() {
    let place = Place::new();
    let bytes = random(1000, 12);
    let file = place.file("f", &bytes);
    for _ in 0..20 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let sender = Running::start(wsferry().arg("send").arg(&file).arg(url).arg("--json"));
        let mut peer = Peer::receive(&listener, &json!({"frame_limit": 32_768, "window": 1_000_000}));
        let digest = peer.hear_type("offer")["digest"].clone();
        peer.tell(&json!({"type": "accept", "transfer": 0}));
        peer.hear().expect("the chunk");
        peer.tell(&json!({"type": "ack", "sequence": 1}));
        // No goodbye, and the sender's own is never read.
        peer.tell(&json!({"type": "receipt", "files": [[0, digest]]}));
        drop(peer);
        let ended = sender.end();
        assert_eq!(ended.code(), 0, "{ended:?}");
        ended.event("finished");
    }
}

#[test]
fn a_source_that_grew_keeps_the_blocks_that_did_not_change() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let mut bytes = random(10 * B, 7);
    let file = place.file("f", &bytes);
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { cut_after: Some(30_000_000), ..Plan::default() }, Plan::default())
    });
    assert_eq!(send(&file, &proxy.url(), &["--retry-for", "0s"]).code(), 3);
    // Longer by a block and a bit, and one byte of an early block is another.
    bytes.extend(random(B + 11, 8));
    bytes[B + 3] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let finished = send_well(&file, &receiver.url, &[]);
    assert!(finished["resumed_at"].as_u64() >= Some(6 * B as u64), "{finished}");
    assert_eq!(finished["repaired_blocks"], 1);
    assert!(place.received("f") == bytes);
}

#[test]
fn a_damaged_journal_costs_blocks_and_never_the_file() {
    let bytes = random(6 * B + 9, 9);
    for damage in 0..6 {
        let place = Place::new();
        let receiver = Receiver::start(&place, &[]);
        let file = place.file("f", &bytes);
        let proxy = Proxy::start(receiver.address(), |_| {
            (Plan { cut_after: Some(17_000_000), ..Plan::default() }, Plan::default())
        });
        assert_eq!(send(&file, &proxy.url(), &["--retry-for", "0s"]).code(), 3);
        // The receiver notices the cut, syncs, and lets go of the journal.
        receiver.running.wait_for(|event| event["event"] == "failed");
        let entries: Vec<_> =
            std::fs::read_dir(place.inbox().join(".wsferry")).unwrap().map(|e| e.unwrap().path()).collect();
        let find = |ending: &str| {
            entries.iter().find(|path| path.to_string_lossy().ends_with(ending)).unwrap().clone()
        };
        let (journal, part) = (find(".journal"), find(".part"));
        let mut text = std::fs::read(&journal).unwrap();
        match damage {
            0 => text.truncate(1000),
            1 => text.truncate(1024 + 150),
            2 => text[30] ^= 1,
            3 => text[1024 + 40] ^= 1,
            4 => text.clear(),
            // The partial file lost its end, as after a loss of power.
            _ => std::fs::File::options().write(true).open(&part).unwrap().set_len(4 << 20).unwrap(),
        }
        std::fs::write(&journal, text).unwrap();
        send_well(&file, &receiver.url, &[]);
        assert!(place.received("f") == bytes, "damage {damage}");
        assert_eq!(place.listing(), ["f"]);
    }
}

#[test]
fn two_senders_of_one_name_the_second_is_refused_and_the_first_unharmed() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { rate: Some(12_000_000), ..Plan::default() }, Plan::default())
    });
    let bytes = random(20 * B, 10);
    place.file("f", &bytes);
    let first = send_until(&place, "f", &proxy.url(), 1_000_000);
    send(&place.path("f"), &receiver.url, &[]).assert_error(4, &["another transfer is writing f"]);
    assert_eq!(first.end().code(), 0);
    assert!(place.received("f") == bytes);
}

#[test]
fn a_sender_reconnects_by_itself_through_cuts_stalls_and_a_receiver_that_restarts() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, &[]);
    let address = receiver.address();
    // Connections that end early, each in another way, then as many good ones as it takes.
    let proxy = Proxy::start(address, |number| {
        let there = match number {
            0 | 2 | 4 => Plan { cut_after: Some(9_000_000), ..Plan::default() },
            1 => Plan { cut_after: Some(50), ..Plan::default() },
            3 => Plan { half_close_after: Some(9_000_000), ..Plan::default() },
            _ => Plan { rate: Some(60_000_000), ..Plan::default() },
        };
        (there, Plan::default())
    });
    let bytes = random(30 * B + 77, 11);
    let file = place.file("f", &bytes);
    let sender = Running::start(wsferry().arg("send").arg(&file).arg(proxy.url()).arg("--json"));
    sender
        .wait_for(|event| event["event"] == "progress" && event["acknowledged"].as_u64() > Some(40_000_000));
    receiver.running.kill();
    sender.wait_for(|event| event["event"] == "reconnecting" && event["attempt"].as_u64() > Some(1));
    let _receiver = Receiver::start_on(&place, &address.to_string(), &[]);
    let ended = sender.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let finished = ended.event("finished");
    assert_eq!(finished["resumed_at"], 0, "the first connection found nothing: {finished}");
    assert!(finished["resent_bytes"].as_u64() < Some(6 * ((16 << 20) + B as u64)), "{finished}");
    assert!(place.received("f") == bytes);
    assert_eq!(place.listing(), ["f"]);
}

#[test]
fn a_receiver_that_stays_away_is_given_up_with_exit_code_3() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, &[]);
    let proxy = slow(&receiver);
    let file = place.file("f", &random(40 * B, 12));
    let mut command = wsferry();
    let sender =
        Running::start(command.arg("send").arg(&file).arg(proxy.url()).args(["--json", "--retry-for", "1s"]));
    sender.wait_for(|event| event["event"] == "progress");
    receiver.running.kill();
    sender.end().assert_error(3, &["gave up after", "attempts to reconnect", "same command"]);
}

#[test]
fn a_second_sender_can_wait_for_the_name() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { rate: Some(12_000_000), ..Plan::default() }, Plan::default())
    });
    let bytes = random(20 * B, 13);
    let file = place.file("f", &bytes);
    let first = send_until(&place, "f", &proxy.url(), 1_000_000);
    let finished = send_well(&file, &receiver.url, &["--wait"]);
    assert_eq!(finished["already_there"], true, "the first one's file is the same: {finished}");
    assert_eq!(first.end().code(), 0);
}

#[test]
fn a_sender_that_waits_for_a_name_asks_again_also_when_the_connection_did_not_last() {
    let place = Place::new();
    let file = place.file("f", &random(1000, 13));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let sender = Running::start(wsferry().arg("send").arg(&file).arg(url).args(["--json", "--wait"]));
    for _ in 0..3 {
        let mut peer = Peer::receive(&listener, &json!({}));
        peer.hear_type("offer");
        peer.tell(&json!({"type": "reject", "transfer": 0, "code": "busy", "reason": "not yet"}));
        drop(peer);
        sender.wait_for(|event| event["event"] == "reconnecting");
    }
    Peer::receive(&listener, &json!({})).hear_type("offer");
}

#[test]
fn a_name_that_is_busy_is_refused_also_after_another_file_went_well() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    place.file("busy", &random(20 * B, 14));
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { rate: Some(12_000_000), ..Plan::default() }, Plan::default())
    });
    let first = send_until(&place, "busy", &proxy.url(), 1_000_000);
    let good = place.file("good", b"good");
    let mut command = wsferry();
    command.arg("send").arg(good).arg(place.path("busy")).args([&receiver.url, "--json"]);
    Running::start(&mut command).end().assert_error(4, &["another transfer is writing busy"]);
    drop(first);
}

#[test]
fn a_repair_sends_only_the_blocks_that_differ() {
    let place = Place::new();
    let bytes = random(20 * B + 500, 14);
    let file = place.file("f", &bytes);
    std::fs::set_permissions(&file, Permissions::from_mode(0o750)).unwrap();
    for damaged in [1, 3, 10] {
        std::fs::create_dir_all(place.inbox()).unwrap();
        let mut old = bytes.clone();
        for number in 0..damaged {
            old[number * 2 * B + 12_345] ^= 0x20;
        }
        std::fs::write(place.inbox().join("f"), &old).unwrap();
        let receiver = Receiver::start(&place, &["--overwrite"]);
        let finished = send_well(&file, &receiver.url, &["--repair"]);
        assert_eq!(finished["repaired_blocks"], damaged, "{finished}");
        assert_eq!(finished["resent_bytes"], damaged * B, "{finished}");
        assert!(place.received("f") == bytes);
        assert_eq!(place.listing(), ["f"]);
        let mode = std::fs::metadata(place.inbox().join("f")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o750, "the source's, not those of the file that was there");
        std::fs::remove_file(place.inbox().join("f")).unwrap();
    }
    // Without --overwrite the old file stays.
    std::fs::write(place.inbox().join("f"), "old").unwrap();
    let receiver = Receiver::start(&place, &[]);
    send(&file, &receiver.url, &["--repair"]).assert_error(4, &["already there", "--overwrite"]);
    assert_eq!(place.received("f"), b"old");
}

#[test]
fn a_journal_of_a_newer_version_is_refused_and_kept() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let file = place.file("f", &random(6 * B, 15));
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { cut_after: Some(10_000_000), ..Plan::default() }, Plan::default())
    });
    assert_eq!(send(&file, &proxy.url(), &["--retry-for", "0s"]).code(), 3);
    receiver.running.wait_for(|event| event["event"] == "failed");
    let entries = std::fs::read_dir(place.inbox().join(".wsferry")).unwrap();
    let mut entries = entries.map(|entry| entry.unwrap().path());
    let journal = entries.find(|path| path.extension().is_some_and(|ending| ending == "journal")).unwrap();
    // The header's text with another version, and the CRC that belongs to it.
    let mut bytes = std::fs::read(&journal).unwrap();
    let text = String::from_utf8(bytes[..1015].to_vec()).unwrap();
    let newer = text.replace("{\"wsferry-journal\":1,", "{\"wsferry-journal\":7,");
    assert_ne!(text, newer);
    bytes[..1015].copy_from_slice(newer.as_bytes());
    bytes[1015..1024].copy_from_slice(format!("{:08x}\n", crc32fast::hash(newer.as_bytes())).as_bytes());
    std::fs::write(&journal, &bytes).unwrap();

    send(&file, &receiver.url, &[]).assert_error(4, &["newer wsferry", "journal version 7", "is kept"]);
    assert_eq!(std::fs::read(&journal).unwrap(), bytes);
}

#[test]
fn ctrl_c_works_at_once_during_a_backoff_and_during_a_stall() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, &[]);
    let file = place.file("f", &random(40 * B, 16));

    // The receiver is gone for good: the sender waits between two attempts.
    let proxy = slow(&receiver);
    let mut command = wsferry();
    let sender = Running::start(command.arg("send").arg(&file).arg(proxy.url()).arg("--json"));
    sender.wait_for(|event| event["event"] == "progress");
    receiver.running.kill();
    sender.wait_for(|event| event["event"] == "reconnecting" && event["attempt"].as_u64() > Some(4));
    let asked = std::time::Instant::now();
    sender.signal("-INT");
    sender.end().assert_error(130, &["same command"]);
    assert!(asked.elapsed() < std::time::Duration::from_secs(5), "the backoff's end was waited for");

    // Nothing moves any more, and nothing is closed.
    let receiver = Receiver::start(&place, &[]);
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { stall_after: Some(20_000_000), ..Plan::default() }, Plan::default())
    });
    let mut command = wsferry();
    let sender = Running::start(command.arg("send").arg(&file).arg(proxy.url()).arg("--json"));
    sender
        .wait_for(|event| event["event"] == "progress" && event["acknowledged"].as_u64() > Some(10_000_000));
    let asked = std::time::Instant::now();
    sender.signal("-INT");
    sender.end().assert_error(130, &["same command"]);
    assert!(asked.elapsed() < std::time::Duration::from_secs(5), "the stall's end was waited for");
}

/// Sends `size` bytes through a path that kills the sender, then the receiver, then the sender again, each after a
/// random number of bytes.
#[test]
#[ignore = "writes 2 GiB"]
fn kill_nine_of_either_side_at_random_moments_of_1_gib_costs_less_than_was_not_durable() {
    use std::sync::{Arc, Mutex};

    let size = 1 << 30;
    let place = Place::new();
    let bytes = random(size, 17);
    let file = place.file("f", &bytes);
    let mut rng = fastrand::Rng::with_seed(18);
    let mut receiver = Receiver::start(&place, &[]);
    for round in 0..6 {
        let pid = Arc::new(Mutex::new(receiver.running.pid()));
        let (at, victim) = (rng.u64(1_000_000..size as u64 / 8), pid.clone());
        let kill: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            let pid = victim.lock().unwrap().to_string();
            std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
        });
        let proxy = Proxy::start(receiver.address(), move |_| {
            (Plan { pause: Some((at, kill.clone())), ..Plan::default() }, Plan::default())
        });
        let sender = Running::start(wsferry().arg("send").arg(&file).arg(proxy.url()).args([
            "--json",
            "--retry-for",
            "0s",
        ]));
        if round % 2 == 0 {
            *pid.lock().unwrap() = sender.pid();
        }
        let ended = sender.end();
        assert_ne!(ended.code(), 0, "round {round}: {ended:?}");
        if round % 2 == 1 {
            receiver = Receiver::start(&place, &[]);
        }
    }
    let finished = send_well(&file, &receiver.url, &[]);
    println!(
        "resumed at {}, {} bytes re-sent in the last run",
        finished["resumed_at"], finished["resent_bytes"]
    );
    assert!(finished["resent_bytes"].as_u64() <= Some((16 << 20) + B as u64), "{finished}");
    assert!(place.received("f") == bytes);
    assert_eq!(place.listing(), ["f"]);
}

#[test]
fn a_connection_that_is_cut_between_two_files_is_made_again() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let files = [("a", 1_000_000), ("b", 2_000_000)].map(|(name, size)| place.file(name, &random(size, 19)));
    // The way back ends behind the first file's receipt: the second file's offer finds nobody.
    let proxy = Proxy::start(receiver.address(), |number| match number {
        0 => (Plan { cut_after: Some(1_337_000), ..Plan::default() }, Plan::default()),
        _ => (Plan::default(), Plan::default()),
    });
    let ended = Running::start(wsferry().arg("send").args(&files).arg(proxy.url()).arg("--json")).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(place.received("a") == random(1_000_000, 19) && place.received("b") == random(2_000_000, 19));
}

#[test]
fn a_partial_file_of_a_source_that_shrank_is_used_as_far_as_it_goes() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(10 * B, 20);
    let file = place.file("f", &bytes);
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { cut_after: Some(30_000_000), ..Plan::default() }, Plan::default())
    });
    assert_eq!(send(&file, &proxy.url(), &["--retry-for", "0s"]).code(), 3);
    std::fs::write(&file, &bytes[..2 * B + 5]).unwrap();
    let finished = send_well(&file, &receiver.url, &[]);
    assert!(finished["resumed_at"].as_u64() >= Some(2 * B as u64), "{finished}");
    assert!(place.received("f") == bytes[..2 * B + 5]);
}

#[test]
fn a_path_too_slow_for_a_chunk_within_the_stall_timeout_gets_smaller_ones() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--stall-timeout", "1s"]);
    let bytes = random(2_000_000, 20);
    let file = place.file("f", &bytes);
    // A frame of 2 MB takes four seconds.
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { rate: Some(500_000), ..Plan::default() }, Plan::default())
    });
    let flags = ["--chunk-size", "1500KB", "--window", "1B", "--stall-timeout", "1s", "--retry-for", "20s"];
    let finished = send_well(&file, &proxy.url(), &flags);
    // They are small enough before the first one stalls.
    assert_eq!(finished["resent_bytes"], 0, "{finished}");
    assert!(place.received("f") == bytes);
}

#[test]
fn a_finished_file_that_still_has_its_partial_name_is_not_written_to() {
    let place = Place::new();
    let (old, new) = (random(B, 21), random(B + 1000, 22));
    let file = place.file("f", &new);
    // What is left if the machine stops while a file gets its final name where it takes a link to do so.
    let leave = || {
        let part = format!(".wsferry/{}.part", &blake3::hash(b"f").to_hex()[..32]);
        std::fs::create_dir_all(place.inbox().join(".wsferry")).unwrap();
        std::fs::write(place.inbox().join("f"), &old).unwrap();
        std::fs::hard_link(place.inbox().join("f"), place.inbox().join(part)).unwrap();
    };
    leave();
    let receiver = Receiver::start(&place, &["--overwrite"]);
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { cut_after: Some(2_000_000), ..Plan::default() }, Plan::default())
    });
    assert_eq!(send(&file, &proxy.url(), &["--retry-for", "0s", "--chunk-size", "48KiB"]).code(), 3);
    assert!(place.received("f") == old);
    send_well(&file, &receiver.url, &[]);
    assert!(place.received("f") == new);
}

#[test]
fn a_receiver_that_hangs_for_a_while_does_not_make_chunks_smaller() {
    let place = Place::new();
    let file = place.file("f", &random(4_000_000, 30));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let flags = ["--json", "--chunk-size", "192KiB", "--stall-timeout", "3s"];
    let _sender = Running::start(wsferry().arg("send").arg(&file).arg(url).args(flags));
    let accept = |peer: &mut Peer| {
        peer.hear_type("offer");
        peer.tell(&json!({"type": "accept", "transfer": 0}));
        std::iter::from_fn(|| peer.hear()).find(|frame| frame.starts_with('C')).expect("chunks flow").len()
    };
    let answer = || Peer::receive(&listener, &json!({"window": 1 << 20}));
    let mut peer = answer();
    let before = accept(&mut peer);
    peer.tell(&json!({"type": "ack", "sequence": 1}));
    drop(peer);
    // It takes connections, and no offer.
    for _ in 0..2 {
        let mut peer = answer();
        while peer.hear().is_some() {}
    }
    let mut peer = answer();
    assert!(accept(&mut peer) >= before);
}
