//! The arguments.

mod pipe;
mod receive;

pub use pipe::PipeArgs;
pub use receive::ReceiveArgs;

use std::borrow::Cow;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{ColorChoice, Parser, Subcommand};
use wsferry::protocol::FileName;

use super::dial::DialArgs;
use super::hash::HashArgs;
use super::headings;
use super::listen::ListenArgs;
use super::paper::{CompletionsArgs, ManArgs};
use super::settings::Sources;
use super::settings::show::ConfigArgs;
use super::status::StatusArgs;
use super::tree::TreeArgs;

/// Ferries files of any size through any WebSocket that carries text.
#[derive(Debug, Parser)]
#[command(version, long_version = super::definition::VERSION, about, propagate_version = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,

    /// Read this configuration file. Each flag can stand there, and in the environment: `wsferry config` tells
    #[arg(long, global = true, value_name = "FILE", display_order = 998)]
    pub config: Option<PathBuf>,
}

impl Args {
    /// Tells where what was not given on the command line comes from, to those that have to know.
    pub fn with_sources(mut self, sources: Sources) -> Self {
        match &mut self.command {
            Command::Send(args) => {
                args.pipe.keep_given(&sources);
                args.dial.sources = sources;
            }
            Command::Receive(args) => {
                args.pipe.keep_given(&sources);
                args.dial.sources = sources;
            }
            Command::Probe(args) => args.dial.sources = sources,
            Command::Bench(args) => args.dial.sources = sources,
            _ => {}
        }
        self
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Send(Box<SendArgs>),
    Receive(Box<ReceiveArgs>),
    Status(StatusArgs),
    Hash(HashArgs),
    Probe(ProbeArgs),
    Bench(BenchArgs),
    Demo(DemoArgs),
    Config(ConfigArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Send files and directories to a receiver. Run the same command again to resume.
#[derive(Debug, Parser)]
#[command(override_usage = "wsferry send [OPTIONS] <FILE|DIR>... <URL>
       wsferry send [OPTIONS] --listen <ADDR> <FILE|DIR>...
       wsferry send [OPTIONS] --via <COMMAND> <FILE|DIR>...")]
pub struct SendArgs {
    /// Files and directories to send, one after another: DIR under its own name, of DIR/ what is in it; or - for standard
    /// input, with --name; last, unless a flag says how the receiver is reached, where it listens, for example
    /// ws://127.0.0.1:9000
    // One list, so that flags may stand between the files and the URL.
    #[arg(required = true, value_name = "FILE|DIR... URL")]
    files_and_url: Vec<PathBuf>,

    /// Raw bytes in a chunk, rounded down to a multiple of 3; auto takes what measured best, within the frame limit
    #[arg(long, help_heading = headings::PATH, value_name = "SIZE|auto", default_value = "auto")]
    pub chunk_size: ChunkArg,

    /// Most characters in a frame on this path, header included, from 2KiB, for example 32KiB [default: 4MiB and a
    /// header, the most there is]
    #[arg(long, help_heading = headings::PATH, value_name = "SIZE", value_parser = size)]
    pub frame_limit: Option<ByteSize>,

    /// Most bytes to keep unacknowledged, one chunk at the least; a receiver allows 64MiB
    #[arg(long, help_heading = headings::PATH, value_name = "SIZE", default_value = "32MiB", value_parser = size)]
    pub window: ByteSize,

    /// Send at most so many bytes of files in a second, for example 10MB/s, with --listen to each receiver; the wire carries
    /// a third more
    #[arg(long, help_heading = headings::PATH, value_name = "RATE", value_parser = rate, conflicts_with = "plain")]
    pub limit: Option<u64>,

    /// After a cut, keep trying for this long without a byte that moved; 0s never reconnects
    #[arg(long, help_heading = headings::PATH, value_name = "DURATION", default_value = "10min", value_parser = duration)]
    pub retry_for: humantime::Duration,

    /// Go on on another connection once this one is so old, from 1s; the next is open by then, so that nothing is cut and
    /// nothing is sent twice
    #[arg(long, help_heading = headings::PATH, value_name = "DURATION", value_parser = connection_age)]
    pub max_connection_age: Option<humantime::Duration>,

    /// Cut and reconnect after this long without a sign of the receiver
    #[arg(long, help_heading = headings::PATH, value_name = "DURATION", default_value = "30s", value_parser = stall_timeout)]
    pub stall_timeout: humantime::Duration,

    /// Wait while another transfer is writing the same name
    #[arg(long, help_heading = headings::PATH)]
    pub wait: bool,

    /// Send what a file has at the start, whatever is added to it meanwhile
    #[arg(long, help_heading = headings::SENT)]
    pub growing: bool,

    /// Send a file and what is added to it, as it comes, until Ctrl-C (a second one interrupts); it gets its name then. A file
    /// that is moved away has ended, one that is cut short is an error
    #[arg(long, help_heading = headings::SENT, conflicts_with_all = ["growing", "repair", "quick", "plain", "discard"])]
    pub follow: bool,

    /// With --follow: end once the file has not grown for this long
    #[arg(long, help_heading = headings::SENT, value_name = "DURATION", requires = "follow")]
    pub until: Option<humantime::Duration>,

    /// Say of each file what would be sent, resumed or refused, and send nothing; nothing changes at the receiver
    #[arg(long, help_heading = headings::SENT, conflicts_with_all = ["plain", "follow", "discard", "wait"])]
    pub dry_run: bool,

    /// Send only what differs from the file that is there; the receiver needs --overwrite
    #[arg(long, help_heading = headings::SENT)]
    pub repair: bool,

    /// Send the file as one Base64 text message, as any WebSocket server can take it, and compare what comes back with it.
    /// There is no resume in this mode: such a server cannot say what it has
    #[arg(long, help_heading = headings::PLAIN, conflicts_with_all = ["frame_limit", "window", "retry_for", "max_connection_age", "wait", "repair", "discard", "name", "links", "exclude", "include", "exclude_from", "quick"])]
    pub plain: bool,

    /// With --plain: one frame, whose length is announced, instead of fragments of --chunk-size
    #[arg(long, help_heading = headings::PLAIN, requires = "plain", conflicts_with = "chunk_size")]
    pub one_frame: bool,

    /// With --plain: the server sends nothing back
    #[arg(long, help_heading = headings::PLAIN, requires = "plain")]
    pub no_echo: bool,

    /// Have the receiver check the file and remove it; what `bench` does
    #[arg(long, hide = true)]
    pub discard: bool,

    /// Name at the destination, instead of the file's own
    #[arg(long, help_heading = headings::SENT, value_name = "NAME")]
    pub name: Option<FileName>,

    /// With --listen: exit once the first receiver has all files, or has refused them, with the exit code of it
    #[arg(long, help_heading = headings::LISTENING, requires = "listen")]
    pub once: bool,

    #[command(flatten)]
    pub tree: TreeArgs,

    #[command(flatten)]
    pub output: OutputArgs,

    // Last: the headings of their help hold for all that follow.
    #[command(flatten)]
    pub listen: ListenArgs,

    #[command(flatten)]
    pub pipe: PipeArgs,

    #[command(flatten)]
    pub dial: DialArgs,
}

impl SendArgs {
    /// Files and directories to send, one after another.
    pub fn files(&self) -> &[PathBuf] {
        if self.has_no_url() {
            return &self.files_and_url;
        }
        self.files_and_url.split_last().map_or(&[], |(_, files)| files)
    }

    /// A flag says how the receiver is reached.
    pub fn has_no_url(&self) -> bool {
        self.listens() || self.pipe.is_given()
    }

    /// Receivers dial. That is said on the command line alone: what is set for all runs is for receivers.
    pub fn listens(&self) -> bool {
        self.listen.address().is_some() && self.dial.sources.is_given("listen")
    }

    /// What comes on standard input is sent.
    pub fn is_input(&self) -> bool {
        self.files().iter().any(|file| file.as_os_str() == "-")
    }

    /// Where the receiver listens.
    pub fn url(&self) -> Cow<'_, str> {
        self.files_and_url.last().map_or("".into(), |url| url.to_string_lossy())
    }
}

/// Send a random file to a receiver of its own, cut it half-way, resume, compare.
#[derive(Debug, Parser)]
pub struct DemoArgs {
    /// How large a file
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    pub size: ByteSize,
}

/// Measure chunk sizes and windows, and say which to use.
///
/// Without a URL a receiver and a sender run as two processes over loopback. With one, the real path is measured, to
/// a receiver that was started with --allow-bench: it receives each file, checks it and removes it.
#[derive(Debug, Parser)]
pub struct BenchArgs {
    /// Where a receiver with --allow-bench listens
    #[arg(value_name = "URL")]
    pub url: Option<String>,

    /// How large a file [default: 1GiB over loopback, 32MiB with a URL]
    #[arg(long, help_heading = headings::MEASURED, value_name = "SIZE", value_parser = size)]
    pub size: Option<ByteSize>,

    /// Chunk sizes to try, in raw bytes
    #[arg(
        long,
        help_heading = headings::MEASURED,
        value_name = "SIZES",
        value_delimiter = ',',
        value_parser = size,
        default_value = "12KiB,24KiB,48KiB,96KiB,192KiB,384KiB,576KiB,768KiB,1536KiB,3MiB"
    )]
    pub chunk_sizes: Vec<ByteSize>,

