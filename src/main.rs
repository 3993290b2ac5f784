//! The `wsferry` command: parse, run, exit code.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(cli::arguments()).into()
}
