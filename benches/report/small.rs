//! Many small files, beside rsync: a directory to a daemon of either, in turns, each result compared with what was sent.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::long_path::{self, ONE_WAY};
use super::process::{self, peak_memory, rsync, wsferry};
use super::server::{Kind, Server};
use super::{Plan, Table, have_memory_at_hand, spread, tree};

/// Files in a directory.
const IN_EACH: usize = 20;
const LARGEST: usize = 64 << 10;
/// Between two looks at how much memory there is.
const LOOK: Duration = Duration::from_millis(10);

pub fn measure(plan: &Plan) -> Table {
    let (files, many) = if plan.quick { (200, 1000) } else { (10_000, 100_000) };
    let (rounds, disk_rounds, many_rounds) = (plan.rounds(7), plan.rounds(3), plan.rounds(3));
    let version = rsync_version();
    let mut table = Table::new(
        "Many small files",
        format!(
            "{files} files of 0 to 64 KiB of random bytes in {} directories, to a receiver that runs, beside {version} and \
             its daemon; in turns, {rounds} times ({disk_rounds} on the disk, {many_rounds} of the {many} files); the \
             sender's whole run, from start to exit, and the ratio to rsync's. What arrived is compared with what was sent: \
             bytes, times and permissions of each file and directory. The path is a proxy that holds each byte for 50 ms \
             each way.",
            files / IN_EACH
        ),
    );
    let memory = plan.memory.path();
    let source = tree::make(&memory.join("small"), files, IN_EACH, |rng| rng.usize(0..=LARGEST));
    let size = tree::size(&source);

    let mut full = Pair::default();
    let mut nothing = Pair::default();
    let mut far = Pair::default();
    for _ in 0..rounds {
        for kind in Kind::BOTH {
            let server = Server::start(kind, &memory.join("arrived"));
            have_memory_at_hand(2 * size);
            full.push(kind, send(&source, kind, server.port, &[]));
            tree::assert_same(&source, server.directory());
            let flags: &[&str] = if kind == Kind::Rsync { &["--checksum"] } else { &[] };
            nothing.push(kind, send(&source, kind, server.port, flags));
            tree::assert_same(&source, server.directory());
        }
        for kind in Kind::BOTH {
            let server = Server::start(kind, &memory.join("arrived"));
            let port = long_path::path_to(format!("127.0.0.1:{}", server.port), None);
            have_memory_at_hand(2 * size);
            far.push(kind, send(&source, kind, port, &[]));
            tree::assert_same(&source, server.directory());
        }
    }
    let mut disk = Pair::default();
    for _ in 0..disk_rounds {
        for kind in Kind::BOTH {
            let server = Server::start(kind, &plan.disk.path().join("arrived"));
            let flags: &[&str] = if kind == Kind::Rsync { &["--fsync"] } else { &[] };
            disk.push(kind, send(&source, kind, server.port, flags));
            tree::assert_same(&source, server.directory());
        }
    }
    std::fs::remove_dir_all(&source).expect("it is there");
    let source = tree::make(&memory.join("many"), many, many / 500, |_| 1024);
    let (mut hundred, mut most) = (Pair::default(), Pair::default());
    for _ in 0..many_rounds {
        for kind in Kind::BOTH {
            let server = Server::start(kind, &memory.join("arrived"));
            let (seconds, memory) = send_watched(&source, &server);
            hundred.push(kind, seconds);
            most.push(kind, memory);
            tree::assert_same(&source, server.directory());
        }
    }
    std::fs::remove_dir_all(&source).expect("it is there");

    let delay = format!("{} ms each way", ONE_WAY.as_millis());
    full.rows(&mut table, "in memory", "`rsync -a`", "1.5");
    disk.rows(&mut table, "to a disk, synced", "`rsync -a --fsync`", "1.0");
    nothing.rows(&mut table, "nothing to send", "`rsync -a --checksum`", "1.5");
    far.rows(&mut table, &delay, "`rsync -a`", "1.2");
    let what = format!("{many} files of 1 KiB, in memory");
    hundred.rows(&mut table, &what, "`rsync -a`", "");
    for (kind, name) in [(Kind::Rsync, "`rsync -a`"), (Kind::Wsferry, "wsferry")] {
        let most = |of: fn(&Memory) -> u64| most.of(kind).iter().map(of).max().unwrap_or_default() >> 20;
        let figure =
            format!("sender {} MiB, receiver {} MiB", most(|run| run.sender), most(|run| run.receiver));
        let aim = if kind == Kind::Wsferry { "64 MiB" } else { "" };
        table.row(&format!("{what}: {name}, peak memory of the largest process"), figure, "", aim);
    }
    table
}

