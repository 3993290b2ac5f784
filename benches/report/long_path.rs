//! A long path: every byte is 50 ms on its way, and 50 MB/s pass.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::process::{self, Receiver};
use super::{Plan, Table, spread};

pub const ONE_WAY: Duration = Duration::from_millis(50);
/// Bytes a second, each way.
const RATE: f64 = 50e6;
/// What the path takes at a time.
const PIECE: usize = 64 * 1024;
/// Pieces that are on the way at most, more than ever are at that rate: a receiver that does not read stops the path.
const PIECES: usize = 256;
/// As above, where there is no rate and pieces may be small.
const PIECES_WITHOUT_RATE: usize = 4096;
/// How far the clock of the path may lag before time is lost: what a sleep oversleeps is caught up.
const LAG: Duration = Duration::from_millis(2);

pub fn measure(plan: &Plan) -> Table {
    let size = plan.size(512);
    let source = plan.source(size);
    let (mut plain, mut default, mut small) = (vec![], vec![], vec![]);
    for _ in 0..plan.rounds(3) {
        plain.push(tcp(&source, size));
        default.push(over_path(plan, &source, &[]));
        small.push(over_path(plan, &source, &["--frame-limit", "32KiB"]));
    }
    let of_plain = |ours: &[f64]| spread(plain.iter().zip(ours).map(|(plain, ours)| plain / ours));
    let mut table = Table::new(
        "A long path",
        "512 MiB through a proxy that takes 50 ms each way and passes 50 MB/s of wire bytes; in turns, 3 times. Plain \
         TCP carries as many bytes as Base64 makes of the file.",
    );
    table.row("plain TCP", spread(plain.iter().copied()).rate(size), "1", "");
    for (what, ours) in [("wsferry, defaults", &default), ("`--frame-limit 32KiB`", &small)] {
        let rate = spread(ours.iter().copied()).rate(size);
        table.row(what, rate, format!("{} of plain TCP", of_plain(ours).ratio()), "0.95");
    }
    table
}

fn over_path(plan: &Plan, source: &Path, flags: &[&str]) -> f64 {
    let mut receiver = Receiver::start(&plan.memory.path().join("inbox"), &["--once"]);
    let port = path_to(receiver.address.clone(), Some(RATE));
    let (seconds, sent) = process::send(source, &format!("ws://127.0.0.1:{port}"), flags);
    assert_eq!(sent["blake3"], receiver.finished()["blake3"]);
    seconds
}

/// As many bytes as Base64 makes of the file, and one back when all are there.
fn tcp(source: &Path, size: u64) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = path_to(listener.local_addr().expect("it is bound").to_string(), Some(RATE));
    let wire = size.div_ceil(3) * 4;
    let sink = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the path comes");
        let mut bytes = vec![0; 256 * 1024];
        let mut left = wire;
        while left > 0 {
            let n = stream.read(&mut bytes).expect("it reads");
            assert!(n > 0, "{left} bytes are missing");
            left -= n as u64;
        }
        stream.write_all(b"k").expect("it writes");
    });
    let started = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let mut file = File::open(source).expect("it is there");
    let mut bytes = vec![0; 256 * 1024];
    let mut left = wire;
    while left > 0 {
        // The file, over and over.
        let n = match file.read(&mut bytes).expect("it reads") {
            0 => {
                file = File::open(source).expect("it is there");
                continue;
            }
            n => n.min(left as usize),
        };
        stream.write_all(&bytes[..n]).expect("it writes");
        left -= n as u64;
    }
    stream.read_exact(&mut [0]).expect("it is answered");
    sink.join().expect("it ends");
    started.elapsed().as_secs_f64()
}

/// The port of a path that leads one connection to `target`; it passes so many bytes a second each way, or without a limit
/// as many as come.
pub fn path_to(target: String, rate: Option<f64>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        let (near, _) = listener.accept().expect("someone comes");
        let far = TcpStream::connect(target).expect("it listens");
        for (from, to) in [(&near, &far), (&far, &near)] {
            from.set_nodelay(true).expect("it is a socket");
            let (from, to) = (from.try_clone().expect("it clones"), to.try_clone().expect("it clones"));
            let pieces = if rate.is_some() { PIECES } else { PIECES_WITHOUT_RATE };
            let (on_its_way, arrives) = mpsc::sync_channel(pieces);
            thread::spawn(move || enter(from, rate, &on_its_way));
            thread::spawn(move || leave(&arrives, to));
        }
    });
    port
}

/// Takes bytes at the path's rate.
fn enter(mut from: TcpStream, rate: Option<f64>, on_its_way: &mpsc::SyncSender<(Instant, Vec<u8>)>) {
    let mut next = Instant::now();
    loop {
        let mut piece = vec![0; PIECE];
        let n = from.read(&mut piece).unwrap_or(0);
        piece.truncate(n);
        next = next.max(Instant::now() - LAG)
            + Duration::from_secs_f64(rate.map_or(0.0, |rate| n as f64 / rate));
        thread::sleep(next.saturating_duration_since(Instant::now()));
        if on_its_way.send((next + ONE_WAY, piece)).is_err() || n == 0 {
            return;
        }
    }
}

/// Hands them over when they have come all the way.
fn leave(arrives: &mpsc::Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    for (due, piece) in arrives {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if piece.is_empty() || to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
