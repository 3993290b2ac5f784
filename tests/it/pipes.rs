//! What is received goes to standard output: in order, each byte once, over any cut.

use std::io::{self, Read, Write};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use wsferry::protocol::{
    BLOCK, BlockHasher, BlockHashes, CheckedOffer, DigestTree, Geometry, Offer, OfferKind, Opened,
};
use wsferry::storage::{Outlet, StorageError};

use crate::gateway::{Gateway, Limits};
use crate::support::{PATIENCE, Place, Process, Running, lines, random, send, send_well, wsferry};

const MIB: usize = 1 << 20;
/// The run of the one sender.
const RUN: &str = "a run";

/// `wsferry receive --once --stdout --json`: events come on standard error.
pub struct Pipe {
    process: Process,
    pub url: String,
    events: mpsc::Receiver<String>,
    /// Events that were looked past.
    lines: Vec<String>,
}

impl Pipe {
    pub fn start(flags: &[&str]) -> Self {
        let mut command = wsferry();
        command.args(["receive", "--once", "--stdout", "--json", "--listen", "127.0.0.1:0"]).args(flags);
        let mut process = Process::start(&mut command);
        let events = lines(process.errors());
        let mut pipe = Self { process, url: String::new(), events, lines: Vec::new() };
        let listening = pipe.wait_for(|event| event["event"] == "listening");
        pipe.url = listening["url"].as_str().unwrap().to_owned();
        pipe
    }

    pub fn output(&mut self) -> ChildStdout {
        self.process.output()
    }

    /// Reads all that it writes, on a thread.
    pub fn read(&mut self) -> thread::JoinHandle<Vec<u8>> {
        let mut output = self.output();
        thread::spawn(move || {
            let mut all = Vec::new();
            output.read_to_end(&mut all).unwrap();
            all
        })
    }

    fn wait_for(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.events.recv_timeout(PATIENCE).expect("an event in time");
            let event = serde_json::from_str::<Value>(&line).ok();
            self.lines.push(line);
            if let Some(event) = event.filter(&fits) {
                return event;
            }
        }
    }

    /// Its exit code, and all lines of its standard error.
    pub fn end(mut self) -> (i32, Vec<String>) {
        let lines = std::mem::take(&mut self.lines);
        let lines = lines.into_iter().chain(self.events.iter()).collect();
        (self.process.end().code().unwrap(), lines)
    }
}

/// Lines of people's language among events.
fn complaints(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| line.starts_with("wsferry: ")).collect()
}

fn finished(lines: &[String]) -> Value {
    let mut events = lines.iter().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.find(|event| event["event"] == "finished").unwrap_or_else(|| panic!("{lines:?}"))
}

#[test]
fn a_file_of_any_length_goes_to_standard_output_and_nothing_is_stored() {
    let place = Place::new();
    for (at, len) in
        [0, 1, 2, 3, 1000, MIB, 3 * MIB - 1, 3 * MIB, 3 * MIB + 1, 13 * MIB + 5].into_iter().enumerate()
    {
        let bytes = random(len, at as u64);
        let file = place.file("f", &bytes);
        let mut pipe = Pipe::start(&[]);
        let read = pipe.read();
        send_well(&file, &pipe.url, &[]);
        assert!(read.join().unwrap() == bytes, "{len}");
        let (code, lines) = pipe.end();
        assert_eq!((code, complaints(&lines).len()), (0, 0), "{lines:?}");
        assert_eq!(finished(&lines)["blake3"], blake3::hash(&bytes).to_hex().as_str());
    }
    assert!(!place.inbox().exists());
}

#[test]
fn input_goes_through_to_output_as_it_comes_before_a_block_is_whole() {
    let mut pipe = Pipe::start(&[]);
    let mut output = pipe.output();
    let mut command = wsferry();
    command.args(["send", "-", "--name", "f", &pipe.url, "--json"]).stdin(Stdio::piped());
    let mut sender = Running::start(&mut command);
    let mut input = sender.input();
    let bytes = random(30_000, 1);
    // A line a piece: what was written is read before the next is.
    for piece in bytes.chunks(3000) {
        input.write_all(piece).unwrap();
        let mut came = vec![0; piece.len()];
        output.read_exact(&mut came).unwrap();
        assert!(came == piece);
    }
    input.write_all(b"!").unwrap();
    drop(input);
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"!");
    assert_eq!(sender.end().code(), 0);
    assert_eq!(pipe.end().0, 0);
}

