//! The flags that say how a URL is dialled.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use wsferry::transport::dial::{
    Environment, Family, Headers, Identity, Login, Place, Proxies, Roots, Secret, ServerName, TlsOptions,
    Trust,
};
use wsferry::transport::{DialOptions, Dialer, Endpoint, mask_url};

use super::output::Output;
use super::profiles::Profile;

/// The token, where no flag says who calls.
const TOKEN: &str = "WSFERRY_TOKEN";

/// How to reach the URL, and who calls. What is secret is read as it is and taken apart later: an error of the parser would
/// print it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct DialArgs {
    /// Set the flags that suit a known path; those that are given by hand win. `wsferry probe --profiles` lists them
    #[arg(long, value_name = "NAME", value_parser = super::profile::named)]
    profile: Option<&'static Profile>,

    /// Send this header with the handshake, or those in FILE, one a line; may be repeated
    #[arg(long, short = 'H', value_name = "NAME: VALUE|@FILE")]
    header: Vec<Secret>,

    /// Say who calls with this token (Authorization: Bearer); the environment's WSFERRY_TOKEN does the same, unseen by other
    /// users
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
}

impl DialArgs {
    /// Turns a URL and the flags into a dialler, or says which of them makes no sense; without what is secret in them.
    pub fn dialer(&self, url: &str, output: &Output) -> Result<Dialer, String> {
        let endpoint = endpoint(url)?;
        let tls = self.tls()?;
        let about_tls = [
            (self.ca_cert.is_some(), "--ca-cert"),
            (self.cert.is_some(), "--cert"),
            (self.server_name.is_some(), "--server-name"),
        ];
        if let Some((_, flag)) = about_tls.into_iter().find(|(given, _)| *given && !endpoint.is_tls()) {
            return Err(format!("{flag} is for wss://, and the URL is {endpoint}"));
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
                let proxy =
                    proxy.reveal().parse().map_err(|error| format!("--proxy makes no sense: {error}"))?;
                Proxies::One(proxy)
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

    /// These flags as they are written on a command line.
    pub fn written(&self) -> Vec<OsString> {
        let Self {
            profile,
            header,
            token,
            token_file,
            user,
            ca_cert,
            cert,
            key,
            server_name,
            insecure,
            proxy,
            no_proxy,
            connect_to,
            ipv4,
            ipv6,
            no_subprotocol,
        } = self;
        let secret = |secret: &Secret| secret.reveal().into();
        let file = |file: &PathBuf| file.clone().into_os_string();
        let mut values: Vec<(&str, Option<OsString>)> = vec![
            ("--profile", profile.map(|profile| profile.name.into())),
            ("--token", token.as_ref().map(secret)),
            ("--token-file", token_file.as_ref().map(file)),
            ("--user", user.as_ref().map(secret)),
            ("--ca-cert", ca_cert.as_ref().map(file)),
            ("--cert", cert.as_ref().map(file)),
            ("--key", key.as_ref().map(file)),
            ("--server-name", server_name.as_ref().map(Into::into)),
            ("--proxy", proxy.as_ref().map(secret)),
            ("--connect-to", connect_to.as_ref().map(|place| place.to_string().into())),
        ];
        values.extend(header.iter().map(|header| ("--header", Some(secret(header)))));
        let flags = [
            ("--insecure", insecure),
            ("--no-proxy", no_proxy),
            ("--ipv4", ipv4),
            ("--ipv6", ipv6),
            ("--no-subprotocol", no_subprotocol),
        ];
        // A value may begin with a dash.
        let valued = values.into_iter().filter_map(|(flag, value)| {
            let mut written = OsString::from(flag);
            written.push("=");
            written.push(value?);
            Some(written)
        });
        valued.chain(flags.into_iter().filter(|(_, is_set)| **is_set).map(|(flag, _)| flag.into())).collect()
    }

    /// The profile's name, if one was given.
    pub fn profile(&self) -> Option<&'static str> {
        self.profile.map(|profile| profile.name)
    }

    fn headers(&self, endpoint: &Endpoint) -> Result<Headers, String> {
        let mut headers = Headers::default();
        for header in &self.header {
            match header.reveal().strip_prefix('@') {
                None => headers
                    .add(header.reveal())
                    .map_err(|error| format!("--header makes no sense: {error}"))?,
                Some(file) => {
                    let text = text_in("--header", Path::new(file))?;
                    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty())
                    {
                        headers.add(line).map_err(|error| format!("line {number} of {file}: {error}"))?;
                    }
                }
            }
        }
        let flag = [
            (self.token.is_some(), "--token"),
            (self.token_file.is_some(), "--token-file"),
            (self.user.is_some(), "--user"),
            (endpoint.login().is_some(), "the URL's user"),
        ];
        let mut given = flag.into_iter().filter(|(given, _)| *given).map(|(_, flag)| flag);
        let first = given.next().or(headers.authorize().then_some("--header"));
        let second = given.next().or(headers.authorize().then_some("an Authorization of --header"));
        if let (Some(first @ ("--token" | "--token-file" | "--user" | "the URL's user")), Some(second)) =
            (first, second)
        {
            return Err(format!("{first} and {second} both say who calls; one of them is too many"));
        }
        if let Some(user) = &self.user {
            let login: Login =
                user.reveal().parse().map_err(|error| format!("--user makes no sense: {error}"))?;
            headers.basic(&login)?;
        } else if let Some(token) = &self.token {
            headers.bearer(token).map_err(|error| format!("--token makes no sense: {error}"))?;
        } else if let Some(file) = &self.token_file {
            let token = text_in("--token-file", file)?;
            let token = Secret::from(token.trim().to_owned());
            headers
                .bearer(&token)
                .map_err(|error| format!("what is in {} is no token: {error}", file.display()))?;
        } else if first.is_none()
            && let Some(token) = std::env::var_os(TOKEN).filter(|token| !token.is_empty())
        {
            let token = token.into_string().map_err(|_| format!("{TOKEN} is not UTF-8"))?;
            headers.bearer(&token.into()).map_err(|error| format!("{TOKEN} is no token: {error}"))?;
        }
        Ok(headers)
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
