//! The places where a bench runs: over loopback, to a receiver of its own, or over a real path, to the one behind a URL.

use wsferry::transport::mask_url;

use super::child::{Running, wsferry};
use super::files::Files;
use super::run::{Error, Sample, Sending, Usage};
use crate::cli::args::BenchArgs;
use crate::cli::dial::DialArgs;
use crate::cli::exit::Exit;
use crate::cli::output::Output;

/// Where a bench runs.
pub trait Place {
    /// The file's size, if none is asked for.
    fn default_size(&self) -> u64;

    /// How many copies of the file this machine has at a time.
    fn copies(&self) -> u64;

    /// Whether this machine's I/O floor is the floor of this path.
    fn has_floor(&self) -> bool;

    /// Where the bytes go, for titles.
    fn path(&self, files: &Files) -> String;

    /// The URL of a command line that is told.
    fn shown_url(&self) -> String;

    /// Sends the file once.
    fn run(&self, sending: Sending) -> Result<Sample, Error>;
}

/// The place that the flags name, or which of them makes no sense.
pub fn named<'a>(args: &'a BenchArgs, output: &Output) -> Result<Box<dyn Place + 'a>, String> {
    match (&args.url, args.dial.given()) {
        (Some(url), _) => {
            // What does not dial is told before anything is done.
            drop(args.dial.dialer(url, output)?);
            Ok(Box::new(Remote { url, dial: &args.dial }))
        }
        (None, Some(flag)) => Err(format!("{flag} says how a URL is dialled, and there is none")),
        (None, None) => Ok(Box::new(Loopback)),
    }
}

/// This machine, with a receiver for each run.
struct Loopback;

impl Place for Loopback {
    fn default_size(&self) -> u64 {
        1 << 30
    }

    fn copies(&self) -> u64 {
        // It arrives beside itself.
        2
    }

    fn has_floor(&self) -> bool {
        true
    }

    fn path(&self, files: &Files) -> String {
        format!("over loopback, files in {}", files.directory())
    }

    fn shown_url(&self) -> String {
        "URL".to_owned()
    }

    fn run(&self, mut sending: Sending) -> Result<Sample, Error> {
        let mut receive = wsferry()?;
        receive.arg("receive").arg(sending.files.inbox()).args(["--once", "--listen", "127.0.0.1:0"]);
        let mut receiver = Running::start(receive)?;
        let url = receiver.listening(sending.stop)?;
        let mut send = sending.command(&url)?;
        // Loopback is measured, not whatever proxy the environment names.
        send.arg("--no-proxy");
        let (sent, seconds) = sending.run(send)?;
        let received = receiver.finished(sending.stop, &mut |_| {})?;
        receiver.end(sending.stop)?;
        if received.blake3 != sent.blake3 {
            let why = "what arrived differs from what was sent".to_owned();
            return Err(Error::Failed { why, exit: Exit::Mismatch });
        }
        Ok(Sample { receiver: Some(Usage::of(&received)), ..Sample::of(&sent, seconds) })
    }
}

/// A receiver that somebody started elsewhere with `--allow-bench`. Of what it uses nothing is known.
struct Remote<'a> {
    url: &'a str,
    dial: &'a DialArgs,
}

impl Place for Remote<'_> {
    fn default_size(&self) -> u64 {
        32 << 20
    }

    fn copies(&self) -> u64 {
        1
    }

    fn has_floor(&self) -> bool {
        false
    }

    fn path(&self, _: &Files) -> String {
        format!("to {}", self.shown_url())
    }

    fn shown_url(&self) -> String {
        mask_url(self.url)
    }

    fn run(&self, mut sending: Sending) -> Result<Sample, Error> {
        let mut send = sending.command(self.url)?;
        self.dial.hand_on(self.url, send.arg("--discard")).map_err(Error::failed)?;
        let (sent, seconds) = sending.run(send)?;
        Ok(Sample::of(&sent, seconds))
    }
}