#[test]
fn cuts_lose_nothing_of_what_goes_to_standard_output_and_repeat_nothing() {
    let place = Place::new();
    for (seed, limits) in [
        (1, Limits { bytes: Some(9_000_000), ..Limits::default() }),
        (2, Limits { bytes: Some(2_500_001), ..Limits::default() }),
        (3, Limits { life: Some(Duration::from_millis(300)), rate: Some(40_000_000), ..Limits::default() }),
    ] {
        let bytes = random(32 * MIB + 1234, seed);
        let file = place.file("f", &bytes);
        let mut pipe = Pipe::start(&[]);
        let gateway = Gateway::start(pipe.url["ws://".len()..].parse().unwrap(), limits);
        let read = pipe.read();
        let sent = send_well(&file, &gateway.url(), &[]);
        assert!(read.join().unwrap() == bytes, "{limits:?}");
        let (code, lines) = pipe.end();
        assert_eq!(code, 0, "{lines:?}");
        let connections = gateway.connections.load(Ordering::Relaxed);
        assert!(connections > 3, "{limits:?}: {connections} connections");
        let memory = finished(&lines)["peak_memory"].as_u64().unwrap();
        println!("{limits:?}: {connections} connections, {memory} bytes of memory, {sent}");
        assert!(memory < 100 << 20, "{memory} bytes");
    }
}

#[test]
fn a_reader_that_takes_its_time_is_waited_for_in_little_memory() {
    let place = Place::new();
    let bytes = random(120 * MIB, 4);
    let file = place.file("f", &bytes);
    let mut pipe = Pipe::start(&["--stall-timeout", "1s"]);
    let mut output = pipe.output();
    let url = pipe.url.clone();
    let mut command = wsferry();
    command.arg("send").arg(&file).args([&url, "--json", "--stall-timeout", "1s", "--chunk-size", "30KiB"]);
    let sender = Running::start(&mut command);
    // So much came that more has to wait: the pipe, what may wait, the window.
    pipe.wait_for(|event| event["event"] == "progress" && event["acknowledged"].as_u64() >= Some(16 << 20));
    // The time in which a sender that hears nothing would be given up, and would give up, twice over: neither happens, and
    // no more is acknowledged than may wait.
    let quiet = sender.try_wait_for(Duration::from_millis(2500), |event| {
        event["event"] == "reconnecting" || event["acknowledged"].as_u64() > Some(20 << 20)
    });
    assert!(quiet.is_none(), "{quiet:?}");
    let mut all = Vec::new();
    output.read_to_end(&mut all).unwrap();
    assert!(all == bytes);
    let ended = sender.end();
    assert_eq!((ended.code(), ended.events("reconnecting").len()), (0, 0), "{ended:?}");
    let (code, lines) = pipe.end();
    assert_eq!(code, 0, "{lines:?}");
    let memory = finished(&lines)["peak_memory"].as_u64().unwrap();
    assert!(memory < 80 << 20, "{memory} bytes: {lines:#?}");
}

#[test]
fn a_reader_that_goes_away_ends_both_sides_with_one_line_each() {
    let place = Place::new();
    let file = place.file("f", &random(20 * MIB, 5));
    let mut pipe = Pipe::start(&[]);
    let mut output = pipe.output();
    let url = pipe.url.clone();
    let head = thread::spawn(move || {
        let mut some = [0; 10];
        output.read_exact(&mut some).unwrap();
        some
    });
    let sent = send(&file, &url, &[]);
    assert!(head.join().unwrap() == std::fs::read(&file).unwrap()[..10]);
    sent.assert_error(4, &["f cannot be passed on", "Broken pipe"]);
    let (code, lines) = pipe.end();
    assert_eq!(code, 4, "{lines:?}");
    let complaints = complaints(&lines);
    assert!(complaints.len() == 1 && complaints[0].contains("f cannot be passed on"), "{complaints:?}");
}

