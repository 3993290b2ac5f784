//! What a receiver demands of a request, and what becomes of one: a table without a socket.

use std::fmt;
use std::str::FromStr;

use async_tungstenite::tungstenite::handshake::server::create_response;
use async_tungstenite::tungstenite::http::{self, HeaderMap, HeaderValue, Method, StatusCode, header};

use super::caller::Proxies;
use super::token::Token;
use crate::protocol::SUBPROTOCOL;
use crate::protocol::message::clip;
use crate::transport::Origins;

/// Where a balancer looks whether this side serves.
pub const HEALTH: &str = "/healthz";
/// Where a monitor reads the counters.
pub const METRICS: &str = "/metrics";

/// What a receiver demands of whoever dials. The default lets in everybody who is no web page and speaks this protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gate {
    /// Which web pages may connect.
    pub origins: Origins,
    /// What whoever dials has to know, and whoever reads the metrics.
    pub token: Option<Token>,
    /// Below which path the WebSocket is; everywhere if there is none.
    pub path: Option<Prefix>,
    /// What a WebSocket without any subprotocol is taken for.
    pub without_subprotocol: WithoutSubprotocol,
    /// Who may say for whom they speak.
    pub proxies: Proxies,
}

/// What a WebSocket without any subprotocol is taken for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WithoutSubprotocol {
    /// It is refused.
    #[default]
    Refused,
    /// Files as single messages, without this crate's protocol.
    Plain,
    /// This crate's protocol: something on the path has taken its name away.
    Ours,
}

/// A path, and all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

/// Whether a connection more is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Availability {
    /// It is.
    #[default]
    Open,
    /// Not for this caller, who has as many as one may have.
    Crowded,
    /// Not any more.
    Draining,
}

/// Why a caller who speaks WebSocket is sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Refusal {
    /// It says no token.
    NoToken,
    /// It says another token.
    WrongToken,
    /// Nothing is at its path.
    Path,
    /// It has as many connections as one address may have.
    Crowded,
    /// No connection is served any more.
    Draining,
}

/// What was asked for, beside WebSockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Page {
    /// Whether this side serves.
    Health,
    /// The counters.
    Metrics,
    /// What this is.
    Home,
    /// Anything else.
    Other,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A WebSocket, under this subprotocol or none.
    Open { speaks_ours: bool },
    /// A page, or what is said instead.
    Page(Page, StatusCode),
    /// A web page that may not connect, and what the browser says of it.
    Foreign(String),
    /// A WebSocket that may not be.
    Refused(Refusal),
    /// A WebSocket that makes no sense, and why.
    Senseless(String),
}

impl Gate {
    /// What becomes of a request.
    pub(super) fn judge(
        &self,
        request: &http::Request<()>,
        availability: Availability,
        has_metrics: bool,
    ) -> Verdict {
        let headers = request.headers();
        if let Some(origin) = refused_origin(headers, &self.origins) {
            return Verdict::Foreign(origin);
        }
        if !asks_for_websocket(headers) {
            let (page, status) = self.page(request, availability, has_metrics);
            return Verdict::Page(page, status);
        }
        match availability {
            Availability::Open => {}
            Availability::Crowded => return Verdict::Refused(Refusal::Crowded),
            Availability::Draining => return Verdict::Refused(Refusal::Draining),
        }
        if !self.path.as_ref().is_none_or(|path| path.holds(request.uri().path())) {
            return Verdict::Refused(Refusal::Path);
        }
        if !self.knows(headers) {
            let says = headers.contains_key(header::AUTHORIZATION);
            return Verdict::Refused(if says { Refusal::WrongToken } else { Refusal::NoToken });
        }
        if create_response(request).is_err() {
            return Verdict::Senseless("it asks for no WebSocket".to_owned());
        }
        let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
        let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let speaks_ours = offered.any(|protocol| protocol.trim() == SUBPROTOCOL);
        let names_none = !headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
        let takes_none = self.without_subprotocol != WithoutSubprotocol::Refused;
        if speaks_ours || (names_none && takes_none) {
            Verdict::Open { speaks_ours }
        } else {
            Verdict::Senseless(format!("it does not ask for the subprotocol {SUBPROTOCOL}"))
        }
    }

