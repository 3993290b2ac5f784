//! Whole transfers between the real program's two sides, over real sockets, with real files.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::proxy::{Plan, Proxy};
use crate::support::{Peer, Place, Receiver, Running, message, random, send, send_well, wsferry};

const B: usize = 3 << 20;

#[test]
fn files_at_every_edge_arrive_identical_with_digest_time_and_mode() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let chunk = 192 << 10;
    let sizes = [0, 1, 2, 3, chunk - 1, chunk, chunk + 1, B - 1, B, B + 1, 100_000_000];
    for size in sizes {
        let bytes = random(size, size as u64);
        let name = format!("{size}.bin");
        let file = place.file(&name, &bytes);
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000 + size as u64, 123_456_789);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();

        let flags: &[&str] = if size <= B { &["--chunk-size", "192KiB"] } else { &[] };
        let finished = send_well(&file, &receiver.url, flags);
        assert_eq!(finished["blake3"], blake3::hash(&bytes).to_string(), "{size} bytes");
        assert_eq!((&finished["size"], &finished["resent_bytes"]), (&size.into(), &0.into()));
        assert!(place.received(&name) == bytes, "{size} bytes");
        let metadata = std::fs::metadata(place.inbox().join(&name)).unwrap();
        assert_eq!(metadata.modified().unwrap(), time);
        assert_eq!(metadata.mode() & 0o777, 0o640);
    }
    assert_eq!(place.listing().len(), sizes.len(), "no litter: {:?}", place.listing());
}

#[test]
fn several_files_go_over_one_connection() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--once"]);
    let files = [("a", 5), ("b", 4_000_000), ("c", 0)].map(|(name, size)| place.file(name, &random(size, 1)));
    let mut command = wsferry();
    let ended = Running::start(command.arg("send").args(&files).arg(&receiver.url)).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(ended.lines.len(), 4, "{ended:?}");
    assert!(ended.lines[3].starts_with("3 of 3 files sent"), "{ended:?}");
    // One connection: `--once` would have ended after the first otherwise.
    assert_eq!(receiver.running.end().code(), 0);
    assert_eq!(place.listing(), ["a", "b", "c"]);
}

#[test]
fn a_file_that_is_there_with_other_content_does_not_keep_the_others() {
    let place = Place::new();
    let files: Vec<_> = (0..3u64).map(|n| place.file(&format!("f{n}"), &random(50_000, n))).collect();
    std::fs::create_dir_all(place.inbox()).unwrap();
    // Of the same size, so that it takes a comparison to know.
    std::fs::write(place.inbox().join("f1"), random(50_000, 9)).unwrap();
    let receiver = Receiver::start(&place, &["--once"]);
    let ended = Running::start(wsferry().arg("send").args(&files).arg(&receiver.url).arg("--json")).end();
    assert_eq!(ended.code(), 4, "{ended:?}");
    assert_eq!(ended.event("failed")["name"], "f1");
    assert_eq!(ended.events("finished").len(), 2);
    assert_eq!(receiver.running.end().code(), 4);
    assert!(place.received("f0") == random(50_000, 0) && place.received("f2") == random(50_000, 2));
    assert!(place.received("f1") == random(50_000, 9));
}

#[test]
fn many_senders_are_served_at_once() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let senders: Vec<_> = (0..12)
        .map(|number| {
            let file = place.file(&format!("{number}.bin"), &random(2_000_000 + number, number as u64));
            Running::start(wsferry().arg("send").arg(file).arg(&receiver.url))
        })
        .collect();
    for (number, sender) in senders.into_iter().enumerate() {
        let ended = sender.end();
        assert_eq!(ended.code(), 0, "{ended:?}");
        assert!(place.received(&format!("{number}.bin")) == random(2_000_000 + number, number as u64));
    }
}

#[test]
fn a_small_frame_limit_and_odd_chunk_sizes_change_nothing_but_the_frames() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(5_000_000, 2);
    let flags: [&[&str]; 5] = [
        &["--frame-limit", "32KiB"],
        &["--frame-limit", "2048"],
        &["--chunk-size", "1MB"],
        &["--chunk-size", "3MiB", "--window", "1"],
        &["--chunk-size", "3000B", "--window", "64KiB"],
    ];
    for (number, flags) in flags.into_iter().enumerate() {
        let file = place.file(&format!("{number}"), &bytes);
        send_well(&file, &receiver.url, flags);
        assert!(place.received(&format!("{number}")) == bytes, "{flags:?}");
    }
    let ended = Running::start(
        wsferry()
            .arg("send")
            .arg(place.file("x", &bytes))
            .arg(&receiver.url)
            .args(["--chunk-size", "256KiB"]),
    )
    .end();
    assert!(ended.errors.contains("262144 lowered to 262143, a multiple of 3"), "{ended:?}");
}

