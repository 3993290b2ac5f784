//! What a receiver holds that is not as it was left: of another version of the source, damaged, or somebody else's.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::B;
use crate::proxy::{Plan, Proxy};
use crate::support::{Place, Receiver, random, send, send_well};

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