/// What was measured of both programs, in turns.
struct Pair<T> {
    rsync: Vec<T>,
    wsferry: Vec<T>,
}

impl<T> Default for Pair<T> {
    fn default() -> Self {
        Self { rsync: Vec::new(), wsferry: Vec::new() }
    }
}

impl<T> Pair<T> {
    fn push(&mut self, kind: Kind, measured: T) {
        match kind {
            Kind::Rsync => self.rsync.push(measured),
            Kind::Wsferry => self.wsferry.push(measured),
        }
    }

    fn of(&self, kind: Kind) -> &[T] {
        match kind {
            Kind::Rsync => &self.rsync,
            Kind::Wsferry => &self.wsferry,
        }
    }
}

impl Pair<f64> {
    fn rows(&self, table: &mut Table, what: &str, rsync: &str, aim: &str) {
        let seconds = |runs: &[f64]| spread(runs.iter().copied()).seconds();
        let ratio = spread(self.wsferry.iter().zip(&self.rsync).map(|(ours, theirs)| ours / theirs)).ratio();
        table.row(&format!("{what}: {rsync}"), seconds(&self.rsync), "1", "");
        let what = format!("{what}: **wsferry**");
        table.row(&what, seconds(&self.wsferry), format!("{ratio} of rsync's"), aim);
    }
}

/// Bytes, of the largest process on each side.
struct Memory {
    sender: u64,
    receiver: u64,
}

/// The command that sends what is in a directory to what listens on this port.
fn sender(source: &Path, kind: Kind, port: u16, flags: &[&str]) -> Command {
    // What is in it, not the directory itself.
    let source = source.join("");
    let (mut command, url) = match kind {
        Kind::Rsync => (rsync(), format!("rsync://127.0.0.1:{port}/arrived/")),
        Kind::Wsferry => (wsferry(), format!("ws://127.0.0.1:{port}")),
    };
    match kind {
        Kind::Rsync => command.arg("-a"),
        Kind::Wsferry => command.args(["send", "--quiet"]),
    };
    command.args(flags).arg(source).arg(url);
    command
}

/// Sends; the seconds it took.
fn send(source: &Path, kind: Kind, port: u16, flags: &[&str]) -> f64 {
    process::time(&mut sender(source, kind, port, flags)).expect("it is there")
}

/// Sends to a receiver, while another thread watches how much memory both take.
fn send_watched(source: &Path, server: &Server) -> (f64, Memory) {
    let started = Instant::now();
    let mut child = sender(source, server.kind, server.port, &[]).spawn().expect("it starts");
    let (sender, receiver, ended) = (child.id(), server.id(), AtomicBool::new(false));
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = Memory { sender: 0, receiver: 0 };
            while !ended.load(Ordering::Relaxed) {
                most.sender = most.sender.max(peak_memory(sender));
                most.receiver = most.receiver.max(peak_memory(receiver));
                thread::sleep(LOOK);
            }
            most
        });
        let status = child.wait().expect("it is a child");
        let seconds = started.elapsed().as_secs_f64();
        ended.store(true, Ordering::Relaxed);
        assert!(status.success(), "{:?} failed", server.kind);
        (seconds, watch.join().expect("it watches"))
    })
}

/// Its name and version. There is no table without it.
fn rsync_version() -> String {
    let output = rsync().arg("--version").output();
    let output = output.expect("this table is beside rsync, which is not installed: `apt-get install rsync`");
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().nth(2).expect("it says its version");
    format!("rsync {version}")
}
