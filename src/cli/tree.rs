//! Which files and directories are sent: the flags of `wsferry send` that choose.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use wsferry::protocol::RelativePath;
use wsferry::storage::{Filter, FilterRule, Links, Root, Scan, ScanOptions};

use super::args::SendArgs;
use super::headings;

#[derive(Debug, Args)]
pub struct TreeArgs {
    /// Symbolic links in directories: leave them out, keep those that stay inside of what is sent, or send what they lead to
    #[arg(long, help_heading = headings::SENT, value_name = "HOW", value_enum, default_value_t = LinksArg::Skip)]
    links: LinksArg,

    #[command(flatten)]
    patterns: Patterns,

    /// Take a file that is there with the same size and modification time for the same, instead of comparing the content
    #[arg(long, help_heading = headings::SENT, conflicts_with = "repair")]
    pub quick: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LinksArg {
    Skip,
    Keep,
    Follow,
}

/// All patterns, in the order of the command line.
#[derive(Debug, Default)]
struct Patterns(Vec<Pattern>);

#[derive(Debug)]
enum Pattern {
    Rule(FilterRule),
    File(PathBuf),
}

/// What the help says of them. clap would give each flag a list of its own, and forget their order.
#[derive(Args)]
struct PatternArgs {
    /// Leave out what matches: a name, or with a / in it a path from the directory on; with a / at the end directories
    /// alone, with all that is in them. Of several --exclude and --include the first that matches decides; may be repeated
    #[arg(long, help_heading = headings::SENT, value_name = "GLOB")]
    exclude: Vec<String>,

    /// Send what matches, whatever a later --exclude says; may be repeated
    #[arg(long, help_heading = headings::SENT, value_name = "GLOB")]
    include: Vec<String>,

    /// Leave out what matches one of the file's lines; those that are empty or begin with # are none
    #[arg(long, help_heading = headings::SENT, value_name = "FILE")]
    exclude_from: Vec<PathBuf>,
}

/// The walk through all that is to be sent, or what makes no sense about it.
pub fn scan(args: &SendArgs) -> Result<Scan, String> {
    let name = args.name.clone().map(RelativePath::from);
    let roots = args.files().iter().map(|path| Root::new(path).named(name.clone()));
    let TreeArgs { links, patterns, .. } = &args.tree;
    let links = match links {
        LinksArg::Skip => Links::Skip,
        LinksArg::Keep => Links::Keep,
        LinksArg::Follow => Links::Follow,
    };
    let filter = Filter::new(patterns.rules()?).map_err(|error| format!("--exclude, --include: {error}"))?;
    Ok(Scan::new(roots, ScanOptions { links, filter }))
}

impl Patterns {
    fn rules(&self) -> Result<Vec<FilterRule>, String> {
        let mut rules = Vec::new();
        for pattern in &self.0 {
            match pattern {
                Pattern::Rule(rule) => rules.push(rule.clone()),
                Pattern::File(path) => {
                    let text = std::fs::read_to_string(path);
                    let text = text
                        .map_err(|error| format!("cannot read --exclude-from {}: {error}", path.display()))?;
                    let globs = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
                    rules.extend(globs.map(|glob| FilterRule::Exclude(glob.to_owned())));
                }
            }
        }
        Ok(rules)
    }
}

impl FromArgMatches for Patterns {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        fn all<T: Clone + Send + Sync + 'static>(
            matches: &ArgMatches,
            id: &str,
            pattern: impl Fn(T) -> Pattern,
        ) -> Result<Vec<(usize, Pattern)>, clap::Error> {
            let wrong = |error| clap::Error::raw(ErrorKind::InvalidValue, format!("{error}\n"));
            let values = matches.try_get_many::<T>(id).map_err(wrong)?.unwrap_or_default();
            let places = matches.indices_of(id).unwrap_or_default();
            Ok(places.zip(values.cloned().map(pattern)).collect())
        }
        let mut patterns = all(matches, "exclude", |glob| Pattern::Rule(FilterRule::Exclude(glob)))?;
        patterns.extend(all(matches, "include", |glob| Pattern::Rule(FilterRule::Include(glob)))?);
        patterns.extend(all(matches, "exclude_from", Pattern::File)?);
        patterns.sort_by_key(|(place, _)| *place);
        Ok(Self(patterns.into_iter().map(|(_, pattern)| pattern).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Patterns {
    fn augment_args(command: Command) -> Command {
        PatternArgs::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        PatternArgs::augment_args_for_update(command)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn parse(flags: &[&str]) -> SendArgs {
        SendArgs::try_parse_from([&["send"], flags, &["d", "ws://h"]].concat()).unwrap()
    }

    #[test]
    fn patterns_keep_the_order_of_the_command_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("patterns");
        std::fs::write(&file, "# a comment\n3\n\n \n\\#4\n5 #\r\n").unwrap();
        let file = file.to_str().unwrap();
        let args = parse(&[
            "--include",
            "1",
            "--exclude=2",
            "--exclude-from",
            file,
            "--include=6",
            "--exclude",
            "7",
        ]);
        let rules = args.tree.patterns.rules().unwrap();
        let exclude = |glob: &str| FilterRule::Exclude(glob.to_owned());
        let include = |glob: &str| FilterRule::Include(glob.to_owned());
        let expected = [
            include("1"),
            exclude("2"),
            exclude("3"),
            exclude("\\#4"),
            exclude("5 #"),
            include("6"),
            exclude("7"),
        ];
        assert_eq!(rules, expected);
        assert_eq!(parse(&[]).tree.patterns.rules().unwrap(), []);
    }

    #[test]
    fn patterns_and_files_of_them_that_make_no_sense_are_told() {
        assert!(scan(&parse(&["--exclude", "a", "--include", "b/"])).is_ok());
        assert!(scan(&parse(&["--exclude", "[a"])).unwrap_err().contains("bad pattern \"[a\""));
        let error = scan(&parse(&["--exclude-from", "/there/is/none"])).unwrap_err();
        assert!(error.contains("cannot read --exclude-from /there/is/none: No such file"), "{error}");
    }

    #[test]
    fn what_is_sent_is_what_the_flags_say() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a.c", "a.o", "keep.o"] {
            std::fs::write(dir.path().join(file), file).unwrap();
        }
        std::os::unix::fs::symlink("a.o", dir.path().join("link")).unwrap();
        let sent = |flags: &[&str], root: &str| -> Vec<String> {
            let root = dir.path().join(root);
            let args = [&["send"], flags, &[root.to_str().unwrap(), "ws://h"]].concat();
            let scan = scan(&SendArgs::try_parse_from(args).unwrap()).unwrap();
            scan.flatten().map(|entry| entry.to.to_string()).collect()
        };
        assert_eq!(sent(&["--include=keep.*", "--exclude=*.o"], ""), ["a.c", "keep.o"]);
        assert_eq!(sent(&["--links=keep", "--exclude=?.*"], ""), ["keep.o", "link"]);
        assert_eq!(sent(&["--links", "follow", "--exclude", "*.*"], ""), ["link"]);
        assert_eq!(sent(&["--name", "b"], "a.c"), ["b"]);
        let refused =
            |flags: &[&str]| SendArgs::try_parse_from([&["send"], flags, &["d", "ws://h"]].concat()).is_err();
        assert!(refused(&["--links", "copy"]) && refused(&["--plain", "--links", "keep"]));
        assert!(refused(&["--plain", "--exclude", "a"]) && !refused(&["--plain"]));
    }
}
