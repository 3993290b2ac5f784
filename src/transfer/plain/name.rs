//! The name that a URL gives to a file.

use crate::protocol::{FileName, NameError};

/// The last component of the path, percent-decoded, if there is one.
pub fn file_name(target: &str) -> Result<Option<FileName>, NameError> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    if last.is_empty() {
        return Ok(None);
    }
    let name = String::from_utf8(percent_decoded(last.as_bytes())).map_err(|_| NameError::NotUtf8)?;
    name.parse().map(Some)
}

/// The name of the `number`th file that comes under one name: `a.tar` is followed by `a-0002.tar`.
pub(super) fn numbered(name: &FileName, number: u64) -> Result<FileName, NameError> {
    match name.as_str().rsplit_once('.') {
        _ if number < 2 => Ok(name.clone()),
        Some((stem, ending)) if !stem.is_empty() => format!("{stem}-{number:04}.{ending}").parse(),
        _ => format!("{name}-{number:04}").parse(),
    }
}

fn percent_decoded(mut text: &[u8]) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(text.len());
    while let Some((&first, rest)) = text.split_first() {
        text = rest;
        decoded.push(match rest {
            [high, low, behind @ ..] if first == b'%' => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    text = behind;
                    high << 4 | low
                }
                _ => first,
            },
            _ => first,
        });
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_component_of_a_path_is_the_name_if_it_may_be_one() {
        for (target, name) in [
            ("/", None),
            ("/uploads/", None),
            ("/?name=x", None),
            ("/a.png", Some("a.png")),
            ("/uploads/a.png?token=x/y", Some("a.png")),
            ("/h%C3%A9%20llo.png", Some("hé llo.png")),
            ("/100%", Some("100%")),
            ("/100%zz", Some("100%zz")),
        ] {
            let expected = name.map(|name| name.parse().unwrap());
            assert_eq!(file_name(target), Ok(expected), "{target}");
        }
        for (target, error) in [
            ("/..", NameError::Dots),
            ("/a%2f..%2fb", NameError::Separator),
            ("/%00", NameError::Control('\0')),
            ("/%ff", NameError::NotUtf8),
            ("/.wsferry", NameError::Reserved),
        ] {
            assert_eq!(file_name(target), Err(error), "{target}");
        }
    }

    #[test]
    fn further_files_of_one_name_are_numbered_before_the_ending() {
        for (name, expected) in [("a.tar", "a-0002.tar"), ("a", "a-0002"), (".hidden", ".hidden-0002")] {
            let name: FileName = name.parse().unwrap();
            assert_eq!(numbered(&name, 1).as_ref(), Ok(&name));
            assert_eq!(numbered(&name, 2).unwrap().as_str(), expected);
        }
    }
}
