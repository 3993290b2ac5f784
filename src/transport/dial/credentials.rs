//! Who calls: headers, tokens, users and passwords. None of them is ever shown.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use async_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::prelude::{BASE64_STANDARD, Engine};

use crate::transport::mask::MASK;

/// A text that is not to be shown. Both of its formats are masked.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// A user and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    user: String,
    password: Secret,
}

impl Login {
    /// A user, who may not have a colon, and a password.
    pub fn new(user: String, password: Secret) -> Result<Self, String> {
        // RFC 7617, 2: "a user-id containing a colon character is invalid", and of both: "MUST NOT contain any control
        // characters".
        if user.contains(':') || user.chars().chain(password.reveal().chars()).any(char::is_control) {
            return Err("a user with a colon, or a control character in it or its password".to_owned());
        }
        Ok(Self { user, password })
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password.
    pub fn password(&self) -> &Secret {
        &self.password
    }

    /// As a header carries it.
    pub(super) fn basic(&self) -> Secret {
        let Self { user, password } = self;
        format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{}", password.reveal()))).into()
    }
}

/// `NAME:PASSWORD`. The error does not show it.
impl FromStr for Login {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (user, password) = text.split_once(':').ok_or("expected NAME:PASSWORD")?;
        Self::new(user.to_owned(), Secret::from(password.to_owned()))
    }
}

/// Headers that go with every handshake.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(HeaderMap);

impl Headers {
    /// Adds one: `Name: value`. The error does not show the value.
    pub fn add(&mut self, line: &str) -> Result<(), String> {
        let (name, value) = line.split_once(':').ok_or("it has no colon; expected 'Name: value'")?;
        let name: HeaderName =
            name.trim().parse().map_err(|_| "its name is none; expected 'Name: value'".to_owned())?;
        if is_ours(&name) {
            return Err(format!("{name} belongs to the WebSocket handshake"));
        }
        self.insert(name, value.trim())
    }

    /// Adds an `Authorization` with this token.
    pub fn bearer(&mut self, token: &Secret) -> Result<(), String> {
        match token.reveal() {
            "" => Err("it is empty".to_owned()),
            token => self.insert(header::AUTHORIZATION, &format!("Bearer {token}")),
        }
    }

    /// Adds an `Authorization` with this user and password.
    pub fn basic(&mut self, login: &Login) -> Result<(), String> {
        self.insert(header::AUTHORIZATION, login.basic().reveal())
    }

    /// Whether one of them says who calls.
    pub fn authorize(&self) -> bool {
        self.0.contains_key(header::AUTHORIZATION)
    }

    pub(in crate::transport) fn map(&self) -> &HeaderMap {
        &self.0
    }

    fn insert(&mut self, name: HeaderName, value: &str) -> Result<(), String> {
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| format!("the value of {name} has characters that no header may have"))?;
        value.set_sensitive(true);
        self.0.append(name, value);
        Ok(())
    }
}

/// Names alone.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Whether the handshake sets it.
fn is_ours(name: &HeaderName) -> bool {
    let own = [header::CONNECTION, header::UPGRADE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    own.contains(name) || name.as_str().starts_with("sec-websocket-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_taken_apart_and_bad_ones_refused_without_showing_their_values() {
        let mut headers = Headers::default();
        headers.add("X-Key:  a: b ").unwrap();
        headers.add("x-key: c").unwrap();
        let values: Vec<_> = headers.map().get_all("x-key").iter().collect();
        assert_eq!(values, ["a: b", "c"]);
        for (line, reason) in [
            ("X-Key SECRET", "no colon"),
            (": SECRET", "its name is none"),
            ("X Key: SECRET", "its name is none"),
            ("X-Key: SECRET\r\nX: y", "characters"),
            ("Upgrade: SECRET", "belongs to"),
            ("Sec-WebSocket-Protocol: SECRET", "belongs to"),
        ] {
            let error = headers.add(line).unwrap_err();
            assert!(error.contains(reason) && !error.contains("SECRET"), "{line:?}: {error}");
        }
        assert_eq!(format!("{headers:?}"), r#"{"x-key"}"#);
    }

    #[test]
    fn users_and_tokens_become_headers_and_are_never_shown() {
        let login: Login = "Aladdin:open sesame".parse().unwrap();
        assert_eq!(login.basic().reveal(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(
            format!("{login:?} {}", login.password()),
            r#"Login { user: "Aladdin", password: *** } ***"#
        );
        assert_eq!("a:b:c".parse::<Login>().unwrap().password().reveal(), "b:c");
        for bad in ["SECRET", "SE\nCRET:x"] {
            assert!(!bad.parse::<Login>().unwrap_err().contains("CRET"));
        }
        let mut headers = Headers::default();
        assert!(!headers.authorize());
        headers.bearer(&"t".to_owned().into()).unwrap();
        assert!(headers.authorize());
        assert_eq!(headers.map()["authorization"], "Bearer t");
        assert!(headers.bearer(&"SEC\nRET".to_owned().into()).is_err());
        assert!(headers.bearer(&String::new().into()).is_err());
    }
}
