//! A WebSocket URL, taken apart.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use async_tungstenite::tungstenite::http::{Uri, uri};
use percent_encoding::percent_decode_str;

use super::dial::{Login, Place, Secret};
use super::mask::mask_url;

const EXPECTED: &str = "expected something like ws://127.0.0.1:9000";

/// Where to dial: a URL, or `unix:PATH`. What is shown of it has neither the user nor the query's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Without the user, with `ws` or `wss`.
    uri: Uri,
    host: String,
    port: u16,
    is_tls: bool,
    unix: Option<PathBuf>,
    login: Option<Login>,
}

impl Endpoint {
    /// The host's name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 80 if the URL names none, 443 with TLS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The user and the password that the URL names.
    pub fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// Where it leads.
    pub fn place(&self) -> Place {
        match &self.unix {
            Some(path) => Place::Unix(path.clone()),
            None => Place::Tcp { host: self.host.clone(), port: self.port },
        }
    }

    /// Host and port alone, or the socket's path, for people.
    pub(super) fn address(&self) -> String {
        self.place().to_string()
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("unix:") {
            return match path {
                "" => Err("it names no socket; expected unix:PATH".to_owned()),
                path => Ok(Self::on_socket(path.into())),
            };
        }
        if url.ends_with("://") {
            return Err(format!("it names no host; {EXPECTED}"));
        }
        let parsed: Uri = url.parse().map_err(|error| format!("{error}; {EXPECTED}"))?;
        let is_tls = match parsed.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("ws" | "http") => false,
            Some("wss" | "https") => true,
            Some(other) => return Err(format!("the scheme is {other}://; {EXPECTED}")),
            None => return Err(format!("it has no scheme; {EXPECTED}")),
        };
        if url.contains('#') {
            return Err("it has a fragment, which a WebSocket URL must not have".to_owned());
        }
        let authority = parsed.authority().ok_or_else(|| format!("it names no host; {EXPECTED}"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(format!("it names no host; {EXPECTED}"));
        }
        let (user, place) = match authority.as_str().rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority.as_str()),
        };
        let login = user.map(login).transpose()?;
        let written_port = place.rsplit_once(']').map_or(place, |(_, rest)| rest);
        let port = match written_port.rsplit_once(':') {
            // What stands there may be a password whose host was forgotten.
            Some((_, port)) => match port.parse() {
                Ok(0) | Err(_) => return Err("there is no such port; expected 1 to 65535".to_owned()),
                Ok(port) => port,
            },
            None if is_tls => 443,
            None => 80,
        };
        let path = parsed.path_and_query().map_or("/", uri::PathAndQuery::as_str);
        let uri = Uri::builder().scheme(if is_tls { "wss" } else { "ws" }).authority(place);
        let uri = uri.path_and_query(path).build().map_err(|error| format!("{error}; {EXPECTED}"))?;
        Ok(Self { uri, host, port, is_tls, unix: None, login })
    }
}

impl Endpoint {
    /// What listens on a socket in the file system has no name: it is asked for as `localhost`.
    fn on_socket(path: PathBuf) -> Self {
        let uri = Uri::from_static("ws://localhost/");
        Self { uri, host: "localhost".to_owned(), port: 80, is_tls: false, unix: Some(path), login: None }
    }
}

/// `user:password` as it stands in a URL.
fn login(written: &str) -> Result<Login, String> {
    let (user, password) = written.split_once(':').unwrap_or((written, ""));
    let decode = |part| percent_decode_str(part).decode_utf8().map(Into::into);
    match (decode(user), decode(password)) {
        (Ok(user), Ok::<String, _>(password)) => Login::new(user, Secret::from(password)),
        _ => Err("its user or password is not UTF-8".to_owned()),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unix {
            Some(path) => write!(f, "unix:{}", path.display()),
            None => f.write_str(&mask_url(&self.uri.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_and_bad_ones_refused_with_the_reason() {
        for (url, host, port, is_tls) in [
            ("ws://127.0.0.1:9000", "127.0.0.1", 9000, false),
            ("ws://example.com/a/b?c=d", "example.com", 80, false),
            ("ws://[::1]:9000/", "::1", 9000, false),
            ("ws://[::1]/", "::1", 80, false),
            ("WS://[::1]/", "::1", 80, false),
            ("wss://example.com", "example.com", 443, true),
            ("HTTPS://example.com/a", "example.com", 443, true),
            ("https://[::1]:8443", "::1", 8443, true),
            ("http://example.com", "example.com", 80, false),
            ("ws://me:p%40ss@127.0.0.1", "127.0.0.1", 80, false),
        ] {
            let endpoint: Endpoint = url.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port(), endpoint.is_tls()), (host, port, is_tls), "{url}");
        }
        for (url, reason) in [
            ("ftp://127.0.0.1:9000", "the scheme is ftp://"),
            ("127.0.0.1:9000", "scheme"),
            ("inbox", "no scheme"),
            ("ws://127.0.0.1/#there", "fragment"),
            ("ws://127.0.0.1:0", "1 to 65535"),
            ("ws://127.0.0.1:70000", "expected"),
            ("ws://127.0.0.1:http", "expected"),
            ("ws://%ff:a@127.0.0.1", "UTF-8"),
            ("ws://", "expected"),
            ("unix:", "unix:PATH"),
            ("", "expected"),
        ] {
            let error = url.parse::<Endpoint>().unwrap_err();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn a_user_is_taken_out_of_the_url_and_nothing_secret_is_shown() {
        let endpoint: Endpoint = "https://me:SEC%3ARET@h:1/a?token=SECRET&b".parse().unwrap();
        let login = endpoint.login().unwrap();
        assert_eq!((login.user(), login.password().reveal()), ("me", "SEC:RET"));
        assert_eq!(endpoint.uri(), "wss://h:1/a?token=SECRET&b");
        assert_eq!(endpoint.to_string(), "wss://h:1/a?token=***&***");
        assert_eq!("unix:/run/x.sock".parse::<Endpoint>().unwrap().to_string(), "unix:/run/x.sock");
        let error = "ws://me:SECRET".parse::<Endpoint>().unwrap_err();
        assert!(!error.contains("SECRET"), "{error}");
    }
}
