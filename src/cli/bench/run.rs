//! One run: a receiver and a sender as processes of their own, and what they used.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use futures::FutureExt;
use wsferry::floor;
use wsferry::transfer::Shutdown;

use super::Setting;
use crate::cli::args::BenchArgs;
use crate::cli::event::{Finished, JsonEvent};
use crate::cli::exit::Exit;
use crate::cli::random;
use crate::cli::settings::{self, PREFIX};

/// Where files are in memory, on Linux.
const MEMORY: &str = "/dev/shm";
/// How often to look whether to stop.
const POLL: Duration = Duration::from_millis(100);

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
    fn of(finished: &Finished) -> Self {
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

/// The file to send and the place for what arrives; gone when dropped.
pub struct Files {
    dir: tempfile::TempDir,
    name: String,
}

impl Files {
    /// Makes a random file of this size, where there is room for that many copies of it: in `dir`, or in memory if there is room, or where temporary files are.
    pub fn make(dir: Option<&Path>, size: u64, copies: u64, stop: &mut Shutdown) -> Result<Self, Error> {
        let in_memory = || {
            let room = random::free(Path::new(MEMORY)).unwrap_or(0).min(available_memory());
            Path::new(MEMORY).is_dir() && room / 5 * 2 > size
        };
        let parent = match dir {
            Some(dir) => dir.to_owned(),
            None if in_memory() => PathBuf::from(MEMORY),
            None => std::env::temp_dir(),
        };
        let cannot = |error| Error::failed(format!("cannot make files in {}: {error}", parent.display()));
        let dir = tempfile::Builder::new().prefix("wsferry-bench-").tempdir_in(&parent).map_err(cannot)?;
        let name = format!("wsferry-bench-{:016x}", fastrand::u64(..));
        let files = Self { dir, name };
        random::make(&files.source(), size, copies, stop).map_err(|error| match error {
            random::Error::Stopped => Error::Stopped,
            random::Error::Failed(why) => Error::failed(why),
        })?;
        Ok(files)
    }

    /// The directory that holds them, for people.
    pub fn place(&self) -> String {
        self.dir.path().parent().unwrap_or(self.dir.path()).display().to_string()
    }

    pub fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    /// A file that arrives.
    pub fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    fn inbox(&self) -> PathBuf {
        self.dir.path().join("inbox")
    }

    /// Removes what arrived.
    pub fn clean(&self) {
        let _ = std::fs::remove_file(self.target());
        let _ = std::fs::remove_dir_all(self.inbox());
    }
}

/// Bytes that the system could give without swapping.
fn available_memory() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
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

/// Sends the file once with a setting, to a receiver of its own or to the URL.
pub fn once(
    args: &BenchArgs,
    files: &Files,
    setting: Setting,
    stop: &mut Shutdown,
    moved: &mut dyn FnMut(u64),
) -> Result<Sample, Error> {
    let mut receiver = match args.url {
        Some(_) => None,
        None => {
            let mut receive = wsferry()?;
            receive.arg("receive").arg(files.inbox()).args(["--once", "--listen", "127.0.0.1:0"]);
            Some(Running::start(receive)?)
        }
    };
    let url = match (&mut receiver, &args.url) {
        (Some(receiver), _) => receiver.listening(stop)?,
        (None, url) => url.clone().unwrap_or_default(),
    };
    let mut send = wsferry()?;
    send.arg("send").arg(files.source()).arg(&url);
    send.args([
        "--chunk-size",
        &format!("{}B", setting.chunk.raw()),
        "--window",
        &format!("{}B", setting.window),
    ]);
    send.args(["--name", &files.name, "--retry-for", "0s"]);
    if let Some(ByteSize(limit)) = args.frame_limit {
        send.arg("--frame-limit").arg(format!("{limit}B"));
    }
    match &args.url {
        Some(url) => args.dial.hand_on(url, send.arg("--discard")).map_err(Error::failed)?,
        // Loopback is measured, not whatever proxy the environment names.
        None => {
            send.arg("--no-proxy");
        }
    }
    let started = Instant::now();
    let mut sender = Running::start(send)?;
    let sent = sender.finished(stop, moved)?;
    sender.end(stop)?;
    let seconds = started.elapsed().as_secs_f64();
    let received = match &mut receiver {
        Some(receiver) => Some(receiver.finished(stop, &mut |_| {})?),
        None => None,
    };
    if let Some(mut receiver) = receiver {
        receiver.end(stop)?;
    }
    files.clean();
    if received.as_ref().is_some_and(|received| received.blake3 != sent.blake3) {
        return Err(Error::Failed {
            why: "what arrived differs from what was sent".into(),
            exit: Exit::Mismatch,
        });
    }
    Ok(Sample {
        seconds,
        wire_bytes: sent.wire_bytes,
        sender: Usage::of(&sent),
        receiver: received.as_ref().map(Usage::of),
    })
}

/// This program, telling events.
fn wsferry() -> Result<Command, Error> {
    let program =
        std::env::current_exe().map_err(|error| Error::failed(format!("cannot find myself: {error}")))?;
    let mut command = Command::new(program);
    // Whoever measures chose what is measured; what holds for other runs would change it.
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in set.filter(|name| name.starts_with(PREFIX)) {
        command.env_remove(name);
    }
    command.env(settings::variable("config"), "");
    Ok(command)
}

/// A process of this program; it is killed when dropped.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: mpsc::Receiver<String>,
    /// The reason of its `failed` event.
    reason: Option<String>,
}