    fn page(
        &self,
        request: &http::Request<()>,
        availability: Availability,
        has_metrics: bool,
    ) -> (Page, StatusCode) {
        let path = request.uri().path();
        let page = match path {
            HEALTH => Page::Health,
            METRICS => Page::Metrics,
            "/" => Page::Home,
            _ => Page::Other,
        };
        let status = match page {
            _ if !matches!(*request.method(), Method::GET | Method::HEAD) => StatusCode::METHOD_NOT_ALLOWED,
            Page::Health if availability == Availability::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Page::Health | Page::Home => StatusCode::OK,
            Page::Metrics if !has_metrics => StatusCode::NOT_FOUND,
            Page::Metrics if !self.knows(request.headers()) => StatusCode::UNAUTHORIZED,
            Page::Metrics => StatusCode::OK,
            Page::Other if self.path.as_ref().is_some_and(|prefix| prefix.holds(path)) => {
                StatusCode::UPGRADE_REQUIRED
            }
            Page::Other => StatusCode::NOT_FOUND,
        };
        (page, status)
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        self.token.is_none_or(|token| token.is_said(headers))
    }

    /// The path and query of a WebSocket's URL without the prefix.
    pub(super) fn target(&self, request: &http::Request<()>) -> String {
        let target = request.uri().to_string();
        let below = self.path.as_ref().and_then(|prefix| target.strip_prefix(prefix.as_str()));
        below.map(str::to_owned).unwrap_or(target)
    }
}

impl Prefix {
    /// It, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn holds(&self, path: &str) -> bool {
        path.strip_prefix(self.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_path = text.starts_with('/') && !text.contains(['?', '#']);
        let path = text.trim_end_matches('/');
        if !is_path || path.is_empty() || path.parse::<http::uri::PathAndQuery>().is_err() {
            return Err("expected a path such as /upload".to_owned());
        }
        if [HEALTH, METRICS].contains(&path) {
            return Err(format!("{path} is answered otherwise"));
        }
        Ok(Self(path.to_owned()))
    }
}

impl Refusal {
    /// The status that says it.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::Path => StatusCode::NOT_FOUND,
            Self::Crowded => StatusCode::TOO_MANY_REQUESTS,
            Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoToken => "it says no token",
            Self::WrongToken => "its token is another",
            Self::Path => "nothing is at the path it asks for",
            Self::Crowded => "it has as many connections as one address may have",
            Self::Draining => "no more connections are taken",
        })
    }
}

/// Whether a request is meant as a WebSocket's, also if something on the way has taken half of it away.
fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let upgrades = headers.get_all(header::UPGRADE).iter().filter_map(|value| value.to_str().ok());
    let mut upgrades = upgrades.flat_map(|value| value.split(','));
    upgrades.any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
        || headers.contains_key(header::SEC_WEBSOCKET_KEY)
}

