//! Who does not read is not read from, and memory stays flat.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::plain::{dial, masked};
use crate::support::{Place, Receiver, Running, random, wsferry};

/// Resident memory of a process at its peak, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_client_that_does_not_read_what_comes_back_is_not_read_from() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain", "--stall-timeout", "2s"]);
    let mut socket = dial(&format!("{}/f", receiver.url));
    let text = STANDARD.encode(random(60_000_000, 7));
    let stream = socket.get_mut();
    stream.set_write_timeout(Some(Duration::from_millis(700))).unwrap();
    let frame = masked(true, 1, text.as_bytes());
    // The sockets' buffers take some megabytes; then nobody reads.
    let mut written = 0;
    let error = loop {
        match stream.write(&frame[written..]) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    assert!(written < frame.len() / 2, "{written} bytes were taken");
    let failed = receiver.running.wait_for(|event| event["event"] == "failed");
    assert!(failed["reason"].as_str().unwrap().contains("has to read while it sends"), "{failed}");
    assert!(peak(receiver.running.pid()) < 24 * 1024);
    let listing = loop {
        match place.listing() {
            listing if listing.is_empty() => break listing,
            _ => thread::yield_now(),
        }
    };
    assert_eq!(listing, [""; 0]);
}

#[test]
fn a_client_that_reads_late_gets_all_of_it() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    let socket = dial(&format!("{}/f", receiver.url));
    let bytes = random(30_000_000, 8);
    let text = STANDARD.encode(&bytes);
    let mut writer = socket.get_ref().try_clone().unwrap();
    let frame = masked(true, 1, text.as_bytes());
    let writing = thread::spawn(move || {
        for part in frame.chunks(50_000) {
            writer.write_all(part).unwrap();
        }
    });
    let mut socket = socket;
    // Less at a time than comes.
    let mut slow = Slow { stream: socket.get_ref().try_clone().unwrap(), most: 3000 };
    let mut wire = Vec::new();
    let mut expected = WebSocketLength::default();
    while !expected.is_whole(&wire, text.len()) {
        let mut part = [0; 8192];
        let count = slow.read(&mut part).unwrap();
        wire.extend(&part[..count]);
    }
    writing.join().unwrap();
    assert!(expected.payload == text.as_bytes());
    // There are libraries that take 4,096 fragments and no more.
    assert!(expected.frames < 700, "{} frames", expected.frames);
    assert!(place.received("f") == bytes);
    let _ = socket.close(None);
}

struct Slow {
    stream: TcpStream,
    most: usize,
}

impl Read for Slow {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let most = self.most.min(to.len());
        self.stream.read(&mut to[..most])
    }
}

/// Takes a server's frames apart.
#[derive(Default)]
struct WebSocketLength {
    taken: usize,
    frames: usize,
    payload: Vec<u8>,
}

impl WebSocketLength {
    fn is_whole(&mut self, wire: &[u8], len: usize) -> bool {
        while let [first, short, rest @ ..] = &wire[self.taken..] {
            let (head, payload) = match (short, rest) {
                (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
                (127, [a, b, c, d, e, f, g, h, ..]) => {
                    (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize)
                }
                (0..126, _) => (2, usize::from(*short)),
                _ => return false,
            };
            let from = self.taken + head;
            if wire.len() < from + payload {
                return false;
            }
            if first & 8 == 0 {
                self.payload.extend(&wire[from..from + payload]);
            }
            self.frames += 1;
            self.taken = from + payload;
        }
        self.payload.len() >= len
    }
}

/// Sends a random file of this size through both sides; gives the peak memory of each, in bytes.
fn peaks(size: u64, flags: &[&str]) -> (f64, f64) {
    let place = Place::new();
    let path = place.path("f");
    let mut file = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(&path).unwrap());
    let mut rng = fastrand::Rng::with_seed(13);
    let mut part = vec![0; 1 << 20];
    for _ in 0..size >> 20 {
        rng.fill(&mut part);
        file.write_all(&part).unwrap();
    }
    file.flush().unwrap();
    drop(file);
    let receiver = Receiver::start(&place, &["--plain"]);
    let mut command = wsferry();
    command.args(["send", "--json", "--plain"]).args(flags).arg(&path).arg(format!("{}/f", receiver.url));
    let sender = Running::start(&mut command);
    let sent = sender.wait_for(|event| event["event"] != "progress" && event["event"] != "started");
    let received = receiver.running.wait_for(|event| event["event"] == "finished");
    assert_eq!(sent["event"], "finished", "{sent}");
    assert_eq!(sent["blake3"], received["blake3"]);
    let same = std::process::Command::new("cmp").arg(&path).arg(place.inbox().join("f")).status().unwrap();
    assert!(same.success());
    let peak = |event: &serde_json::Value| event["peak_memory"].as_f64().unwrap();
    println!("{size} bytes {flags:?}: sender {}, receiver {} bytes at peak", peak(&sent), peak(&received));
    (peak(&sent), peak(&received))
}

#[test]
fn memory_stays_flat_in_fragments_and_in_one_frame() {
    for flags in [&[][..], &["--one-frame"]] {
        let (sender, receiver) = peaks(128 << 20, flags);
        assert!(sender.max(receiver) < f64::from(16 << 20), "{sender} {receiver}");
    }
}

#[test]
#[ignore = "writes 8 GiB, twice"]
fn memory_stays_flat_at_4_gib_of_one_message() {
    for flags in [&[][..], &["--one-frame"]] {
        let (sender, receiver) = peaks(4 << 30, flags);
        assert!(sender.max(receiver) < f64::from(16 << 20), "{sender} {receiver}");
    }
}
