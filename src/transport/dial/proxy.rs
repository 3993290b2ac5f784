//! Proxies: which of them leads to a URL, and what has to be said to it.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use async_tungstenite::tungstenite::http::{Uri, header};
use futures::AsyncWriteExt;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use percent_encoding::percent_decode_str;

use super::credentials::{Login, Secret};
use super::reach::{self, Family, Place};
use super::socks::{self, Refusal, Target};
use super::tls::TlsFault;
use crate::protocol::message::clip;
use crate::runtime::Stream;
use crate::transport::head::{self, Head, NoHead};
use crate::transport::{Endpoint, mask_url};

/// What leads to a URL.
#[derive(Debug, Clone, Default)]
pub enum Proxies {
    /// Nothing: it is dialled itself.
    #[default]
    Direct,
    /// This proxy.
    One(Proxy),
    /// What the environment named when it was asked.
    Environment(Environment),
}

/// What `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say, by curl's rules.
#[derive(Clone)]
pub struct Environment(Arc<Matcher>);

impl Environment {
    /// As it is now.
    pub fn read() -> Self {
        Self(Arc::new(Matcher::from_env()))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Environment").finish_non_exhaustive()
    }
}

impl Proxies {
    /// The proxy that leads to an endpoint, if there is one.
    pub(super) fn of(&self, endpoint: &Endpoint) -> Option<Proxy> {
        if matches!(endpoint.place(), Place::Unix(_)) {
            return None;
        }
        match self {
            Self::Direct => None,
            Self::One(proxy) => Some(proxy.clone()),
            Self::Environment(Environment(matcher)) => {
                // The rules know HTTP's names of the schemes.
                let scheme = if endpoint.is_tls() { "https" } else { "http" };
                let authority = endpoint.uri().authority()?.as_str();
                let twin =
                    Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build().ok()?;
                matcher.intercept(&twin).map(|found| Proxy::of(&found))
            }
        }
    }
}

/// A proxy. What is shown of it has no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    login: Option<Login>,
    /// What the environment had for an HTTP proxy, as a header carries it.
    basic: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Http,
    Https,
    Socks5,
    /// It looks host names up.
    Socks5h,
    Unknown(String),
}

impl Proxy {
    fn of(found: &Intercept) -> Self {
        let uri = found.uri();
        let login = found
            .raw_auth()
            .and_then(|(user, password)| Login::new(user.to_owned(), Secret::from(password.to_owned())).ok());
        let basic = found.basic_auth().and_then(|value| value.to_str().ok());
        Self { login, basic: basic.map(|value| value.to_owned().into()), ..Self::at(uri) }
    }

    fn at(uri: &Uri) -> Self {
        let (kind, port) = match uri.scheme_str().unwrap_or("http").to_ascii_lowercase().as_str() {
            "http" => (Kind::Http, 80),
            "https" => (Kind::Https, 443),
            "socks5" => (Kind::Socks5, 1080),
            "socks5h" => (Kind::Socks5h, 1080),
            other => (Kind::Unknown(other.to_owned()), 1080),
        };
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        Self { kind, host: host.to_owned(), port: uri.port_u16().unwrap_or(port), login: None, basic: None }
    }

    /// Whether TLS is spoken with the proxy itself.
    pub(super) fn is_tls(&self) -> bool {
        self.kind == Kind::Https
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn place(&self) -> Place {
        Place::Tcp { host: self.host.clone(), port: self.port }
    }

    /// Has the proxy at the other end of `stream` connect to a host.
    pub(super) async fn connect(
        &self,
        stream: &mut Stream,
        (host, port): (&str, u16),
        family: Family,
    ) -> Result<(), ProxyFault> {
        let target = match self.kind {
            Kind::Http | Kind::Https => return self.tunnel(stream, host, port).await,
            Kind::Socks5 => {
                let addresses = reach::addresses(host, port, family).await;
                let addresses = addresses.map_err(|error| ProxyFault::Lookup(error.to_string()))?;
                Target::Address(addresses[0])
            }
            // An address needs no looking up, and a proxy might not know one where a name is expected.
            Kind::Socks5h => match host.parse::<IpAddr>() {
                Ok(address) => Target::Address((address, port).into()),
                Err(_) => Target::Name(host.to_owned(), port),
            },
            Kind::Unknown(ref scheme) => {
                return Err(ProxyFault::Denied(format!(
                    "{scheme}:// is not spoken here; http, https, socks5 and socks5h are"
                )));
            }
        };
        socks::connect(stream, &target, self.login.as_ref()).await.map_err(|refusal| match refusal {
            Refusal::Login(why) => ProxyFault::Login(why.to_owned()),
            Refusal::Denied(why) => ProxyFault::Denied(why),
            Refusal::Failed(why) => ProxyFault::Failed(why),
            Refusal::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                ProxyFault::Failed("it hung up".to_owned())
            }
            Refusal::Io(error) => ProxyFault::Failed(error.to_string()),
        })
    }

