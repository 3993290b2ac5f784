//! Real file systems, each made for the test: cut and killed, resumed, overwritten once more. They need root, loop
//! devices and the tools that make them; what is lacking is said, with the reason.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use wsferry::protocol::Kind;

use crate::link::File;
use crate::proxy::{Plan, Proxy};
use crate::support::{Place, Receiver, Running, random, send, send_well, wsferry};
use crate::trees;

const B: usize = 3 << 20;

/// A file system that is mounted as a place's inbox; it is unmounted when dropped.
pub struct Mounted<'a>(pub &'a Place);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", self.0.inbox().to_str().unwrap()]);
    }
}

/// Runs a tool, for what it says; or why not.
pub fn run(tool: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(tool).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{tool}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{tool}: {}", said.lines().next().unwrap_or_default()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Makes a file system in a file of that many MiB and mounts it.
fn image<'a>(
    place: &'a Place,
    mib: u64,
    make: &[&str],
    options: &str,
    kind: &str,
) -> Result<Mounted<'a>, String> {
    let image = place.path("image");
    std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
    std::fs::create_dir_all(place.inbox()).unwrap();
    let (image, inbox) = (image.to_str().unwrap(), place.inbox());
    run(make[0], &[&make[1..], &[image]].concat())?;
    run("mount", &["-t", kind, "-o", options, image, inbox.to_str().unwrap()])?;
    Ok(Mounted(place))
}

fn overlay(place: &Place) -> Result<Mounted<'_>, String> {
    for name in ["lower", "upper", "work", "inbox"] {
        std::fs::create_dir_all(place.path(name)).unwrap();
    }
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| place.path(name).display().to_string());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    run("mount", &["-t", "overlay", "-o", &options, "overlay", place.inbox().to_str().unwrap()])?;
    Ok(Mounted(place))
}

fn bindfs<'a>(place: &'a Place, flags: &[&str]) -> Result<Mounted<'a>, String> {
    for name in ["behind", "inbox"] {
        std::fs::create_dir_all(place.path(name)).unwrap();
    }
    let (behind, inbox) = (place.path("behind"), place.inbox());
    run("bindfs", &[flags, &[behind.to_str().unwrap(), inbox.to_str().unwrap()]].concat())?;
    Ok(Mounted(place))
}

/// exFAT by a loop device of our own: the driver is a program.
fn exfat<'a>(place: &'a Place, options: &str) -> Result<Mounted<'a>, String> {
    let image = place.path("image");
    std::fs::File::create(&image).unwrap().set_len(200 << 20).unwrap();
    std::fs::create_dir_all(place.inbox()).unwrap();
    run("mkfs.exfat", &[image.to_str().unwrap()])?;
    let device = run("losetup", &["-f", "--show", image.to_str().unwrap()])?;
    let mounted = run("mount.exfat-fuse", &["-o", options, &device, place.inbox().to_str().unwrap()]);
    // It stays as long as it is in use.
    run("losetup", &["-d", &device])?;
    mounted.map(|_| Mounted(place))
}

type Make = for<'a> fn(&'a Place) -> Result<Mounted<'a>, String>;

fn all() -> Vec<(&'static str, Make)> {
    vec![
        ("ext4 with times of a second", |place| {
            image(place, 200, &["mkfs.ext4", "-q", "-F", "-I", "128"], "loop", "ext4")
        }),
        ("xfs", |place| image(place, 400, &["mkfs.xfs", "-q"], "loop", "xfs")),
        ("btrfs", |place| image(place, 400, &["mkfs.btrfs", "-q"], "loop", "btrfs")),
        ("vfat", |place| image(place, 200, &["mkfs.vfat"], "loop,umask=077", "vfat")),
        ("exfat", |place| image(place, 200, &["mkfs.exfat"], "loop,umask=077", "exfat")),
        ("exfat by FUSE", |place| exfat(place, "umask=022")),
        ("overlay", overlay),
        ("bindfs", |place| bindfs(place, &[])),
        ("bindfs without permissions", |place| bindfs(place, &["--chmod-deny"])),
    ]
}

/// What is in the inbox, but for what the file system put there itself.
fn listing(place: &Place) -> Vec<String> {
    let names = place.listing().into_iter();
    names.filter(|name| name != "lost+found").collect()
}

