//! Other people's programs, as processes of the tests: a template of `tests/programs` is filled in, the program is started
//! on free ports of 127.0.0.1 and ended with all that it started.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::support::{Ended, PATIENCE, Place, Process};

/// How often a program is tried with other ports.
const TRIES: usize = 5;

/// A running program that listens; it is killed when dropped.
pub struct Program<const N: usize> {
    process: Process,
    command: Command,
    log: PathBuf,
    pub ports: [u16; N],
}

impl<const N: usize> Program<N> {
    /// Starts the program that `command` names for these ports, and waits until it listens on all of them. `package` is
    /// where it comes from, for those who lack it.
    pub fn start(place: &Place, package: &str, command: impl Fn([u16; N]) -> Command) -> Self {
        let log = place.path(&format!("{package}.log"));
        for _ in 0..TRIES {
            let ports = free_ports();
            let mut command = command(ports);
            let process = spawn(&mut command, &log, package);
            let mut program = Self { process, command, log: log.clone(), ports };
            if program.listens() {
                return program;
            }
            // Most likely another process took one of the ports meanwhile.
        }
        panic!("{package} does not start: {}", std::fs::read_to_string(&log).unwrap());
    }

    /// Starts it once more, on the same ports.
    pub fn start_again(&mut self) {
        // Somebody told it to end.
        assert!(self.process.end_within(PATIENCE).is_some(), "it does not end: {}", self.log());
        let program = self.command.get_program().to_owned();
        self.process = spawn(&mut self.command, &self.log, &program.to_string_lossy());
        assert!(self.listens(), "{program:?} does not start again: {}", self.log());
    }

    pub fn url(&self, port: usize) -> String {
        format!("ws://127.0.0.1:{}", self.ports[port])
    }

    /// Its own pid, which is the one to signal; those that it started follow it.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.pid().cast_signed()).expect("it is none but 0")
    }

    /// What it said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until all its ports take connections; false if it ended before.
    fn listens(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut missing = self.ports.to_vec();
        while !self.process.has_ended() {
            missing.retain(|&port| TcpStream::connect(("127.0.0.1", port)).is_err());
            if missing.is_empty() {
                // What listens there could be another process, beside which this one has no place.
                return !self.process.has_ended();
            }
            assert!(Instant::now() < deadline, "no one listens on {missing:?}: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl<const N: usize> Drop for Program<N> {
    fn drop(&mut self) {
        // It leads a group of its own, in which its workers are.
        let _ = kill_process_group(self.pid(), Signal::KILL);
    }
}

fn spawn(command: &mut Command, log: &Path, package: &str) -> Process {
    let log = std::fs::File::create(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
    Process::try_start(command).unwrap_or_else(|error| {
        panic!("cannot run {:?}, which the package {package} has: {error}", command.get_program())
    })
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// A program by name, also where the directory of those for administrators is not searched.
pub fn program(name: &str) -> Command {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    let found =
        std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file());
    Command::new(found.unwrap_or_else(|| name.into()))
}

/// A template of `tests/programs` with each `@NAME@` replaced, as a file of the place; `@DIR@` is the place itself.
pub fn filled(place: &Place, template: &str, values: &[(&str, String)]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(template);
    let mut text = std::fs::read_to_string(source).unwrap();
    let directory = place.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    for (name, value) in values.iter().chain([&("DIR", directory)]) {
        text = text.replace(&format!("@{name}@"), value);
    }
    assert!(!text.contains('@'), "a placeholder is left: {text}");
    place.file(template, text.as_bytes())
}

/// Looks whether a sent file arrived as it is, and prints what crossed twice; gives the `finished` event.
pub fn arrived(what: &str, ended: &Ended, place: &Place, name: &str, bytes: &[u8]) -> Value {
    assert_eq!(ended.code(), 0, "{what}: {ended:?}");
    let finished = ended.event("finished");
    assert_eq!(finished["already_there"], false, "{what}: {finished}");
    assert!(place.received(name) == bytes, "{what}: the file differs");
    println!(
        "{what}: {} MiB in {:.2} s, {} bytes sent twice",
        bytes.len() >> 20,
        finished["seconds"].as_f64().unwrap(),
        finished["resent_bytes"]
    );
    finished
}

/// The bytes that were sent twice.
pub fn resent(finished: &Value) -> u64 {
    finished["resent_bytes"].as_u64().unwrap()
}

#[test]
fn a_program_that_is_missing_or_does_not_start_is_said_loudly() {
    let place = Place::new();
    let start = |name: &'static str| {
        let place = &place;
        let start = move || Program::start(place, "some-package", |[_]: [u16; 1]| program(name)).ports;
        let failure = std::panic::catch_unwind(std::panic::AssertUnwindSafe(start)).unwrap_err();
        failure.downcast_ref::<String>().unwrap().clone()
    };
    let missing = start("no-such-program-as-this");
    assert!(missing.contains("some-package") && missing.contains("No such file"), "{missing}");
    // It ends without ever listening.
    let useless = start("true");
    assert!(useless.contains("some-package does not start"), "{useless}");
}

#[test]
fn a_program_is_killed_with_all_that_it_started() {
    let place = Place::new();
    let started = place.path("started");
    let program = Program::start(&place, "sh", |[]: [u16; 0]| {
        let mut command = program("sh");
        command
            .arg("-c")
            .arg(format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", started.display()));
        command
    });
    let deadline = Instant::now() + PATIENCE;
    while !started.exists() {
        assert!(Instant::now() < deadline, "{}", program.log());
        thread::sleep(Duration::from_millis(5));
    }
    let sleeper = std::fs::read_to_string(&started).unwrap().trim().parse().unwrap();
    let sleeper = Pid::from_raw(sleeper).unwrap();
    kill_process(sleeper, Signal::WINCH).expect("it runs");
    drop(program);
    // Whoever adopts it may take a moment to bury it.
    let stat = format!("/proc/{}/stat", sleeper.as_raw_nonzero());
    while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "it runs on");
        thread::sleep(Duration::from_millis(5));
    }
}
