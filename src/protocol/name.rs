//! A file name that is safe to create inside a directory and to print on a terminal.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, HirKind};

/// The directory inside the destination that holds partial files; no file may take its name.
pub const RESERVED: &str = ".wsferry";

/// One path component, checked: 1 to 255 bytes of UTF-8, neither `.` nor `..`, without separators and
/// control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileName(String);

/// A file's path below the destination, checked: components that are each a [`FileName`], with `/` between them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelativePath(String);

/// The longest path in bytes: what system calls take.
pub const MAX_PATH: usize = 4095;

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("it is empty")]
    Empty,
    /// The name is longer than file systems allow.
    #[error("it has {0} bytes, 255 at most are allowed")]
    TooLong(usize),
    /// The path is longer than system calls take.
    #[error("the path has {0} bytes, {MAX_PATH} at most are allowed")]
    PathTooLong(usize),
    /// The name is `.` or `..`.
    #[error("it names a directory")]
    Dots,
    /// The name has a `/` or a `\`.
    #[error("it has a path separator")]
    Separator,
    /// The name has a NUL, another control character, or one that reorders the text around it.
    #[error("it has the control character U+{:04X}", *.0 as u32)]
    Control(char),
    /// The name is not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// The name is the one that partial files live under.
    #[error("it is reserved")]
    Reserved,
}

impl FileName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FileName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        match name {
            "" => return Err(NameError::Empty),
            "." | ".." => return Err(NameError::Dots),
            _ if name.eq_ignore_ascii_case(RESERVED) => return Err(NameError::Reserved),
            _ => {}
        }
        if name.len() > 255 {
            return Err(NameError::TooLong(name.len()));
        }
        for c in name.chars() {
            match c {
                '/' | '\\' => return Err(NameError::Separator),
                c if is_unprintable(c) => return Err(NameError::Control(c)),
                _ => {}
            }
        }
        Ok(Self(name.to_owned()))
    }
}

impl RelativePath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components, from the destination down.
    pub fn components(&self) -> std::str::Split<'_, char> {
        self.0.split('/')
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().expect("a path has a component")
    }

    /// The directory that it lies in; `None` for one of the destination's own.
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// Something that lies in this directory.
    pub fn join(&self, name: &FileName) -> Result<Self, NameError> {
        format!("{self}/{name}").parse()
    }
}

impl From<FileName> for RelativePath {
    fn from(name: FileName) -> Self {
        Self(name.0)
    }
}

impl FromStr for RelativePath {
    type Err = NameError;

    fn from_str(path: &str) -> Result<Self, NameError> {
        if path.len() > MAX_PATH {
            return Err(NameError::PathTooLong(path.len()));
        }
        for component in path.split('/') {
            component.parse::<FileName>()?;
        }
        Ok(Self(path.to_owned()))
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Unicode's property `Bidi_Control`: what orders a text otherwise than it is written.
static BIDI_CONTROL: LazyLock<ClassUnicode> =
    LazyLock::new(|| match regex_syntax::parse(r"\p{Bidi_Control}").map(regex_syntax::hir::Hir::into_kind) {
        Ok(HirKind::Class(Class::Unicode(class))) => class,
        _ => unreachable!("a property's name is a class of characters"),
    });

/// Whether a character moves what stands around it: control characters (Unicode category `Cc`), bidirectional controls
/// (property `Bidi_Control`) and line separators (U+2028, U+2029), which make a text look like another one.
pub(super) fn is_unprintable(c: char) -> bool {
    let is_bidi = || BIDI_CONTROL.iter().any(|range| (range.start()..=range.end()).contains(&c));
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || (!c.is_ascii() && is_bidi())
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_of_names_that_are_allowed() {
        let long = vec!["n"; MAX_PATH / 2 + 2].join("/");
        for (path, error) in [
            ("", NameError::Empty),
            ("/etc", NameError::Empty),
            ("a//b", NameError::Empty),
            ("a/", NameError::Empty),
            ("a/../b", NameError::Dots),
            ("./a", NameError::Dots),
            ("a/.wsferry/b", NameError::Reserved),
            ("a/b\\c", NameError::Separator),
            (long.as_str(), NameError::PathTooLong(MAX_PATH + 2)),
        ] {
            assert_eq!(path.parse::<RelativePath>(), Err(error), "{path:?}");
        }
        let path: RelativePath = "a/b c/d".parse().unwrap();
        assert_eq!((path.name(), path.parent()), ("d", Some("a/b c")));
        assert_eq!(path.components().collect::<Vec<_>>(), ["a", "b c", "d"]);
        let path = RelativePath::from("a".parse::<FileName>().unwrap());
        assert_eq!((path.name(), path.parent()), ("a", None));
        assert_eq!(path.join(&"b".parse().unwrap()).unwrap().as_str(), "a/b");
    }

    #[test]
    fn hostile_names_are_refused_and_ordinary_ones_pass() {
        let long = "n".repeat(256);
        for (name, error) in [
            ("", NameError::Empty),
            (".", NameError::Dots),
            ("..", NameError::Dots),
            ("../up", NameError::Separator),
            ("/etc/passwd", NameError::Separator),
            ("a\\b", NameError::Separator),
            ("a\0b", NameError::Control('\0')),
            ("a\nb", NameError::Control('\n')),
            ("a\u{1b}[2Jb", NameError::Control('\u{1b}')),
            ("a\u{202E}gpj.exe", NameError::Control('\u{202E}')),
            (".wsferry", NameError::Reserved),
            (".WSFERRY", NameError::Reserved),
            (long.as_str(), NameError::TooLong(256)),
        ] {
            assert_eq!(name.parse::<FileName>(), Err(error), "{name:?}");
        }
        // Every character that Unicode 17 gives the property, and the line separators beside them.
        let moving = ['\u{61C}', '\u{200E}', '\u{200F}'].into_iter();
        let moving: Vec<char> =
            moving.chain('\u{2028}'..='\u{202E}').chain('\u{2066}'..='\u{2069}').collect();
        let has_property = |c| BIDI_CONTROL.iter().any(|range| range.start() <= c && c <= range.end());
        for c in '\0'..=char::MAX {
            let name = format!("a{c}b");
            let refused = matches!(name.parse::<FileName>(), Err(NameError::Control(found)) if found == c);
            assert_eq!(
                refused,
                c.is_control() || has_property(c) || moving.contains(&c),
                "U+{:04X}",
                c as u32
            );
            assert!(!moving.contains(&c) || refused, "U+{:04X}", c as u32);
        }
        let longest = "n".repeat(255);
        for name in ["a", "...", "..a", "-rf", "with space", "héllo.png", ".hidden", longest.as_str()] {
            assert_eq!(name.parse::<FileName>().unwrap().as_str(), name);
        }
    }
}
