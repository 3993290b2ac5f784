//! Programs as processes, timed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// `wsferry`, built for release.
pub fn wsferry() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsferry"));
    command.stdin(Stdio::null());
    command
}

/// `rsync`, whose whole output is in English.
pub fn rsync() -> Command {
    let mut command = Command::new("rsync");
    command.stdin(Stdio::null()).env("LC_ALL", "C");
    command
}

/// A receiver of the program; killed when dropped.
pub struct Receiver {
    child: Child,
    events: mpsc::Receiver<Value>,
    scheme: String,
    pub address: String,
    directory: PathBuf,
}

impl Receiver {
    pub fn start(directory: &Path, flags: &[&str]) -> Self {
        let _ = std::fs::remove_dir_all(directory);
        let mut command = wsferry();
        command.arg("receive").arg(directory).args(["--listen", "127.0.0.1:0", "--json"]).args(flags);
        // What goes wrong fails the sender; that a killed sender is missed is no news.
        command.stderr(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (tell, events) = mpsc::channel();
        // Read at once: a receiver whose output nobody takes waits for it.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).expect("JSON"));
            }
        });
        let first: Value = events.recv().expect("it says where");
        let url = first["url"].as_str().expect("a URL");
        let (scheme, address) = url.split_once("://").expect("a URL");
        let (scheme, address) = (scheme.to_owned(), address.to_owned());
        Self { child, events, scheme, address, directory: directory.to_owned() }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The next `finished` event.
    pub fn finished(&mut self) -> Value {
        loop {
            let event = self.events.recv().expect("a file arrives");
            if event["event"] == "finished" {
                return event;
            }
        }
    }

    /// The most memory, in bytes, and the threads it has.
    pub fn usage(&self) -> (u64, u64) {
        usage(self.child.id())
    }
}

fn usage(process: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let number = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("0");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0)
    };
    (number("VmHWM:") * 1024, number("Threads:"))
}

/// The most memory, in bytes, that a process has had, or one of those that it started: the largest. Those that have ended
/// tell nothing any more.
pub fn peak_memory(process: u32) -> u64 {
    children(process).into_iter().map(peak_memory).fold(usage(process).0, u64::max)
}

/// What a process's first thread has started, and what has not ended.
fn children(process: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    children.unwrap_or_default().split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// One transfer between two processes.
pub struct Run {
    /// From the sender's start to its end.
    pub seconds: f64,
    pub sender: Value,
    pub receiver: Value,
}

/// Sends a file to a new receiver, and compares the digests that both sides report.
pub fn transfer(source: &Path, directory: &Path, flags: &[&str]) -> Run {
    let mut receiver = Receiver::start(directory, &["--once"]);
    let url = receiver.url();
    let (seconds, sender) = send(source, &url, flags);
    let receiver = receiver.finished();
    assert_eq!(sender["blake3"], receiver["blake3"]);
    Run { seconds, sender, receiver }
}

/// Sends a file; the seconds it took and its last event.
pub fn send(source: &Path, url: &str, flags: &[&str]) -> (f64, Value) {
    let mut command = wsferry();
    command.arg("send").arg(source).arg(url).arg("--json").args(flags);
    let started = Instant::now();
    let output = command.output().expect("it starts");
    let seconds = started.elapsed().as_secs_f64();
    assert!(output.status.success(), "{output:?}");
    let last = String::from_utf8(output.stdout).expect("text");
    let event: Value = serde_json::from_str(last.lines().last().expect("a line")).expect("JSON");
    assert_eq!(event["event"], "finished", "{event}");
    (seconds, event)
}

/// Runs a program to its end; the seconds it took. `None` if it is not installed.
pub fn time(command: &mut Command) -> Option<f64> {
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).output().ok()?;
    let seconds = started.elapsed().as_secs_f64();
    assert!(output.status.success(), "{command:?}: {output:?}");
    Some(seconds)
}

/// Whether a program is there.
pub fn is_there(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Waits until something listens on a port of this machine, without connecting to it.
pub fn wait_for_listener(port: u16) {
    let wanted = format!(":{port:04X} 00000000:0000 0A");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !std::fs::read_to_string("/proc/net/tcp").expect("Linux").contains(&wanted) {
        assert!(Instant::now() < deadline, "nothing listens on port {port}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port that is free just now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