/// Kills the receiver in mid-file, cuts the next connection, and sends to the end.
fn kill_cut_and_resume(place: &Place, file: &Path, bytes: &[u8]) -> Value {
    let mut receiver = Receiver::start(place, &[]);
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { rate: Some(60_000_000), ..Plan::default() }, Plan::default())
    });
    let mut command = wsferry();
    command.arg("send").arg(file).arg(proxy.url()).args(["--json", "--retry-for", "0s"]);
    let sender = Running::start(&mut command);
    sender
        .wait_for(|event| event["event"] == "progress" && event["acknowledged"].as_u64() > Some(10_000_000));
    receiver.running.kill();
    assert_eq!(sender.end().code(), 3);
    let receiver = Receiver::start(place, &[]);
    let cut = Proxy::start(receiver.address(), |_| {
        (Plan { cut_after: Some(15_000_000), ..Plan::default() }, Plan::default())
    });
    let ended = send(file, &cut.url(), &["--retry-for", "0s"]);
    assert_eq!(ended.code(), 3, "{ended:?}");
    let finished = send_well(file, &receiver.url, &[]);
    assert!(finished["resumed_at"].as_u64() > Some(10_000_000), "{finished}");
    let received = receiver.running.wait_for(|event| event["event"] == "finished");
    assert!(place.received("f") == bytes);
    assert_eq!(listing(place), ["f"]);
    received
}

fn put_to_use(place: &Place, name: &str) {
    let bytes = random(16 * B + 77, 1);
    let file = place.file("f", &bytes);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o440)).unwrap();
    let received = kill_cut_and_resume(place, &file, &bytes);
    println!("{name}: warnings {}", received["warnings"]);
    if name.ends_with("without permissions") {
        assert!(received["warnings"][0].as_str().unwrap().contains("permissions"), "{received}");
    }
    // Once more, and over it: nothing crosses again, whatever became of the time.
    for flags in [&[][..], &["--overwrite"]] {
        let receiver = Receiver::start(place, flags);
        let again = send_well(&file, &receiver.url, &[]);
        assert_eq!((&again["already_there"], &again["new_bytes"]), (&true.into(), &0.into()), "{name}");
    }
    // Another version takes its place: only what differs crosses.
    let mut bytes = bytes;
    bytes[5 * B] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let receiver = Receiver::start(place, &["--overwrite"]);
    let repaired = send_well(&file, &receiver.url, &["--repair"]);
    assert_eq!(repaired["repaired_blocks"], 1, "{name}: {repaired}");
    assert!(place.received("f") == bytes, "{name}");
}

#[test]
#[ignore = "needs root, loop devices, and tools that make file systems"]
fn every_file_system_that_can_be_made_here_takes_files_resumes_them_and_compares_them() {
    let mut used = Vec::new();
    for (name, make) in all() {
        let place = Place::new();
        match make(&place) {
            Ok(mounted) => {
                put_to_use(&place, name);
                drop(mounted);
                used.push(name);
            }
            Err(why) => println!("LACKING: {name} ({why})"),
        }
    }
    println!("file systems that were used: {}", used.join(", "));
    assert!(!used.is_empty(), "no file system could be made");
}

/// Small files in a group, an empty directory, a link, in directories that are to be made.
fn put_a_tree_onto(place: &Place, name: &str) {
    let inbox = trees::open(place);
    let files: Vec<_> =
        (0..20usize).map(|n| (format!("d/{}/f{n}", n % 3), random(5000 * n, n as u64))).collect();
    let targets: Vec<_> =
        files.iter().map(|(path, bytes)| trees::written(&inbox, path, bytes).unwrap()).collect();
    for ((target, _), (_, bytes)) in targets.iter().zip(&files) {
        let hashes = File::new(bytes.clone());
        if !bytes.is_empty() {
            target.note_hashes(hashes.hashes(0)).unwrap();
        }
    }
    let sealed = inbox.seal_all(&targets);
    let warnings: Vec<_> = sealed.into_iter().map(|sealed| format!("{:?}", sealed.unwrap())).collect();
    drop(targets);
    let placed = inbox.place_all(&[
        trees::entry("d/empty", Kind::Directory),
        trees::entry("d/link", Kind::Link("../f".to_owned())),
    ]);
    println!("{name}: {:?}, {:?}, {:?}", warnings[0], warnings[19], placed);
    assert!(placed[0].is_ok() && place.inbox().join("d/empty").is_dir(), "{name}");
    for (path, bytes) in &files {
        assert!(place.received(path) == *bytes, "{name}: {path}");
    }
    assert!(!place.inbox().join(".wsferry").exists(), "{name}");
}