#[test]
fn a_second_file_is_refused_and_so_is_a_directory() {
    let place = Place::new();
    let (first, second) = (place.file("a", b"first"), place.file("b", b"second"));
    let mut pipe = Pipe::start(&[]);
    let read = pipe.read();
    let mut command = wsferry();
    let sent = Running::start(command.arg("send").args([&first, &second]).args([&pipe.url, "--json"])).end();
    assert_eq!(sent.code(), 4, "{sent:?}");
    assert_eq!(sent.event("failed")["name"], "b");
    assert_eq!(read.join().unwrap(), b"first");
    let (code, lines) = pipe.end();
    assert_eq!(code, 4, "{lines:?}");

    place.file("dir/c", b"third");
    let mut pipe = Pipe::start(&[]);
    let read = pipe.read();
    let sent = send(&place.path("dir"), &pipe.url, &[]);
    assert_eq!(sent.code(), 4, "{sent:?}");
    assert!(sent.errors.contains("one plain file"), "{sent:?}");
    assert_eq!(read.join().unwrap(), b"");
    assert_eq!(pipe.end().0, 4);
}

#[test]
fn a_source_that_changed_behind_bytes_that_left_is_a_mismatch_and_said() {
    let place = Place::new();
    let bytes = random(30 * MIB, 6);
    let file = place.file("f", &bytes);
    let mut pipe = Pipe::start(&[]);
    let read = pipe.read();
    let address = pipe.url["ws://".len()..].parse().unwrap();
    let gateway = Gateway::start(address, Limits { rate: Some(8_000_000), ..Limits::default() });
    let mut command = wsferry();
    command.arg("send").arg(&file).args([&gateway.url(), "--json"]);
    let sender = Running::start(&mut command);
    sender.wait_for(|event| event["event"] == "progress" && event["durable"].as_u64() >= Some(BLOCK));
    // Another run may be anybody's, and takes nothing from this one.
    let other = place.file("other/f", &random(30 * MIB + 1, 7));
    send(&other, &pipe.url, &[]).assert_error(4, &["is writing f"]);
    std::fs::write(&file, random(30 * MIB + 1, 8)).unwrap();
    sender.end().assert_error(5, &["f were passed on and cannot be taken back", "another version"]);
    let left = read.join().unwrap();
    // What is read in the moment of the change may be of either.
    assert!(left.starts_with(&bytes[..BLOCK as usize]), "{}", left.len());
    let (code, lines) = pipe.end();
    assert_eq!(code, 5, "{lines:?}");
}

#[test]
fn what_makes_no_sense_with_standard_output_is_said_beforehand() {
    for args in [
        &["receive", "--stdout"][..],
        &["receive", "--once", "--stdout", "inbox"],
        &["receive", "--once", "--stdout", "--plain"],
    ] {
        let ended = Running::start(wsferry().args(args)).end();
        assert_eq!(ended.code(), 2, "{ended:?}");
        assert!(ended.errors.contains("--stdout") || ended.errors.contains("--once"), "{ended:?}");
    }
}

#[test]
#[ignore = "it moves 8 GiB through other programs' pipes"]
fn four_gib_go_from_pipe_to_pipe_over_cuts_in_flat_memory() {
    let mut pipe = Pipe::start(&[]);
    let address = pipe.url["ws://".len()..].parse().unwrap();
    let gateway = Gateway::start(address, Limits { bytes: Some(1_500_000_000), ..Limits::default() });
    let (len, seed) = (4 << 30, 9);
    let mut output = pipe.output();
    let read = thread::spawn(move || {
        let (mut hasher, mut piece, mut read) = (blake3::Hasher::new(), vec![0; MIB], 0);
        loop {
            match output.read(&mut piece).unwrap() {
                0 => return (hasher.finalize(), read),
                count => {
                    hasher.update(&piece[..count]);
                    read += count;
                }
            }
        }
    });
    let mut command = wsferry();
    command.args(["send", "-", "--name", "f", &gateway.url(), "--json"]).stdin(Stdio::piped());
    let mut sender = Running::start(&mut command);
    let mut input = sender.input();
    let mut hasher = blake3::Hasher::new();
    for block in 0..len / MIB {
        let piece = random(MIB, seed + block as u64);
        hasher.update(&piece);
        input.write_all(&piece).unwrap();
    }
    drop(input);
    let ended = sender.end_within(10 * PATIENCE);
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(read.join().unwrap(), (hasher.finalize(), len));
    let (code, lines) = pipe.end();
    assert_eq!(code, 0, "{lines:?}");
    for memory in [&ended.event("finished"), &finished(&lines)].map(|event| event["peak_memory"].as_u64()) {
        println!("{memory:?} bytes of memory");
        assert!(memory < Some(150 << 20), "{memory:?} bytes");
    }
    assert!(gateway.connections.load(Ordering::Relaxed) > 2);
}