#[test]
fn an_existing_file_is_kept_unless_overwrite_is_allowed() {
    let place = Place::new();
    let file = place.file("f", &random(1000, 3));
    std::fs::create_dir(place.inbox()).unwrap();
    std::fs::write(place.inbox().join("f"), "precious").unwrap();

    let receiver = Receiver::start(&place, &["--once"]);
    send(&file, &receiver.url, &[]).assert_error(4, &["f", "already there", "--overwrite"]);
    let ended = receiver.running.end();
    ended.assert_error(4, &["already there"]);
    assert_eq!(ended.event("failed")["name"], "f");
    assert_eq!(place.received("f"), b"precious");

    let receiver = Receiver::start(&place, &["--overwrite"]);
    send_well(&file, &receiver.url, &[]);
    assert!(place.received("f") == random(1000, 3));
    assert_eq!(place.listing(), ["f"]);
}

#[test]
fn a_file_that_may_be_replaced_is_compared_too_and_sent_if_it_differs() {
    let place = Place::new();
    let bytes = random(7_000_000, 6);
    let file = place.file("f", &bytes);
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    let put = |bytes: &[u8]| {
        std::fs::create_dir_all(place.inbox()).unwrap();
        let mut there = std::fs::File::create(place.inbox().join("f")).unwrap();
        there.write_all(bytes).unwrap();
        there.set_modified(time).unwrap();
    };
    put(&bytes);
    let receiver = Receiver::start(&place, &["--overwrite"]);
    let same = send_well(&file, &receiver.url, &[]);
    assert_eq!((&same["already_there"], &same["new_bytes"]), (&true.into(), &0.into()));

    // Same name, size and time, another content.
    put(&random(7_000_000, 7));
    let other = send_well(&file, &receiver.url, &[]);
    assert_eq!(
        (&other["already_there"], &other["new_bytes"]),
        (&false.into(), &bytes.len().into()),
        "{other}"
    );
    assert_eq!(other["resumed_at"], 0, "{other}");
    assert!(place.received("f") == bytes);
    assert_eq!(place.listing(), ["f"]);
    let same = send_well(&file, &receiver.url, &[]);
    assert_eq!(same["already_there"], true);
}

#[test]
fn a_file_that_is_there_already_is_compared_and_not_sent_again() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let file = place.file("f", &random(7_000_000, 4));
    send_well(&file, &receiver.url, &[]);
    let again = send_well(&file, &receiver.url, &[]);
    assert_eq!((&again["already_there"], &again["new_bytes"]), (&true.into(), &0.into()));

    // Same name, size and time, another content: content decides.
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    let other = place.file("f", &random(7_000_000, 5));
    std::fs::File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
    send(&other, &receiver.url, &[]).assert_error(4, &["already there"]);
    assert!(place.received("f") == random(7_000_000, 4));
}

#[test]
fn the_wire_carries_the_files_base64_in_order() {
    // A receiver of the test's own, which takes everything and keeps the bodies.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let place = Place::new();
    let bytes = random(4_000_001, 6);
    let sender = Running::start(wsferry().arg("send").arg(place.file("f", &bytes)).arg(&url));
    let mut peer = Peer::receive(&listener, &json!({"frame_limit": 70_000, "window": 500_000}));
    let (mut text, mut sequence) = (String::new(), 0);
    loop {
        let frame = peer.hear().unwrap();
        assert!(frame.len() <= 70_000, "{} characters", frame.len());
        if frame.starts_with('C') {
            text.push_str(&frame[48..]);
            sequence += 1;
            peer.tell(&json!({"type": "ack", "sequence": sequence}));
            continue;
        }
        let message = message(&frame).unwrap();
        match message["type"].as_str().unwrap() {
            "hello" => {}
            "offer" => peer.tell(&json!({"type": "accept", "transfer": 0})),
            "finish" => {
                peer.tell(&json!({"type": "receipt", "files": [[0, message["digest"]]]}));
                break;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(sender.end().code(), 0);
    assert!(text == STANDARD.encode(&bytes));
}

#[test]
fn a_path_that_passes_one_byte_at_a_time_passes_the_file() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let proxy = Proxy::start(receiver.address(), |_| {
        let bytewise = Plan { piece: Some((0, 1)), ..Plan::default() };
        (bytewise.clone(), bytewise)
    });
    let bytes = random(30_000, 7);
    send_well(&place.file("f", &bytes), &proxy.url(), &["--chunk-size", "3000B"]);
    assert!(place.received("f") == bytes);
}

#[test]
fn a_bit_that_flips_on_the_way_costs_one_chunk() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    // Past the handshake and the offer, inside a chunk's body.
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { flip_at: Some(700_000), ..Plan::default() }, Plan::default())
    });
    let bytes = random(2_000_000, 8);
    let finished = send_well(&place.file("f", &bytes), &proxy.url(), &["--chunk-size", "30000B"]);
    assert_eq!((&finished["damaged_chunks"], &finished["resent_bytes"]), (&1.into(), &30_000.into()));
    assert!(place.received("f") == bytes);
}

