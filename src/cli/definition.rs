//! The command line as clap knows it: what is parsed, completed, printed as help, and written as manual pages.

use clap::{Command, CommandFactory};

use super::args::Args;
use super::examples::EXAMPLES;

/// What `--version` says behind the name.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit:   ",
    env!("WSFERRY_COMMIT"),
    "\nfeatures: ",
    env!("WSFERRY_FEATURES"),
    "\ntarget:   ",
    env!("WSFERRY_TARGET"),
);

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  failed
    2  usage: the command line makes no sense
    3  interrupted: the same command resumes the transfer
    4  refused by the peer
    5  the content could not be made to match
  130  Ctrl-C";

/// The whole of it, before clap has completed it.
pub fn command() -> Command {
    let mut program = Args::command().after_help(after(""));
    for (name, examples) in EXAMPLES {
        program = program.mut_subcommand(name, |command| command.after_help(after(examples)));
    }
    program
}

/// What stands below the flags.
fn after(examples: &str) -> String {
    if examples.is_empty() { EXIT_CODES.to_owned() } else { format!("Examples:\n{examples}\n\n{EXIT_CODES}") }
}
