//! The flags that say how a URL is dialled.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use wsferry::transport::dial::{
    Environment, Family, Headers, Identity, Login, Place, Proxies, Roots, Secret, ServerName, TlsOptions,
    Trust,
};
use wsferry::transport::{DialOptions, Dialer, Endpoint, Token, mask_url};

use super::output::Output;
use super::profiles::Profile;
use super::settings::{self, Sources};
use super::token;

/// How to reach the URL, and who calls. What is secret is read as it is and taken apart later: an error of the parser would
/// print it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = super::headings::CONNECTION)]
pub struct DialArgs {
    /// Set the flags that suit a known path; those that are given by hand win. `wsferry probe --profiles` lists them
    #[arg(long, value_name = "NAME", value_parser = super::profile::named)]
    profile: Option<&'static Profile>,

    /// Send this header with the handshake, or those in FILE, one a line; may be repeated
    #[arg(long, short = 'H', value_name = "NAME: VALUE|@FILE")]
    header: Vec<Secret>,

    /// The secret of both sides (Authorization: Bearer): who dials says it, who listens demands it; in the variable
    /// WSFERRY_TOKEN other users cannot see it
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["token_file", "user"])]
    token: Option<Secret>,

    /// As --token, with the token that is in FILE
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    token_file: Option<PathBuf>,

    /// Say who calls with a name and a password (Authorization: Basic); so does ws://NAME:PASSWORD@HOST
    #[arg(long, short, value_name = "NAME:PASSWORD")]
    user: Option<Secret>,

    /// With wss://: trust the certificates in FILE (PEM), and those that they signed, instead of this machine's
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,

    /// With wss://: this side's certificate (PEM), for servers that want one
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// The private key (PEM) that goes with --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// With wss://: the name that the server's certificate has to have, instead of the URL's host
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,

    /// With wss://: take any certificate, whoever signed it: anyone on the way can read and change what is sent
    #[arg(long, short = 'k', conflicts_with = "ca_cert")]
    insecure: bool,

    /// Go through this proxy (http, https, socks5, or socks5h, which looks the host up), whatever HTTPS_PROXY, HTTP_PROXY,
    /// ALL_PROXY and NO_PROXY say
    #[arg(long, value_name = "[SCHEME://][NAME:PASSWORD@]HOST[:PORT]")]
    proxy: Option<Secret>,

    /// Go through no proxy, whatever the environment says
    #[arg(long, conflicts_with = "proxy")]
    no_proxy: bool,

    /// Connect to this host and port, or unix:PATH, and say there what would have been said to the URL's
    #[arg(long, value_name = "HOST:PORT")]
    connect_to: Option<Place>,

    /// Use IPv4 alone
    #[arg(long, short = '4', conflicts_with = "ipv6")]
    ipv4: bool,

    /// Use IPv6 alone
    #[arg(long, short = '6')]
    ipv6: bool,

    /// Neither ask for the subprotocol wsferry.v1 nor demand it, for gateways that do not pass it; the receiver needs the
    /// same flag
    #[arg(long)]
    no_subprotocol: bool,

    /// Where these come from.
    #[arg(skip)]
    pub sources: Sources,
}

/// A header that goes with the handshake.
struct Line {
    /// What to say of it if it makes no sense.
    place: String,
    text: Secret,
}

/// What says who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Token,
    TokenFile,
    User,
    Url,
    Header,
}