    /// RFC 9110, 9.3.6.
    async fn tunnel(&self, stream: &mut Stream, host: &str, port: u16) -> Result<(), ProxyFault> {
        let target = Place::Tcp { host: host.to_owned(), port };
        let basic = self.basic.clone().or_else(|| self.login.as_ref().map(Login::basic));
        let login = basic.map(|basic| format!("Proxy-Authorization: {}\r\n", basic.reveal()));
        let login = login.unwrap_or_default();
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n");
        let lost = |error: io::Error| match TlsFault::of(&error) {
            Some(fault) => ProxyFault::Tls(fault),
            None => ProxyFault::Failed(format!("it hung up before its answer ended: {error}")),
        };
        let sent = stream.write_all(request.as_bytes()).await;
        let sent = if sent.is_ok() { stream.flush().await } else { sent };
        let Head { head: answer, rest } = match head::read(stream, head::answer).await {
            Ok(head) => head,
            // It may have said why before it hung up on what was written.
            Err(NoHead::Lost(error)) => return Err(lost(sent.err().unwrap_or(error))),
            Err(NoHead::Ended(read) | NoHead::Malformed { read, .. }) if head::is_tls(&read) => {
                return Err(ProxyFault::SpeaksTls);
            }
            Err(NoHead::Ended(_)) => return Err(ProxyFault::Failed("it hung up".to_owned())),
            Err(NoHead::TooLong) => return Err(ProxyFault::Denied("its answer is too long".to_owned())),
            Err(NoHead::Malformed { why, .. }) => return Err(ProxyFault::Denied(why)),
        };
        match answer.status {
            // Whoever is behind it has nothing to say before this side has.
            200..=299 if rest.is_empty() => Ok(()),
            200..=299 => Err(ProxyFault::Denied("it says more than its answer".to_owned())),
            // tinyproxy answers a wrong password with 401.
            status @ (401 | 407) => {
                let name = if status == 401 { header::WWW_AUTHENTICATE } else { header::PROXY_AUTHENTICATE };
                let takes = answer.headers.get_all(name).iter();
                let takes = takes.filter_map(|value| value.to_str().ok()?.split_whitespace().next());
                let takes: Vec<_> = takes.collect();
                let takes = if takes.is_empty() { "nothing named".to_owned() } else { takes.join(", ") };
                let why = match status {
                    401 => "it does not take who it was told, or was not told",
                    _ => "it wants to know who calls",
                };
                Err(ProxyFault::Login(format!("{why} (HTTP {status}, by {})", clip(&takes))))
            }
            status => Err(ProxyFault::Status(status)),
        }
    }
}

/// `http`, `https`, `socks5` or `socks5h`, with a user if need be; `http` where there is no scheme. The error shows nothing
/// of it.
impl FromStr for Proxy {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        const EXPECTED: &str =
            "expected something like http://NAME:PASSWORD@HOST:PORT or socks5h://HOST:PORT";
        let with_scheme = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = with_scheme.parse().map_err(|error| format!("{error}; {EXPECTED}"))?;
        let proxy = Self::at(&uri);
        if let Kind::Unknown(scheme) = proxy.kind {
            return Err(format!("the scheme is {scheme}://; {EXPECTED}"));
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let port = place.rsplit_once(']').map_or(place, |(_, rest)| rest).rsplit_once(':');
        if proxy.host.is_empty() || port.is_some_and(|(_, port)| !matches!(port.parse::<u16>(), Ok(1..))) {
            return Err(EXPECTED.to_owned());
        }
        let decode = |part| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let login = user.map(|user| {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            Login::new(decode(user), decode(password).into())
        });
        Ok(Self { login: login.transpose()?, ..proxy })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match &self.kind {
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Socks5 => "socks5",
            Kind::Socks5h => "socks5h",
            Kind::Unknown(scheme) => scheme,
        };
        f.write_str(&mask_url(&format!("{scheme}://{}", self.place())))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Why a proxy led nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyFault {
    /// It cannot be reached itself.
    Unreachable(String),
    /// The host that it is to connect to has no address.
    Lookup(String),
    /// It answers with this HTTP status.
    Status(u16),
    /// It wants to know who calls.
    Login(String),
    /// It does not do it, and would not another time.
    Denied(String),
    /// It could not do it.
    Failed(String),
    /// TLS with it.
    Tls(TlsFault),
    /// It speaks TLS, which it was not spoken to.
    SpeaksTls,
}

impl ProxyFault {
    /// Whether it may be otherwise another time.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Lookup(_) | Self::Failed(_) => true,
            Self::Status(status) => matches!(status, 408 | 425 | 429) || *status >= 500,
            Self::Login(_) | Self::Denied(_) | Self::Tls(_) | Self::SpeaksTls => false,
        }
    }
}

