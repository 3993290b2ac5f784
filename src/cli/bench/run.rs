//! One run: what it takes, what it gives, and what the I/O floor takes beside it.

use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use futures::FutureExt;
use wsferry::floor;
use wsferry::transfer::Shutdown;

use super::child::{Running, wsferry};
use super::files::Files;
use super::setting::Setting;
use crate::cli::event::Finished;
use crate::cli::exit::Exit;

/// How often to look whether to stop.
pub const POLL: Duration = Duration::from_millis(100);

/// Why there is no sample.
#[derive(Debug)]
pub enum Error {
    /// A signal came.
    Stopped,
    /// What went wrong, and the exit code that follows.
    Failed { why: String, exit: Exit },
}

impl Error {
    pub fn failed(why: impl Into<String>) -> Self {
        Self::Failed { why: why.into(), exit: Exit::Failed }
    }
}

/// What one side used.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub peak_memory: Option<u64>,
}

impl Usage {
    pub fn of(finished: &Finished) -> Self {
        Self { cpu_seconds: finished.cpu_seconds, peak_memory: finished.peak_memory }
    }
}

/// What one run gave.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// From the sender's start to its end.
    pub seconds: f64,
    /// Both ways.
    pub wire_bytes: u64,
    pub sender: Usage,
    /// `None` if it runs elsewhere.
    pub receiver: Option<Usage>,
}

impl Sample {
    /// What the sender alone tells.
    pub fn of(sent: &Finished, seconds: f64) -> Self {
        Self { seconds, wire_bytes: sent.wire_bytes, sender: Usage::of(sent), receiver: None }
    }
}

/// How long the I/O floor takes for the file.
pub fn floor(files: &Files, stop: &mut Shutdown) -> Result<Duration, Error> {
    let (source, target) = (files.source(), files.target());
    let (tell, told) = mpsc::channel();
    // What is stopped is left to itself: the program ends.
    std::thread::spawn(move || tell.send(floor::measure(&source, &target)));
    let measured = loop {
        match told.recv_timeout(POLL) {
            Ok(measured) => break measured,
            Err(RecvTimeoutError::Timeout) if stop.now_or_never().is_none() => {}
            Err(RecvTimeoutError::Timeout) => return Err(Error::Stopped),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::failed("cannot measure the I/O floor: its thread panicked"));
            }
        }
    };
    files.clean();
    measured.map_err(|error| Error::failed(format!("cannot measure the I/O floor: {error}")))
}

/// One run of the sender, which does not know yet where to.
pub struct Sending<'a> {
    pub files: &'a Files,
    pub setting: Setting,
    pub frame_limit: Option<ByteSize>,
    pub stop: &'a mut Shutdown,
    /// Is told how much of the file was acknowledged.
    pub moved: &'a mut dyn FnMut(u64),
}

impl Sending<'_> {
    /// The command that sends there, to which a place adds flags of its own.
    pub fn command(&self, url: &str) -> Result<Command, Error> {
        let Setting { chunk, window } = self.setting;
        let mut send = wsferry()?;
        send.arg("send").arg(self.files.source()).arg(url);
        send.args(["--chunk-size", &format!("{}B", chunk.raw()), "--window", &format!("{window}B")]);
        send.args(["--name", &self.files.name, "--retry-for", "0s"]);
        if let Some(ByteSize(limit)) = self.frame_limit {
            send.arg("--frame-limit").arg(format!("{limit}B"));
        }
        Ok(send)
    }

    /// Runs it to its end. What it says of the file, and the seconds that it took.
    pub fn run(&mut self, command: Command) -> Result<(Finished, f64), Error> {
        let started = Instant::now();
        let mut sender = Running::start(command)?;
        let sent = sender.finished(self.stop, self.moved)?;
        sender.end(self.stop)?;
        Ok((sent, started.elapsed().as_secs_f64()))
    }
}
