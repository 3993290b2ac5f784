//! Flags that the command does not have: whose they are, or why none is needed.

use std::ffi::OsString;
use std::path::Path;

use clap::Command;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use super::definition;

/// What other programs want before they take a directory.
const RECURSIVE: [&str; 5] = ["-r", "-R", "-a", "--recursive", "--archive"];

/// What programs like b3sum compare with what they printed.
const CHECK: [&str; 2] = ["-c", "--check"];

/// Says of a flag that the command does not have what is known of it. clap takes it for a value that begins with a dash, which it is
/// if a file has that name.
pub fn explain(mut error: Error, arguments: &[OsString]) -> Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let program = definition::command();
    let command = arguments.iter().find_map(|argument| program.find_subcommand(argument));
    match tip(flag, command.map(Command::get_name), &program) {
        Some(tip) => {
            error.remove(ContextKind::SuggestedArg);
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
        None if Path::new(flag).exists() => {}
        None => drop(error.remove(ContextKind::Suggested)),
    }
    error
}

fn tip(flag: &str, command: Option<&str>, program: &Command) -> Option<String> {
    let has = |command: &&Command| {
        command.get_arguments().any(|argument| {
            let long = argument.get_long().map(|long| format!("--{long}"));
            let short = argument.get_short().map(|short| format!("-{short}"));
            [long, short].into_iter().flatten().any(|name| name == flag)
        })
    };
    let owners: Vec<String> = program
        .get_subcommands()
        .filter(has)
        .map(|owner| format!("`wsferry {}`", owner.get_name()))
        .collect();
    match owners.as_slice() {
        [] if command == Some("send") && RECURSIVE.contains(&flag) => {
            Some(format!("directories are sent whole without {flag}"))
        }
        [] if command == Some("hash") && CHECK.contains(&flag) => {
            Some("what it prints can be checked by `b3sum --check`".to_owned())
        }
        [] => None,
        [others @ .., last] if !others.is_empty() => {
            Some(format!("{flag} is a flag of {} and {last}", others.join(", ")))
        }
        [owner, ..] => Some(format!("{flag} is a flag of {owner}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_is_found_with_the_commands_that_have_it() {
        let program = definition::command();
        for (flag, command, expected) in [
            ("--overwrite", "send", Some("--overwrite is a flag of `wsferry receive`")),
            (
                "-H",
                "hash",
                Some(
                    "-H is a flag of `wsferry send`, `wsferry receive`, `wsferry probe` and `wsferry bench`",
                ),
            ),
            ("--archive", "send", Some("directories are sent whole without --archive")),
            ("--archive", "receive", None),
            ("--over", "send", None),
        ] {
            assert_eq!(tip(flag, Some(command), &program).as_deref(), expected, "{flag}");
        }
    }
}
