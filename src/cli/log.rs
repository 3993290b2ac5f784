//! What the library tells of its connections, for whoever looks for a fault: on standard error, beside everything else.

use std::io;

use clap::{Parser, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt};

use super::headings;
use super::output::Output;

#[derive(Debug, Clone, Copy, Parser)]
pub struct LogArgs {
    /// Tell on standard error what happens on each connection; -vv tells more
    #[arg(long, help_heading = headings::OUTPUT, short, action = clap::ArgAction::Count)]
    verbose: u8,

    /// How to tell it
    #[arg(long, help_heading = headings::OUTPUT, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line of text.
    Text,
    /// A JSON object a line.
    Json,
}

/// Has it told from now on, if it is asked for.
pub fn start(args: LogArgs, output: &Output) {
    let level = match args.verbose {
        0 => return,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Of other crates some tell every payload.
    let own = Targets::new().with_target("wsferry", level);
    let lines = fmt::layer().with_ansi(false).with_writer(Lines(output.clone()));
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match args.log_format {
        Format::Text => lines.with_filter(own).boxed(),
        Format::Json => lines.json().with_filter(own).boxed(),
    };
    // It is the only one.
    let _ = tracing::subscriber::set_global_default(Registry::default().with(lines));
}

/// Lines for the output's thread, which no transfer waits for.
struct Lines(Output);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

struct Line<'a>(&'a Output);

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.log(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
