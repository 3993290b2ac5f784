//! Where lines go: results to standard output, notices and errors to standard error, JSON alone if asked for.

use std::io::{self, Write};

use indicatif::{BinaryBytes, DecimalBytes, MultiProgress};
use serde_json::{Value, json};
use wsferry::transfer::{Error, Summary};

use super::args::OutputArgs;
use super::exit::Exit;
use super::usage;

/// How to tell what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Bars on a terminal, lines elsewhere.
    Human,
    /// Errors only.
    Quiet,
    /// One JSON object a line.
    Json,
}

/// The program's output. Clones write to the same place.
#[derive(Debug, Clone)]
pub struct Output {
    pub mode: Mode,
    /// The bars that are on the screen; lines go above them.
    pub bars: MultiProgress,
}

impl Output {
    pub fn new(args: OutputArgs) -> Self {
        let mode = match args {
            OutputArgs { json: true, .. } => Mode::Json,
            OutputArgs { quiet: true, .. } => Mode::Quiet,
            _ => Mode::Human,
        };
        Self { mode, bars: MultiProgress::new() }
    }

    /// A result, for people.
    pub fn line(&self, text: &str) {
        if self.mode == Mode::Human {
            self.print(io::stdout(), text);
        }
    }

    /// Something worth knowing that is no result.
    pub fn notice(&self, text: &str) {
        if self.mode == Mode::Human {
            self.print(io::stderr(), text);
        }
    }

    /// What went wrong, and the exit code that follows.
    pub fn error(&self, error: &dyn std::fmt::Display, exit: Exit) -> Exit {
        self.print(io::stderr(), &format!("wsferry: {error}"));
        exit
    }

    /// An event, for programs.
    pub fn event(&self, event: Value) {
        if self.mode == Mode::Json {
            self.print(io::stdout(), &event.to_string());
        }
    }

    /// A transfer failed: for people and for programs.
    pub fn failed(&self, transfer: u64, name: Option<&str>, error: &Error) -> Exit {
        let exit = Exit::from(error.kind());
        self.event(json!({
            "event": "failed", "transfer": transfer, "name": name,
            "exit_code": exit.code(), "reason": error.to_string(),
        }));
        let resumes = match exit {
            Exit::Interrupted => "; run the same command again to resume",
            _ => "",
        };
        self.error(&format_args!("{error}{resumes}"), exit)
    }

    /// Prints above the bars. A reader that has gone away is no failure.
    fn print(&self, mut to: impl Write, text: &str) {
        self.bars.suspend(|| {
            let _ = writeln!(to, "{text}");
            let _ = to.flush();
        });
    }
}

/// The last line of a transfer.
pub fn describe(done: &str, summary: &Summary) -> String {
    let Summary { name, digest, elapsed, progress, complete, .. } = summary;
    let size = BinaryBytes(progress.total);
    let seconds = elapsed.as_secs_f64();
    if *complete {
        return format!(
            "{name}: {size}, already there with the same content, {seconds:.2} s, blake3 {digest}"
        );
    }
    let resumed = match progress.held {
        0 => String::new(),
        held => format!(", resumed at {}", BinaryBytes(held)),
    };
    let mended = match (progress.naks, progress.repaired_blocks) {
        (0, 0) => String::new(),
        (naks, blocks) => format!(", {naks} damaged chunks, {blocks} repaired blocks"),
    };
    let rate = DecimalBytes(summary.rate() as u64);
    let resent = if done == "sent" { format!(", {} bytes re-sent", progress.resent) } else { String::new() };
    format!("{done} {name}: {size} in {seconds:.2} s ({rate}/s){resumed}{resent}{mended}, blake3 {digest}")
}

/// The `finished` event.
pub fn finished(transfer: u64, summary: &Summary) -> Value {
    json!({
        "event": "finished", "transfer": transfer, "name": summary.name, "size": summary.progress.total,
        "seconds": summary.elapsed.as_secs_f64(), "bytes_per_second": summary.rate(),
        "resumed_at": summary.progress.held, "new_bytes": summary.new_bytes(),
        "resent_bytes": summary.progress.resent, "damaged_chunks": summary.progress.naks,
        "repaired_blocks": summary.progress.repaired_blocks, "already_there": summary.complete,
        "blake3": summary.digest, "wire_bytes": summary.wire_bytes,
        "cpu_seconds": usage::cpu_seconds(), "peak_memory": usage::peak_memory(),
    })
}
