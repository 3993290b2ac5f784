//! How fast, beside the floor, other programs and the disk.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use wsferry::floor;

use super::process::{self, transfer};
use super::{Plan, Table, have_memory_at_hand, spread};

/// What a 32 KiB frame limit allows.
const SMALL_FRAMES: [&str; 2] = ["--frame-limit", "32KiB"];
/// Base64 alone.
const BASE64: f64 = 4.0 / 3.0;

pub fn measure(plan: &Plan) -> Table {
    let size = plan.size(1024);
    let (source, inbox) = (plan.source(size), plan.memory.path().join("inbox"));
    let websocat = process::is_there(Command::new("websocat").arg("--version"));
    let autobahn = process::is_there(Command::new("python3").args(["-c", "import autobahn.asyncio"]));
    let rounds = plan.rounds(15);

    let (mut floors, mut defaults, mut smalls, mut websocats) = (vec![], vec![], vec![], vec![]);
    let (mut wire, mut small_wire, mut lost) = (0.0, 0.0, 0);
    for _ in 0..rounds {
        let target = plan.memory.path().join("floor");
        have_memory_at_hand(size);
        floors.push(floor::measure(&source, &target).expect("it can be measured").as_secs_f64());
        std::fs::remove_file(target).expect("it is there");
        have_memory_at_hand(size);
        let run = transfer(&source, &inbox, &[]);
        defaults.push(run.seconds);
        wire = run.sender["wire_bytes"].as_f64().expect("a number") / size as f64;
        have_memory_at_hand(size);
        let run = transfer(&source, &inbox, &SMALL_FRAMES);
        smalls.push(run.seconds);
        small_wire = run.sender["wire_bytes"].as_f64().expect("a number") / size as f64;
        if websocat {
            have_memory_at_hand(size);
            let (seconds, missing) = websocat_binary(&source, &plan.memory.path().join("websocat"));
            websocats.push(seconds);
            lost += usize::from(missing > 0);
        }
    }
    // Once: it takes a minute, and seven times the file's size in memory at each end.
    have_memory_at_hand(7 * size);
    let echo = autobahn.then(|| echo(&source, &plan.memory.path().join("echo")));
    let against =
        |ours: &[f64], theirs: &[f64]| spread(theirs.iter().zip(ours).map(|(theirs, ours)| theirs / ours));
    let default = spread(defaults.iter().copied());

    let mut table = Table::new(
        "Throughput",
        format!(
            "1 GiB of random bytes from memory to memory over loopback, sender and receiver as two processes, \
             everything on; in turns, {rounds} times; the sender's whole run, from start to exit; medians, and from \
             the worst to the best. The I/O floor moves the same file over TCP at Base64's expansion, from two plain \
             threads that do nothing else."
        ),
    );
    table.row("the I/O floor", spread(floors.iter().copied()).rate(size), "1", "");
    table.row(
        "**wsferry, defaults**",
        default.rate(size),
        format!("{} of the floor", against(&defaults, &floors).ratio()),
        "0.60",
    );
    table.row(
        "`--frame-limit 32KiB`",
        spread(smalls.iter().copied()).rate(size),
        format!("{} of the default", against(&smalls, &defaults).ratio()),
        "0.5",
    );
    if websocat {
        table.row(
            &format!("websocat, binary, `-B 1048576`; the file's end was missing in {lost} of {rounds} runs"),
            spread(websocats.iter().copied()).rate(size),
            format!("wsferry is {} times as fast", against(&defaults, &websocats).ratio()),
            "3",
        );
    } else {
        table.row("websocat, binary", "not measured: `cargo install websocat`", "", "3");
    }
    match echo {
        Some(seconds) => table.row(
            "the whole file as one Base64 message, echoed back: all bytes cross twice (Autobahn from PyPI), once",
            spread([seconds]).rate(size),
            format!("wsferry is {:.0} times as fast", seconds / default.median),
            "40",
        ),
        None => {
            table.row("the whole file as one message", "not measured: `pip install autobahn`", "", "40");
        }
    }
    let overhead = |wire: f64| (format!("{wire:.5} bytes a byte"), format!("{:.5} of 4/3", wire / BASE64));
    let ((bytes, ratio), (small_bytes, small_ratio)) = (overhead(wire), overhead(small_wire));
    table.row("on the wire, both ways, defaults", bytes, ratio, "1.001");
    table.row("on the wire, both ways, `--frame-limit 32KiB`", small_bytes, small_ratio, "1.005");
    table
}

/// On a disk, synced, beside `dd` of the same bytes.
pub fn disk(plan: &Plan) -> Table {
    let size = plan.size(1024);
    let source = plan.source(size);
    let rounds = plan.rounds(11);
    let (mut ours, mut dds) = (vec![], vec![]);
    for _ in 0..rounds {
        let out = plan.disk.path().join("dd");
        let mut dd = Command::new("dd");
        dd.arg(format!("if={}", source.display())).arg(format!("of={}", out.display()));
        dd.args(["bs=1M", "conv=fdatasync"]);
        process::time(&mut Command::new("sync"));
        dds.push(process::time(&mut dd).expect("dd is there"));
        std::fs::remove_file(out).expect("it is there");
        process::time(&mut Command::new("sync"));
        ours.push(transfer(&source, &plan.disk.path().join("inbox"), &[]).seconds);
    }
    let ratio = spread(dds.iter().zip(&ours).map(|(dd, ours)| dd / ours));
    let mut table = Table::new(
        "Disk",
        format!("1 GiB from memory to a disk, synced before the receipt; in turns, {rounds} times."),
    );
    table.row("`dd bs=1M conv=fdatasync`", spread(dds).rate(size), "1", "");
    table.row("wsferry", spread(ours).rate(size), format!("{} of dd", ratio.ratio()), "0.90");
    table
}

/// websocat 1.14 in binary mode: the seconds from the client's start until the receiver has exited, and the bytes that
/// did not arrive.
fn websocat_binary(source: &Path, target: &Path) -> (f64, u64) {
    let port = process::free_port();
    let websocat = || {
        let mut command = Command::new("websocat");
        command.args(["-b", "-u", "-B", "1048576"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut server = websocat();
    server
        .arg("--oneshot")
        .arg(format!("ws-l:127.0.0.1:{port}"))
        .arg(format!("writefile:{}", target.display()));
    let mut server = server.spawn().expect("it starts");
    process::wait_for_listener(port);
    let started = Instant::now();
    let mut client = websocat();
    client.arg(format!("readfile:{}", source.display())).arg(format!("ws://127.0.0.1:{port}/"));
    client.status().expect("it starts");
    server.wait().expect("it ends");
    let seconds = started.elapsed().as_secs_f64();
    let (sent, arrived) = (std::fs::metadata(source), std::fs::metadata(target));
    let missing = sent.expect("it is there").len() - arrived.expect("it is there").len();
    std::fs::remove_file(target).expect("it is there");
    (seconds, missing)
}

/// The exercise that wsferry grew out of, in Python.
fn echo(source: &Path, target: &Path) -> f64 {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/report/echo.py");
    let port = process::free_port();
    let python = |role: &str, file: &Path| {
        let mut command = Command::new("python3");
        command
            .arg(&script)
            .arg(role)
            .arg(port.to_string())
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    };
    let mut server = python("serve", target).spawn().expect("it starts");
    process::wait_for_listener(port);
    let seconds = process::time(&mut python("send", source)).expect("it is there");
    server.wait().expect("it ends");
    assert!(std::fs::read(source).expect("it reads") == std::fs::read(target).expect("it reads"));
    std::fs::remove_file(target).expect("it is there");
    seconds
}