    /// Windows to try with each
    #[arg(long, help_heading = headings::MEASURED, value_name = "SIZES", value_delimiter = ',', default_value = "32MiB", value_parser = size)]
    pub windows: Vec<ByteSize>,

    /// How often to run each setting
    #[arg(long, help_heading = headings::MEASURED, value_name = "COUNT", default_value_t = 3)]
    pub runs: u32,

    /// Most characters in a frame on this path, header included: larger chunks are lowered to what fits
    #[arg(long, help_heading = headings::MEASURED, value_name = "SIZE", value_parser = size)]
    pub frame_limit: Option<ByteSize>,

    /// Where to put the files [default: in memory if there is room, or else where temporary files are]
    #[arg(long, help_heading = headings::MEASURED, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Draw the rates as a picture
    #[arg(long, help_heading = headings::OUTPUT, value_name = "FILE")]
    pub svg: Option<PathBuf>,

    /// Write the picture and the table as a page
    #[arg(long, help_heading = headings::OUTPUT, value_name = "FILE")]
    pub html: Option<PathBuf>,

    #[command(flatten)]
    pub output: OutputArgs,

    // Last: the heading of its help holds for all that follow.
    #[command(flatten)]
    pub dial: DialArgs,
}

/// Find out what the path to a receiver carries, and which flags to use on it.
///
/// Nothing is stored there, and the receiver needs no flag for it.
#[derive(Debug, Parser)]
pub struct ProbeArgs {
    /// Where a receiver listens
    #[arg(value_name = "URL", required_unless_present = "profiles")]
    pub url: Option<String>,