impl Running {
    fn start(mut command: Command) -> Result<Self, Error> {
        command.arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn();
        let mut child = child.map_err(|error| Error::failed(format!("cannot start a process: {error}")))?;
        let lines = read_lines(child.stdout.take().expect("it is piped"));
        let errors = read_lines(child.stderr.take().expect("it is piped"));
        Ok(Self { child, lines, errors, reason: None })
    }

    /// The URL at which it listens, once it does.
    fn listening(&mut self, stop: &mut Shutdown) -> Result<String, Error> {
        self.wait_for(stop, |event| match event {
            JsonEvent::Listening { url, .. } => Some(url),
            _ => None,
        })
    }

    /// What its transfer came to; what is acknowledged meanwhile goes to `moved`.
    fn finished(&mut self, stop: &mut Shutdown, moved: &mut dyn FnMut(u64)) -> Result<Finished, Error> {
        self.wait_for(stop, |event| match event {
            JsonEvent::Finished(finished) => Some(finished),
            JsonEvent::Progress { acknowledged, .. } => {
                moved(acknowledged);
                None
            }
            _ => None,
        })
    }

    /// What `wanted` makes of the first event that it takes.
    fn wait_for<T>(
        &mut self,
        stop: &mut Shutdown,
        mut wanted: impl FnMut(JsonEvent) -> Option<T>,
    ) -> Result<T, Error> {
        loop {
            match self.lines.recv_timeout(POLL) {
                Ok(line) => {
                    let event = serde_json::from_str(&line).map_err(|error| {
                        Error::failed(format!("a process of another version said {line:?}: {error}"))
                    })?;
                    if let JsonEvent::Failed { reason, advice, .. } = &event {
                        let advice = advice.iter().map(|advice| format!("; {advice}"));
                        self.reason = Some(std::iter::once(reason.clone()).chain(advice).collect());
                    }
                    if let Some(found) = wanted(event) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.failure(stop)),
            }
            if stop.now_or_never().is_some() {
                return Err(Error::Stopped);
            }
        }
    }

    /// Waits for the end of the process, which has nothing left to do.
    fn end(&mut self, stop: &mut Shutdown) -> Result<(), Error> {
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(self.failure(stop)),
        }
    }

    /// Why it ended without the event that was waited for.
    fn failure(&mut self, stop: &mut Shutdown) -> Error {
        let status = self.child.wait();
        if stop.now_or_never().is_some() {
            return Error::Stopped;
        }
        // The event's reason comes without the advice that goes with a transfer of one's own.
        let said = self.reason.take().or_else(|| self.errors.iter().last());
        let said = said.unwrap_or_else(|| "a process ended without a word".to_owned());
        let exit = match status.ok().and_then(|status| Exit::of(status.code()?)) {
            // Ctrl-C in a terminal reaches it as well as this process.
            Some(Exit::CtrlC) => return Error::Stopped,
            Some(exit @ (Exit::Interrupted | Exit::Refused | Exit::Mismatch)) => exit,
            _ => Exit::Failed,
        };
        Error::Failed { why: said.trim_start_matches("wsferry: ").to_owned(), exit }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(from: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (lines, read) = mpsc::channel();
    std::thread::spawn(move || {
        let all = BufReader::new(from).lines().map_while(Result::ok);
        all.map(|line| lines.send(line)).take_while(Result::is_ok).for_each(drop);
    });
    read
}