#[test]
#[ignore = "it needs tar"]
fn a_directory_goes_through_tar_on_both_sides() {
    let place = Place::new();
    place.file("tree/a", &random(5 * MIB, 1));
    place.file("tree/deep/b", &random(1000, 2));
    let mut pipe = Pipe::start(&[]);
    std::fs::create_dir(place.path("out")).unwrap();
    let mut unpack = Command::new("tar");
    let mut unpack = unpack
        .args(["x", "-C"])
        .arg(place.path("out"))
        .stdin(pipe.output())
        .spawn()
        .expect("tar is installed");
    let mut pack = Command::new("tar");
    let mut pack =
        pack.args(["c", "-C"]).arg(place.path("")).arg("tree").stdout(Stdio::piped()).spawn().unwrap();
    let mut command = wsferry();
    command.args(["send", "-", "--name", "x.tar", &pipe.url, "--json"]).stdin(pack.stdout.take().unwrap());
    assert_eq!(Running::start(&mut command).end().code(), 0);
    assert!(pack.wait().unwrap().success() && unpack.wait().unwrap().success());
    assert_eq!(pipe.end().0, 0);
    for file in ["tree/a", "tree/deep/b"] {
        let there = std::fs::read(place.path("out").join(file)).unwrap();
        assert!(there == std::fs::read(place.path(file)).unwrap(), "{file}");
    }
}

/// What an outlet wrote.
struct Written(mpsc::Sender<Vec<u8>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn outlet() -> (Outlet, mpsc::Receiver<Vec<u8>>) {
    let (tell, written) = mpsc::channel();
    (Outlet::new(Written(tell)).unwrap(), written)
}

fn offer(bytes: &[u8], id: char) -> CheckedOffer {
    let id = std::iter::repeat_n(id, 32).collect::<String>();
    let offer = Offer { size: Some(bytes.len() as u64), ..Offer::new(id, "f".to_owned(), OfferKind::File) };
    offer.check().unwrap().unwrap()
}

/// Gives it these bytes of a file, block by block.
fn put(outlet: &Outlet, bytes: &[u8], range: std::ops::Range<usize>) -> Result<(), StorageError> {
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min((at / BLOCK as usize + 1) * BLOCK as usize);
        outlet.write_at(&bytes[at..end], at as u64)?;
        at = end;
    }
    Ok(())
}

fn hashes(bytes: &[u8], block: u64) -> BlockHashes {
    let geometry = Geometry::new(bytes.len() as u64).unwrap();
    let mut hasher = BlockHasher::new(geometry, block);
    hasher.update(&bytes[geometry.block_start(block) as usize..geometry.block_end(block) as usize]);
    hasher.finish()
}

/// Waits until so much of it was written; what that was.
fn taken(written: &mpsc::Receiver<Vec<u8>>, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < len {
        all.extend(written.recv_timeout(PATIENCE).expect("it is written"));
    }
    all
}

fn is_written(outlet: &Outlet, below: u64) {
    while outlet.poll_written(below, &mut Context::from_waker(Waker::noop())).is_pending() {
        thread::yield_now();
    }
}