/// The peak resident memory of a process so far, in bytes; none once it has ended.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().unwrap() * 1024)
}

fn memory_stays_flat(sizes: &[u64]) {
    for &size in sizes {
        let place = Place::new();
        let path = place.path("f");
        let mut rng = fastrand::Rng::with_seed(size);
        let mut file = std::fs::File::create(&path).unwrap();
        let mut bytes = vec![0; 1 << 20];
        for _ in 0..size >> 20 {
            rng.fill(&mut bytes);
            std::io::Write::write_all(&mut file, &bytes).unwrap();
        }
        drop(file);
        let receiver = Receiver::start(&place, &[]);
        let sender = Running::start(wsferry().arg("send").arg(&path).arg(&receiver.url).arg("--json"));
        sender.wait_for(|event| event["event"] == "finished");
        let receiver_peak = peak_memory(receiver.running.pid()).expect("it runs on");
        // The sender may be gone by now; what it had at its end is what its parent is told.
        let sender_peak = peak_memory(sender.pid());
        assert_eq!(sender.end().code(), 0);
        println!("{size} bytes: sender {sender_peak:?}, receiver {receiver_peak} bytes at peak");
        assert!(receiver_peak < 48 << 20);
        assert!(sender_peak.is_none_or(|peak| peak < 48 << 20));
        let same =
            std::process::Command::new("cmp").arg(&path).arg(place.inbox().join("f")).status().unwrap();
        assert!(same.success());
    }
}

#[test]
fn memory_stays_flat_from_1_mib_to_256_mib() {
    memory_stays_flat(&[1 << 20, 256 << 20]);
}

#[test]
#[ignore = "writes 8 GiB"]
fn memory_stays_flat_at_4_gib() {
    memory_stays_flat(&[4 << 30]);
}

#[test]
fn content_and_not_time_tells_whether_a_file_is_there_already() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(4_000_000, 9);
    let file = place.file("f", &bytes);
    std::fs::create_dir_all(place.inbox()).unwrap();
    std::fs::write(place.inbox().join("f"), &bytes).unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(send_well(&file, &receiver.url, &[])["already_there"], true);
    std::fs::write(place.inbox().join("f"), random(4_000_000, 10)).unwrap();
    send(&file, &receiver.url, &[]).assert_error(4, &["different file named f"]);
    assert!(place.received("f") == random(4_000_000, 10));
}

#[test]
fn quick_trusts_size_and_time_and_says_so() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    for size in [1000, 4_000_000] {
        let file = place.file("f", &random(size, 61));
        send_well(&file, &receiver.url, &[]);
        // Another content of the same size and time.
        let there = place.inbox().join("f");
        let time = std::fs::metadata(&there).unwrap().modified().unwrap();
        let other = random(size, 62);
        std::fs::write(&there, &other).unwrap();
        std::fs::File::options().write(true).open(&there).unwrap().set_modified(time).unwrap();
        let finished = send_well(&file, &receiver.url, &["--quick"]);
        assert_eq!((&finished["already_there"], &finished["blake3"]), (&true.into(), &Value::Null));
        assert!(place.received("f") == other, "it was not looked at");
        send(&file, &receiver.url, &[]).assert_error(4, &["a different file named f is already there"]);
        // Of another time, or not there, it is sent as ever.
        std::fs::remove_file(&there).unwrap();
        let finished = send_well(&file, &receiver.url, &["--quick"]);
        assert_eq!((&finished["already_there"], &finished["new_bytes"]), (&false.into(), &size.into()));
        std::fs::remove_file(&there).unwrap();
    }
}