impl DialArgs {
    /// One of these flags that was given on the command line, of those that say nothing to a side that does not dial.
    pub fn for_dialling(&self) -> Option<&'static str> {
        let flags = [
            (self.profile.is_some(), "--profile"),
            (!self.header.is_empty(), "--header"),
            (self.user.is_some(), "--user"),
            (self.ca_cert.is_some(), "--ca-cert"),
            (self.cert.is_some(), "--cert"),
            (self.server_name.is_some(), "--server-name"),
            (self.insecure, "--insecure"),
            (self.proxy.is_some(), "--proxy"),
            (self.no_proxy, "--no-proxy"),
            (self.connect_to.is_some(), "--connect-to"),
            (self.ipv4, "--ipv4"),
            (self.ipv6, "--ipv6"),
        ];
        self.sources.first_given(&flags)
    }

    /// As [`for_dialling`](Self::for_dialling), of all of them.
    pub fn given_any(&self) -> Option<&'static str> {
        let both = [
            (self.token.is_some(), "--token"),
            (self.token_file.is_some(), "--token-file"),
            (self.no_subprotocol, "--no-subprotocol"),
        ];
        self.for_dialling().or_else(|| self.sources.first_given(&both))
    }

    /// The token that this side demands, if it listens.
    pub fn demanded_token(&self) -> Result<Option<Token>, String> {
        let name = if self.token.is_some() { "token" } else { "token-file" };
        let token = token::demanded(self.token.as_ref(), self.token_file.as_deref())?;
        let named = |error: String| format!("{}: {error}", self.sources.what(name));
        token.map(|token| token.parse()).transpose().map_err(named)
    }

    /// Neither side names the subprotocol.
    pub fn is_without_subprotocol(&self) -> bool {
        self.no_subprotocol
    }

    /// Turns a URL and the flags into a dialler, or says which of them makes no sense; without what is secret in them.
    pub fn dialer(&self, url: &str, output: &Output) -> Result<Dialer, String> {
        let endpoint = endpoint(url)?;
        let tls = self.tls()?;
        let about_tls = [
            (self.ca_cert.is_some(), "ca-cert"),
            (self.cert.is_some(), "cert"),
            (self.server_name.is_some(), "server-name"),
        ];
        // What is set once for all URLs is not meant for this one.
        let given = |(is_set, flag): &(bool, &str)| *is_set && self.sources.is_given(flag);
        if let Some((_, flag)) = about_tls.into_iter().find(|flag| given(flag) && !endpoint.is_tls()) {
            return Err(format!("--{flag} is for wss://, and the URL is {endpoint}"));
        }
        let headers = self.headers(&endpoint)?;
        if self.insecure && endpoint.is_tls() {
            output.notice(
                "warning: --insecure takes any certificate: anyone on the way can read and change what is sent",
            );
        }
        if headers.authorize() && !endpoint.is_tls() && !is_near(&endpoint) {
            output
                .notice("warning: ws:// is not encrypted: anyone on the way can read who calls; use wss://");
        }
        let proxies = match &self.proxy {
            _ if self.no_proxy => Proxies::Direct,
            Some(proxy) => {
                Proxies::One(proxy.reveal().parse().map_err(|error| self.makes_no_sense("proxy", error))?)
            }
            None => Proxies::Environment(Environment::read()),
        };
        let family = match (self.ipv4, self.ipv6) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            _ => Family::Any,
        };
        let (connect_to, no_subprotocol) = (self.connect_to.clone(), self.no_subprotocol);
        let options = DialOptions { headers, tls, proxies, connect_to, family, no_subprotocol };
        Ok(Dialer::new(endpoint, options))
    }

    /// One of these flags that was given on the command line.
    pub fn given(&self) -> Option<String> {
        let secrets = self.secrets().into_iter().filter(|(_, values)| !values.is_empty());
        let names = self.open().into_iter().map(|(name, _)| name).chain(secrets.map(|(name, _)| name));
        names.filter(|name| self.sources.is_given(name)).map(|name| format!("--{name}")).next()
    }

    /// Has another run of this program dial as this one does, and take nothing else from where this one was started. What
    /// is secret stands in its environment, which other users of the machine cannot read.
    pub fn hand_on(&self, url: &str, command: &mut Command) -> Result<(), String> {
        let lines = self.header_lines()?;
        let caller = self.caller(&endpoint(url)?, &lines)?;
        for (name, value) in self.open() {
            if name != "token-file" || caller == Some(Caller::TokenFile) {
                // A value may begin with a dash.
                let mut written = OsString::from(format!("--{name}"));
                if let Some(value) = value {
                    written.push("=");
                    written.push(value);
                }
                command.arg(written);
            }
        }
        for (name, values) in self.secrets() {
            let values: Vec<&str> = match name {
                "header" => lines.iter().filter(|line| line.goes(caller)).map(Line::text).collect(),
                "token" if caller != Some(Caller::Token) => continue,
                "user" if caller != Some(Caller::User) => continue,
                _ => values.iter().map(|secret| secret.reveal()).collect(),
            };
            command.env(settings::variable(name), values.join("\n"));
        }
        Ok(())
    }

    /// Those that are no secrets, and their values, if they have one.
    fn open(&self) -> Vec<(&'static str, Option<OsString>)> {
        let file = |file: &PathBuf| file.clone().into_os_string();
        let valued = [
            ("profile", self.profile.map(|profile| profile.name.into())),
            ("token-file", self.token_file.as_ref().map(file)),
            ("ca-cert", self.ca_cert.as_ref().map(file)),
            ("cert", self.cert.as_ref().map(file)),
            ("key", self.key.as_ref().map(file)),
            ("server-name", self.server_name.as_ref().map(Into::into)),
            ("connect-to", self.connect_to.as_ref().map(|place| place.to_string().into())),
        ];
        let switches = [
            ("insecure", self.insecure),
            ("no-proxy", self.no_proxy),
            ("ipv4", self.ipv4),
            ("ipv6", self.ipv6),
            ("no-subprotocol", self.no_subprotocol),
        ];
        let valued = valued.into_iter().filter_map(|(name, value)| Some((name, Some(value?))));
        valued
            .chain(switches.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (name, None)))
            .collect()
    }

    fn secrets(&self) -> [(&'static str, Vec<&Secret>); 4] {
        [
            ("header", self.header.iter().collect()),
            ("token", self.token.iter().collect()),
            ("user", self.user.iter().collect()),
            ("proxy", self.proxy.iter().collect()),
        ]
    }

    /// The profile's name, if one was given.
    pub fn profile(&self) -> Option<&'static str> {
        self.profile.map(|profile| profile.name)
    }

    fn headers(&self, endpoint: &Endpoint) -> Result<Headers, String> {
        let lines = self.header_lines()?;
        let caller = self.caller(endpoint, &lines)?;
        let mut headers = Headers::default();
        for line in lines.iter().filter(|line| line.goes(caller)) {
            headers.add(line.text()).map_err(|error| format!("{}: {error}", line.place))?;
        }
        match (caller, &self.token, &self.token_file, &self.user) {
            (Some(Caller::Token), Some(token), ..) => {
                headers.bearer(token).map_err(|error| self.makes_no_sense("token", error))?;
            }
            (Some(Caller::TokenFile), _, Some(file), _) => {
                let token = Secret::from(text_in("--token-file", file)?.trim().to_owned());
                headers
                    .bearer(&token)
                    .map_err(|error| format!("what is in {} is no token: {error}", file.display()))?;
            }
            (Some(Caller::User), .., Some(user)) => {
                let login: Result<Login, String> = user.reveal().parse();
                headers.basic(&login.map_err(|error| self.makes_no_sense("user", error))?)?;
            }
            _ => {}
        }
        Ok(headers)
    }

    /// What says who calls. What is given for this URL comes before what is set for all of them.
    fn caller(&self, endpoint: &Endpoint, lines: &[Line]) -> Result<Option<Caller>, String> {
        let of = |name: &str| (self.sources.rank(name), self.sources.what(name));
        let authorizes = lines.iter().any(Line::is_authorization);
        let all = [
            (self.token.is_some(), Caller::Token, of("token")),
            (self.token_file.is_some(), Caller::TokenFile, of("token-file")),
            (self.user.is_some(), Caller::User, of("user")),
            (endpoint.login().is_some(), Caller::Url, (0, "the URL's user".to_owned())),
            (authorizes, Caller::Header, (of("header").0, format!("an Authorization of {}", of("header").1))),
        ];
        let said: Vec<_> = all.into_iter().filter(|(is_there, ..)| *is_there).collect();
        let first = said.iter().map(|(.., (rank, _))| *rank).min();
        let mut said = said.into_iter().filter(|(.., (rank, _))| Some(*rank) == first);
        match (said.next(), said.next()) {
            (Some((.., (_, one))), Some((.., (_, other)))) => {
                Err(format!("{one} and {other} both say who calls; one of them is too many"))
            }
            (one, _) => Ok(one.map(|(_, caller, _)| caller)),
        }
    }

    /// The headers, those of files too.
    fn header_lines(&self) -> Result<Vec<Line>, String> {
        let mut lines = Vec::new();
        for header in &self.header {
            match header.reveal().strip_prefix('@') {
                None => {
                    let place = format!("{} makes no sense", self.sources.what("header"));
                    lines.push(Line { place, text: header.clone() });
                }
                Some(file) => {
                    let text = text_in("--header", Path::new(file))?;
                    let numbered = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
                    lines.extend(numbered.map(|(number, line)| Line {
                        place: format!("line {number} of {file}"),
                        text: line.to_owned().into(),
                    }));
                }
            }
        }
        Ok(lines)
    }

    fn makes_no_sense(&self, name: &str, error: impl std::fmt::Display) -> String {
        format!("{} makes no sense: {error}", self.sources.what(name))
    }

    fn tls(&self) -> Result<TlsOptions, String> {
        let trust = match &self.ca_cert {
            _ if self.insecure => Trust::Anyone,
            None => Trust::Platform,
            Some(file) => {
                let roots = Roots::from_pem(&bytes_in("--ca-cert", file)?);
                Trust::Only(roots.map_err(|error| format!("--ca-cert {}: {error}", file.display()))?)
            }
        };
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let identity = Identity::from_pem(&bytes_in("--cert", cert)?, &bytes_in("--key", key)?);
                let files = (cert.display(), key.display());
                Some(identity.map_err(|error| format!("--cert {} --key {}: {error}", files.0, files.1))?)
            }
            _ => None,
        };
        let server_name = self.server_name.as_ref().map(|name| {
            ServerName::try_from(name.clone())
                .map_err(|_| format!("--server-name {name} is no host name or address"))
        });
        Ok(TlsOptions { trust, identity, server_name: server_name.transpose()? })
    }
}

impl Line {
    fn text(&self) -> &str {
        self.text.reveal()
    }

    /// Whether it is sent, if this says who calls.
    fn goes(&self, caller: Option<Caller>) -> bool {
        caller == Some(Caller::Header) || !self.is_authorization()
    }

    fn is_authorization(&self) -> bool {
        self.text().split_once(':').is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case("authorization"))
    }
}

/// Reads a URL. What is wrong with it is told without what may be secret in it.
pub fn endpoint(url: &str) -> Result<Endpoint, String> {
    url.parse().map_err(|error| format!("bad URL {}: {error}", mask_url(url)))
}

/// Whether what is sent stays on this machine.
fn is_near(endpoint: &Endpoint) -> bool {
    let address = endpoint.host().parse::<std::net::IpAddr>();
    endpoint.host() == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn bytes_in(flag: &str, file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{flag}: cannot read {}: {error}", file.display()))
}

fn text_in(flag: &str, file: &Path) -> Result<String, String> {
    String::from_utf8(bytes_in(flag, file)?).map_err(|_| format!("{flag}: {} is not UTF-8", file.display()))
}
