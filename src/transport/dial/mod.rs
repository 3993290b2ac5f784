//! From a URL and options to an open WebSocket: the one place that connects.

mod certificate;
mod cookies;
mod credentials;
mod proxy;
mod reach;
mod route;
mod socks;
mod tls;

pub use certificate::{CertificateFault, CertificateFaultKind};
pub use credentials::{Headers, Login, Secret};
pub use futures_rustls::pki_types::ServerName;
pub use proxy::{Environment, Proxies, Proxy, ProxyFault};
pub use reach::{Family, Place};
pub use route::{Route, TlsRoute};
pub use tls::{Identity, Roots, TlsFault, TlsOptions, Trust};

use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use async_tungstenite::tungstenite::http::header;

use self::cookies::Jar;
use self::tls::Tls;
use super::client::{self, Asking};
use super::{Connection, Endpoint, HANDSHAKE_TIMEOUT, TransportError};
use crate::protocol::SUBPROTOCOL;
use crate::runtime::{self, Stream};

/// How an endpoint is reached, and what is said there.
#[derive(Debug, Clone, Default)]
pub struct DialOptions {
    /// Headers of the handshake; who calls is one of them.
    pub headers: Headers,
    /// TLS, where the URL wants it.
    pub tls: TlsOptions,
    /// What leads there.
    pub proxies: Proxies,
    /// Where to connect to, instead of the URL's host and port.
    pub connect_to: Option<Place>,
    /// Which addresses are used.
    pub family: Family,
    /// The subprotocol is neither asked for nor demanded, for gateways that do not pass it.
    pub no_subprotocol: bool,
}

/// Connects to one endpoint, as often as need be. What the endpoint wants to be reminded of, which are cookies, is kept
/// between connections.
#[derive(Debug)]
pub struct Dialer {
    endpoint: Endpoint,
    options: DialOptions,
    tls: OnceLock<Tls>,
    proxy_tls: OnceLock<Tls>,
    cookies: Mutex<Jar>,
}

impl From<Endpoint> for Dialer {
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint, DialOptions::default())
    }
}

