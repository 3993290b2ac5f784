//! `wsferry completions` and `wsferry man`: the command line as shells and `man` read it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Command, Parser};
use clap_complete::Shell;
use clap_mangen::Man;

use super::definition;
use super::exit::Exit;
use super::output::Output;

/// Print what completes commands and flags in a shell.
#[derive(Debug, Parser)]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Print the manual page, or write one for each command.
#[derive(Debug, Parser)]
pub struct ManArgs {
    /// Where to write them; made if it is not there
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub fn complete(args: &CompletionsArgs, output: &Output) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition::command(), "wsferry", &mut script);
    ended(print(&script), output)
}

pub fn man(args: &ManArgs, output: &Output) -> Exit {
    let Some(directory) = &args.directory else {
        let mut page = Vec::new();
        let written = Man::new(definition::command()).render(&mut page).and_then(|()| print(&page));
        return ended(written, output);
    };
    match write_pages(directory) {
        Ok(count) => {
            output.line(&format!("{count} pages are in {}", directory.display()));
            Exit::Done
        }
        Err(error) => {
            let what = format!("cannot write manual pages into {}: {error}", directory.display());
            output.error(&what, Exit::Failed)
        }
    }
}

/// The page of each command, by the name of its file.
pub fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let page = |command: Command| {
        let (man, mut page) = (Man::new(command), Vec::new());
        man.render(&mut page)?;
        Ok((man.get_filename(), page))
    };
    let mut program = definition::command();
    program.build();
    let commands = program.get_subcommands().filter(|command| command.get_name() != "help").map(|command| {
        let name = format!("wsferry-{}", command.get_name());
        command.clone().display_name(name)
    });
    let commands: Vec<Command> = commands.collect();
    [program].into_iter().chain(commands).map(page).collect()
}

fn write_pages(directory: &Path) -> io::Result<usize> {
    fs::create_dir_all(directory)?;
    let pages = pages()?;
    for (name, page) in &pages {
        fs::write(directory.join(name), page)?;
    }
    Ok(pages.len())
}

/// Whoever reads only the beginning has read enough.
fn print(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn ended(written: io::Result<()>, output: &Output) -> Exit {
    match written {
        Ok(()) => Exit::Done,
        Err(error) => output.error(&format_args!("cannot write to standard output: {error}"), Exit::Failed),
    }
}
