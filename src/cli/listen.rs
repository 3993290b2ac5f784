//! Who may reach a receiver, and how much of it they get: the arguments, and what is said of it at the start.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Parser;
use wsferry::transfer::{Listener, ServeLimits};
use wsferry::transport::{Gate, Origins, Prefix, Proxy, Tls, TlsError, WithoutSubprotocol};

use super::args::{self, stall_timeout};
use super::dial::DialArgs;
use super::event::{Concerns, JsonEvent};
use super::headings;
use super::house::House;
use super::output::Output;
use super::settings::Sources;

/// Who may reach a receiver.
#[derive(Debug, Clone, Parser)]
pub struct ListenArgs {
    /// Listen on this address, or on unix:PATH; port 0 takes a free one, localhost means both families
    #[arg(long, help_heading = headings::LISTENING, value_name = "ADDR")]
    listen: Option<String>,

    /// Let in anybody who can reach this port: listening for other machines wants this or a token
    #[arg(long, help_heading = headings::LISTENING)]
    pub open: bool,

    /// Certificate, followed by those that signed it, in PEM: who dials has to use wss://. Read again on SIGHUP
    #[arg(long, help_heading = headings::LISTENING, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Its private key, in PEM
    #[arg(long, help_heading = headings::LISTENING, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Take WebSockets at this path and below it only
    #[arg(long, help_heading = headings::LISTENING, value_name = "/PREFIX")]
    pub path: Option<Prefix>,

    /// Believe X-Forwarded-For of proxies in this network, or (unix) of whoever dials the Unix socket; may be repeated
    #[arg(long, help_heading = headings::LISTENING, value_name = "CIDR")]
    pub trust_proxy: Vec<Proxy>,

    /// Connections at a time; more wait to be accepted [default: as many as there are descriptors for, 4096 at most]
    #[arg(long, help_heading = headings::LIMITS, value_name = "COUNT", value_parser = args::count)]
    pub max_connections: Option<u64>,

    /// Connections at a time from one address, or one /64 of IPv6; more are refused [default: no limit]
    #[arg(long, help_heading = headings::LIMITS, value_name = "COUNT", value_parser = args::count)]
    pub max_connections_per_address: Option<u64>,

    /// Time for the handshakes of TLS and WebSocket together [default: 10s]
    #[arg(long, help_heading = headings::LIMITS, value_name = "DURATION", value_parser = stall_timeout)]
    pub handshake_timeout: Option<humantime::Duration>,
}

impl ListenArgs {
    /// Where to listen, if that was said.
    pub fn address(&self) -> Option<&str> {
        self.listen.as_deref()
    }

