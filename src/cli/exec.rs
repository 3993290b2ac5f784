//! `receive --exec`: a command for each file that was stored. What a peer said is in its environment, and in no shell's
//! words.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use wsferry::transfer::Summary;

use super::event::JsonEvent;
use super::output::Output;

/// How many run at a time.
const AT_A_TIME: usize = 4;

/// Runs a command for each file, a few at a time, beside the transfers.
#[derive(Debug)]
pub struct Exec {
    /// Nothing once all were given out.
    files: Mutex<Option<mpsc::Sender<Stored>>>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    has_failed: Arc<AtomicBool>,
}

/// A file that was stored.
#[derive(Debug)]
struct Stored {
    transfer: u64,
    name: String,
    path: PathBuf,
    size: u64,
    blake3: String,
    peer: String,
    result: &'static str,
}

impl Exec {
    /// Will run this command by `sh -c`.
    pub fn new(command: &str, output: &Output) -> std::io::Result<Self> {
        let (files, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let has_failed = Arc::<AtomicBool>::default();
        let worker = |_| {
            let (command, output) = (command.to_owned(), output.clone());
            let (queue, has_failed) = (queue.clone(), has_failed.clone());
            let work = move || {
                // The lock is held while it waits, and not while the command runs.
                while let Ok(stored) = {
                    let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    queue.recv()
                } {
                    if !run(&command, &stored, &output) {
                        has_failed.store(true, Ordering::Relaxed);
                    }
                }
            };
            std::thread::Builder::new().name("exec".to_owned()).spawn(work)
        };
        let workers = (0..AT_A_TIME).map(worker).collect::<Result<_, _>>()?;
        Ok(Self { files: Mutex::new(Some(files)), workers: Mutex::new(workers), has_failed })
    }

    /// A file stands under its final name in this directory: its command runs as soon as there is room.
    pub fn stored(&self, transfer: u64, directory: &Path, summary: &Summary) {
        let stored = Stored {
            transfer,
            name: summary.name.clone(),
            path: directory.join(&summary.name),
            size: summary.size(),
            blake3: summary.digest.map(|digest| digest.to_string()).unwrap_or_default(),
            peer: summary.peer.clone(),
            result: if summary.complete { "already-there" } else { "received" },
        };
        if let Some(files) = &*self.files.lock().unwrap_or_else(PoisonError::into_inner) {
            // Workers end behind the last file only.
            let _ = files.send(stored);
        }
    }

    /// Waits for all that were given out. Whether one of them failed.
    pub fn finish(&self) -> bool {
        drop(self.files.lock().unwrap_or_else(PoisonError::into_inner).take());
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in workers {
            let _ = worker.join();
        }
        self.has_failed.load(Ordering::Relaxed)
    }
}

/// Runs the command for one file, to its end. Whether it went well.
fn run(command: &str, stored: &Stored, output: &Output) -> bool {
    let started = Instant::now();
    let mut shell = Command::new("sh");
    // What is set for this run is nothing to it: secrets, and flags that another wsferry would take for its own.
    let of_ours = |name: &OsString| name.to_str().is_some_and(|name| name.starts_with("WSFERRY_"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| of_ours(name)) {
        shell.env_remove(name);
    }
    let ended = shell
        .args(["-c", command])
        .env("WSFERRY_FILE_PATH", &stored.path)
        .env("WSFERRY_FILE_NAME", &stored.name)
        .env("WSFERRY_FILE_SIZE", stored.size.to_string())
        .env("WSFERRY_FILE_BLAKE3", &stored.blake3)
        .env("WSFERRY_FILE_PEER", &stored.peer)
        .env("WSFERRY_FILE_RESULT", stored.result)
        .stdin(Stdio::null())
        // Standard output has results, or events, alone.
        .stdout(std::io::stderr())
        .status();
    let (code, reason) = match ended {
        Ok(status) if status.success() => (Some(0), None),
        Ok(status) => (status.code(), Some(status.to_string())),
        Err(error) => (None, Some(format!("sh cannot be run: {error}"))),
    };
    output.event(JsonEvent::Exec {
        transfer: stored.transfer,
        name: stored.name.clone(),
        exit_code: code,
        seconds: started.elapsed().as_secs_f64(),
        reason: reason.clone(),
    });
    if let Some(reason) = &reason {
        output.said(&format!("the command of --exec failed for {}, which is kept: {reason}", stored.name));
    }
    reason.is_none()
}
