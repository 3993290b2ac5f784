//! Flags that are set by the environment: `--retry-for` by `WSFERRY_RETRY_FOR`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use clap::Command;

use super::flag::{CONFIG, Flag, Kind, PREFIX, Value, likely, variable};
use super::{Setting, Source};

/// The variables that are for this program.
#[derive(Debug, Clone, Default)]
pub struct Variables(BTreeMap<String, OsString>);

impl Variables {
    /// Those of this process. One that is empty is as good as none, but for the one that names the file.
    pub fn read() -> Self {
        let all = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        all.collect()
    }

    /// The variable that names the configuration file.
    pub fn config(&self) -> Option<&OsStr> {
        self.0.get(&variable(CONFIG)).map(OsString::as_os_str)
    }

    /// What they set of a command's flags.
    pub fn settings(&self, command: &Command) -> Result<Vec<Setting>, String> {
        let set = Flag::all(command).filter_map(|flag| Some((flag, self.0.get(&flag.variable())?)));
        set.map(|(flag, text)| {
            let variable = flag.variable();
            let value = value(flag.kind(), text);
            let value = value.and_then(|value| flag.check(&value).map(|()| value));
            let value = value.map_err(|why| match flag.is_secret() {
                true => format!("the variable {variable} makes no sense: {why}"),
                false => format!("the variable {variable} is {:?}: {why}", text.to_string_lossy()),
            })?;
            Ok(Setting { name: flag.name.to_owned(), value, source: Source::Variable(variable) })
        })
        .collect()
    }

    /// Those that set nothing of any command, each with what was meant.
    pub fn unknown(&self, program: &Command) -> Vec<String> {
        let flags = program.get_subcommands().flat_map(Flag::all).map(|flag| flag.variable());
        let known: Vec<String> = flags.chain([variable(CONFIG)]).collect();
        let unknown = self.0.keys().filter(|name| !known.contains(name));
        unknown.map(|name| format!("{name}{}", likely(name, known.iter().map(String::as_str)))).collect()
    }
}

impl FromIterator<(String, OsString)> for Variables {
    fn from_iter<T: IntoIterator<Item = (String, OsString)>>(variables: T) -> Self {
        let ours = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX));
        Self(ours.filter(|(name, value)| !value.is_empty() || *name == variable(CONFIG)).collect())
    }
}

fn value(kind: Kind, text: &OsStr) -> Result<Value, String> {
    let word = text.to_string_lossy().to_lowercase();
    let switch = match word.as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    };
    match kind {
        Kind::Switch => switch.map(Value::Switch).ok_or_else(|| "expected true or false".to_owned()),
        Kind::Count => match (word.parse(), switch) {
            (Ok(count), _) => Ok(Value::Count(count)),
            (_, Some(is_set)) => Ok(Value::Count(is_set.into())),
            _ => Err("expected how often, such as 1".to_owned()),
        },
        Kind::One => Ok(Value::Texts(vec![text.to_owned()])),
        // A line each: what else could separate them may be part of them.
        Kind::Many => match text.to_str() {
            Some(text) => {
                Ok(Value::Texts(text.lines().filter(|line| !line.is_empty()).map(OsString::from).collect()))
            }
            None => Ok(Value::Texts(vec![text.to_owned()])),
        },
    }
}
