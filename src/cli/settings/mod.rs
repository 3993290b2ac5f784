//! Where the value of a flag comes from: the command line, then the environment, then the configuration file, then the default.
//!
//! What is not given on the command line is written behind it, as if it had been, and all of it is parsed once more: so one
//! definition says what each flag takes and what goes with what. Of what does not go together, the place that comes first in
//! this order decides; what one place sets that does not go together is an error. A profile's flags come right behind those
//! of the place that names the profile.

mod environment;
mod file;
mod flag;
mod layers;
pub mod show;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches};

pub use self::environment::Variables;
pub use self::file::commands;
pub use self::flag::{Flag, PREFIX, Value, variable};
pub use self::layers::{Layers, Ruling};

use super::args::Args;
use super::definition;

/// A flag that is set without being given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The flag, without the dashes in front.
    pub name: String,
    pub value: Value,
    pub source: Source,
}

/// Where a value comes from, if not from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Variable(String),
    File {
        path: Arc<Path>,
        line: usize,
    },
    Profile {
        name: &'static str,
        /// Where the profile is named; `None` on the command line.
        by: Option<Box<Self>>,
    },
}

impl Source {
    /// How many places come before it.
    fn rank(&self) -> u8 {
        match self {
            Self::Profile { by, .. } => by.as_ref().map_or(0, |by| by.rank()),
            Self::Variable(_) => 1,
            Self::File { .. } => 2,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Profile { name, by: None } => write!(f, "--profile {name}"),
            Self::Profile { name, by: Some(by) } => write!(f, "profile {name} ({by})"),
        }
    }
}

/// Which flags of a command were set without being given.
#[derive(Debug, Clone, Default)]
pub struct Sources(HashMap<String, Source>);

impl Sources {
    /// How many places come before the one that sets this flag: none before the command line.
    pub fn rank(&self, name: &str) -> u8 {
        self.0.get(name).map_or(0, Source::rank)
    }

    pub fn is_given(&self, name: &str) -> bool {
        !self.0.contains_key(name)
    }

    /// The first of these flags that is set, and was set on the command line.
    pub fn first_given(&self, flags: &[(bool, &'static str)]) -> Option<&'static str> {
        let is_given =
            |(is_set, flag): &&(bool, &str)| *is_set && self.is_given(flag.trim_start_matches('-'));
        flags.iter().find(is_given).map(|(_, flag)| *flag)
    }

    /// What set it, for errors.
    pub fn what(&self, name: &str) -> String {
        match self.0.get(name) {
            None => format!("--{name}"),
            Some(Source::Variable(variable)) => variable.clone(),
            Some(source) => format!("{name} ({source})"),
        }
    }
}

/// Why there is nothing to run.
#[derive(Debug)]
pub enum Refusal {
    /// What the command line asks for, or what is wrong with it.
    CommandLine(clap::Error),
    /// What is wrong with what it does not say; to be told as the command line wants it.
    Settings { why: String, in_json: bool },
}

impl From<clap::Error> for Refusal {
    fn from(error: clap::Error) -> Self {
        Self::CommandLine(error)
    }
}

/// Flags that are of no use without each other: one that stands alone is a mistake.
const PAIRS: [&str; 4] = ["cert", "key", "tls-cert", "tls-key"];

/// What is set for runs that also have a flag which this one lacks: it says nothing here.
fn idle(held: &[Setting], parse: impl Fn(&[Setting]) -> Result<Args, clap::Error>) -> Option<usize> {
    let lacks = |held: &[Setting]| {
        parse(held)
            .err()
            .filter(|error| error.kind() == ErrorKind::MissingRequiredArgument)
            .map(|error| error.to_string())
    };
    let before = lacks(held);
    (0..held.len()).filter(|&at| !PAIRS.contains(&held[at].name.as_str())).find(|&at| {
        let mut rest = held.to_vec();
        rest.remove(at);
        lacks(&rest) != before
    })
}

/// Parses a command line, together with what is set elsewhere.
pub fn parse(arguments: Vec<OsString>, variables: &Variables) -> Result<Args, Refusal> {
    let mut program = definition::command();
    // What is given, also where something is lacking that is set elsewhere.
    let lenient = definition::command().ignore_errors(true).try_get_matches_from(&arguments)?;
    program.build();
    let Some((name, given)) = lenient.subcommand() else {
        return Ok(Args::from_arg_matches(&program.try_get_matches_from(arguments)?)?);
    };
    let in_json = given.try_get_one("json").ok().flatten().is_some_and(|json: &bool| *json);
    let refuse = |why| Refusal::Settings { why, in_json };
    let command = program.find_subcommand(name).expect("it was parsed");
    let layers = Layers::read(&program, named_file(given), variables).map_err(refuse)?;
    let (held, sources) = match layers.of(command, Some(given)).map_err(refuse)? {
        Ruling::Holds(held) => {
            let sources = held.iter().map(|setting| (setting.name.clone(), setting.source.clone())).collect();
            (held, Sources(sources))
        }
        Ruling::Conflict(error) => return Err(error.into()),
    };
    // Of patterns the first that matches decides: those that were given stand first.
    let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    let parse = |held: &[Setting]| {
        let set = held.iter().filter_map(|setting| {
            let flag = Flag::named(command, &setting.name)?;
            Some(flag.arguments(&setting.value))
        });
        let mut all = arguments.clone();
        all.splice(end..end, set.flatten());
        program.clone().try_get_matches_from(all).and_then(|all| Args::from_arg_matches(&all))
    };
    if held.is_empty() {
        return Ok(Args::from_arg_matches(&program.try_get_matches_from(arguments)?)?);
    }
    let mut held = held;
    let parsed = loop {
        match parse(&held) {
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
                let Some(idle) = idle(&held, parse) else { break Err(error) };
                held.remove(idle);
            }
            parsed => break parsed,
        }
    };
    match parsed {
        Ok(args) => Ok(args.with_sources(sources)),
        // What is wrong with the command line alone is told as ever.
        Err(error) => {
            program.try_get_matches_from(arguments)?;
            Err(refuse(together(&error, &held)))
        }
    }
}

/// The file that is named on the command line.
fn named_file(given: &ArgMatches) -> Option<&Path> {
    let is_given = given.value_source(flag::CONFIG) == Some(ValueSource::CommandLine);
    given.get_one::<PathBuf>(flag::CONFIG).filter(|_| is_given).map(PathBuf::as_path)
}

/// What is set elsewhere does not go together, or not with the command line.
fn together(error: &clap::Error, held: &[Setting]) -> String {
    let said = error.to_string();
    // What clap goes on with is how the command is used.
    let said = said.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let said = said.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let named = held.iter().filter(|Setting { name, .. }| said.contains(&format!("--{name}")));
    // It may name what is lacking alone.
    let named: Vec<_> = if named.clone().next().is_some() { named.collect() } else { held.iter().collect() };
    let by = named.iter().map(|Setting { name, source, .. }| format!("--{name} is set by {source}"));
    format!("{said}; {}", by.collect::<Vec<_>>().join(", "))
}

/// The command line as `command` has it, for who looks at its flags.
pub fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// The command of this name.
pub fn command_named<'a>(program: &'a Command, name: &str) -> Option<&'a Command> {
    commands(program).find(|command| command.get_name() == name)
}
