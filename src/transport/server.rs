//! The listening side of the handshake, and of what else is asked over HTTP on the same port.
//!
//! Any web page can have its reader's browser dial this port, on loopback too. The browser says in `Origin` whose page it
//! is, and a page cannot keep it from that; so a request with an `Origin` is refused unless that one is allowed. That holds
//! also for a page whose name was made to lead here (DNS rebinding), which is why any `Host` is taken: behind a proxy it
//! may be any name.

mod caller;
mod gate;
mod head;
mod token;

pub use caller::{Caller, Proxies, Proxy};
pub use gate::{Availability, Gate, HEALTH, METRICS, Page, Prefix, Refusal, WithoutSubprotocol};
pub use token::Token;

use std::time::Duration;

use async_tungstenite::tungstenite::handshake::server::{create_response, write_response};
use async_tungstenite::tungstenite::http::{HeaderValue, Method, StatusCode, header};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use self::gate::Verdict;
use self::head::{Head, NoHead};
use super::frame::Role;
use super::{Connection, TransportError};
use crate::protocol::SUBPROTOCOL;
use crate::runtime;

/// How long, and how much, is read behind an answer that ends a connection: what comes for a socket that is closed takes the
/// answer back.
const LINGER: Duration = Duration::from_secs(1);
const MOST_LINGERING: usize = 1 << 20;

/// What Prometheus expects: version 0.0.4 of its text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// How long a caller is asked to wait who is sent away for now, in seconds.
const RETRY_AFTER: &str = "Retry-After: 5\r\n";

/// What a peer that dialled asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// A WebSocket without any subprotocol, instead of this crate's.
    pub is_plain: bool,
    /// The path and query of its URL, as they came, without the gate's prefix.
    pub target: String,
}

/// A request that was read and is to be answered.
#[derive(Debug)]
pub struct Asking<S> {
    stream: S,
    caller: Caller,
    head: Head,
}

/// What became of a request.
#[derive(Debug)]
pub enum Answered<S> {
    /// A WebSocket.
    Open(Box<Connection<S>>, Request),
    /// A page, or the status instead of one; the connection has ended.
    Page(Page, u16),
}

/// Opens a WebSocket with a peer that dialled, if the gate lets it in: for a program that has a stream of its own.
///
/// # Errors
/// If it opens none.
pub async fn handshake<S>(stream: S, caller: Caller, gate: &Gate) -> Result<Connection<S>, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let address = caller.shown.clone();
    let nothing = |why: &str| TransportError::Handshake { address: address.clone(), why: why.to_owned() };
    let asking = Asking::read(stream, caller, &gate.proxies).await?;
    let asking = asking.ok_or_else(|| nothing("it hung up before its request"))?;
    match asking.answer(gate, Availability::Open, None).await? {
        Answered::Open(connection, _) => Ok(*connection),
        Answered::Page(..) => Err(nothing("it asks for no WebSocket")),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Asking<S> {
    /// Reads a request; `None` if the connection ended before its first byte. The caller may be another one behind a proxy.
    ///
    /// # Errors
    /// If it is no HTTP. It was answered, as far as that makes sense.
    pub async fn read(
        mut stream: S,
        caller: Caller,
        proxies: &Proxies,
    ) -> Result<Option<Self>, TransportError> {
        let address = caller.shown.clone();
        match head::read(&mut stream, &address).await {
            Ok(head) => {
                let caller = caller.behind(proxies, head.request.headers());
                Ok(Some(Self { stream, caller, head }))
            }
            Err(NoHead::Nothing) => Ok(None),
            Err(NoHead::Gone(error)) => Err(error),
            Err(NoHead::Encrypted) => {
                let body = "This port does not speak TLS.\n";
                reply(&mut stream, "400 Bad Request", "", (TEXT_TYPE, body), false).await;
                Err(TransportError::Encrypted { address })
            }
            Err(NoHead::Bad { status, why }) => {
                reply(&mut stream, status, "", (TEXT_TYPE, &about()), false).await;
                Err(TransportError::Handshake { address, why })
            }
        }
    }

    /// Who calls.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Answers it as the gate demands. `metrics` gives the text of that page, if there is one.
    ///
    /// # Errors
    /// If somebody wanted a WebSocket and got none.
    pub async fn answer(
        self,
        gate: &Gate,
        availability: Availability,
        metrics: Option<&(dyn Fn() -> String + Sync)>,
    ) -> Result<Answered<S>, TransportError> {
        let Self { mut stream, caller, head } = self;
        let address = caller.shown;
        let request = &head.request;
        let verdict = gate.judge(request, availability, metrics.is_some());
        tracing::debug!(peer = address, method = %request.method(), path = request.uri().path(), ?verdict, "request");
        match verdict {
            Verdict::Open { speaks_ours } => {
                let failed = |why: String| TransportError::Handshake { address: address.clone(), why };
                let broken = |error: std::io::Error| TransportError::Lost {
                    address: address.clone(),
                    why: error.to_string(),
                };
                let mut response = create_response(request).map_err(|error| failed(error.to_string()))?;
                if speaks_ours {
                    let protocol = HeaderValue::from_static(SUBPROTOCOL);
                    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
                }
                let mut said = Vec::new();
                write_response(&mut said, &response).map_err(|error| failed(error.to_string()))?;
                stream.write_all(&said).await.map_err(broken)?;
                stream.flush().await.map_err(broken)?;
                let is_plain = !speaks_ours && gate.without_subprotocol == WithoutSubprotocol::Plain;
                let asked = Request { is_plain, target: gate.target(request) };
                let connection = Connection::new(stream, Role::Server, &head.rest, address);
                Ok(Answered::Open(Box::new(connection), asked))
            }
            Verdict::Page(page, status) => {
                let (extra, body) = words(page, status);
                let is_head = *request.method() == Method::HEAD;
                let text = match (page, metrics) {
                    (Page::Metrics, Some(metrics)) if status == StatusCode::OK => (METRICS_TYPE, metrics()),
                    _ => (TEXT_TYPE, body),
                };
                reply(&mut stream, &line(status), &extra, (text.0, &text.1), is_head).await;
                Ok(Answered::Page(page, status.as_u16()))
            }
            Verdict::Foreign(origin) => {
                reply(&mut stream, &line(StatusCode::FORBIDDEN), "", (TEXT_TYPE, &about()), false).await;
                Err(TransportError::Page { address, origin })
            }
            Verdict::Refused(refusal) => {
                let (extra, body) = words(Page::Other, refusal.status());
                reply(&mut stream, &line(refusal.status()), &extra, (TEXT_TYPE, &body), false).await;
                Err(TransportError::Refused { address, refusal })
            }
            Verdict::Senseless(why) => {
                let (extra, body) = words(Page::Other, StatusCode::UPGRADE_REQUIRED);
                let status = line(StatusCode::UPGRADE_REQUIRED);
                reply(&mut stream, &status, &extra, (TEXT_TYPE, &body), false).await;
                Err(TransportError::Handshake { address, why })
            }
        }
    }
}

/// Tells somebody who speaks HTTP plainly on a port that speaks TLS.
pub(super) async fn tell_to_encrypt<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    // RFC 2817, 4.2: it "MUST include an [...] Upgrade header field specifying the token of the required TLS version".
    let upgrade = "Upgrade: TLS/1.2, HTTP/1.1\r\n";
    let body = "This port speaks TLS alone: use wss:// or https://.\n";
    reply(stream, &line(StatusCode::UPGRADE_REQUIRED), upgrade, (TEXT_TYPE, body), false).await;
}

