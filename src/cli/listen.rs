//! Who may reach a receiver, and how much of it they get: the arguments, and what is said of it at the start.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Parser;
use serde_json::json;
use wsferry::transfer::{Listener, ServeLimits};
use wsferry::transport::{Gate, Origins, Prefix, Proxy, Tls, WithoutSubprotocol};

use super::args::{size, stall_timeout};
use super::headings;
use super::output::Output;
use super::token::TokenArgs;

/// Who may reach a receiver.
#[derive(Debug, Parser)]
pub struct ListenArgs {
    /// Address to listen on, or unix:PATH; port 0 takes a free one, localhost means both families
    #[arg(long, help_heading = headings::LISTENING, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    pub listen: String,

    /// Let anybody who can reach this port write files: listening for other machines wants this or a token
    #[arg(long, help_heading = headings::LISTENING)]
    pub open: bool,

    /// Certificate, followed by those that signed it, in PEM: who dials has to use wss://. Read again on SIGHUP
    #[arg(long, help_heading = headings::LISTENING, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Its private key, in PEM
    #[arg(long, help_heading = headings::LISTENING, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    #[command(flatten)]
    pub token: TokenArgs,

    /// Take WebSockets at this path and below it only
    #[arg(long, help_heading = headings::LISTENING, value_name = "/PREFIX")]
    pub path: Option<Prefix>,

    /// Take a WebSocket without a subprotocol for one of wsferry's: something on the path takes that header away
    #[arg(long, help_heading = headings::LISTENING, conflicts_with = "plain")]
    pub no_subprotocol: bool,

    /// Believe X-Forwarded-For of proxies in this network, or (unix) of whoever dials the Unix socket; may be repeated
    #[arg(long, help_heading = headings::LISTENING, value_name = "CIDR")]
    pub trust_proxy: Vec<Proxy>,

    /// Connections at a time; more wait to be accepted [default: as many as there are descriptors for, 4096 at most]
    #[arg(long, help_heading = headings::LIMITS, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_connections: Option<u64>,

    /// Connections at a time from one address, or one /64 of IPv6; more are refused [default: no limit]
    #[arg(long, help_heading = headings::LIMITS, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_connections_per_address: Option<u64>,

    /// Time for the handshakes of TLS and WebSocket together
    #[arg(long, help_heading = headings::LIMITS, value_name = "DURATION", default_value = "10s", value_parser = stall_timeout)]
    pub handshake_timeout: humantime::Duration,

    /// Refuse larger files [default: no limit]
    #[arg(long, help_heading = headings::LIMITS, value_name = "SIZE", value_parser = size)]
    pub max_file_size: Option<ByteSize>,

    /// Room on the disk to leave free
    #[arg(long, help_heading = headings::LIMITS, value_name = "SIZE", default_value = "0", value_parser = size)]
    pub keep_free: ByteSize,

    /// Files at a time that were begun and are not whole; those of 3 MiB at most do not count [default: no limit]
    #[arg(long, help_heading = headings::LIMITS, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_partials: Option<u64>,
}

impl ListenArgs {
    /// What whoever dials has to say.
    pub fn gate(&self, origins: Origins, takes_plain: bool) -> Result<Gate, String> {
        let without_subprotocol = match (takes_plain, self.no_subprotocol) {
            (true, _) => WithoutSubprotocol::Plain,
            (false, true) => WithoutSubprotocol::Ours,
            (false, false) => WithoutSubprotocol::Refused,
        };
        let token = self.token.token()?.map(|token| token.parse()).transpose()?;
        let proxies = self.trust_proxy.iter().copied().collect();
        Ok(Gate { origins, token, path: self.path.clone(), without_subprotocol, proxies })
    }

    pub fn limits(&self) -> ServeLimits {
        let usual = ServeLimits::default();
        ServeLimits {
            connections: self.max_connections.unwrap_or(usual.connections),
            per_address: self.max_connections_per_address,
            handshake: self.handshake_timeout.into(),
        }
    }

    /// TLS, if it is asked for.
    pub fn tls(&self) -> Result<Option<Tls>, String> {
        let Some([certificates, key]) = self.pem()? else { return Ok(None) };
        Tls::new(&certificates, &key).map(Some).map_err(|error| error.to_string())
    }

    /// Reads certificate and key again.
    pub fn renew(&self, tls: &Tls) -> Result<(), String> {
        let Some([certificates, key]) = self.pem()? else { return Ok(()) };
        tls.renew(&certificates, &key).map_err(|error| error.to_string())
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

    /// Tells where this side listens, and what others type to send here.
    pub fn tell(&self, listener: &Listener, has_token: bool, place: &str, output: &Output) {
        let url = self.url(listener.address());
        let urls = self.urls_for_others(listener);
        output.event(json!({
            "event": "listening", "url": url, "urls": urls, "directory": place,
        }));
        output.line(&format!("listening on {url}, writing to {place}"));
        for url in &urls {
            output.line(&format!("from another machine:  {}", self.command(url, has_token)));
        }
        let is_readable = has_token && self.tls_cert.is_none() && !listener.is_local();
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

    /// What to type on another machine.
    fn command(&self, url: &str, has_token: bool) -> String {
        // The token itself stays where it is.
        let token = if has_token { " --token '***'" } else { "" };
        let plainly = if self.no_subprotocol { " --no-subprotocol" } else { "" };
        format!("wsferry send{token}{plainly} FILE {url}")
    }
}

/// The addresses of this machine that others may know: of IPv4, and for `::` of both families.
fn interfaces(any: IpAddr) -> Vec<IpAddr> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    // An address that holds on one wire alone needs the name of the interface, which URLs cannot say.
    let others = all.iter().filter(|interface| !interface.is_loopback() && !interface.is_link_local());
    others.map(|interface| interface.ip()).filter(|ip| any.is_ipv6() || ip.is_ipv4()).collect()
}
