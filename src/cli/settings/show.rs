//! `wsferry config`: what holds, and why.

use clap::Parser;

use super::{Flag, Layers, Ruling, Setting, Source, Variables, command_named, commands};
use crate::cli::args::OutputArgs;
use crate::cli::definition;
use crate::cli::event::{JsonEvent, SettingSource};
use crate::cli::exit::Exit;
use crate::cli::output::Output;

/// Tell what holds for each flag where it is not given, and why: environment, file, default.
#[derive(Debug, Parser)]
pub struct ConfigArgs {
    /// Of this command alone
    #[arg(value_name = "COMMAND")]
    command: Option<String>,

    /// Print one JSON object a line on standard output, and nothing else there
    #[arg(long, short)]
    json: bool,
}

impl ConfigArgs {
    /// What is told is all there is to tell.
    pub fn output(&self) -> OutputArgs {
        OutputArgs { json: self.json, ..OutputArgs::default() }
    }
}

/// `file`: the configuration file that is named on the command line.
pub fn run(args: &ConfigArgs, file: Option<&std::path::Path>, output: &Output) -> Exit {
    match tell(args, file, output) {
        Ok(()) => Exit::Done,
        Err(usage) => output.error(&usage, Exit::Usage),
    }
}

fn tell(args: &ConfigArgs, file: Option<&std::path::Path>, output: &Output) -> Result<(), String> {
    let mut program = definition::command();
    program.build();
    let layers = Layers::read(&program, file, &Variables::read())?;
    let path = layers.file.path.as_ref().map(|path| path.display().to_string());
    output.event(JsonEvent::Config { file: path.clone(), is_there: layers.file.is_there });
    output.line(&match (&path, layers.file.is_there) {
        (None, _) => "file: none".to_owned(),
        (Some(path), true) => format!("file: {path}"),
        (Some(path), false) => format!("file: {path}, which is not there"),
    });
    for variable in layers.unknown_variables(&program) {
        output.trouble(&format!("no flag belongs to the variable {variable}"));
    }
    let shown: Vec<_> = match &args.command {
        None => commands(&program).collect(),
        Some(name) => {
            let command = command_named(&program, name);
            vec![command.ok_or_else(|| {
                let names: Vec<_> = commands(&program).map(clap::Command::get_name).collect();
                format!("there is no command {name}; expected one of {}", names.join(", "))
            })?]
        }
    };
    for command in shown {
        let held = match layers.of(command, None)? {
            Ruling::Holds(held) => held,
            Ruling::Conflict(error) => return Err(error.to_string()),
        };
        tell_command(command, &held, output);
    }
    Ok(())
}

fn tell_command(command: &clap::Command, held: &[Setting], output: &Output) {
    let flags: Vec<Flag> = Flag::all(command).collect();
    if flags.is_empty() {
        return;
    }
    let rows: Vec<[String; 3]> = flags.iter().map(|flag| row(command, flag, held, output)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (names, values) = (width(0), width(1).min(24));
    output.line("");
    output.line(&format!("wsferry {}", command.get_name()));
    for [name, value, source] in &rows {
        output.line(&format!("  {name:names$}  {value:values$}  {source}"));
    }
}

/// A flag, its value, and why it holds.
fn row(command: &clap::Command, flag: &Flag, held: &[Setting], output: &Output) -> [String; 3] {
    let setting = held.iter().find(|setting| setting.name == flag.name);
    let value = match setting {
        Some(setting) => Some(flag.shown(&setting.value)),
        None => flag.default(),
    };
    let (source, line) = match setting.map(|setting| &setting.source) {
        None => (SettingSource::Default, None),
        Some(Source::Variable(_)) => (SettingSource::Environment, None),
        Some(Source::File { line, .. }) => (SettingSource::File, Some(*line)),
        Some(Source::Profile { .. }) => (SettingSource::Profile, None),
    };
    output.event(JsonEvent::Setting {
        command: command.get_name().to_owned(),
        flag: format!("--{}", flag.name),
        value: value.clone(),
        source,
        line,
        variable: flag.variable(),
    });
    let why = setting.map_or_else(|| "default".to_owned(), |setting| setting.source.to_string());
    [format!("--{}", flag.name), value.unwrap_or_else(|| "-".to_owned()), why]
}
