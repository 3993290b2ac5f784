//! Ctrl-C, SIGTERM and a terminal that goes away: the first asks to stop, the second ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use wsferry::transfer::Shutdown;

use super::exit::Exit;

/// What a sender says when it was stopped.
pub const STOPPED: &str = "stopped; run the same command again to resume";

/// Which signal came, if one did.
#[derive(Debug, Clone, Default)]
pub struct Signalled(Arc<AtomicI32>);

impl Signalled {
    /// The exit code of a program that was stopped: Ctrl-C has its own.
    pub fn exit(&self) -> Exit {
        if self.0.load(Ordering::Relaxed) == SIGINT { Exit::CtrlC } else { Exit::Interrupted }
    }
}

/// Watches for signals on a thread of its own, so that a transfer that hangs cannot hold them up: where nothing has to
/// be put in order first, the program ends after `patience` even if a slow disk keeps its main thread.
pub fn watch(patience: Option<Duration>) -> std::io::Result<(Shutdown, Signalled)> {
    // A write beyond a file-size limit shall fail with an error, not kill the program.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let (handle, shutdown) = Shutdown::new();
    let signalled = Signalled::default();
    let seen = signalled.clone();
    let mut handle = Some(handle);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            seen.0.store(signal, Ordering::Relaxed);
            match handle.take() {
                Some(handle) => {
                    handle.stop();
                    if let Some(patience) = patience {
                        let seen = seen.clone();
                        std::thread::spawn(move || {
                            std::thread::sleep(patience);
                            eprintln!("wsferry: {STOPPED}");
                            std::process::exit(seen.exit().code().into());
                        });
                    }
                }
                None => std::process::exit(seen.exit().code().into()),
            }
        }
    })?;
    Ok((shutdown, signalled))
}
