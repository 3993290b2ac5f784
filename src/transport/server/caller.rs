//! Who calls: the peer of the socket, or whom a trusted proxy names.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use async_tungstenite::tungstenite::http::HeaderMap;
use ipnet::IpNet;

/// What proxies say of whom they pass on.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Who dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its address; none if it came over a Unix socket.
    pub address: Option<IpAddr>,
    /// The same for people, with the port if it is known.
    pub shown: String,
}

/// Proxies that are believed when they say who calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Those in these networks.
    pub networks: Vec<IpNet>,
    /// Whoever can open the Unix socket.
    pub unix: bool,
}

/// One of them, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    /// A network, or a single address.
    Network(IpNet),
    /// Whoever can open the Unix socket.
    Unix,
}

impl Caller {
    /// The peer of a TCP connection.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { address: Some(address.ip().to_canonical()), shown: address.to_string() }
    }

    /// Somebody on this machine.
    pub fn unix() -> Self {
        Self { address: None, shown: "a local process".to_owned() }
    }

    /// Whether it is one of those who may say for whom they speak.
    pub fn is_trusted(&self, proxies: &Proxies) -> bool {
        self.address.map_or(proxies.unix, |address| proxies.trust(address))
    }

    /// Whom the request comes from: the last one in `X-Forwarded-For` who is no trusted proxy. Anybody can send that header;
    /// what stands in it left of the first stranger is a stranger's word.
    pub(super) fn behind(self, proxies: &Proxies, headers: &HeaderMap) -> Self {
        if !self.is_trusted(proxies) {
            return self;
        }
        let values = headers.get_all(FORWARDED_FOR).iter().rev();
        let hops = values.flat_map(|value| value.as_bytes().rsplit(|&byte| byte == b','));
        let mut caller = self;
        for hop in hops {
            let Some(address) = std::str::from_utf8(hop).ok().and_then(address) else { break };
            caller = Self { address: Some(address), shown: address.to_string() };
            if !proxies.trust(address) {
                break;
            }
        }
        caller
    }
}

impl Proxies {
    fn trust(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

impl FromIterator<Proxy> for Proxies {
    fn from_iter<I: IntoIterator<Item = Proxy>>(all: I) -> Self {
        let mut proxies = Self::default();
        for proxy in all {
            match proxy {
                Proxy::Network(network) => proxies.networks.push(network),
                Proxy::Unix => proxies.unix = true,
            }
        }
        proxies
    }
}

impl FromStr for Proxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network
            .map(Self::Network)
            .map_err(|_| "expected a network such as 10.0.0.0/8, an address, or unix".to_owned())
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// An address, with or without a port, as proxies write it.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let ip = text.parse::<SocketAddr>().map(|address| address.ip());
    ip.or_else(|_| bare.unwrap_or(text).parse()).ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stranger_that_trusted_proxies_name_is_who_calls() {
        let proxies: Proxies =
            ["10.0.0.0/8", "fd00::/8", "192.0.2.7"].map(|text| text.parse().unwrap()).into_iter().collect();
        for (peer, said, who) in [
            ("10.1.1.1:5", &["203.0.113.9"][..], "203.0.113.9"),
            ("10.1.1.1:5", &[], "10.1.1.1:5"),
            ("10.1.1.1:5", &["1.2.3.4, 203.0.113.9"], "203.0.113.9"),
            ("10.1.1.1:5", &["203.0.113.9, 10.2.2.2"], "203.0.113.9"),
            ("10.1.1.1:5", &["6.6.6.6, 203.0.113.9", "192.0.2.7 ,10.2.2.2"], "203.0.113.9"),
            ("10.1.1.1:5", &["203.0.113.9:4711"], "203.0.113.9"),
            ("10.1.1.1:5", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.1.1.1:5", &["[2001:db8::1]"], "2001:db8::1"),
            ("[fd00::1]:5", &["2001:db8::1"], "2001:db8::1"),
            ("[::ffff:10.1.1.1]:5", &["::ffff:203.0.113.9"], "203.0.113.9"),
            ("10.1.1.1:5", &["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
            // Nothing beyond what makes no sense.
            ("10.1.1.1:5", &["203.0.113.9, unknown, 10.2.2.2"], "10.2.2.2"),
            ("10.1.1.1:5", &["unknown"], "10.1.1.1:5"),
            ("10.1.1.1:5", &[""], "10.1.1.1:5"),
            // A stranger may say what it likes.
            ("203.0.113.1:5", &["127.0.0.1"], "203.0.113.1:5"),
            ("192.0.2.8:5", &["127.0.0.1"], "192.0.2.8:5"),
        ] {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            let caller = Caller::tcp(peer.parse().unwrap()).behind(&proxies, &headers);
            assert_eq!(caller.shown, who, "{peer} {said:?}");
        }
    }

    #[test]
    fn whoever_opens_the_unix_socket_is_believed_only_if_that_is_said() {
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, "203.0.113.9".parse().unwrap());
        let trusting: Proxies = ["unix".parse().unwrap()].into_iter().collect();
        assert_eq!(Caller::unix().behind(&trusting, &headers).shown, "203.0.113.9");
        assert_eq!(Caller::unix().behind(&Proxies::default(), &headers), Caller::unix());
        for text in ["", "10.0.0.0/33", "10.0.0", "example.com", "10.0.0.0/8/8"] {
            assert!(text.parse::<Proxy>().is_err(), "{text}");
        }
    }
}
