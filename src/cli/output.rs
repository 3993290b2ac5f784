//! Where lines go: results to standard output, notices and errors to standard error, JSON alone if asked for.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressDrawTarget};
use rustix::io::Errno;
use wsferry::protocol::ChunkSize;
use wsferry::transfer::Summary;

use super::args::OutputArgs;
use super::board::Board;
use super::event::{Finished, JsonEvent};
use super::exit::Exit;
use super::outcome;
use super::paint::Paint;
use super::screen::Screen;
use super::usage;
use super::writer::{Stream, Weight, Writer};

/// How often bars are drawn, in a second.
const DRAWS: u8 = 20;
/// How long a program that is done waits for a standard error that takes nothing.
const PATIENCE: Duration = Duration::from_secs(3);

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
    /// Which transfers have one.
    pub board: Board,
    out: Writer,
    err: Writer,
    /// Standard output is for something else: results go where errors do.
    is_apart: bool,
    /// Standard output was a terminal when the program started; one that went away does not look like one.
    on_terminal: bool,
    paint_out: Paint,
    paint_err: Paint,
}

impl Output {
    pub fn new(args: OutputArgs) -> Self {
        let mode = match args {
            OutputArgs { json: true, .. } => Mode::Json,
            OutputArgs { quiet: true, .. } => Mode::Quiet,
            _ => Mode::Human,
        };
        let err = Writer::new();
        // Lines and bars on one terminal stay in order.
        let on_terminal = io::stdout().is_terminal();
        let out = if on_terminal { err.clone() } else { Writer::new() };
        let is_screen =
            io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let target = if is_screen {
            ProgressDrawTarget::term_like_with_hz(Box::new(Screen::new(err.clone())), DRAWS)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bars = MultiProgress::with_draw_target(target);
        let paint_out = Paint::new(args.color, on_terminal);
        let paint_err = Paint::new(args.color, io::stderr().is_terminal());
        let board = Board::new(bars.clone(), paint_err);
        Self { mode, board, bars, out, err, is_apart: false, on_terminal, paint_out, paint_err }
    }

    /// Whether transfers are followed by bars.
    pub fn has_bars(&self) -> bool {
        self.mode == Mode::Human && !self.bars.is_hidden()
    }

    /// The same, where standard output is for a file.
    pub fn apart(mut self) -> Self {
        self.out = self.err.clone();
        self.is_apart = true;
        self.on_terminal = io::stderr().is_terminal();
        self.paint_out = self.paint_err;
        self
    }

    /// A result, for people.
    pub fn line(&self, text: &str) {
        self.success("", text);
    }

    /// A result of which the first words say that it went well.
    pub fn success(&self, what: &str, rest: &str) {
        if self.mode == Mode::Human {
            let what = if what.is_empty() { String::new() } else { self.paint_out.good(what) };
            self.result(&format!("{what}{}", printable(rest)), Weight::Lasting);
        }
    }

    /// A file was sent, or received, for people.
    pub fn outcome(&self, sent: bool, summary: &Summary) {
        let (done, rest) = outcome::line(sent, summary, self.on_terminal.then(Screen::columns));
        self.success(done, &rest);
    }

    /// Something worth knowing that is no result.
    pub fn notice(&self, text: &str) {
        if self.mode == Mode::Human {
            self.complaint("", text);
        }
    }

    /// Something that may not end well.
    pub fn warning(&self, what: &str, rest: &str) {
        if self.mode == Mode::Human {
            self.complaint(&self.paint_err.doubtful(what), rest);
        }
    }

    /// A chunk size that was asked for is not what is used, because of `limit` unless it was rounded.
    pub fn lowered(&self, wanted: u64, chunk: ChunkSize, limit: &str) {
        if chunk.raw() != wanted {
            let why = if chunk.raw() + 2 >= wanted { "a multiple of 3" } else { limit };
            self.notice(&format!("chunk size {wanted} lowered to {}, {why}", chunk.raw()));
        }
    }

    /// What went wrong beside any transfer, for people and for programs, and the exit code that follows.
    pub fn error(&self, error: &dyn std::fmt::Display, exit: Exit) -> Exit {
        self.failed(None, None, error, "", exit)
    }

    /// A transfer failed: for people, with what to do next, and for programs.
    pub fn failed(
        &self,
        transfer: Option<u64>,
        name: Option<&str>,
        error: &dyn std::fmt::Display,
        advice: &str,
        exit: Exit,
    ) -> Exit {
        self.event(failed(transfer, name, error, advice, exit));
        self.complaint(&self.paint_err.bad("wsferry:"), &format!(" {error}{advice}"));
        exit
    }

    /// An event, for programs.
    pub fn event(&self, event: JsonEvent) {
        if self.mode == Mode::Json {
            self.result(&event.line(), Weight::Lasting);
        }
    }

    /// A file was sent, or received, to its end.
    pub fn finished(&self, transfer: u64, summary: &Summary) {
        // What it tells of the program is not looked up for nothing, file by file.
        if self.mode == Mode::Json {
            self.event(finished(transfer, summary));
        }
    }

    /// An event that the next one like it makes out of date.
    pub fn passing_event(&self, event: JsonEvent) {
        if self.mode == Mode::Json {
            self.result(&event.line(), Weight::Passing);
        }
    }

    /// Waits until all that was said is written, at the end of the program.
    pub fn drain(&self) {
        self.out.drain(None);
        // Whoever reads it may do so without reading on; a terminal that is held up is let go of some time.
        self.err.drain((!io::stderr().is_terminal()).then_some(PATIENCE));
    }

    /// As [`drain`](Self::drain), for so long at most.
    pub fn drain_for(&self, patience: Duration) {
        self.out.drain(Some(patience));
        self.err.drain(Some(patience));
    }

    /// Why standard output took no more. A reader, or a terminal, that has gone away is no failure.
    pub fn broken(&self) -> Option<io::Error> {
        let error = self.out.take_broken()?;
        let is_gone = error.kind() == io::ErrorKind::BrokenPipe
            || (self.on_terminal && Errno::from_io_error(&error) == Some(Errno::IO));
        (!is_gone).then_some(error)
    }

    /// Something went wrong that ends nothing, for people and for programs.
    pub fn trouble(&self, text: &str) {
        self.event(JsonEvent::notice(text));
        self.complaint(&self.paint_err.bad("wsferry:"), &format!(" {text}"));
    }

    /// An error that an event of its own tells programs of.
    pub fn said(&self, text: &str) {
        self.complaint(&self.paint_err.bad("wsferry:"), &format!(" {text}"));
    }

    /// A line of the log, which ends with its end of line.
    pub fn log(&self, line: &str) {
        self.bars.suspend(|| self.err.write(Stream::Err, line.to_owned(), Weight::Passing));
    }

    /// A line on standard output, above the bars.
    fn result(&self, text: &str, weight: Weight) {
        let stream = if self.is_apart { Stream::Err } else { Stream::Out };
        self.bars.suspend(|| self.out.write(stream, format!("{text}\n"), weight));
    }

    /// A line on standard error, above the bars; its head may be painted.
    fn complaint(&self, head: &str, rest: &str) {
        let line = format!("{head}{}\n", printable(rest));
        self.bars.suspend(|| self.err.write(Stream::Err, line, Weight::Lasting));
    }
}

/// A text without characters that move a terminal's cursor: names of files may hold any.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return text.into();
    }
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The event of a transfer that failed.
pub fn failed(
    transfer: Option<u64>,
    name: Option<&str>,
    error: &dyn std::fmt::Display,
    advice: &str,
    exit: Exit,
) -> JsonEvent {
    let advice = Some(advice.trim_start_matches("; ")).filter(|advice| !advice.is_empty());
    JsonEvent::Failed {
        transfer,
        name: name.map(str::to_owned),
        exit_code: exit.code(),
        reason: error.to_string(),
        advice: advice.map(str::to_owned),
    }
}

/// The event of one that went well.
fn finished(transfer: u64, summary: &Summary) -> JsonEvent {
    JsonEvent::Finished(Finished {
        transfer,
        name: summary.name.clone(),
        kind: summary.kind,
        size: summary.size(),
        seconds: summary.elapsed.as_secs_f64(),
        average_bytes_per_second: summary.rate(),
        resumed_at: summary.progress.held,
        new_bytes: summary.new_bytes(),
        resent_bytes: summary.progress.resent,
        damaged_chunks: summary.progress.naks,
        repaired_blocks: summary.progress.repaired_blocks,
        already_there: summary.complete,
        blake3: summary.digest,
        warnings: summary.warnings.clone(),
        wire_bytes: summary.wire_bytes,
        cpu_seconds: usage::cpu_seconds(),
        peak_memory: usage::peak_memory(),
    })
}
