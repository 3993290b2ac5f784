//! Either side is killed or stopped in the middle of a file, and what it left behind is gone on with.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use serde_json::json;

use super::{B, send_until, slow};
use crate::proxy::{Plan, Proxy};
use crate::support::{Place, Receiver, Running, random, send_well, wsferry};

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
