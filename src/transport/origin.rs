//! Web pages: which of them may connect. A browser says in `Origin` whose page it is that dials.

use std::fmt;
use std::str::FromStr;

use async_tungstenite::tungstenite::http::Uri;

/// Where a web page comes from, as RFC 6454 has it: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    /// `None` if the scheme has none of its own and none is written.
    port: Option<u16>,
}

/// The web pages that may connect: none of them unless named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// All may, also those that have no origin to be named by.
    pub any: bool,
    /// These may.
    pub named: Vec<Origin>,
}

impl Origins {
    /// Whether a page that says this in `Origin` may connect.
    pub fn allow(&self, origin: &str) -> bool {
        self.any || origin.parse().is_ok_and(|origin| self.named.contains(&origin))
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected something like https://example.com or http://localhost:8080";
        if text == "null" {
            return Err("null is said by pages that have no origin; * allows all pages".to_owned());
        }
        let (scheme, authority) =
            text.split_once("://").ok_or_else(|| format!("it has no scheme; {EXPECTED}"))?;
        if authority.contains(['/', '?', '#', '@']) {
            return Err(format!("it is more than scheme, host and port; {EXPECTED}"));
        }
        let uri: Uri =
            format!("{scheme}://{authority}/").parse().map_err(|error| format!("{error}; {EXPECTED}"))?;
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("it names no host; {EXPECTED}"))?.to_ascii_lowercase();
        let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
        if scheme.is_empty() {
            return Err(format!("it has no scheme; {EXPECTED}"));
        }
        let written = &authority[host.len()..];
        let port = match (written.strip_prefix(':').map(str::parse), scheme.as_str()) {
            (Some(Ok(port)), _) => Some(port),
            (Some(Err(_)), _) => return Err(format!("the port is {written:?}; {EXPECTED}")),
            (None, "http" | "ws") => Some(80),
            (None, "https" | "wss") => Some(443),
            (None, _) => None,
        };
        Ok(Self { scheme, host, port })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port } = self;
        match port {
            Some(port) => write!(f, "{scheme}://{host}:{port}"),
            None => write!(f, "{scheme}://{host}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_its_scheme_host_and_port_in_any_case() {
        for (one, other, same) in [
            ("http://example.com", "HTTP://Example.COM:80", true),
            ("https://example.com", "https://example.com:443", true),
            ("http://[::1]:8080", "http://[::1]:8080", true),
            ("chrome-extension://abcdef", "chrome-extension://abcdef", true),
            ("http://example.com", "https://example.com", false),
            ("http://example.com", "http://example.com:8080", false),
            ("http://example.com", "http://example.com.evil.org", false),
            ("http://example.com", "http://sub.example.com", false),
            ("http://[::1]", "http://[::2]", false),
        ] {
            let (one, other): (Origin, Origin) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(one == other, same, "{one} {other}");
            let origins = Origins { any: false, named: vec![one] };
            assert_eq!(origins.allow(&other.to_string()), same, "{other}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_and_allows_nothing() {
        let any = Origins { any: true, named: Vec::new() };
        for text in [
            "",
            "null",
            "*",
            "example.com",
            "http://",
            "http:///",
            "http://example.com/",
            "http://example.com/path",
            "http://example.com?q",
            "http://user@example.com",
            "http://example.com:port",
            "http://example.com:99999",
            "http://exa mple.com",
            "http://ex\u{e4}mple.com",
            "http://a, http://b",
            "://example.com",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
            let named = Origins { any: false, named: vec!["http://example.com".parse().unwrap()] };
            assert!(!named.allow(text) && any.allow(text), "{text}");
        }
        assert!(!Origins::default().allow("http://example.com"));
    }
}