fn line(status: StatusCode) -> String {
    format!("{} {}", status.as_str(), status.canonical_reason().unwrap_or_default())
}

fn about() -> String {
    "This is wsferry. If it receives, send it a file with:  wsferry send FILE ws://HOST:PORT\n\
     If it sends, get its files with:  wsferry receive ws://HOST:PORT DIR\n"
        .to_owned()
}

/// What a status says beside its number: headers, and a text.
fn words(page: Page, status: StatusCode) -> (String, String) {
    let upgrade = format!(
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
    );
    let (extra, body) = match status {
        StatusCode::OK if page == Page::Health => ("", "ok\n"),
        StatusCode::SERVICE_UNAVAILABLE => (RETRY_AFTER, "This receiver is stopping.\n"),
        StatusCode::TOO_MANY_REQUESTS => (RETRY_AFTER, "There are too many connections from this address.\n"),
        StatusCode::UNAUTHORIZED => {
            ("WWW-Authenticate: Bearer realm=\"wsferry\"\r\n", "This receiver wants to know a token.\n")
        }
        StatusCode::NOT_FOUND => ("", "There is nothing here.\n"),
        StatusCode::METHOD_NOT_ALLOWED => ("Allow: GET, HEAD\r\n", "That cannot be done here.\n"),
        StatusCode::UPGRADE_REQUIRED => (upgrade.as_str(), ""),
        _ => ("", ""),
    };
    let body = if body.is_empty() { about() } else { body.to_owned() };
    (extra.to_owned(), body)
}

/// Answers, and ends the connection. Whether that arrives changes nothing about why.
async fn reply<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    status: &str,
    headers: &str,
    (content_type, body): (&str, &str),
    is_head: bool,
) {
    // `Upgrade` is the connection's own header, and says so there (RFC 9110, 7.8).
    let connection = if headers.starts_with("Upgrade") { "upgrade, close" } else { "close" };
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Type: {content_type}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: {connection}\r\n\r\n{}",
        body.len(),
        if is_head { "" } else { body },
    );
    if stream.write_all(head.as_bytes()).await.is_err() || stream.close().await.is_err() {
        return;
    }
    let rest = async {
        let (mut bytes, mut left) = (vec![0; 4096], MOST_LINGERING);
        while left > 0 {
            match stream.read(&mut bytes).await {
                Ok(count) if count > 0 => left = left.saturating_sub(count),
                _ => return,
            }
        }
    };
    runtime::timeout(LINGER, rest).await;
}