    /// List the known paths: what --profile NAME sets, why, and who says so
    #[arg(long, conflicts_with = "url")]
    pub profiles: bool,

    /// Also watch for so long how long connections live, in use and idle
    #[arg(long = "for", help_heading = headings::MEASURED, value_name = "DURATION", default_value = "0s", value_parser = super::probe::watch)]
    pub watch: humantime::Duration,

    /// A frame of which nothing is heard for so long has not passed
    #[arg(long, help_heading = headings::MEASURED, value_name = "DURATION", default_value = "3s", value_parser = stall_timeout)]
    pub patience: humantime::Duration,

    #[command(flatten)]
    pub output: OutputArgs,

    #[command(flatten)]
    pub dial: DialArgs,
}

/// A chunk size, or what measured best.
#[derive(Debug, Clone, Copy)]
pub enum ChunkArg {
    Auto,
    Raw(ByteSize),
}

impl FromStr for ChunkArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" { Ok(Self::Auto) } else { size(text).map(Self::Raw) }
    }
}

/// A number of bytes, with a unit or without.
pub fn size(text: &str) -> Result<ByteSize, String> {
    text.parse().map_err(|_| "expected a size such as 65536, 64KiB or 1.5MB".to_owned())
}

/// A length of time, with a unit.
pub fn duration(text: &str) -> Result<humantime::Duration, String> {
    text.parse().map_err(|_| "expected a duration such as 30s, 10min or 1h".to_owned())
}

/// How many at the most; none would be of no use.
pub fn count(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a number, 1 at the least".to_owned()),
        Ok(count) => Ok(count),
    }
}

/// Bytes a second, with a unit or without.
fn rate(text: &str) -> Result<u64, String> {
    let size = text.strip_suffix("/s").unwrap_or(text).parse::<ByteSize>();
    let rate = size.map_err(|_| "expected a rate such as 500kB/s or 10MB/s".to_owned())?;
    if rate.as_u64() > 0 { Ok(rate.as_u64()) } else { Err("expected more than 0".to_owned()) }
}

/// A stall timeout that makes sense: from a tenth of a second to a day.
pub fn stall_timeout(text: &str) -> Result<humantime::Duration, String> {
    let timeout: humantime::Duration = duration(text)?;
    let range = Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);
    if range.contains(&*timeout) { Ok(timeout) } else { Err("expected from 100ms to 1day".to_owned()) }
}

/// An age at which a connection has carried something.
fn connection_age(text: &str) -> Result<humantime::Duration, String> {
    let age: humantime::Duration = duration(text)?;
    if *age >= Duration::from_secs(1) { Ok(age) } else { Err("expected 1s at the least".to_owned()) }
}

#[derive(Debug, Clone, Copy, Default, Parser)]
pub struct OutputArgs {
    /// Print errors only
    #[arg(long, help_heading = headings::OUTPUT, short, conflicts_with = "json")]
    pub quiet: bool,

    /// Print one JSON object a line on standard output, and nothing else there
    #[arg(long, help_heading = headings::OUTPUT, short)]
    pub json: bool,

    /// Colours: auto has them on a terminal, unless NO_COLOR is set or CLICOLOR is 0
    #[arg(long, help_heading = headings::OUTPUT, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,
}

impl OutputArgs {
    /// Where standard output carries frames, nothing is printed there; the other side tells how it goes.
    pub fn beside(self, pipe: &PipeArgs) -> Self {
        Self { quiet: self.quiet || pipe.stdio, ..self }
    }
}
