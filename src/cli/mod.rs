//! The command line: arguments, progress, output, the commands.

mod args;
mod bench;
mod demo;
mod exit;
mod output;
mod progress;
mod receive;
mod send;
mod signals;
mod usage;

pub use args::Args;
pub use exit::Exit;

use args::Command;

/// Runs a command to its end.
pub fn run(args: Args) -> Exit {
    match args.command {
        Command::Send(args) => send::run(args),
        Command::Receive(args) => receive::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Bench(args) => bench::run(args),
    }
}
