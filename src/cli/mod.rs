//! The command line: arguments, progress, output, the commands.

mod advice;
mod args;
mod bar;
mod bench;
mod board;
mod definition;
mod demo;
mod desk;
mod dial;
#[cfg(test)]
mod errors;
mod event;
mod examples;
mod exec;
mod exit;
mod flood;
mod foresight;
mod group;
mod guests;
mod hash;
mod headings;
mod house;
mod limits;
mod line;
mod listen;
mod log;
mod offer;
mod outage;
mod outcome;
mod output;
mod paint;
mod paper;
mod plain;
mod probe;
mod profile;
mod profiles;
mod progress;
mod pulse;
mod random;
mod rate;
mod receive;
#[cfg(test)]
mod reference;
mod screen;
mod send;
mod settings;
mod signals;
mod status;
mod stdio;
mod stray;
mod token;
mod tree;
mod usage;
mod words;
mod writer;

pub use args::Args;
pub use exit::Exit;

use args::{Command, OutputArgs};
use output::Output;
use settings::{Refusal, Variables};

/// The command line of this process. One that makes no sense, or asks for help alone, ends it.
pub fn arguments() -> Result<Args, Exit> {
    let arguments: Vec<_> = std::env::args_os().collect();
    settings::parse(arguments.clone(), &Variables::read()).map_err(|refusal| match refusal {
        Refusal::CommandLine(error) => stray::explain(error, &arguments).exit(),
        Refusal::Settings { why, in_json } => {
            let args = OutputArgs { json: in_json, ..OutputArgs::default() };
            telling(Output::new(args), |output| output.error(&why, Exit::Usage))
        }
    })
}

/// Runs a command to its end.
pub fn run(args: Args) -> Exit {
    match args.command {
        Command::Send(args) => {
            telling(Output::new(args.output.beside(&args.pipe)), |output| send::run(*args, output))
        }
        Command::Receive(args) => {
            let output = Output::new(args.output.beside(&args.pipe));
            let output = if args.stdout { output.apart() } else { output };
            telling(output, |output| receive::run(*args, output))
        }
        Command::Demo(args) => telling(Output::new(OutputArgs::default()), |output| demo::run(args, output)),
        Command::Probe(args) => telling(Output::new(args.output), |output| probe::run(&args, output)),
        Command::Bench(args) => telling(Output::new(args.output), |output| bench::run(args, output)),
        Command::Hash(args) => telling(Output::new(args.output()), |output| hash::run(&args, output)),
        Command::Status(args) => telling(Output::new(args.output), |output| status::run(&args, output)),
        Command::Config(shown) => telling(Output::new(shown.output()), |output| {
            settings::show::run(&shown, args.config.as_deref(), output)
        }),
        Command::Completions(args) => {
            telling(Output::new(OutputArgs::default()), |output| paper::complete(&args, output))
        }
        Command::Man(args) => telling(Output::new(OutputArgs::default()), |output| paper::man(&args, output)),
    }
}

/// What could not be printed was not told, so that all is not well.
fn telling(output: Output, command: impl FnOnce(&Output) -> Exit) -> Exit {
    let exit = command(&output);
    output.drain();
    match output.broken() {
        Some(error) if exit == Exit::Done => {
            output.error(&format_args!("cannot write to standard output: {error}"), Exit::Failed);
            output.drain();
            Exit::Failed
        }
        _ => exit,
    }
}
