//! The exercise: a whole file as one Base64 text message, decoded, saved, sent back and compared; beside Autobahn.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::echo_floor;
use super::process::{self, Receiver, wsferry};
use super::{Plan, Table, have_memory_at_hand, spread};

/// Seconds of the client's whole run, and the most memory of client and server, in MiB.
struct Run {
    seconds: f64,
    memory: (f64, f64),
}

pub fn measure(plan: &Plan) -> Table {
    let rounds = plan.rounds(5);
    let mut table = Table::new(
        "The exercise",
        format!(
            "A whole file as one Base64 text message to a server that decodes it, saves it and sends it back, which the \
             client compares: all bytes cross twice. Random bytes from memory to memory over loopback, client and \
             server as two processes; in turns, {rounds} times; the client's whole run, from start to exit. Autobahn \
             from PyPI, on asyncio. The I/O floor moves as many bytes both ways over one connection, and writes the \
             file, from plain threads that do nothing else."
        ),
    );
    let autobahn = process::is_there(Command::new("python3").args(["-c", "import autobahn.asyncio"]));
    for mib in [32, 256] {
        let size = plan.size(mib);
        let source = plan.source(size);
        let (mut floors, mut ours, mut one_frame, mut theirs) = (vec![], vec![], vec![], vec![]);
        for _ in 0..rounds {
            let target = plan.memory.path().join("floor");
            have_memory_at_hand(size);
            floors.push(echo_floor::measure(&source, &target).expect("it can be measured").as_secs_f64());
            std::fs::remove_file(target).expect("it is there");
            // Seven times the file at each end is what Autobahn takes.
            have_memory_at_hand(14 * size);
            if autobahn {
                theirs.push(echo(&source, &plan.memory.path().join("echo")));
            }
            have_memory_at_hand(size);
            ours.push(plain(&source, &plan.memory.path().join("inbox"), &[]));
            have_memory_at_hand(size);
            one_frame.push(plain(&source, &plan.memory.path().join("inbox"), &["--one-frame"]));
        }
        let seconds = |runs: &[Run]| spread(runs.iter().map(|run| run.seconds));
        let figure = |runs: &[Run]| {
            let most = |of: fn(&Run) -> f64| runs.iter().map(of).fold(0.0, f64::max);
            format!(
                "{}; client {:.0} MiB, server {:.0} MiB",
                seconds(runs).rate(size),
                most(|run| run.memory.0),
                most(|run| run.memory.1)
            )
        };
        let ratio = |ours: &[Run], others: &[f64]| {
            spread(others.iter().zip(ours).map(|(others, ours)| others / ours.seconds)).ratio()
        };
        let against = |ours: &[Run]| {
            let of_floor = format!("{} of the floor", ratio(ours, &floors));
            if !autobahn {
                return of_floor;
            }
            let theirs: Vec<f64> = theirs.iter().map(|run| run.seconds).collect();
            format!("{} times as fast as Autobahn, {of_floor}", ratio(ours, &theirs))
        };
        let floor = spread(floors.iter().copied());
        table.row(&format!("{mib} MiB, the I/O floor"), floor.rate(size), "1", "");
        table.row(&format!("{mib} MiB, `--plain`"), figure(&ours), against(&ours), "20 x Autobahn");
        let what = format!("{mib} MiB, `--plain --one-frame`");
        table.row(&what, figure(&one_frame), against(&one_frame), "20 x Autobahn");
        match autobahn {
            true => {
                let ratio = format!("{} of the floor", ratio(&theirs, &floors));
                table.row(&format!("{mib} MiB, Autobahn"), figure(&theirs), ratio, "");
            }
            false => table.row("Autobahn", "not measured: `pip install autobahn`", "", ""),
        }
    }
    table
}

fn plain(source: &Path, inbox: &Path, flags: &[&str]) -> Run {
    let mut receiver = Receiver::start(inbox, &["--plain"]);
    let url = format!("{}/file", receiver.url());
    let mut command = wsferry();
    command.args(["send", "--plain", "--json"]).args(flags).arg(source).arg(url);
    let started = Instant::now();
    let output = command.output().expect("it starts");
    let seconds = started.elapsed().as_secs_f64();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let sent: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    let received = receiver.finished();
    assert_eq!(sent["blake3"], received["blake3"]);
    let peak = |event: &serde_json::Value| event["peak_memory"].as_f64().expect("Linux tells") / 1048576.0;
    Run { seconds, memory: (peak(&sent), peak(&received)) }
}

/// The same in Python.
fn echo(source: &Path, target: &Path) -> Run {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/report/echo.py");
    let port = process::free_port();
    let memory = |role: &str| target.with_extension(role);
    let python = |role: &str, file: &Path| {
        let mut command = Command::new("python3");
        command.arg(&script).arg(role).arg(port.to_string()).arg(file).arg(memory(role));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut server = python("serve", target).spawn().expect("it starts");
    process::wait_for_listener(port);
    let seconds = process::time(&mut python("send", source)).expect("it is there");
    server.wait().expect("it ends");
    assert!(std::fs::read(source).expect("it reads") == std::fs::read(target).expect("it reads"));
    let peak = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("it says at its end");
        std::fs::remove_file(path).expect("it is there");
        text.trim().parse::<f64>().expect("a number") / 1024.0
    };
    let memory = (peak(memory("send")), peak(memory("serve")));
    std::fs::remove_file(target).expect("it is there");
    Run { seconds, memory }
}