impl fmt::Display for ProxyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "it cannot be reached: {why}"),
            Self::Lookup(why) => write!(f, "the host is not known here: {why}"),
            Self::Status(status @ (403 | 405)) => {
                write!(f, "it answered HTTP {status}: it does not connect there, by its rules")
            }
            Self::Status(status @ (502..=504)) => {
                write!(f, "it answered HTTP {status}: it cannot connect there")
            }
            Self::Status(status) => write!(f, "it answered HTTP {status}"),
            Self::Login(why) | Self::Denied(why) | Self::Failed(why) => f.write_str(why),
            Self::Tls(fault) => fault.fmt(f),
            Self::SpeaksTls => f.write_str("it speaks TLS"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_taken_apart_and_shown_without_their_credentials() {
        for (url, shown, login) in [
            ("http://p:3128", "http://p:3128", None),
            ("p:3128", "http://p:3128", None),
            ("p", "http://p:80", None),
            ("HTTPS://p", "https://p:443", None),
            ("socks5://[::1]", "socks5://[::1]:1080", None),
            ("socks5h://me:SEC%40RET@p:1", "socks5h://p:1", Some(("me", "SEC@RET"))),
            ("me:SECRET@p:1", "http://p:1", Some(("me", "SECRET"))),
            ("http://me@p:1/", "http://p:1", Some(("me", ""))),
        ] {
            let proxy: Proxy = url.parse().unwrap();
            let found = proxy.login.as_ref().map(|login| (login.user(), login.password().reveal()));
            assert_eq!((proxy.to_string().as_str(), found), (shown, login), "{url}");
            assert!(!format!("{proxy:?}").contains("SECRET"));
        }
        for url in ["socks4://SECRET", "ftp://p", "", "http://", "http://p:0", "http://p:SECRET", "SEC RET"] {
            let error = url.parse::<Proxy>().unwrap_err();
            assert!(error.contains("expected") && !error.contains("SECRET"), "{url}: {error}");
        }
    }

    #[test]
    fn the_environment_decides_by_scheme_and_host() {
        let matcher = Matcher::builder()
            .http("http://me:pw@plain:1")
            .https("socks5h://me:pw@safe:2")
            .no("localhost,.internal,10.0.0.0/8,example.com");
        let proxies = Proxies::Environment(Environment(Arc::new(matcher.build())));
        for (url, expected) in [
            ("ws://h/", Some("http://plain:1")),
            ("wss://h/", Some("socks5h://safe:2")),
            ("ws://h:8080/x?y", Some("http://plain:1")),
            ("ws://[::1]:9000/", Some("http://plain:1")),
            ("ws://localhost:9000/", None),
            ("wss://a.internal/", None),
            ("ws://10.1.2.3/", None),
            ("ws://11.1.2.3/", Some("http://plain:1")),
            ("wss://sub.example.com/", None),
            ("wss://notexample.com/", Some("socks5h://safe:2")),
            ("unix:/run/x", None),
        ] {
            let proxy = proxies.of(&url.parse().unwrap());
            assert_eq!(proxy.as_ref().map(ToString::to_string).as_deref(), expected, "{url}");
            if let Some(proxy) = proxy {
                assert!(proxy.basic.is_some() != proxy.login.is_some());
            }
        }
        let all = Matcher::builder().all("p:1").no("*").build();
        let proxies = Proxies::Environment(Environment(Arc::new(all)));
        assert_eq!(proxies.of(&"ws://h".parse().unwrap()), None);
    }
}
