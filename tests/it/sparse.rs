//! Files with holes, over the real path: the holes neither cross nor take room, whatever cuts the transfer.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::filesystems::{Mounted, run};
use crate::proxy::{Plan, Proxy};
use crate::support::{Place, Receiver, random, send, send_well};

const B: u64 = 3 << 20;
const BLOCKS: u64 = 40;
/// Every fifth block has bytes, and so has the end.
const DATA: u64 = 8 * B + 5;

/// A file with holes; `None` where there are none.
fn sparse(place: &Place, name: &str) -> Option<PathBuf> {
    let path = place.path(name);
    let file = File::create(&path).unwrap();
    file.set_len(BLOCKS * B + 5).unwrap();
    for block in (1..BLOCKS).step_by(5) {
        file.write_all_at(&random(B as usize, block), block * B).unwrap();
    }
    file.write_all_at(b"last!", BLOCKS * B).unwrap();
    file.sync_all().unwrap();
    let has_holes = allocated(&path) < DATA + B;
    if !has_holes {
        println!("lacking: holes, where temporary files are");
    }
    has_holes.then_some(path)
}

fn allocated(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().blocks() * 512
}

/// It is that file, and its holes are holes.
fn assert_received(place: &Place, name: &str, source: &Path) {
    assert!(place.received(name) == std::fs::read(source).unwrap(), "{name}");
    let room = allocated(&place.inbox().join(name));
    // The last bytes have a few pages of their own.
    assert!(room <= DATA + B, "{room} bytes on the disk for {DATA}");
    assert_eq!(place.listing(), [name]);
}

#[test]
fn holes_neither_cross_nor_take_room() {
    let place = Place::new();
    let Some(file) = sparse(&place, "f") else { return };
    let receiver = Receiver::start(&place, &[]);
    let finished = send_well(&file, &receiver.url, &[]);
    let wire = finished["wire_bytes"].as_u64().unwrap();
    assert!((DATA * 4 / 3..DATA * 4 / 3 + 200_000).contains(&wire), "{wire} bytes crossed for {DATA}");
    assert_received(&place, "f", &file);
}

#[test]
fn holes_stay_holes_over_cuts_and_a_receiver_that_is_killed() {
    let place = Place::new();
    let Some(file) = sparse(&place, "f") else { return };
    let receiver = Receiver::start(&place, &[]);
    let cut = Proxy::start(receiver.address(), |_| {
        (Plan { cut_after: Some(10_000_000), ..Plan::default() }, Plan::default())
    });
    assert_eq!(send(&file, &cut.url(), &["--retry-for", "0s"]).code(), 3);
    receiver.running.wait_for(|event| event["event"] == "failed");
    // Another 10 MB, and the receiver dies with them.
    let pid = receiver.running.pid().to_string();
    let kill: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        let killed = Command::new("kill").args(["-9", &pid]).stderr(Stdio::null()).status().unwrap();
        assert!(killed.success());
    });
    let killing = Proxy::start(receiver.address(), move |_| {
        (Plan { pause: Some((10_000_000, kill.clone())), ..Plan::default() }, Plan::default())
    });
    assert_eq!(send(&file, &killing.url(), &["--retry-for", "0s"]).code(), 3);
    drop(receiver);
    let receiver = Receiver::start(&place, &[]);
    let finished = send_well(&file, &receiver.url, &[]);
    assert!(finished["resumed_at"].as_u64() > Some(4 * B), "{finished}");
    let wire = finished["wire_bytes"].as_u64().unwrap();
    assert!(wire < DATA * 4 / 3 - 10_000_000, "{wire} bytes crossed of what was left");
    assert_received(&place, "f", &file);
}

#[test]
fn holes_come_in_place_of_what_another_file_left_under_the_name() {
    let place = Place::new();
    let Some(file) = sparse(&place, "f") else { return };
    let receiver = Receiver::start(&place, &[]);
    let other = place.file("other", &random((BLOCKS * B + 5) as usize, 99));
    let cut = Proxy::start(receiver.address(), |_| {
        (Plan { cut_after: Some(80_000_000), ..Plan::default() }, Plan::default())
    });
    assert_eq!(send(&other, &cut.url(), &["--name", "f", "--retry-for", "0s"]).code(), 3);
    receiver.running.wait_for(|event| event["event"] == "failed");
    send_well(&file, &receiver.url, &[]);
    assert_received(&place, "f", &file);
}

#[test]
fn a_file_with_holes_fits_where_its_bytes_fit() {
    let place = Place::new();
    let Some(file) = sparse(&place, "f") else { return };
    std::fs::create_dir_all(place.inbox()).unwrap();
    // Room for its bytes and little more.
    let options = "size=30m,mode=700";
    let inbox = place.inbox();
    let mounted = run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", inbox.to_str().unwrap()]);
    let _mounted = match mounted {
        Ok(_) => Mounted(&place),
        Err(why) => return println!("lacking: a small file system: {why}"),
    };
    let receiver = Receiver::start(&place, &[]);
    let dense = place.file("dense", &random(40_000_000, 98));
    let refused = send(&dense, &receiver.url, &[]);
    refused.assert_error(4, &["dense", "free"]);
    assert!(refused.events("progress").is_empty(), "{refused:?}");
    send_well(&file, &receiver.url, &[]);
    assert_received(&place, "f", &file);
}
