//! Who may connect: whoever knows a token, which is said as RFC 6750 has it.

use std::fmt;
use std::str::FromStr;

use async_tungstenite::tungstenite::http::{HeaderMap, header};

const SCHEME: &[u8] = b"bearer";

/// A secret that whoever dials has to know. It is kept as a digest: comparing digests takes the same time whatever was
/// guessed, and tells nothing of the length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token(blake3::Hash);

impl Token {
    /// Whether a request says it, once, in `Authorization`.
    pub(super) fn is_said(&self, headers: &HeaderMap) -> bool {
        let mut said = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(said), None) = (said.next(), said.next()) else { return false };
        let mut words = said.as_bytes().splitn(2, |&byte| byte == b' ');
        let scheme = words.next().unwrap_or_default();
        let token = words.next().unwrap_or_default().trim_ascii_start();
        // The type's comparison takes constant time.
        scheme.eq_ignore_ascii_case(SCHEME) & (blake3::hash(token) == self.0)
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the token is empty".to_owned());
        }
        // The text itself is not shown.
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the token holds more than visible ASCII characters".to_owned());
        }
        Ok(Self(blake3::hash(text.as_bytes())))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

#[cfg(test)]
mod tests {
    use async_tungstenite::tungstenite::http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_is_said_once_as_a_bearer_and_in_no_other_way() {
        let token: Token = "s3cret~token".parse().unwrap();
        for (said, is_it) in [
            (&[&b"Bearer s3cret~token"[..]][..], true),
            (&[b"bEARER  s3cret~token"], true),
            (&[], false),
            (&[b""], false),
            (&[b"Bearer"], false),
            (&[b"Bearer "], false),
            (&[b"Bearer s3cret~toke"], false),
            (&[b"Bearer s3cret~tokens"], false),
            (&[b"Bearer S3cret~token"], false),
            (&[b"Bearer s3cret~token extra"], false),
            (&[b"Basic s3cret~token"], false),
            (&[b"s3cret~token"], false),
            (&[b"Bearer s3cret~tok\xe9n"], false),
            (&[b"Bearer s3cret~token", b"Bearer s3cret~token"], false),
            (&[b"Bearer no", b"Bearer s3cret~token"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
            }
            assert_eq!(token.is_said(&headers), is_it, "{headers:?}");
        }
        assert_eq!(format!("{token:?}"), "Token(***)");
    }

    #[test]
    fn what_cannot_be_said_in_a_header_is_no_token_and_is_not_repeated() {
        for text in ["", "a b", "a\n", "\u{e4}", "a\u{7f}"] {
            let error = text.parse::<Token>().unwrap_err();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }
}
