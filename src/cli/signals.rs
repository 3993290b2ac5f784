//! Ctrl-C and SIGTERM: the first asks to stop, the second ends the program at once. And a terminal that goes away, which
//! stops no transfer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use wsferry::transfer::{Shutdown, ShutdownHandle};

use super::exit::Exit;
use super::output::Output;

/// What a sender says when it was stopped.
pub const STOPPED: &str = "stopped; run the same command again to resume";

/// How long the last words of a program that ends at once may take.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What SIGHUP does.
pub enum Hangup {
    /// The same as SIGTERM.
    Stops,
    /// Nothing: what runs goes on to its end.
    IsIgnored,
    /// It gives this signal.
    Tells(ShutdownHandle),
    /// It has this done, each time.
    Does(Box<dyn FnMut() + Send>),
}

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
///
/// A signal that is ignored when the program starts stays so: `nohup` and a shell's `&` ask for that.
pub fn watch(
    hangup: Hangup,
    patience: Option<Duration>,
    output: &Output,
) -> std::io::Result<(Shutdown, Signalled)> {
    // A write beyond a file-size limit shall fail with an error, not kill the program.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let ignored = ignored();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP].iter().filter(|signal| !ignored.has(**signal)))?;
    let (handle, shutdown) = Shutdown::new();
    let signalled = Signalled::default();
    let (seen, output) = (signalled.clone(), output.clone());
    let (mut handle, mut hangup) = (Some(handle), hangup);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if signal == SIGHUP && !matches!(hangup, Hangup::Stops) {
                if let Hangup::Does(act) = &mut hangup {
                    act();
                } else if let Hangup::Tells(told) = std::mem::replace(&mut hangup, Hangup::IsIgnored) {
                    seen.0.store(signal, Ordering::Relaxed);
                    told.stop();
                }
                continue;
            }
            seen.0.store(signal, Ordering::Relaxed);
            match handle.take() {
                Some(handle) => {
                    handle.stop();
                    if let Some(patience) = patience {
                        let (seen, output) = (seen.clone(), output.clone());
                        std::thread::spawn(move || {
                            std::thread::sleep(patience);
                            let exit = output.error(&STOPPED, seen.exit());
                            output.drain_for(LAST_WORDS);
                            std::process::exit(exit.code().into());
                        });
                    }
                }
                None => {
                    output.drain_for(LAST_WORDS);
                    std::process::exit(seen.exit().code().into());
                }
            }
        }
    })?;
    Ok((shutdown, signalled))
}

/// A set of signals, a bit each.
struct Mask(u64);

impl Mask {
    fn has(&self, signal: i32) -> bool {
        self.0 >> (signal - 1) & 1 == 1
    }
}

/// The signals that this process ignores, where the system tells (Linux).
fn ignored() -> Mask {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    Mask(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
}
