//! What grows with the file: time in a straight line, memory not at all.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::{Receiver, send, transfer, wsferry};
use super::{Plan, Spread, Table, spread};

/// Peak memory of either side.
pub fn memory(plan: &Plan) -> Table {
    let mut table = Table::new("Memory", "Peak resident memory of each side.");
    for (name, size) in [("1 MiB", plan.size(1)), ("1 GiB", plan.size(1024)), ("8 GiB", plan.size(8192))] {
        let run = transfer(&plan.source(size), &plan.memory.path().join("inbox"), &[]);
        let peak = |event: &Value| event["peak_memory"].as_f64().expect("Linux tells") / 1048576.0;
        let figure = format!("sender {:.1} MiB, receiver {:.1} MiB", peak(&run.sender), peak(&run.receiver));
        table.row(name, figure, "", "32 MiB");
    }
    table
}

/// Freed at a time, and kept back from what is freed before it is needed.
const PIECE: usize = 32 << 20;

/// Runs a transfer of `size` bytes into `inbox` while as much memory as it fills is set free, just before it is needed.
///
/// The host of a virtual machine takes back what has been free for a second or two, and a page that it has to give again
/// costs more than everything that wsferry does to it. A transfer of one second would not notice, one of ten would.
fn with_memory_at_hand<T>(inbox: &Path, size: u64, run: impl FnOnce() -> T) -> T {
    let mut ballast: Vec<Vec<u8>> = (0..size / PIECE as u64).map(|_| vec![1; PIECE]).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                ballast.truncate(
                    (size.saturating_sub(received(inbox)) / PIECE as u64).saturating_sub(2) as usize
                );
                thread::sleep(Duration::from_millis(4));
            }
        });
        // Also if it panics: nobody would end the thread.
        let _ends = Ends(&done);
        run()
    })
}

/// Says so when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Bytes that have come of the file that is on its way.
fn received(inbox: &Path) -> u64 {
    let files = std::fs::read_dir(inbox.join(".wsferry")).into_iter().flatten().flatten();
    let parts = files.filter(|file| file.path().extension().is_some_and(|end| end == "part"));
    parts.filter_map(|part| Some(part.metadata().ok()?.len())).sum()
}

/// Seconds a GiB, for 1 GiB and 8 GiB: in one go, and with the sender killed half-way and run again.
pub fn measure(plan: &Plan) -> Table {
    let (one, eight) = (plan.size(1024), plan.size(8192));
    let inbox = plan.memory.path().join("inbox");
    let gib = |size: u64| size as f64 / f64::from(1 << 30);
    let mut figures: [Vec<f64>; 4] = Default::default();
    for _ in 0..plan.rounds(3) {
        // In turns.
        for round in 0..6 {
            figures[0].push(in_one_go(&plan.source(one), &inbox) / gib(one));
            figures[2].push(killed_half_way(&plan.source(one), &inbox) / gib(one));
            if round == 4 {
                figures[1].push(in_one_go(&plan.source(eight), &inbox) / gib(eight));
                figures[3].push(killed_half_way(&plan.source(eight), &inbox) / gib(eight));
            }
        }
    }
    let [one, eight, one_cut, eight_cut] = figures.map(spread);
    let seconds =
        |spread: Spread| format!("{:.2} s a GiB ({:.2} to {:.2})", spread.median, spread.min, spread.max);
    let mut table = Table::new(
        "Growth",
        "Seconds for a GiB, from memory to memory; with a resume: the sender is killed half-way and run again, both runs \
         counted. The memory that the file fills is set free just before it is needed: what a virtual machine's host has \
         taken back is slow to come again, and would be measured instead.",
    );
    table.row("1 GiB", seconds(one), "1", "");
    table.row("8 GiB", seconds(eight), format!("{:.2} of 1 GiB's", eight.median / one.median), "0.9 to 1.1");
    table.row("1 GiB, with a resume", seconds(one_cut), "1", "");
    table.row(
        "8 GiB, with a resume",
        seconds(eight_cut),
        format!("{:.2} of 1 GiB's", eight_cut.median / one_cut.median),
        "0.9 to 1.1",
    );
    table
}

fn in_one_go(source: &Path, inbox: &Path) -> f64 {
    let size = std::fs::metadata(source).expect("it is there").len();
    with_memory_at_hand(inbox, size, || transfer(source, inbox, &[]).seconds)
}

/// The seconds of both runs.
fn killed_half_way(source: &Path, inbox: &Path) -> f64 {
    let size = std::fs::metadata(source).expect("it is there").len();
    with_memory_at_hand(inbox, size, || two_runs(source, inbox, size))
}

fn two_runs(source: &Path, inbox: &Path, size: u64) -> f64 {
    let mut receiver = Receiver::start(inbox, &[]);
    let started = Instant::now();
    let mut command = wsferry();
    command.arg("send").arg(source).arg(receiver.url()).arg("--quiet").stderr(Stdio::null());
    let mut sender = command.spawn().expect("it starts");
    while received(inbox) < size / 2 {
        if sender.try_wait().expect("it is a child").is_some() {
            // One that fits a block has no partial file that could be seen.
            assert!(size < 64 << 20, "it ended before it was killed");
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    sender.kill().expect("it is a child");
    sender.wait().expect("it ends");
    let (_, sent) = send(source, &receiver.url(), &[]);
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(receiver.finished()["blake3"], sent["blake3"]);
    let resumed_at = sent["resumed_at"].as_u64().expect("a number");
    assert!((size / 4..size * 3 / 4).contains(&resumed_at) || size < 64 << 20, "{sent}");
    seconds
}