#[test]
fn what_comes_behind_a_gap_leaves_once_the_gap_is_filled() {
    let bytes = random(3 * BLOCK as usize, 1);
    let (outlet, written) = outlet();
    assert_eq!(outlet.begin(&offer(&bytes, 'a'), Some(RUN)).unwrap(), Opened::default());
    let b = BLOCK as usize;
    for range in [0..99, 300..b, b..2 * b] {
        outlet.write_at(&bytes[range.clone()], range.start as u64).unwrap();
    }
    assert!(taken(&written, 99) == bytes[..99]);
    // The second block is whole, and cannot leave: nothing of it is durable.
    assert_eq!(outlet.note(&[(1, hashes(&bytes, 1))]).unwrap(), 0);
    outlet.write_at(&bytes[99..300], 99).unwrap();
    assert_eq!(outlet.hash_block(0), Some(hashes(&bytes, 0)));
    assert_eq!(outlet.note(&[(0, hashes(&bytes, 0))]).unwrap(), BLOCK);
    outlet.write_at(&bytes[2 * b..], 2 * BLOCK).unwrap();
    assert!(taken(&written, 3 * b - 99) == bytes[99..]);
    assert_eq!(outlet.note(&[(2, hashes(&bytes, 2))]).unwrap(), 3 * BLOCK);
    is_written(&outlet, 3 * BLOCK);
    outlet.seal(blake3::hash(&bytes).into()).unwrap();
    assert!(written.try_recv().is_err(), "each byte once");
}

#[test]
fn a_connection_that_ends_leaves_what_came_in_order_and_the_next_goes_on_there() {
    let bytes = random(2 * BLOCK as usize + 500, 2);
    let (outlet, written) = outlet();
    outlet.begin(&offer(&bytes, 'a'), Some(RUN)).unwrap();
    let b = BLOCK as usize;
    outlet.write_at(&bytes[..b], 0).unwrap();
    outlet.note(&[(0, hashes(&bytes, 0))]).unwrap();
    outlet.write_at(&bytes[b..b + 300], BLOCK).unwrap();
    outlet.write_at(&bytes[b + 600..b + 900], BLOCK + 600).unwrap();
    is_written(&outlet, BLOCK + 300);
    // While it is there, nobody else is let in.
    let refused = outlet.begin(&offer(&bytes, 'a'), Some(RUN));
    assert!(matches!(refused, Err(StorageError::NotTheFirst { .. })), "{refused:?}");
    outlet.put_away();
    let opened = outlet.begin(&offer(&bytes, 'a'), Some(RUN)).unwrap();
    assert_eq!(opened.held, std::iter::once(0..1).collect());
    assert_eq!((opened.received, opened.complete), (BLOCK + 300, false));
    assert_eq!(outlet.digests(0, 9), [hashes(&bytes, 0).digest()]);
    // A sender that begins the block anew, and one that sends all of it once more: the same bytes do no harm.
    outlet.write_at(&bytes[..b], 0).unwrap();
    outlet.note(&[(0, hashes(&bytes, 0))]).unwrap();
    put(&outlet, &bytes, b..bytes.len()).unwrap();
    let mut tree = DigestTree::new(Geometry::new(bytes.len() as u64).unwrap());
    for block in 0..3 {
        tree.insert(block, &hashes(&bytes, block));
        outlet.note(&[(block, hashes(&bytes, block))]).unwrap();
    }
    assert!(taken(&written, bytes.len()) == bytes);
    is_written(&outlet, bytes.len() as u64);
    outlet.seal(tree.digest().unwrap()).unwrap();
    // The receipt may have been lost.
    assert!(outlet.begin(&offer(&bytes, 'a'), Some(RUN)).unwrap().complete);
}

