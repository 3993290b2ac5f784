//! A `ws://` URL, taken apart.

use std::fmt;
use std::str::FromStr;

use async_tungstenite::tungstenite::http::Uri;

/// Where to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    uri: Uri,
    host: String,
    port: u16,
}

impl Endpoint {
    /// The host's name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 80 if the URL names none.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn uri(&self) -> Uri {
        self.uri.clone()
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected something like ws://127.0.0.1:9000";
        let uri: Uri = url.parse().map_err(|error| format!("{error}; {EXPECTED}"))?;
        match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("ws") => {}
            Some("wss") => {
                return Err(
                    "TLS is not built in; put a proxy that speaks it in front, and dial ws://".to_owned()
                );
            }
            Some(other) => return Err(format!("the scheme is {other}://; {EXPECTED}")),
            None => return Err(format!("it has no scheme; {EXPECTED}")),
        }
        if url.contains('#') {
            return Err("it has a fragment, which a WebSocket URL must not have".to_owned());
        }
        let authority = uri.authority().ok_or_else(|| format!("it names no host; {EXPECTED}"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(format!("it names no host; {EXPECTED}"));
        }
        if authority.as_str().contains('@') {
            return Err("it has a user or a password, which wsferry does not send".to_owned());
        }
        let written_port = authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest);
        let port = match written_port.rsplit_once(':') {
            Some((_, port)) => match port.parse() {
                Ok(0) | Err(_) => return Err(format!("the port is {port:?}; expected 1 to 65535")),
                Ok(port) => port,
            },
            None => 80,
        };
        Ok(Self { uri, host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_and_bad_ones_refused_with_the_reason() {
        for (url, host, port) in [
            ("ws://127.0.0.1:9000", "127.0.0.1", 9000),
            ("ws://example.com/a/b?c=d", "example.com", 80),
            ("ws://[::1]:9000/", "::1", 9000),
            ("ws://[::1]/", "::1", 80),
            ("WS://[::1]/", "::1", 80),
        ] {
            let endpoint: Endpoint = url.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port), "{url}");
        }
        for (url, reason) in [
            ("http://127.0.0.1:9000", "the scheme is http://"),
            ("wss://127.0.0.1:9000", "TLS"),
            ("127.0.0.1:9000", "scheme"),
            ("inbox", "no scheme"),
            ("ws://me:secret@127.0.0.1", "a password"),
            ("ws://127.0.0.1/#there", "fragment"),
            ("ws://127.0.0.1:0", "1 to 65535"),
            ("ws://127.0.0.1:70000", "expected"),
            ("ws://127.0.0.1:http", "expected"),
            ("ws://", "expected"),
            ("", "expected"),
        ] {
            let error = url.parse::<Endpoint>().unwrap_err();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }
}