impl Dialer {
    /// A dialler of an endpoint. The user that its URL names is told who calls, unless the headers do.
    pub fn new(endpoint: Endpoint, mut options: DialOptions) -> Self {
        if let Some(login) = endpoint.login()
            && !options.headers.authorize()
        {
            options.headers.basic(login).expect("Base64 is a header's value");
        }
        let (tls, proxy_tls, cookies) = Default::default();
        Self { endpoint, options, tls, proxy_tls, cookies }
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Connects, and opens a WebSocket with this crate's subprotocol.
    ///
    /// # Errors
    /// What could not be reached, or did not answer as a receiver does.
    pub async fn dial(&self) -> Result<Connection<Stream>, TransportError> {
        self.dial_told().await.map(|(connection, _)| connection)
    }

    /// As [`dial`](Self::dial), and tells which way the connection took.
    ///
    /// # Errors
    /// As those of `dial`.
    pub async fn dial_told(&self) -> Result<(Connection<Stream>, Route), TransportError> {
        self.open((!self.options.no_subprotocol).then_some(SUBPROTOCOL)).await
    }

    /// As [`dial`](Self::dial), without any subprotocol: whoever is there speaks WebSocket, and need not be a receiver.
    ///
    /// # Errors
    /// As those of `dial`.
    pub async fn dial_plain(&self) -> Result<Connection<Stream>, TransportError> {
        self.open(None).await.map(|(connection, _)| connection)
    }

    async fn open(&self, subprotocol: Option<&str>) -> Result<(Connection<Stream>, Route), TransportError> {
        let place = self.options.connect_to.clone().unwrap_or_else(|| self.endpoint.place());
        let proxy = match &place {
            Place::Tcp { host, port } => self.options.proxies.of(&self.endpoint).map(|it| (it, host, *port)),
            Place::Unix(_) => None,
        };
        let mut route =
            Route { proxy: proxy.as_ref().map(|(proxy, ..)| proxy.to_string()), ..Route::default() };
        let stream = match &proxy {
            None => {
                let connected = connect(&place, self.options.family).await;
                let address = place.to_string();
                connected.map_err(|source| TransportError::Connect { address, source })?
            }
            Some((proxy, host, port)) => self.reach_by(proxy, host, *port).await.map_err(|fault| {
                TransportError::Proxy { proxy: proxy.to_string(), address: place.to_string(), fault }
            })?,
        };
        let handshake = async {
            let (stream, tls) = self.secure(stream).await?;
            route.tls = tls;
            let mut headers = self.options.headers.map().clone();
            let cookie = self.jar().header(headers.get(header::COOKIE), SystemTime::now());
            if let Some(cookie) = cookie {
                headers.insert(header::COOKIE, cookie);
            }
            let asking = Asking { subprotocol, headers: &headers };
            let connection = client::ask(stream, &self.endpoint, asking, |answer| {
                self.jar().take(answer, &self.endpoint, SystemTime::now());
                route.hear(answer);
            })
            .await?;
            Ok((connection, route))
        };
        let address = self.endpoint.address();
        runtime::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .unwrap_or(Err(TransportError::HandshakeTimeout { address, limit: HANDSHAKE_TIMEOUT }))
    }

    /// A stream that leads to a port, by a proxy.
    async fn reach_by(&self, proxy: &Proxy, host: &str, port: u16) -> Result<Stream, ProxyFault> {
        let family = self.options.family;
        let stream = connect(&proxy.place(), family).await;
        let stream = stream.map_err(|error| ProxyFault::Unreachable(error.to_string()))?;
        let handshake = async {
            let mut stream = match proxy.is_tls() {
                false => stream,
                true => {
                    let options =
                        TlsOptions { identity: None, server_name: None, ..self.options.tls.clone() };
                    let tls = begun(&self.proxy_tls, &options).await.map_err(ProxyFault::Tls)?;
                    let name = name_of(proxy.host()).map_err(ProxyFault::Tls)?;
                    let secured = tls.secure(stream, name).await;
                    let (stream, _) = secured.map_err(|error| match TlsFault::of(&error) {
                        Some(fault) => ProxyFault::Tls(fault),
                        None => ProxyFault::Failed(error.to_string()),
                    })?;
                    stream
                }
            };
            proxy.connect(&mut stream, (host, port), family).await?;
            Ok(stream)
        };
        let silent = || ProxyFault::Failed(format!("it said nothing for {} s", HANDSHAKE_TIMEOUT.as_secs()));
        runtime::timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or_else(|| Err(silent()))
    }

    /// TLS over it, if the URL wants that.
    async fn secure(&self, stream: Stream) -> Result<(Stream, Option<TlsRoute>), TransportError> {
        if !self.endpoint.is_tls() {
            return Ok((stream, None));
        }
        let failed = |fault| TransportError::Tls { address: self.endpoint.address(), fault };
        let options = &self.options.tls;
        let tls = begun(&self.tls, options).await.map_err(failed)?;
        let name = match &options.server_name {
            Some(name) => name.clone(),
            None => name_of(self.endpoint.host()).map_err(failed)?,
        };
        let (stream, route) =
            tls.secure(stream, name).await.map_err(|error| client::broken(&self.endpoint, &error))?;
        Ok((stream, Some(route)))
    }

    fn jar(&self) -> std::sync::MutexGuard<'_, Jar> {
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(place: &Place, family: Family) -> io::Result<Stream> {
    let connecting = reach::connect(place, family);
    runtime::timeout(HANDSHAKE_TIMEOUT, connecting).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// The first connection reads what is trusted, for all of them.
async fn begun(tls: &OnceLock<Tls>, options: &TlsOptions) -> Result<Tls, TlsFault> {
    if let Some(tls) = tls.get() {
        return Ok(tls.clone());
    }
    let options = options.clone();
    let new = runtime::spawn_blocking(move || Tls::new(&options)).await?;
    Ok(tls.get_or_init(|| new).clone())
}

fn name_of(host: &str) -> Result<ServerName<'static>, TlsFault> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| TlsFault::Other(format!("no certificate can be for {host}")))
}
