//! Where a connection leads, and how it gets there: of a host's addresses the first that answers (RFC 8305).

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::runtime::{self, Stream};

/// RFC 8305, 5: "a simple implementation can have a fixed delay [...] recommended value is 250 milliseconds".
const STAGGER: Duration = Duration::from_millis(250);

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A port of a host.
    Tcp {
        /// Its name or address.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

/// `HOST:PORT` or `unix:PATH`.
impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let bare = |host: &str| match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => Some(address.to_owned()),
            // An IPv6 address without brackets: its last group is no port.
            None => (!host.is_empty() && !host.contains(':')).then(|| host.to_owned()),
        };
        match parts {
            Some((host, port @ 1..)) if !host.contains(|c: char| "/@".contains(c) || c.is_whitespace()) => {
                bare(host).map(|host| Self::Tcp { host, port })
            }
            _ => None,
        }
        .ok_or_else(|| "expected HOST:PORT, [ADDRESS]:PORT or unix:PATH".to_owned())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Which addresses of a host are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Family {
    /// All.
    #[default]
    Any,
    /// Those of IPv4.
    V4,
    /// Those of IPv6.
    V6,
}

impl Family {
    fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// Connects.
pub(super) async fn connect(place: &Place, family: Family) -> io::Result<Stream> {
    match place {
        Place::Unix(path) => runtime::connect_unix(path).await,
        Place::Tcp { host, port } => {
            let addresses = addresses(host, *port, family).await?;
            first(addresses, runtime::connect, STAGGER).await
        }
    }
}

/// A host's addresses of these families, in the order in which they are tried.
pub(super) async fn addresses(host: &str, port: u16, family: Family) -> io::Result<Vec<SocketAddr>> {
    let all = runtime::resolve(host, port).await?;
    let addresses: Vec<_> = all.into_iter().filter(|address| family.allows(address.ip())).collect();
    if addresses.is_empty() {
        let which = if family == Family::V4 { "IPv4" } else { "IPv6" };
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("it has no address of {which}")));
    }
    Ok(interleave(addresses))
}

/// RFC 8305, 4: "Whichever address family is first in the list should be followed by an endpoint of the other address
/// family".
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (of_first, of_other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first);
    let (mut of_first, mut of_other) = (of_first.into_iter(), of_other.into_iter());
    let mut ordered = Vec::new();
    loop {
        let pair = [of_first.next(), of_other.next()];
        if pair == [None, None] {
            return ordered;
        }
        ordered.extend(pair.into_iter().flatten());
    }
}

/// Tries them one behind the other, without waiting for the end of each: the next begins after `stagger`, or when the last
/// one failed. What first succeeds is taken; the others are dropped. If none does, the first one's failure is told.
async fn first<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
    stagger: Duration,
) -> io::Result<T> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(connect(address));
        }
        let next = attempts.next();
        let ended = match waiting.len() {
            0 => Some(next.await),
            _ => runtime::timeout(stagger, next).await,
        };
        match ended {
            Some(Some(Ok(connected))) => return Ok(connected),
            Some(Some(Err(error))) => {
                failure.get_or_insert(error);
            }
            Some(None) => return Err(failure.unwrap_or_else(|| io::ErrorKind::NotFound.into())),
            // It is time for the next.
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::time::Instant;

    fn address(text: &str) -> SocketAddr {
        format!("{text}:1").parse().unwrap()
    }

    #[test]
    fn families_take_turns_beginning_with_the_first() {
        let order = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|text| address(text)).collect();
            interleave(addresses).iter().map(|address| address.ip().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            order(&["[::1]", "[::2]", "[::3]", "1.1.1.1", "2.2.2.2"]),
            ["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"]
        );
        assert_eq!(order(&["1.1.1.1", "2.2.2.2", "[::1]"]), ["1.1.1.1", "::1", "2.2.2.2"]);
        assert_eq!(order(&["1.1.1.1"]), ["1.1.1.1"]);
        assert_eq!(order(&[]), [""; 0]);
    }

    /// Tries three addresses, of which each fails at once, never ends, or connects; gives which were tried, what came of it,
    /// and how long it took.
    fn race(fates: [&'static str; 3], stagger: Duration) -> (usize, Result<u8, io::ErrorKind>, Duration) {
        let tried = Mutex::new(0);
        let started = Instant::now();
        let addresses = (1..=3).map(|n| address(&format!("10.0.0.{n}"))).collect();
        let connect = |to: SocketAddr| {
            *tried.lock().unwrap() += 1;
            let IpAddr::V4(to) = to.ip() else { unreachable!() };
            let number = to.octets()[3];
            async move {
                match fates[usize::from(number) - 1] {
                    "refuses" => Err(io::ErrorKind::ConnectionRefused.into()),
                    "resets" => Err(io::ErrorKind::ConnectionReset.into()),
                    "hangs" => futures::future::pending().await,
                    _ => Ok(number),
                }
            }
        };
        let ended = runtime::block_on(first(addresses, connect, stagger)).map_err(|error| error.kind());
        (tried.into_inner().unwrap(), ended, started.elapsed())
    }

    #[test]
    fn the_first_address_that_answers_wins_and_a_dead_one_costs_a_quarter_second() {
        let long = Duration::from_secs(30);
        let short = Duration::from_millis(50);
        let (tried, ended, _) = race(["connects", "connects", "connects"], long);
        assert_eq!((tried, ended), (1, Ok(1)));
        let (tried, ended, elapsed) = race(["refuses", "resets", "connects"], long);
        assert_eq!((tried, ended), (3, Ok(3)));
        assert!(elapsed < long / 2, "one that fails is not waited for");
        let (tried, ended, elapsed) = race(["hangs", "hangs", "connects"], short);
        assert_eq!((tried, ended), (3, Ok(3)));
        assert!(elapsed >= short * 2);
        let (_, ended, _) = race(["refuses", "resets", "refuses"], long);
        assert_eq!(ended, Err(io::ErrorKind::ConnectionRefused));
    }

    #[test]
    fn places_are_read_and_written_alike_and_bad_ones_refused() {
        for text in ["h:1", "127.0.0.1:80", "[::1]:443", "unix:/run/x"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in
            ["h", "h:0", "h:70000", ":1", "::1", "::1:80", "ws://h:1", "a b:1", "a\r\nb:1", "unix:", ""]
        {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
