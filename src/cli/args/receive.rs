//! The arguments of `wsferry receive`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytesize::ByteSize;
use clap::Parser;
use wsferry::transport::{Origin, Origins, mask_url};

use super::pipe::{PipeArgs, is_url};
use super::{OutputArgs, count, duration, size, stall_timeout};
use crate::cli::dial::DialArgs;
use crate::cli::headings;
use crate::cli::listen::ListenArgs;
use crate::cli::log::LogArgs;

/// Write what senders send into a directory: listen for them, on 127.0.0.1:9000 unless --listen says otherwise, or reach
/// the one that sends at a URL.
#[derive(Debug, Parser)]
#[command(override_usage = "wsferry receive [OPTIONS] [DIR]
       wsferry receive [OPTIONS] <URL> [DIR]
       wsferry receive [OPTIONS] --via <COMMAND> [DIR]")]
pub struct ReceiveArgs {
    /// Where `wsferry send --listen` listens, if this side is to dial; then where to write, made if it is not there
    /// [default: .]
    #[arg(value_name = "[URL] DIR", num_args = 0..=2)]
    url_and_directory: Vec<PathBuf>,

    /// Exit once all that the first sender means to send was received or refused, with the exit code of it
    #[arg(long, help_heading = headings::RECEIVED)]
    pub once: bool,

    /// With a URL or --via: after a cut, keep trying for this long without a byte that moved; 0s never reconnects
    /// [default: 10min]
    #[arg(long, help_heading = headings::PATH, value_name = "DURATION", value_parser = duration)]
    pub retry_for: Option<humantime::Duration>,

    /// With a URL: most characters in a frame on this path, header included, from 2KiB [default: 4MiB and a header]
    #[arg(long, help_heading = headings::PATH, value_name = "SIZE", value_parser = size)]
    pub frame_limit: Option<ByteSize>,

    /// Cut after this long without a sign of the sender
    #[arg(long, help_heading = headings::LIMITS, value_name = "DURATION", default_value = "30s", value_parser = stall_timeout)]
    pub stall_timeout: humantime::Duration,

    /// Write the first file that is offered to standard output, in order, each byte once, over any cut; others are refused.
    /// What is told goes to standard error
    #[arg(long, help_heading = headings::RECEIVED, requires = "once", conflicts_with_all = ["overwrite", "keep_partial", "plain", "max_file_size", "keep_free", "max_partials", "via", "stdio"])]
    pub stdout: bool,

    /// Run this by `sh -c` once a file is stored, a few at a time: WSFERRY_FILE_PATH, _NAME, _SIZE, _BLAKE3, _PEER and
    /// _RESULT (received, already-there) tell of it; what it prints goes to standard error. If it fails that is said, with
    /// --once by exit code 1, and the file is kept
    #[arg(long, help_heading = headings::RECEIVED, value_name = "CMD", conflicts_with = "stdout")]
    pub exec: Option<String>,

    /// Replace files that are there
    #[arg(long, help_heading = headings::RECEIVED)]
    pub overwrite: bool,

    /// Remove a partial file once nothing has come for it for this long
    #[arg(long, help_heading = headings::RECEIVED, value_name = "DURATION", default_value = "30days", value_parser = duration)]
    pub keep_partial: humantime::Duration,

    /// Take files from any WebSocket client too: one text message, the file in Base64, which is sent back as it comes, or
    /// one binary message. The name is the last part of the URL's path, or received-0001.bin and on. There is no resume in
    /// this mode: such a client cannot be asked to go on in the middle
    #[arg(long, help_heading = headings::PLAIN, conflicts_with = "no_subprotocol")]
    pub plain: bool,

    /// With --plain: most bytes of a file [default: what the disk has]
    #[arg(long, help_heading = headings::PLAIN, value_name = "SIZE", requires = "plain", value_parser = size)]
    pub plain_limit: Option<ByteSize>,

    /// Let `wsferry bench` measure the path to here: its files are received, checked and removed
    #[arg(long, help_heading = headings::RECEIVED, conflicts_with = "once")]
    pub allow_bench: bool,

    /// Let web pages of this origin connect, such as https://example.com; * lets all pages; may be repeated
    #[arg(long, help_heading = headings::LISTENING, value_name = "ORIGIN")]
    pub allow_origin: Vec<OriginArg>,

    /// Refuse larger files [default: no limit]
    #[arg(long, help_heading = headings::LIMITS, value_name = "SIZE", value_parser = size)]
    pub max_file_size: Option<ByteSize>,

    /// Room on the disk to leave free
    #[arg(long, help_heading = headings::LIMITS, value_name = "SIZE", default_value = "0", value_parser = size)]
    pub keep_free: ByteSize,

    /// Files at a time that were begun and are not whole; those of 3 MiB at most do not count [default: no limit]
    #[arg(long, help_heading = headings::LIMITS, value_name = "COUNT", value_parser = count)]
    pub max_partials: Option<u64>,

    #[command(flatten)]
    pub log: LogArgs,

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

impl ReceiveArgs {
    /// Where the sender listens, if this side is to dial.
    pub fn url(&self) -> Option<Cow<'_, str>> {
        self.url_and_directory.first().map(|first| first.to_string_lossy()).filter(|first| is_url(first))
    }

    /// Where to write; or what makes no sense about it.
    pub fn directory(&self) -> Result<&Path, String> {
        let directories = match self.url() {
            Some(_) => &self.url_and_directory[1..],
            None => &self.url_and_directory,
        };
        let written = |path: &PathBuf| mask_url(&path.to_string_lossy());
        match directories {
            [directory, ..] if self.stdout => Err(format!(
                "--stdout writes to standard output; {} is one place too many",
                written(directory)
            )),
            [] => Ok(Path::new(".")),
            [.., last] if is_url(&last.to_string_lossy()) => {
                Err(format!("the URL comes before the directory: `wsferry receive {} DIR`", written(last)))
            }
            [directory] => match directory.to_str().filter(|text| is_address(text) && !directory.exists()) {
                Some(text) => Err(format!(
                    "{text} has no scheme: ws://{text} dials it, --listen {text} listens there, ./{text} is a directory"
                )),
                None => Ok(directory),
            },
            [first, ..] => Err(format!(
                "one directory is written to; {} stands before it, and is no URL such as ws://HOST:9000",
                written(first)
            )),
        }
    }

    /// Which web pages may connect.
    pub fn origins(&self) -> Origins {
        let mut origins = Origins::default();
        for origin in &self.allow_origin {
            match origin {
                OriginArg::Any => origins.any = true,
                OriginArg::Of(origin) => origins.named.push(origin.clone()),
            }
        }
        origins
    }
}

/// Whether it is a host and a port, as they stand in a URL.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_of_host = |c: char| c.is_ascii_alphanumeric() || "-.[]:".contains(c);
    !host.is_empty() && host.chars().all(is_of_host) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// An origin, or all of them.
#[derive(Debug, Clone)]
pub enum OriginArg {
    Any,
    Of(Origin),
}

impl FromStr for OriginArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" { Ok(Self::Any) } else { text.parse().map(Self::Of) }
    }
}
