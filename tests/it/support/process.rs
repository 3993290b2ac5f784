//! Programs that run, and how they end.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::PATIENCE;

/// How often it is looked whether a process has ended: nothing else tells.
const POLL: Duration = Duration::from_millis(2);

/// A process, killed when dropped.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let started = Self::try_start(command);
        started.unwrap_or_else(|error| panic!("cannot run {:?}: {error}", command.get_program()))
    }

    /// Starts it, if it is there.
    pub fn try_start(command: &mut Command) -> io::Result<Self> {
        command.spawn().map(Self)
    }

    /// Its standard input, if that is a pipe that nobody has taken.
    pub fn input(&mut self) -> ChildStdin {
        self.0.stdin.take().expect("its standard input is a pipe")
    }

    /// Likewise its standard output.
    pub fn output(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("its standard output is a pipe")
    }

    /// Likewise its standard error.
    pub fn errors(&mut self) -> ChildStderr {
        self.0.stderr.take().expect("its standard error is a pipe")
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap().success());
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Whether it has ended by itself, or was killed.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Waits for the end.
    pub fn end(&mut self) -> ExitStatus {
        self.end_within(PATIENCE).expect("it ends in time")
    }

    /// Waits for the end; `None` if it does not come so soon.
    pub fn end_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running program, whose standard output is read line by line. It is killed when dropped.
pub struct Running {
    process: Process,
    lines: mpsc::Receiver<String>,
    errors: thread::JoinHandle<String>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub lines: Vec<String>,
    pub errors: String,
}

impl Ended {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// The events of this kind, of a program that ran with `--json`.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let events =
            self.lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"));
        events.filter(|event| event["event"] == kind).collect()
    }

    /// The last of them.
    pub fn event(&self, kind: &str) -> Value {
        self.events(kind).pop().unwrap_or_else(|| panic!("no {kind} event: {self:?}"))
    }

    /// Asserts the exit code, one line on standard error with these words, and no panic.
    pub fn assert_error(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code(), code, "{self:?}");
        let lines: Vec<&str> = self.errors.lines().filter(|line| line.starts_with("wsferry: ")).collect();
        assert_eq!(lines.len(), 1, "one line tells what happened: {self:?}");
        for word in words {
            assert!(lines[0].contains(word), "{word:?} is missing: {}", lines[0]);
        }
        assert!(!self.errors.contains("panicked"), "{}", self.errors);
    }
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut process = Process::start(command);
        let lines = lines(process.output());
        let mut stderr = process.errors();
        let errors = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Self { process, lines, errors }
    }

    /// The next line of output.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line of output in time")
    }

    /// Waits for an event that fits, of a program that runs with `--json`.
    pub fn wait_for(&self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event: Value = serde_json::from_str(&self.line()).unwrap();
            if fits(&event) {
                return event;
            }
        }
    }

    /// An event that fits, if it comes so soon.
    pub fn try_wait_for(&self, time: Duration, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event: Value = serde_json::from_str(&self.lines.recv_timeout(left).ok()?).unwrap();
            if fits(&event) {
                return Some(event);
            }
        }
    }

    /// The next event; `None` at the end of the output.
    pub fn try_event(&self) -> Option<Value> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(serde_json::from_str(&line).expect("each line is JSON")),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        }
    }

    /// Its standard input, if that was asked for.
    pub fn input(&mut self) -> ChildStdin {
        self.process.input()
    }

    /// Whether it has ended by itself, or was killed.
    pub fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for the end.
    pub fn end(self) -> Ended {
        self.end_within(PATIENCE)
    }

    /// Waits for the end, which may take so long.
    pub fn end_within(mut self, patience: Duration) -> Ended {
        let status = self.process.end_within(patience);
        let status = status.unwrap_or_else(|| {
            panic!("it does not end: {:?}", self.lines.try_iter().collect::<Vec<_>>());
        });
        let errors = self.errors.join().unwrap();
        Ended { status, lines: self.lines.iter().collect(), errors }
    }
}

/// The lines that come from there, until the end, read on a thread.
pub fn lines(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (tell, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    lines
}
