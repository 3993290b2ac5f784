//! The processes of a bench: this program, telling events.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};

use futures::FutureExt;
use wsferry::transfer::Shutdown;

use super::run::{Error, POLL};
use crate::cli::event::{Finished, JsonEvent};
use crate::cli::exit::Exit;
use crate::cli::settings::{self, PREFIX};

/// This program, as it is without what the environment sets.
pub fn wsferry() -> Result<Command, Error> {
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
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: mpsc::Receiver<String>,
    /// The reason of its `failed` event.
    reason: Option<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Result<Self, Error> {
        command.arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn();
        let mut child = child.map_err(|error| Error::failed(format!("cannot start a process: {error}")))?;
        let lines = read_lines(child.stdout.take().expect("it is piped"));
        let errors = read_lines(child.stderr.take().expect("it is piped"));
        Ok(Self { child, lines, errors, reason: None })
    }

    /// The URL at which it listens, once it does.
    pub fn listening(&mut self, stop: &mut Shutdown) -> Result<String, Error> {
        self.wait_for(stop, |event| match event {
            JsonEvent::Listening { url, .. } => Some(url),
            _ => None,
        })
    }

    /// What its transfer came to; what is acknowledged meanwhile goes to `moved`.
    pub fn finished(&mut self, stop: &mut Shutdown, moved: &mut dyn FnMut(u64)) -> Result<Finished, Error> {
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
    pub fn end(&mut self, stop: &mut Shutdown) -> Result<(), Error> {
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
