//! Which of several places decides.

use std::path::Path;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command};

use super::environment::Variables;
use super::file::File;
use super::flag::{Flag, Value};
use super::{Setting, Source, is_given};
use crate::cli::profile;
use crate::cli::profiles::{Fact, Profile};

/// The flag that names a profile.
const PROFILE: &str = "profile";

/// All places but the command line.
#[derive(Debug, Default)]
pub struct Layers {
    variables: Variables,
    pub file: File,
}

/// What holds of a command's flags.
#[derive(Debug)]
pub enum Ruling {
    /// These, beside what is given.
    Holds(Vec<Setting>),
    /// A profile that is given sets what does not go with another flag that is.
    Conflict(clap::Error),
}

/// What is decided so far.
struct Decided<'a> {
    command: &'a Command,
    given: Option<&'a ArgMatches>,
    held: Vec<Setting>,
}

impl Layers {
    /// Reads them. The file may be named on the command line.
    pub fn read(program: &Command, file: Option<&Path>, variables: &Variables) -> Result<Self, String> {
        let file = File::read(program, file, variables)?;
        Ok(Self { variables: variables.clone(), file })
    }

    /// Variables that set nothing.
    pub fn unknown_variables(&self, program: &Command) -> Vec<String> {
        self.variables.unknown(program)
    }

    /// What holds of a command's flags, beside those that are given.
    pub fn of(&self, command: &Command, given: Option<&ArgMatches>) -> Result<Ruling, String> {
        let mut decided = Decided { command, given, held: Vec::new() };
        let named = given.filter(|given| command_has(command, PROFILE) && is_given(given, PROFILE));
        if let Some(profile) = named.and_then(|given| given.get_one::<&'static Profile>(PROFILE))
            && let Err((wanted, other)) = decided.take(profile_flags(profile, None), true)
        {
            let why = conflict(profile, &wanted, &other);
            return Ok(Ruling::Conflict(command.clone().error(ErrorKind::ArgumentConflict, why)));
        }
        for settings in [self.variables.settings(command)?, self.file.settings(command)] {
            let before = decided.held.len();
            let had_profile = decided.is_decided(PROFILE);
            let _ = decided.take(settings, false);
            let named = decided.held[before..].iter().find(|setting| setting.name == PROFILE);
            if let Some(Setting { value: Value::Texts(names), source, .. }) = named
                && !had_profile
                && let Some(name) = names.last().and_then(|name| name.to_str())
            {
                let profile = profile::named(name)?;
                let flags = profile_flags(profile, Some(source.clone()));
                let source = source.clone();
                decided
                    .take(flags, false)
                    .map_err(|(wanted, other)| format!("{source}: {}", conflict(profile, &wanted, &other)))?;
            }
        }
        Ok(Ruling::Holds(decided.held))
    }
}

impl Decided<'_> {
    /// Takes what is not decided yet and goes with what comes first; of one place all is taken, and looked at when all is
    /// parsed. A profile that is `strict` has to go with what is given.
    fn take(&mut self, settings: Vec<Setting>, strict: bool) -> Result<(), (Setting, String)> {
        let place = settings.first().map(|setting| setting.source.clone());
        let mut taken = Vec::new();
        for setting in settings {
            let Some(flag) = Flag::named(self.command, &setting.name) else { continue };
            if self.is_decided(&setting.name) {
                continue;
            }
            let stands = match &setting.value {
                Value::Switch(is_set) => *is_set,
                Value::Count(count) => *count > 0,
                Value::Texts(texts) => !texts.is_empty(),
            };
            let other = stands.then(|| self.rules_out(flag.arg, place.as_ref())).flatten();
            match other {
                None => taken.push(setting),
                Some((other, of_this_place)) if strict || of_this_place => return Err((setting, other)),
                Some(_) => {}
            }
        }
        self.held.extend(taken);
        Ok(())
    }

    fn is_decided(&self, name: &str) -> bool {
        let by_hand = || {
            let flag = Flag::named(self.command, name)?;
            Some(is_given(self.given?, flag.arg.get_id().as_str()))
        };
        self.held.iter().any(|held| held.name == name) || by_hand() == Some(true)
    }

    /// What this flag cannot be used with, and whether a profile that is taken now was named where that is set.
    fn rules_out(&self, arg: &Arg, place: Option<&Source>) -> Option<(String, bool)> {
        let excludes = |a: &Arg, b: &Arg| {
            self.command.get_arg_conflicts_with(a).into_iter().any(|other| other.get_id() == b.get_id())
        };
        let named_by = match place {
            Some(Source::Profile { by: Some(by), .. }) => Some(by.rank()),
            _ => None,
        };
        self.command.get_arguments().find_map(|other| {
            let id = other.get_id().as_str();
            let held = self.held.iter().find(|held| {
                other.get_long() == Some(held.name.as_str()) && held.value != Value::Switch(false)
            });
            let is_there = held.is_some() || self.given.is_some_and(|given| is_given(given, id));
            if !is_there || !(excludes(other, arg) || excludes(arg, other)) {
                return None;
            }
            let of_this_place = held.is_some_and(|held| Some(held.source.rank()) == named_by);
            Some((other.get_long().unwrap_or(id).to_owned(), of_this_place))
        })
    }
}

fn command_has(command: &Command, name: &str) -> bool {
    Flag::named(command, name).is_some()
}

/// A profile's flags, named `by` the command line or another place.
fn profile_flags(profile: &Profile, by: Option<Source>) -> Vec<Setting> {
    let set = profile.facts.iter().filter_map(|Fact { flags, .. }| {
        let (name, values) = flags.split_first()?;
        let value = match values {
            [] => Value::Switch(true),
            values => Value::Texts(values.iter().map(Into::into).collect()),
        };
        let source = Source::Profile { name: profile.name, by: by.clone().map(Box::new) };
        Some(Setting { name: name.trim_start_matches("--").to_owned(), value, source })
    });
    set.collect()
}

fn conflict(profile: &Profile, wanted: &Setting, other: &str) -> String {
    let facts = profile.facts.iter().map(|fact| fact.flags);
    let flag = facts.flat_map(|flags| {
        flags.first().filter(|name| name.trim_start_matches("--") == wanted.name).map(|_| flags.join(" "))
    });
    let flag = flag.last().unwrap_or_default();
    format!("--profile {} sets {flag}, which cannot be used with --{other}", profile.name)
}
