//! The `wsferry` command: parse, run, exit code.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::arguments().map_or_else(|exit| exit, cli::run).into()
}
