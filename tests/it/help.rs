//! What the help of each command says, to the letter: `SNAPSHOTS=overwrite` writes it anew.

use std::path::Path;

use snapbox::{Assert, Data};

use crate::support::{Running, wsferry};

/// The help of a command, or of the whole program, on a terminal that is so wide.
fn help(command: &str, columns: &str) -> String {
    let ended =
        Running::start(wsferry().args(command.split_whitespace()).arg("--help").env("COLUMNS", columns))
            .end();
    assert_eq!((ended.code(), ended.errors.as_str()), (0, ""), "{command}");
    ended.lines.join("\n") + "\n"
}

/// The commands that the program's own help lists.
fn commands() -> Vec<String> {
    let help = help("", "100");
    let listed = help.split("\nCommands:\n").nth(1).expect("they are listed");
    let listed = listed.lines().take_while(|line| !line.is_empty());
    // What is longer than its line goes on further right.
    let names =
        listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn the_help_of_every_command_is_as_it_was_read_last() {
    let commands = commands();
    assert!(commands.len() >= 10, "{commands:?}");
    let assert = Assert::new().action_env("SNAPSHOTS");
    for command in commands.iter().map(String::as_str).chain([""]) {
        let name = if command.is_empty() { "wsferry" } else { command };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/help/{name}.txt"));
        assert.eq(help(command, "100"), Data::read_from(&file, None).raw());
    }
}

#[test]
fn every_flag_in_a_help_is_told_by_config_with_its_variable_and_stands_in_the_reference() {
    let reference = include_str!("../../src/cli/REFERENCE.md");
    for command in commands() {
        let ended = Running::start(wsferry().args(["config", &command, "--json"])).end();
        assert_eq!(ended.code(), 0, "{ended:?}");
        let settings = ended.events("setting");
        let help = help(&command, "200");
        let flags: Vec<&str> = help
            .lines()
            // Further right a description goes on.
            .filter(|line| ["  -", "      --"].iter().any(|start| line.starts_with(start)))
            .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")))
            .map(|flag| flag.trim_end_matches("..."))
            .filter(|flag| !["--help", "--version", "--config"].contains(flag))
            .collect();
        assert_eq!(flags.len(), settings.len(), "{flags:?}");
        let section =
            reference.split("\n## ").find(|section| section.starts_with(&format!("wsferry {command}\n")));
        let section = section.unwrap_or_else(|| panic!("{command} is not in the reference"));
        for flag in flags {
            let told = settings.iter().find(|setting| setting["flag"] == flag);
            let told = told.unwrap_or_else(|| panic!("{flag} of {command} is not told"));
            let variable = format!("WSFERRY_{}", flag[2..].to_uppercase().replace('-', "_"));
            assert_eq!(told["variable"], variable.as_str());
            assert!(section.contains(flag) && section.contains(&format!("`{variable}`")), "{flag}");
        }
    }
}

#[test]
fn the_short_version_is_one_line_and_the_long_one_says_what_was_built() {
    let said = |flags: &[&str]| Running::start(wsferry().args(flags)).end().lines;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(said(&["-V"]), [format!("wsferry {version}")]);
    assert_eq!(said(&["send", "-V"]), [format!("wsferry-send {version}")]);
    let long = said(&["--version"]);
    assert_eq!(long[0], format!("wsferry {version}"));
    for (line, word) in long[1..].iter().zip(["commit: ", "features: cli, net", "target: "]) {
        assert!(line.starts_with(word), "{long:?}");
    }
    assert_eq!(long.len(), 4);
}

#[test]
fn completions_know_every_shell_and_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = Running::start(wsferry().args(["completions", shell])).end().lines.join("\n");
        for word in commands().iter().map(String::as_str).chain(["max-connection-age", "prune"]) {
            assert!(script.contains(word), "{word} is not completed in {shell}");
        }
    }
    let ended = Running::start(wsferry().args(["completions", "tcsh"])).end();
    assert_eq!(ended.code(), 2);
    assert!(ended.errors.contains("possible values: bash"), "{ended:?}");
}
