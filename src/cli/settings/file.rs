//! Flags that are set by a file: `retry-for = "1h"` for each command that has that flag, below `[send]` for that one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Command;
use etcetera::BaseStrategy;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::Variables;
use super::flag::{Flag, Kind, Value, likely};
use super::{Setting, Source};

/// Where the file is, below where this platform keeps such things.
const PLACE: &str = "wsferry/config.toml";

/// The configuration file.
#[derive(Debug, Clone, Default)]
pub struct File {
    /// Where it is; `None` if there is to be none.
    pub path: Option<PathBuf>,
    pub is_there: bool,
    /// What it sets: of which command, or of all that have the flag.
    entries: Vec<(Option<String>, Setting)>,
}

impl File {
    /// Reads it: `named` on the command line, or by the environment, or in the usual place, where it need not be.
    pub fn read(program: &Command, named: Option<&Path>, variables: &Variables) -> Result<Self, String> {
        let by_variable = variables.config().map(Path::new);
        let (path, has_to_be) = match (named, by_variable) {
            (Some(path), _) => (path.to_owned(), true),
            (None, Some(path)) if path.as_os_str().is_empty() => return Ok(Self::default()),
            (None, Some(path)) => (path.to_owned(), true),
            (None, None) => match etcetera::choose_base_strategy() {
                Ok(place) => (place.config_dir().join(PLACE), false),
                // Without a home there is no usual place.
                Err(_) => return Ok(Self::default()),
            },
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // Who runs as another user may still have the home of the first.
            Err(_) if !has_to_be && path.metadata().is_err() => {
                return Ok(Self { path: Some(path), ..Self::default() });
            }
            Err(error) => {
                return Err(format!("cannot read the configuration file {}: {error}", path.display()));
            }
        };
        let entries = Reader { program, path: path.clone().into(), text: &text }.entries()?;
        Ok(Self { path: Some(path), is_there: true, entries })
    }

    /// What it sets of a command's flags.
    pub fn settings(&self, command: &Command) -> Vec<Setting> {
        let of = |own: bool| {
            let name = own.then(|| command.get_name());
            self.entries.iter().filter(move |(of, _)| of.as_deref() == name).map(|(_, setting)| setting)
        };
        // What stands below the command's name wins.
        let own: Vec<&Setting> = of(true).collect();
        let common = of(false).filter(|setting| own.iter().all(|own| own.name != setting.name));
        let common = common.filter(|setting| Flag::named(command, &setting.name).is_some());
        own.iter().copied().chain(common).cloned().collect()
    }
}

struct Reader<'a> {
    program: &'a Command,
    path: Arc<Path>,
    text: &'a str,
}

impl Reader<'_> {
    fn entries(&self) -> Result<Vec<(Option<String>, Setting)>, String> {
        let table = DeTable::parse(self.text)
            .map_err(|error| self.wrong(error.span().map_or(0, |span| span.start), error.message()))?;
        let mut entries = Vec::new();
        for (key, value) in table.get_ref() {
            match value.get_ref() {
                DeValue::Table(own) => {
                    let command = self.command(key)?;
                    for (key, value) in own {
                        let setting = self.setting(&[command], key, value)?;
                        entries.push((Some(command.get_name().to_owned()), setting));
                    }
                }
                _ => {
                    let commands: Vec<&Command> = commands(self.program).collect();
                    entries.push((None, self.setting(&commands, key, value)?));
                }
            }
        }
        Ok(entries)
    }

    fn command(&self, key: &Spanned<std::borrow::Cow<'_, str>>) -> Result<&Command, String> {
        let name: &str = key.get_ref();
        commands(self.program).find(|command| command.get_name() == name).ok_or_else(|| {
            let likely = likely(name, commands(self.program).map(Command::get_name));
            self.wrong(key.span().start, format_args!("there is no command {name}{likely}"))
        })
    }

    /// A key and its value, as a flag of those of the commands that have it.
    fn setting(
        &self,
        commands: &[&Command],
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Setting, String> {
        let name: &str = key.get_ref();
        let flags: Vec<Flag> = commands.iter().filter_map(|command| Flag::named(command, name)).collect();
        let Some(flag) = flags.first() else {
            let whose = match commands {
                [command] => format!("`wsferry {}` has", command.get_name()),
                _ => "no command has".to_owned(),
            };
            let no = if commands.len() == 1 { " no" } else { " the" };
            let likely = likely(name, commands.iter().flat_map(|command| Flag::all(command)).map(|f| f.name));
            return Err(self.wrong(key.span().start, format_args!("{whose}{no} flag --{name}{likely}")));
        };
        let set = self.value(flag.kind(), value);
        let set = set.and_then(|set| flags.iter().try_for_each(|flag| flag.check(&set)).map(|()| set));
        let set = set.map_err(|why| {
            let shown = match value.get_ref() {
                DeValue::String(text) if !flag.is_secret() => format!(" is {text:?}: {why}"),
                _ => format!(": {why}"),
            };
            self.wrong(value.span().start, format_args!("{name}{shown}"))
        })?;
        let source = Source::File { path: self.path.clone(), line: self.line(key.span().start) };
        Ok(Setting { name: name.to_owned(), value: set, source })
    }

    fn value(&self, kind: Kind, value: &Spanned<DeValue<'_>>) -> Result<Value, String> {
        let found = value.get_ref();
        match (kind, found) {
            (Kind::Switch, DeValue::Boolean(is_set)) => Ok(Value::Switch(*is_set)),
            (Kind::Switch, _) => Err(format!("expected true or false, not {}", called(found))),
            (Kind::Count, DeValue::Boolean(is_set)) => Ok(Value::Count((*is_set).into())),
            (Kind::Count, DeValue::Integer(count)) => {
                let count = count.as_str().parse();
                count.map(Value::Count).map_err(|_| "expected how often, such as 1".to_owned())
            }
            (Kind::Count, _) => Err(format!("expected how often, such as 1, not {}", called(found))),
            (Kind::Many, DeValue::Array(all)) => {
                let texts = all.iter().map(|one| text(one.get_ref()));
                Ok(Value::Texts(texts.collect::<Result<_, _>>()?))
            }
            (Kind::One | Kind::Many, _) => Ok(Value::Texts(vec![text(found)?])),
        }
    }

    fn wrong(&self, at: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{}: {what}", self.path.display(), self.line(at))
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|&&byte| byte == b'\n').count()
    }
}

/// What has flags that can be set.
pub fn commands(program: &Command) -> impl Iterator<Item = &Command> {
    program.get_subcommands().filter(|command| command.get_name() != "help")
}

/// A value as it would stand on the command line.
fn text(value: &DeValue<'_>) -> Result<OsString, String> {
    match value {
        DeValue::String(text) => Ok(OsString::from(text.as_ref())),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().into()),
        DeValue::Float(number) => Ok(number.as_str().into()),
        _ => Err(format!("expected a text in quotes, not {}", called(value))),
    }
}

fn called(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
