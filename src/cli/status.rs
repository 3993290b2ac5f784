//! `wsferry status`: what was begun in a receive directory and is not whole.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Parser;
use wsferry::storage::{PartialFile, Partials, Pruned, StorageError};

use super::args::{OutputArgs, duration};
use super::event::JsonEvent;
use super::exit::Exit;
use super::output::Output;
use super::words;

/// Tell what is partial in a receive directory: how far, how old, whether it is being written.
#[derive(Debug, Parser)]
pub struct StatusArgs {
    /// Where files are received into
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,

    /// Remove partial files that nobody goes on with: a sender that comes back to one begins anew
    #[arg(long)]
    prune: bool,

    /// With --prune: those for which nothing has come for so long; with 0s all that nobody is writing
    #[arg(long, value_name = "DURATION", requires = "prune", default_value = "30days", value_parser = duration)]
    older_than: humantime::Duration,

    #[command(flatten)]
    pub output: OutputArgs,
}

pub fn run(args: &StatusArgs, output: &Output) -> Exit {
    match tell(args, output) {
        Ok(()) => Exit::Done,
        Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let what = format!("{} is not there; name a directory that files are received into", shown(args));
            output.error(&what, Exit::Failed)
        }
        Err(error) => output.error(&error, Exit::Failed),
    }
}

fn tell(args: &StatusArgs, output: &Output) -> Result<(), StorageError> {
    let partials = Partials::open(&args.directory)?;
    if args.prune {
        for Pruned { name, bytes } in partials.prune(args.older_than.into())? {
            output.event(JsonEvent::Pruned { name: known(&name).map(str::to_owned), received: bytes });
            output.line(&format!("removed {}: {}", shown_name(&name), words::size(bytes)));
        }
    }
    // Those that were removed are not among them any more, and the directory may be gone.
    let left = Partials::open(&args.directory)?.list()?;
    let now = SystemTime::now();
    for partial in &left {
        output.event(JsonEvent::Partial {
            name: known(&partial.name).map(str::to_owned),
            id: partial.id.clone(),
            size: partial.size,
            received: partial.received,
            durable: partial.durable,
            age_seconds: age(partial, now),
            being_written: partial.is_written,
        });
        output.line(&line(partial, now));
    }
    if args.prune && !left.is_empty() {
        let age = words::duration(args.older_than.as_secs());
        output.notice(&format!(
            "what something came for in the last {age} is kept; --older-than DURATION says otherwise"
        ));
    }
    if left.is_empty() {
        output.line(&format!("nothing is partial in {}", shown(args)));
    }
    Ok(())
}

/// The directory as it was named.
fn shown(args: &StatusArgs) -> String {
    match args.directory.to_string_lossy() {
        here if here == "." => "this directory".to_owned(),
        directory => directory.into_owned(),
    }
}

fn known(name: &str) -> Option<&str> {
    (!name.is_empty()).then_some(name)
}

fn shown_name(name: &str) -> &str {
    known(name).unwrap_or("a file whose name is not known")
}

/// Seconds since something came.
fn age(partial: &PartialFile, now: SystemTime) -> u64 {
    // A clock that was set back makes nothing older.
    now.duration_since(partial.changed).unwrap_or_default().as_secs()
}

fn line(partial: &PartialFile, now: SystemTime) -> String {
    let received = words::size(partial.received);
    let far = match partial.size {
        // Nothing is whole before it has its name.
        Some(size) => {
            let percent = (partial.received as f64 / size.max(1) as f64 * 100.0).min(99.0) as u64;
            format!("{percent}%, {received} of {}", words::size(size))
        }
        None => format!("{received}, of a size that its sender does not know"),
    };
    let now = match partial.is_written {
        Some(true) => "being written".to_owned(),
        Some(false) => format!("last moved {} ago", words::duration(age(partial, now))),
        None => format!("last moved {} ago, maybe being written", words::duration(age(partial, now))),
    };
    format!("{}: {far}, {now}", shown_name(&partial.name))
}
