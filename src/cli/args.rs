//! The arguments.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Parser, Subcommand};
use wsferry::protocol::FileName;

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  failed
    2  usage: the command line makes no sense
    3  interrupted: the same command resumes the transfer
    4  refused by the peer
    5  the content could not be made to match
  130  Ctrl-C";

/// Ferries files of any size through any WebSocket that carries text.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXIT_CODES, propagate_version = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(after_help = EXIT_CODES)]
    Send(SendArgs),
    #[command(after_help = EXIT_CODES)]
    Receive(ReceiveArgs),
    #[command(after_help = EXIT_CODES)]
    Demo(DemoArgs),
}

/// Send files to a receiver. Run the same command again to resume.
#[derive(Debug, Parser)]
pub struct SendArgs {
    /// Files to send, one after another
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Where the receiver listens, for example ws://127.0.0.1:9000
    #[arg(value_name = "URL")]
    pub url: String,

    /// Raw bytes in a chunk, rounded down to a multiple of 3 [default: 192KiB, or what the frame limit allows]
    #[arg(long, value_name = "SIZE")]
    pub chunk_size: Option<ByteSize>,

    /// Most characters in a frame on this path, header included, for example 32KiB [default: 4MiB and a header]
    #[arg(long, value_name = "SIZE")]
    pub frame_limit: Option<ByteSize>,

    /// Most bytes to keep unacknowledged
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    pub window: ByteSize,

    /// After a cut, keep trying for this long without a byte that moved; 0s never reconnects
    #[arg(long, value_name = "DURATION", default_value = "10min")]
    pub retry_for: humantime::Duration,

    /// Cut and reconnect after this long without a sign of the receiver
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = stall_timeout)]
    pub stall_timeout: humantime::Duration,

    /// Wait while another transfer is writing the same name
    #[arg(long)]
    pub wait: bool,

    /// Send only what differs from the file that is there; the receiver needs --overwrite
    #[arg(long)]
    pub repair: bool,

    /// Name at the destination, instead of the file's own
    #[arg(long, value_name = "NAME")]
    pub name: Option<FileName>,

    #[command(flatten)]
    pub output: OutputArgs,
}

/// Listen, and write what senders send into a directory.
#[derive(Debug, Parser)]
pub struct ReceiveArgs {
    /// Where to write; made if it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,

    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    pub listen: String,

    /// Exit after the first finished transfer, with its exit code
    #[arg(long)]
    pub once: bool,

    /// Cut after this long without a sign of the sender
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = stall_timeout)]
    pub stall_timeout: humantime::Duration,

    /// Replace files that are there
    #[arg(long)]
    pub overwrite: bool,

    #[command(flatten)]
    pub output: OutputArgs,
}

/// Send a random file to a receiver of its own, cut it half-way, resume, compare.
#[derive(Debug, Parser)]
pub struct DemoArgs {
    /// How large a file
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub size: ByteSize,
}

/// A stall timeout that makes sense: from a tenth of a second to a day.
fn stall_timeout(text: &str) -> Result<humantime::Duration, String> {
    let timeout: humantime::Duration = text.parse().map_err(|error| format!("{error}"))?;
    let range = Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);
    if range.contains(&timeout) { Ok(timeout) } else { Err("expected from 100ms to 1day".to_owned()) }
}

#[derive(Debug, Clone, Copy, Parser)]
pub struct OutputArgs {
    /// Print errors only
    #[arg(long, short, conflicts_with = "json")]
    pub quiet: bool,

    /// Print one JSON object a line on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
}
