//! Many senders at once.

use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::process::{Receiver, transfer, wsferry};
use super::{Plan, Spread, Table, spread};

pub fn measure(plan: &Plan) -> Table {
    let senders = if plan.quick { 20 } else { 1000 };
    let size = plan.size(1);
    let crowd = at_once(plan, &plan.source(size), senders);
    let mut table = Table::new(
        "Many at once",
        format!(
            "{senders} senders of 1 MiB to one receiver, as processes that start one behind the other; then 8 senders of 256 MiB."
        ),
    );
    table.row(
        &format!("{senders} senders, all files right"),
        format!(
            "{:.1} s, {:.0} MB/s together",
            crowd.seconds,
            (size * senders as u64) as f64 / crowd.seconds / 1e6
        ),
        format!("slowest {:.2} of the median", crowd.each.max / crowd.each.median),
        "5",
    );
    table.row(
        "the receiver's peak memory",
        format!("{:.0} MiB", crowd.memory as f64 / 1048576.0),
        "",
        "256 MiB",
    );
    table.row("the receiver's most threads", crowd.threads.to_string(), "", "bounded");

    let size = plan.size(256);
    let source = plan.source(size);
    let (mut ones, mut eights) = (vec![], vec![]);
    for _ in 0..plan.rounds(5) {
        ones.push(transfer(&source, &plan.memory.path().join("inbox"), &[]).seconds);
        eights.push(at_once(plan, &source, 8).seconds / 8.0);
    }
    let ratio = spread(ones.iter().zip(&eights).map(|(one, eight)| one / eight));
    table.row("1 sender of 256 MiB", spread(ones).rate(size), "1", "");
    table.row(
        "8 senders of 256 MiB, together",
        spread(eights).rate(size),
        format!("{} of one sender", ratio.ratio()),
        "0.8",
    );
    table
}

struct Crowd {
    seconds: f64,
    /// Of the senders.
    each: Spread,
    memory: u64,
    threads: u64,
}

fn at_once(plan: &Plan, source: &Path, senders: usize) -> Crowd {
    let directory = plan.memory.path().join("inbox");
    let mut receiver = Receiver::start(&directory, &[]);
    let started = Instant::now();
    // A thread waits for each of them, so that each is timed to its own end.
    let mut waiting: Vec<JoinHandle<f64>> = Vec::with_capacity(senders);
    let mut threads = 0;
    for number in 0..senders {
        let mut command = wsferry();
        command.arg("send").arg(source).arg(receiver.url());
        command.args(["--name", &format!("f{number}"), "--quiet"]);
        let started = Instant::now();
        let mut child = command.spawn().expect("it starts");
        let wait = move || {
            assert!(child.wait().expect("it is a child").success(), "a sender failed");
            started.elapsed().as_secs_f64()
        };
        waiting.push(thread::Builder::new().stack_size(64 * 1024).spawn(wait).expect("a thread"));
        threads = threads.max(receiver.usage().1);
    }
    while waiting.iter().any(|waiting| !waiting.is_finished()) {
        threads = threads.max(receiver.usage().1);
        thread::sleep(Duration::from_millis(5));
    }
    let each: Vec<f64> = waiting.into_iter().map(|waiting| waiting.join().expect("it is sent")).collect();
    let seconds = started.elapsed().as_secs_f64();
    for _ in 0..senders {
        receiver.finished();
    }
    let bytes = std::fs::read(source).expect("it reads");
    for number in 0..senders {
        assert!(std::fs::read(directory.join(format!("f{number}"))).expect("it is there") == bytes);
    }
    Crowd { seconds, each: spread(each), memory: receiver.usage().0, threads }
}
