//! A flag as it can be set without being given: its variable, its key in the file, what its value has to be.

use std::any::TypeId;
use std::error::Error;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};
use wsferry::transport::dial::Secret;

/// What the names of all variables begin with.
pub const PREFIX: &str = "WSFERRY_";
/// The flag that names the file, which cannot stand in it.
pub const CONFIG: &str = "config";

/// A flag of a command.
#[derive(Clone, Copy)]
pub struct Flag<'a> {
    pub arg: &'a Arg,
    /// Without the dashes in front: its key in the file.
    pub name: &'a str,
}

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: it is there or not.
    Switch,
    /// Nothing, and may be repeated.
    Count,
    /// One value.
    One,
    /// One value or several.
    Many,
}

/// What a flag is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Switch(bool),
    Count(u8),
    Texts(Vec<OsString>),
}

impl<'a> Flag<'a> {
    /// All that can be set of a command, in the order of its help.
    pub fn all(command: &'a Command) -> impl Iterator<Item = Self> {
        command.get_arguments().filter_map(Self::of)
    }

    /// The one of this name.
    pub fn named(command: &'a Command, name: &str) -> Option<Self> {
        Self::all(command).find(|flag| flag.name == name)
    }

    fn of(arg: &'a Arg) -> Option<Self> {
        use ArgAction::{Help, HelpLong, HelpShort, Version};
        let name = arg.get_long()?;
        let asks = matches!(arg.get_action(), Help | HelpShort | HelpLong | Version);
        (!asks && !arg.is_hide_set() && name != CONFIG).then_some(Self { arg, name })
    }

    /// Its variable in the environment.
    pub fn variable(&self) -> String {
        variable(self.name)
    }

    pub fn kind(&self) -> Kind {
        match self.arg.get_action() {
            ArgAction::SetTrue | ArgAction::SetFalse => Kind::Switch,
            ArgAction::Count => Kind::Count,
            ArgAction::Append => Kind::Many,
            _ => Kind::One,
        }
    }

    /// Whether its value is not to be shown.
    pub fn is_secret(&self) -> bool {
        self.arg.get_value_parser().type_id() == TypeId::of::<Secret>()
    }

    /// What holds where nothing is set.
    pub fn default(&self) -> Option<String> {
        let values: Vec<_> =
            self.arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        match self.kind() {
            Kind::Switch => Some("false".to_owned()),
            Kind::Count => Some("0".to_owned()),
            _ => (!values.is_empty()).then(|| values.join(",")),
        }
    }

    /// Says what is wrong with a value; without the value.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let Value::Texts(texts) = value else { return Ok(()) };
        // Alone: what it goes with, and what not, is looked at once all is known.
        let alone = Arg::new("value").long("value").action(ArgAction::Append);
        let alone = alone.value_parser(self.arg.get_value_parser().clone());
        let alone = alone.value_delimiter(self.arg.get_value_delimiter());
        let command = Command::new("wsferry").no_binary_name(true).arg(alone);
        let arguments = texts.iter().map(|text| joined("value", text));
        command.try_get_matches_from(arguments).map(drop).map_err(|error| reason(&error))
    }

    /// The value as it is written on a command line.
    pub fn arguments(&self, value: &Value) -> Vec<OsString> {
        let flag = || OsString::from(format!("--{}", self.name));
        match value {
            Value::Switch(is_set) => is_set.then(flag).into_iter().collect(),
            Value::Count(count) => (0..*count).map(|_| flag()).collect(),
            Value::Texts(texts) => texts.iter().map(|text| joined(self.name, text)).collect(),
        }
    }

    /// The value for people.
    pub fn shown(&self, value: &Value) -> String {
        match value {
            _ if self.is_secret() => "***".to_owned(),
            Value::Switch(is_set) => is_set.to_string(),
            Value::Count(count) => count.to_string(),
            Value::Texts(texts) => {
                texts.iter().map(|text| text.to_string_lossy()).collect::<Vec<_>>().join(",")
            }
        }
    }
}

/// The variable of a flag.
pub fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase().replace('-', "_"))
}

/// What was meant by a name that is none.
pub fn likely<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> String {
    // A letter or two may be wrong; of short words most letters are in many others.
    let close = names.map(|name| (strsim::jaro(wrong, name), name)).filter(|(closeness, _)| *closeness > 0.8);
    let best = close.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.map(|(_, name)| format!("; did you mean {name}?")).unwrap_or_default()
}

/// A value may begin with a dash.
fn joined(name: &str, value: &OsString) -> OsString {
    let mut joined = OsString::from(format!("--{name}="));
    joined.push(value);
    joined
}

fn reason(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::InvalidUtf8 {
        return "it is not UTF-8".to_owned();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            format!("expected one of {}", valid.join(", "))
        }
        _ => match error.source() {
            Some(source) => source.to_string(),
            None => "it makes no sense".to_owned(),
        },
    }
}
