//! Cookies that a handshake sets go back with the next: a balancer knows by them which server had this client.
//!
//! RFC 6265's storage model for one URL, which is all that a dialler ever asks for: what it may not have sent to this URL
//! is not kept.

use std::time::{Duration, SystemTime};

use async_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, header};
use cookie::Cookie;

use crate::transport::Endpoint;

/// The most cookies that are kept, and the most bytes of one: what RFC 6265 wants of a user agent for one domain.
const MAX_COOKIES: usize = 50;
const MAX_BYTES: usize = 4096;

/// The cookies of an endpoint.
#[derive(Debug, Default)]
pub(super) struct Jar(Vec<Kept>);

struct Kept {
    name: String,
    value: String,
    until: Option<SystemTime>,
}

/// Names alone: a value may be as good as a password.
impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Jar {
    /// Takes what an answer of `endpoint` sets.
    pub(super) fn take(&mut self, headers: &HeaderMap, endpoint: &Endpoint, now: SystemTime) {
        for set in headers.get_all(header::SET_COOKIE) {
            let Some(text) = set.to_str().ok().filter(|text| text.len() <= MAX_BYTES) else { continue };
            let Ok(cookie) = Cookie::parse(text) else { continue };
            // Whoever else it is for, this URL must be among them.
            if cookie.domain().is_some_and(|domain| !covers(domain, endpoint.host()))
                || cookie.path().is_some_and(|path| !leads_to(path, endpoint.uri().path()))
                || (cookie.secure() == Some(true) && !endpoint.is_tls())
            {
                continue;
            }
            self.0.retain(|kept| kept.name != cookie.name());
            let until = until(&cookie, now);
            if until.is_none_or(|until| until > now) && self.0.len() < MAX_COOKIES {
                let (name, value) = (cookie.name().to_owned(), cookie.value().to_owned());
                self.0.push(Kept { name, value, until });
            }
        }
    }

    /// The header that goes with the next request, behind the caller's own.
    pub(super) fn header(&self, own: Option<&HeaderValue>, now: SystemTime) -> Option<HeaderValue> {
        let kept = self.0.iter().filter(|kept| kept.until.is_none_or(|until| until > now));
        let kept = kept.map(|Kept { name, value, .. }| format!("{name}={value}"));
        let own = own.and_then(|own| own.to_str().ok()).map(str::to_owned);
        let all: Vec<String> = own.into_iter().chain(kept).collect();
        let mut value = HeaderValue::from_str(&all.join("; ")).ok().filter(|_| !all.is_empty())?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// RFC 6265, 5.3: "If the cookie-attribute-list contains an attribute with an attribute-name of "Max-Age"", it counts, and
/// "Expires" does not.
fn until(cookie: &Cookie<'_>, now: SystemTime) -> Option<SystemTime> {
    if let Some(age) = cookie.max_age() {
        return Some(now + Duration::try_from(age).unwrap_or_default().min(Duration::from_secs(1 << 32)));
    }
    cookie.expires_datetime().map(SystemTime::from)
}

/// RFC 6265, 5.1.3: "The domain string is a suffix of the string", behind a dot, and "the string is a host name".
fn covers(domain: &str, host: &str) -> bool {
    let (domain, host) = (domain.trim_start_matches('.').to_ascii_lowercase(), host.to_ascii_lowercase());
    let is_name = host.parse::<std::net::IpAddr>().is_err();
    host == domain || (is_name && host.strip_suffix(&domain).is_some_and(|rest| rest.ends_with('.')))
}

/// RFC 6265, 5.1.4: "The cookie-path is a prefix of the request-path", up to a `/`.
fn leads_to(cookie_path: &str, path: &str) -> bool {
    match path.strip_prefix(cookie_path) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || cookie_path.ends_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "ws://files.example.com/a/b";

    /// What is sent to `url` after these were set there, at 1000 s and then at this time.
    fn sent(url: &str, set: &[&str], later: u64) -> Option<String> {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let endpoint: Endpoint = url.parse().unwrap();
        let mut jar = Jar::default();
        for set in set {
            let mut headers = HeaderMap::new();
            headers.append(header::SET_COOKIE, set.parse().unwrap());
            jar.take(&headers, &endpoint, at(1000));
        }
        jar.header(None, at(later)).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn cookies_go_back_where_they_belong_until_they_expire() {
        for (set, expected) in [
            ("SERVER=one; path=/", Some("SERVER=one")),
            ("a=b=c", Some("a=b=c")),
            ("a=", Some("a=")),
            ("a=b; Path=/a", Some("a=b")),
            ("a=b; Path=/a/", Some("a=b")),
            ("a=b; Path=/a/b; HttpOnly; SameSite=Lax", Some("a=b")),
            ("a=b; Path=/a/bc", None),
            ("a=b; Path=/c", None),
            ("a=b; Domain=example.com", Some("a=b")),
            ("a=b; Domain=.Example.COM", Some("a=b")),
            ("a=b; Domain=ample.com", None),
            ("a=b; Domain=other.example", None),
            ("a=b; Secure", None),
            ("a=b; Max-Age=10", Some("a=b")),
            ("a=b; Max-Age=0", None),
            ("a=b; Max-Age=-5", None),
            ("a=b; Max-Age=99999999999999999999", Some("a=b")),
            ("a=b; Expires=Thu, 01 Jan 1970 00:00:10 GMT", None),
            ("a=b; Expires=Thu, 01 Jan 2099 00:00:10 GMT", Some("a=b")),
            ("a=b; Expires=Thu, 01-Jan-2099 00:00:10 GMT", Some("a=b")),
            ("a=b; Max-Age=10; Expires=Thu, 01 Jan 1970 00:00:10 GMT", Some("a=b")),
            ("no cookie", None),
            ("=b", None),
        ] {
            assert_eq!(sent(URL, &[set], 1001).as_deref(), expected, "{set}");
        }
        assert_eq!(sent(URL, &["a=b; Max-Age=10"], 1011), None);
        assert_eq!(sent("wss://h/", &["a=b; Secure"], 1001).as_deref(), Some("a=b"));
        assert_eq!(sent("ws://10.0.0.1/", &["a=b; Domain=0.0.1"], 1001), None);
        let several = ["a=1", "b=2", "a=3", "c=4", "c=; Max-Age=0"];
        assert_eq!(sent(URL, &several, 1001).as_deref(), Some("b=2; a=3"));
        let many: Vec<String> = (0..100).map(|n| format!("n{n}=1")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(sent(URL, &many, 1001).unwrap().split("; ").count(), MAX_COOKIES);
    }

    #[test]
    fn the_callers_own_cookies_come_first_and_no_value_is_shown() {
        let (mut jar, mut headers) = (Jar::default(), HeaderMap::new());
        let own = HeaderValue::from_static("own=1");
        assert_eq!(jar.header(None, SystemTime::now()), None);
        assert_eq!(jar.header(Some(&own), SystemTime::now()).unwrap(), "own=1");
        headers.insert(header::SET_COOKIE, HeaderValue::from_static("a=SECRET"));
        jar.take(&headers, &URL.parse().unwrap(), SystemTime::now());
        assert_eq!(jar.header(Some(&own), SystemTime::now()).unwrap(), "own=1; a=SECRET");
        assert_eq!(format!("{jar:?}"), "Jar([a])");
    }
}
