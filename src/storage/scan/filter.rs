//! What of a tree is left out: globs, the first of which that matches decides.

use std::path::Path;

use globset::{Candidate, GlobBuilder, GlobSet};

/// What is left out. Without a rule, and where none matches, nothing is.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    globs: GlobSet,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy)]
struct Rule {
    include: bool,
    only_directories: bool,
}

/// A glob, and what becomes of that which it matches.
///
/// `*` matches any bytes but `/`, `?` one, `[a-z]` one of these, `**` any number of directories, `{a,b}` either; `\` takes the
/// next character as it is. A glob without a `/`, but for one at its end, is matched with the name, wherever it lies; any
/// other one with the whole path below the root. With a `/` at the end it matches directories alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterRule {
    /// It is sent.
    Include(String),
    /// It is left out; a directory with all that is in it.
    Exclude(String),
}

/// A glob that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "bad pattern {glob:?}: {why}; `*`, `?`, `**`, `[a-z]` and `{{a,b}}` can be used, and `\\` before a character that is meant"
)]
pub struct FilterError {
    /// As it was given.
    pub glob: String,
    /// What is wrong with it.
    pub why: String,
}

impl Filter {
    /// A filter of these rules, in the order in which they are asked.
    pub fn new(rules: impl IntoIterator<Item = FilterRule>) -> Result<Self, FilterError> {
        let (mut globs, mut kinds) = (GlobSet::builder(), Vec::new());
        for rule in rules {
            let (include, glob) = match rule {
                FilterRule::Include(glob) => (true, glob),
                FilterRule::Exclude(glob) => (false, glob),
            };
            let bad = |why: String| FilterError { glob: glob.clone(), why };
            let path = glob.trim_end_matches('/');
            if path.is_empty() {
                return Err(bad("it names nothing".to_owned()));
            }
            let below_root = match path.strip_prefix('/') {
                Some(path) => path.to_owned(),
                None if path.contains('/') => path.to_owned(),
                None => format!("**/{path}"),
            };
            let parsed = GlobBuilder::new(&below_root).literal_separator(true).backslash_escape(true).build();
            globs.add(parsed.map_err(|error| bad(error.kind().to_string()))?);
            kinds.push(Rule { include, only_directories: glob.ends_with('/') });
        }
        let globs = globs.build().map_err(|error| FilterError {
            glob: error.glob().unwrap_or_default().to_owned(),
            why: error.kind().to_string(),
        })?;
        Ok(Self { globs, rules: kinds })
    }

    /// Whether what has this path below the root is left out.
    pub fn excludes(&self, path: &Path, is_directory: bool) -> bool {
        if self.rules.is_empty() {
            return false;
        }
        let matching = self.globs.matches_candidate(&Candidate::new(path));
        let rules = matching.into_iter().map(|index| self.rules[index]);
        let mut rules = rules.filter(|rule| is_directory || !rule.only_directories);
        rules.next().is_some_and(|rule| !rule.include)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    /// A filter of globs, those with `+` before them included.
    fn filter(globs: &[&str]) -> Result<Filter, FilterError> {
        Filter::new(globs.iter().map(|glob| match glob.strip_prefix('+') {
            Some(glob) => FilterRule::Include(glob.to_owned()),
            None => FilterRule::Exclude((*glob).to_owned()),
        }))
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        for (globs, path, excluded) in [
            (&[][..], "a", false),
            // A name, wherever it lies, hidden or not.
            (&["*.o"], "a.o", true),
            (&["*.o"], "a/b/.c.o", true),
            (&["*.o"], "a.o.c", false),
            (&["a"], "a/b", false),
            (&["?"], "a", true),
            // As with rsync and git, these are of bytes.
            (&["?"], "é", false),
            (&["[é]"], "é", false),
            (&["??"], "é", true),
            (&["*é*"], "caféteria", true),
            (&["{é,ß}"], "é", true),
            (&["[ab]{1,2}"], "d/b2", true),
            // A path from the root.
            (&["a/b"], "a/b", true),
            (&["a/b"], "c/a/b", false),
            (&["/a"], "a", true),
            (&["/a"], "c/a", false),
            (&["a/*"], "a/b/c", false),
            (&["a/**"], "a/b/c", true),
            (&["a/**"], "a", false),
            (&["**/a/b"], "c/d/a/b", true),
            (&["**/a/b"], "a/b", true),
            // Directories alone.
            (&["a/"], "a", false),
            (&["a/"], "a/", true),
            (&["a/"], "b/a/", true),
            (&["a/b/"], "c/a/b/", false),
            // Characters that mean something, meant as they are.
            (&[r"\*"], "a", false),
            (&[r"\*"], "*", true),
            (&["a b"], "a b", true),
            (&["#a"], "#a", true),
            (&["!a"], "!a", true),
            // The order, whichever is the longer one.
            (&["+keep.o", "*.o"], "d/keep.o", false),
            (&["+keep.o", "*.o"], "d/other.o", true),
            (&["*.o", "+keep.o"], "d/keep.o", true),
            (&["+*/", "+*.c", "*"], "d/", false),
            (&["+*/", "+*.c", "*"], "d/a.c", false),
            (&["+*/", "+*.c", "*"], "d/a.h", true),
            (&["+a/", "a"], "a", true),
            (&["+a/", "a"], "a/", false),
        ] {
            let directory = path.ends_with('/');
            let path = Path::new(path.trim_end_matches('/'));
            let found = filter(globs).unwrap().excludes(path, directory);
            assert_eq!(found, excluded, "{globs:?} {path:?}");
        }
    }

    #[test]
    fn a_name_that_is_no_text_can_be_left_out() {
        let path = Path::new(OsStr::from_bytes(b"d/caf\xe9.txt"));
        assert!(filter(&["*.txt"]).unwrap().excludes(path, false));
        assert!(!filter(&["*.o"]).unwrap().excludes(path, false));
    }

    #[test]
    fn a_glob_that_makes_no_sense_is_told() {
        for glob in ["", "/", "//", "[a", "{a", "a\\", "[z-a]"] {
            let error = filter(&["*.o", glob]).unwrap_err();
            assert_eq!(error.glob, glob);
            assert!(!error.why.is_empty() && error.to_string().contains("bad pattern"), "{error}");
        }
    }
}