    /// One of these flags that was given, if one was.
    pub fn given(&self, sources: &Sources) -> Option<&'static str> {
        let flags = [
            (self.listen.is_some(), "--listen"),
            (self.open, "--open"),
            (self.tls_cert.is_some(), "--tls-cert"),
            (self.path.is_some(), "--path"),
            (!self.trust_proxy.is_empty(), "--trust-proxy"),
            (self.max_connections.is_some(), "--max-connections"),
            (self.max_connections_per_address.is_some(), "--max-connections-per-address"),
            (self.handshake_timeout.is_some(), "--handshake-timeout"),
        ];
        sources.first_given(&flags)
    }

    /// What whoever dials has to say.
    pub fn gate(&self, dial: &DialArgs, origins: Origins, takes_plain: bool) -> Result<Gate, String> {
        let without_subprotocol = match (takes_plain, dial.is_without_subprotocol()) {
            (true, _) => WithoutSubprotocol::Plain,
            (false, true) => WithoutSubprotocol::Ours,
            (false, false) => WithoutSubprotocol::Refused,
        };
        let token = dial.demanded_token()?;
        let proxies = self.trust_proxy.iter().copied().collect();
        Ok(Gate { origins, token, path: self.path.clone(), without_subprotocol, proxies })
    }

    pub fn limits(&self) -> ServeLimits {
        let usual = ServeLimits::default();
        ServeLimits {
            connections: self.max_connections.unwrap_or(usual.connections),
            per_address: self.max_connections_per_address,
            handshake: self.handshake_timeout.map_or(usual.handshake, Into::into),
        }
    }

    /// TLS, if it is asked for.
    pub fn tls(&self) -> Result<Option<Tls>, String> {
        let Some([certificates, key]) = self.pem()? else { return Ok(None) };
        Tls::new(&certificates, &key).map(Some).map_err(|error| self.of_tls(&error))
    }

    /// Reads certificate and key again.
    pub fn renew(&self, tls: &Tls) -> Result<(), String> {
        let Some([certificates, key]) = self.pem()? else { return Ok(()) };
        tls.renew(&certificates, &key).map_err(|error| self.of_tls(&error))
    }

    /// What is wrong with the certificate or its key, and which files they are.
    fn of_tls(&self, error: &TlsError) -> String {
        let shown = |path: &Option<PathBuf>| path.as_deref().unwrap_or(Path::new("")).display().to_string();
        format!("--tls-cert {} --tls-key {}: {error}", shown(&self.tls_cert), shown(&self.tls_key))
    }

    fn pem(&self) -> Result<Option<[Vec<u8>; 2]>, String> {
        let (Some(certificates), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        Ok(Some([read(certificates)?, read(key)?]))
    }

    /// The URL of an address of this side.
    pub fn url(&self, address: &str) -> String {
        if address.starts_with("unix:") {
            return address.to_owned();
        }
        let scheme = if self.tls_cert.is_some() { "wss" } else { "ws" };
        format!("{scheme}://{address}{}", self.path.as_ref().map_or("", Prefix::as_str))
    }

    /// Tells where this side listens, what it does there, and what others type.
    pub fn tell(&self, house: &House, purpose: &Purpose, concerns: Concerns, output: &Output) {
        let House { listener, gate, .. } = house;
        let (url, urls) = (self.url(listener.address()), self.urls_for_others(listener));
        output.event(JsonEvent::Listening { url: url.clone(), urls: urls.clone(), concerns });
        output.line(&format!("listening on {url}, {}", purpose.does));
        if purpose.is_told_here {
            output.line(&format!("from this machine:  {}", purpose.command(&url, gate)));
        }
        for url in &urls {
            output.line(&format!("from another machine:  {}", purpose.command(url, gate)));
        }
        let is_readable = gate.token.is_some() && self.tls_cert.is_none() && !listener.is_local();
        if is_readable && self.trust_proxy.is_empty() {
            output
                .notice("the token can be read on its way here: use --tls-cert, or a proxy that speaks TLS");
        }
    }

    /// The URLs that other machines can dial.
    fn urls_for_others(&self, listener: &Listener) -> Vec<String> {
        let mut urls = Vec::new();
        for address in listener.tcp_addresses().iter().filter(|address| !address.ip().is_loopback()) {
            let all =
                if address.ip().is_unspecified() { interfaces(address.ip()) } else { vec![address.ip()] };
            urls.extend(all.iter().map(|&ip| self.url(&SocketAddr::new(ip, address.port()).to_string())));
        }
        urls
    }
}

/// What a side that listens is there for.
pub struct Purpose {
    /// What it does.
    pub does: String,
    /// Whether the command line is of use on this machine too.
    pub is_told_here: bool,
    /// What the other side does, and what stands in its command line before the URL and behind it.
    pub other: [&'static str; 3],
}

impl Purpose {
    /// What to type at the other side.
    fn command(&self, url: &str, gate: &Gate) -> String {
        // The token itself stays where it is, and a file is the way to give it that other users cannot see.
        let token = if gate.token.is_some() { " --token-file TOKEN-FILE" } else { "" };
        let is_nameless = gate.without_subprotocol == WithoutSubprotocol::Ours;
        let plainly = if is_nameless { " --no-subprotocol" } else { "" };
        let [command, before, behind] = self.other;
        format!("wsferry {command}{token}{plainly} {before}{url}{behind}")
    }
}

/// The addresses of this machine that others may know: of IPv4, and for `::` of both families.
fn interfaces(any: IpAddr) -> Vec<IpAddr> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    // An address that holds on one wire alone needs the name of the interface, which URLs cannot say.
    let others = all.iter().filter(|interface| !interface.is_loopback() && !interface.is_link_local());
    others.map(|interface| interface.ip()).filter(|ip| any.is_ipv6() || ip.is_ipv4()).collect()
}