/// Two names that are one where case is folded: each result is true when it is given.
fn put_twins_onto(place: &Place, name: &str) {
    let (first, second) = (random(5000, 1), random(6000, 2));
    let (upper, lower) = ("twins/File", "twins/file");
    let inbox = trees::open(place);
    std::fs::create_dir(place.inbox().join("twins")).unwrap();
    std::fs::write(place.inbox().join("twins/X"), "").unwrap();
    let folds = place.inbox().join("twins/x").exists();
    let targets =
        [trees::written(&inbox, upper, &first).unwrap(), trees::written(&inbox, lower, &second).unwrap()];
    let sealed = inbox.seal_all(&targets);
    assert_eq!((sealed[0].is_ok(), sealed[1].is_ok()), (true, !folds), "{name}: {sealed:?}");
    assert!(place.received(upper) == first, "{name}");
    drop(targets);
    let inbox = trees::open_to_overwrite(place);
    let (first, second) = (random(7000, 3), random(8000, 4));
    let targets =
        [trees::written(&inbox, upper, &first).unwrap(), trees::written(&inbox, lower, &second).unwrap()];
    for ((target, digest), (path, bytes)) in targets.iter().zip([(upper, &first), (lower, &second)]) {
        if target.seal(*digest).is_ok() {
            assert!(place.received(path) == *bytes, "{name}: {path}");
        }
    }
    println!("{name}: folds case: {folds}");
}

#[test]
#[ignore = "needs root, loop devices, and tools that make file systems"]
fn trees_are_received_onto_every_file_system_that_can_be_made_here() {
    for (name, make) in all() {
        let place = Place::new();
        match make(&place) {
            Ok(mounted) => {
                put_a_tree_onto(&place, name);
                put_twins_onto(&place, name);
                drop(mounted);
            }
            Err(why) => println!("LACKING: {name} ({why})"),
        }
    }
}

#[test]
#[ignore = "needs root, loop devices, and tools that make file systems"]
fn a_file_system_that_lets_everyone_write_everywhere_is_refused_at_the_start() {
    let place = Place::new();
    let mounted = match exfat(&place, "umask=000") {
        Ok(mounted) => mounted,
        Err(why) => return println!("LACKING: exfat by FUSE ({why})"),
    };
    let mut command = wsferry();
    command.arg("receive").arg(place.inbox()).args(["--listen", "127.0.0.1:0"]);
    Running::start(&mut command).end().assert_error(1, &["others can write", "umask"]);
    assert_eq!(listing(&place), [""; 0]);
    drop(mounted);
}

#[test]
#[ignore = "needs root, loop devices, and tools that make file systems"]
fn a_file_system_that_is_full_is_said_and_the_same_command_finishes_when_there_is_room() {
    let place = Place::new();
    let mounted = match image(&place, 24, &["mkfs.ext4", "-q", "-F", "-m", "0"], "loop", "ext4") {
        Ok(mounted) => mounted,
        Err(why) => return println!("LACKING: a tiny ext4 ({why})"),
    };
    let bytes = random(4 * B, 2);
    let file = place.file("f", &bytes);
    let receiver = Receiver::start(&place, &[]);
    // Fills up while the file comes.
    let filler = place.inbox().join("filler");
    let fill = move || {
        let mut filler = std::fs::File::create(&filler).unwrap();
        while filler.write_all(&[7; 65536]).is_ok() {}
    };
    let fill: std::sync::Arc<dyn Fn() + Send + Sync> = std::sync::Arc::new(fill);
    let proxy = Proxy::start(receiver.address(), move |_| {
        (Plan { pause: Some((9_000_000, fill.clone())), ..Plan::default() }, Plan::default())
    });
    let ended = send(&file, &proxy.url(), &["--retry-for", "0s", "--window", "1MiB"]);
    ended.assert_error(3, &["No space left", "make room", "same command"]);
    // Too full to begin with.
    let large = place.file("large", &random(7 * B, 3));
    send(&large, &receiver.url, &[]).assert_error(4, &["large needs", "make room"]);
    std::fs::remove_file(place.inbox().join("filler")).unwrap();
    let finished = send_well(&file, &receiver.url, &[]);
    assert!(finished["resumed_at"].as_u64() >= Some(B as u64), "{finished}");
    receiver.running.wait_for(|event| event["event"] == "finished");
    assert!(place.received("f") == bytes);
    assert_eq!(listing(&place), ["f"]);
    drop(receiver);
    drop(mounted);
}