#[test]
fn other_bytes_than_those_that_left_end_it_for_good() {
    let bytes = random(2 * BLOCK as usize, 3);
    let other = random(2 * BLOCK as usize, 4);
    let begun = |len: usize| {
        let (outlet, written) = outlet();
        outlet.begin(&offer(&bytes, 'a'), Some(RUN)).unwrap();
        put(&outlet, &bytes, 0..len).unwrap();
        is_written(&outlet, len as u64);
        (outlet, written)
    };
    let is_left = |result: Result<_, StorageError>| matches!(result, Err(StorageError::Left { .. }));

    let (outlet, _written) = begun(300);
    assert!(is_left(outlet.write_at(&other[..300], 0)), "in a block that is not whole");
    assert!(is_left(outlet.write_at(&bytes[300..600], 300)), "nothing more is taken");

    let (outlet, _written) = begun(BLOCK as usize);
    outlet.note(&[(0, hashes(&bytes, 0))]).unwrap();
    outlet.write_at(&other[..BLOCK as usize], 0).unwrap();
    assert!(is_left(outlet.note(&[(0, hashes(&other, 0))]).map(|_| ())), "in one that was let go");

    let (outlet, _written) = begun(300);
    outlet.put_away();
    assert!(is_left(outlet.begin(&offer(&bytes, 'b'), Some(RUN)).map(|_| ())), "another version");

    let (outlet, _written) = begun(300);
    outlet.put_away();
    for (other, sender) in [(offer(&bytes, 'b'), Some("another run")), (offer(&bytes, 'b'), None)] {
        let refused = outlet.begin(&other, sender);
        assert!(
            matches!(refused, Err(StorageError::NotTheFirst { .. })),
            "a stranger ends nothing: {refused:?}"
        );
    }
    let shorter = CheckedOffer { geometry: Geometry::new(100).unwrap(), ..offer(&bytes, 'a') };
    assert!(matches!(outlet.begin(&shorter, None), Err(StorageError::NotTheFirst { .. })), "of another size");
    assert!(outlet.begin(&offer(&bytes, 'a'), None).is_ok(), "the same file goes on");

    let (outlet, _written) = begun(BLOCK as usize);
    assert!(is_left(outlet.write_zeros(0..BLOCK)), "zeros");

    let (outlet, _written) = begun(2 * BLOCK as usize);
    outlet.note(&[(0, hashes(&bytes, 0)), (1, hashes(&bytes, 1))]).unwrap();
    assert!(is_left(outlet.seal(blake3::hash(&other).into())), "another digest");

    // Where nothing left there is nothing to take back.
    let (outlet, _written) = begun(0);
    outlet.put_away();
    outlet.begin(&offer(&other, 'b'), Some(RUN)).unwrap();
    outlet.write_at(&other[..300], 0).unwrap();
    is_written(&outlet, 300);
}

#[test]
fn blocks_that_come_far_ahead_are_not_kept_without_a_bound() {
    let len = 60 * BLOCK;
    let (outlet, _written) = outlet();
    let block = random(BLOCK as usize, 5);
    outlet
        .begin(&CheckedOffer { geometry: Geometry::new(len).unwrap(), ..offer(&block, 'a') }, Some(RUN))
        .unwrap();
    let ahead = (1..60).map(|at| outlet.write_at(&block, at * BLOCK)).take_while(Result::is_ok).count();
    assert!((30..50).contains(&ahead), "{ahead} blocks");
    assert!(matches!(outlet.write_at(&block, 0), Err(StorageError::TooFar { .. })));
}

#[test]
fn a_run_of_zeros_takes_no_memory_and_leaves_as_zeros() {
    let blocks = 200;
    let (outlet, written) = outlet();
    let geometry = Geometry::new(blocks * BLOCK + 5).unwrap();
    outlet.begin(&CheckedOffer { geometry, ..offer(b"", 'a') }, Some(RUN)).unwrap();
    outlet.write_zeros(0..blocks * BLOCK).unwrap();
    outlet.write_at(b"12345", blocks * BLOCK).unwrap();
    let all = taken(&written, geometry.size() as usize);
    assert!(all[..all.len() - 5].iter().all(|&byte| byte == 0) && all.ends_with(b"12345"));
    is_written(&outlet, geometry.size());
    for block in 0..=blocks {
        let hashes = outlet.hash_block(block).unwrap();
        outlet.note(&[(block, hashes)]).unwrap();
    }
    outlet.seal(blake3::hash(&all).into()).unwrap();
}

#[test]
fn what_comes_at_the_far_end_of_the_largest_file_takes_no_more_memory_than_elsewhere() {
    let geometry = Geometry::new((1 << 53) - 1).unwrap();
    let (outlet, _written) = outlet();
    outlet.begin(&CheckedOffer { geometry, ..offer(b"", 'a') }, Some(RUN)).unwrap();
    let last = geometry.blocks() - 1;
    let info = allocation_counter::measure(|| {
        outlet.write_zeros((last - 100_000) * BLOCK..geometry.size()).unwrap();
        let hashes = outlet.hash_block(last).unwrap();
        assert_eq!(outlet.note(&[(last, hashes)]).unwrap(), 0, "nothing leaves before the rest has come");
        assert_eq!(outlet.digests(last, 9), [hashes.digest()]);
    });
    assert!(info.bytes_max < 1 << 20, "{} bytes", info.bytes_max);
}
