//! `REFERENCE.md`, written from the definition of the command line, and compared with it.

use clap::{Arg, Command};

use super::settings::{Flag, commands};
use super::{definition, paper};

const HEAD: &str = "\
# The command line

Written by `SNAPSHOTS=overwrite cargo test --bin wsferry`, from what the program parses.

What is not given on the command line comes from the variable of the environment, then from the configuration file, then
from the default. In the file the key is the flag without its dashes.
";

/// The page.
fn reference() -> String {
    let mut program = definition::command();
    program.build();
    let mut page = HEAD.to_owned();
    for command in commands(&program) {
        page.push_str(&format!("\n## wsferry {}\n\n", command.get_name()));
        page.push_str(&format!("{}.\n", about(command).trim_end_matches('.')));
        for argument in command.get_positionals().filter(|argument| !argument.is_hide_set()) {
            let name = argument.get_value_names().and_then(<[_]>::first).map_or("", |name| name.as_str());
            page.push_str(&format!("\n`{name}`: {}.\n", help(argument).trim_end_matches('.')));
        }
        let flags: Vec<Flag> = Flag::all(command).collect();
        if !flags.is_empty() {
            page.push_str("\n| flag | what | default | variable |\n| --- | --- | --- | --- |\n");
        }
        for flag in flags {
            page.push_str(&row(&flag));
        }
    }
    page
}

fn about(command: &Command) -> String {
    command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default()
}

fn help(argument: &Arg) -> String {
    argument.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|")
}

fn row(flag: &Flag) -> String {
    let short = flag.arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let takes_one = flag.arg.get_action().takes_values();
    let names = flag.arg.get_value_names().filter(|_| takes_one).unwrap_or_default();
    let values: String = names.iter().map(|name| format!(" {name}").replace('|', "\\|")).collect();
    let possible = flag.arg.get_possible_values().into_iter().filter(|_| takes_one);
    let possible: Vec<String> = possible.map(|value| value.get_name().to_owned()).collect();
    let possible = if possible.is_empty() { String::new() } else { format!(" ({})", possible.join(", ")) };
    let default = flag.default().filter(|_| takes_one).map(|value| format!("`{value}`")).unwrap_or_default();
    format!(
        "| `{short}--{}{values}` | {}{possible} | {default} | `{}` |\n",
        flag.name,
        help(flag.arg),
        flag.variable()
    )
}

#[test]
fn the_reference_is_what_the_program_parses() {
    let page = format!("{}/src/cli/REFERENCE.md", env!("CARGO_MANIFEST_DIR"));
    let assert = snapbox::Assert::new().action_env("SNAPSHOTS");
    assert.eq(reference(), snapbox::Data::read_from(page.as_ref(), None).raw());
}

#[test]
fn every_flag_and_command_is_in_the_manual_pages() {
    let mut program = definition::command();
    program.build();
    let pages = paper::pages().unwrap();
    let page_of = |name: &str| {
        let page = pages.iter().find(|(file, _)| file == name).unwrap_or_else(|| panic!("no page {name}"));
        // Dashes are escaped there.
        String::from_utf8(page.1.clone()).unwrap().replace("\\-", "-")
    };
    let main = page_of("wsferry.1");
    for command in commands(&program) {
        let page = page_of(&format!("wsferry-{}.1", command.get_name()));
        assert!(main.contains(&format!("wsferry-{}", command.get_name())), "{main}");
        for flag in Flag::all(command) {
            assert!(page.contains(&format!("--{}", flag.name)), "{} in {}", flag.name, command.get_name());
        }
    }
}

#[test]
fn every_command_has_examples_that_parse_as_far_as_a_shell_lets_them() {
    let program = definition::command();
    for command in program.get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let examples = help.strip_prefix("Examples:\n").and_then(|rest| rest.split("\n\n").next());
        let examples = examples.unwrap_or_else(|| panic!("{} has no examples", command.get_name()));
        for line in examples.lines() {
            // What stands before it and behind it is the shell's.
            let (_, line) = line.split_once("wsferry ").expect("each line is a command line");
            let line = line.split(['>', '|']).next().unwrap();
            let words = line.split_whitespace().map(|word| word.trim_matches('\''));
            let parsed = definition::command().try_get_matches_from(["wsferry"].into_iter().chain(words));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }
}