/// What the request says in `Origin`, made safe to print, if a page from there may not connect.
fn refused_origin(headers: &HeaderMap, origins: &Origins) -> Option<String> {
    let said: Vec<_> = headers.get_all(header::ORIGIN).iter().map(HeaderValue::as_bytes).collect();
    let text = |origin: &[u8]| std::str::from_utf8(origin).is_ok_and(|origin| origins.allow(origin));
    match said.as_slice() {
        [] => None,
        [origin] if text(origin) => None,
        // Several are as good as none that is allowed, whatever they are.
        _ if origins.any => None,
        refused => Some(clip(&String::from_utf8_lossy(&refused.join(&b", "[..]))).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> http::Request<()> {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    const UPGRADE: &[(&str, &str)] = &[
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", SUBPROTOCOL),
    ];

    #[test]
    fn pages_have_their_statuses_whatever_the_gate_demands() {
        let open = Gate::default();
        let closed = Gate {
            token: Some("secret".parse().unwrap()),
            path: Some("/up".parse().unwrap()),
            ..Gate::default()
        };
        for (method, path, of_open, of_closed) in [
            ("GET", "/healthz", 200, 200),
            ("HEAD", "/healthz", 200, 200),
            ("GET", "/healthz?verbose", 200, 200),
            ("GET", "/metrics", 200, 401),
            ("GET", "/", 200, 200),
            ("GET", "/up", 404, 426),
            ("GET", "/up/photo.jpg", 404, 426),
            ("GET", "/upper", 404, 404),
            ("GET", "/healthz/", 404, 404),
            ("GET", "/favicon.ico", 404, 404),
            ("POST", "/", 405, 405),
            ("PUT", "/metrics", 405, 405),
            ("DELETE", "/up", 405, 405),
            ("OPTIONS", "/healthz", 405, 405),
        ] {
            for (gate, status) in [(&open, of_open), (&closed, of_closed)] {
                let verdict = gate.judge(&request(method, path, &[]), Availability::Open, true);
                let Verdict::Page(_, found) = verdict else { panic!("{verdict:?}") };
                assert_eq!(found, status, "{method} {path}");
            }
        }
        let of = |availability| open.judge(&request("GET", HEALTH, &[]), availability, true);
        assert_eq!(of(Availability::Draining), Verdict::Page(Page::Health, StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(of(Availability::Crowded), Verdict::Page(Page::Health, StatusCode::OK));
    }

    #[test]
    fn a_websocket_is_let_in_by_path_token_and_subprotocol_in_this_order() {
        let gate = Gate {
            token: Some("secret".parse().unwrap()),
            path: Some("/up/".parse().unwrap()),
            ..Gate::default()
        };
        let with = |path, authorization: Option<&'static str>| {
            let mut headers = UPGRADE.to_vec();
            headers.extend(authorization.map(|value| ("Authorization", value)));
            gate.judge(&request("GET", path, &headers), Availability::Open, true)
        };
        assert_eq!(with("/up", Some("Bearer secret")), Verdict::Open { speaks_ours: true });
        assert_eq!(with("/up/f?a=b", Some("Bearer secret")), Verdict::Open { speaks_ours: true });
        assert_eq!(with("/up", None), Verdict::Refused(Refusal::NoToken));
        assert_eq!(with("/up", Some("Bearer guess")), Verdict::Refused(Refusal::WrongToken));
        for path in ["/", "/upper", "/u", "/UP", "/healthz", "//up", "/x/up", "/%75p"] {
            assert_eq!(with(path, Some("Bearer secret")), Verdict::Refused(Refusal::Path), "{path}");
        }
        let none = &UPGRADE[..4];
        for (without_subprotocol, is_open) in [
            (WithoutSubprotocol::Refused, false),
            (WithoutSubprotocol::Plain, true),
            (WithoutSubprotocol::Ours, true),
        ] {
            let gate = Gate { without_subprotocol, ..Gate::default() };
            let verdict = gate.judge(&request("GET", "/", none), Availability::Open, true);
            assert_eq!(verdict == Verdict::Open { speaks_ours: false }, is_open, "{verdict:?}");
            let mut other = none.to_vec();
            other.push(("Sec-WebSocket-Protocol", "mqtt"));
            let verdict = gate.judge(&request("GET", "/", &other), Availability::Open, true);
            assert!(matches!(verdict, Verdict::Senseless(_)), "{verdict:?}");
        }
    }

    #[test]
    fn the_prefix_is_no_part_of_a_name_and_what_is_no_path_is_no_prefix() {
        let gate = Gate { path: Some("/a/up".parse().unwrap()), ..Gate::default() };
        for (path, target) in [("/a/up", ""), ("/a/up/", "/"), ("/a/up/photo.jpg?x", "/photo.jpg?x")] {
            assert_eq!(gate.target(&request("GET", path, &[])), target);
        }
        for text in ["", "/", "//", "up", "/up?a", "/up#a", "/a b", "/healthz", "/metrics/"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
