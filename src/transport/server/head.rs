//! The head of a request, read from the stream by ourselves: it has a limit, and what stands behind it is not lost.
//!
//! `hyper` would read it as well, but with limits of its own, and it would have to hand its buffer and the stream back for
//! the WebSocket, through an adapter to another family of traits. One request a connection needs none of that: `httparse`
//! reads the head, and what is answered is a few lines.

use async_tungstenite::tungstenite::http::uri::Authority;
use async_tungstenite::tungstenite::http::{self, HeaderMap, HeaderValue, Version, header};
use futures::AsyncRead;

use super::super::{TransportError, head};

/// The most headers of a request.
const MAX_HEADERS: usize = 100;

/// A request, and what came behind its head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: http::Request<()>,
    pub(super) rest: Vec<u8>,
}

/// Why there is no head.
#[derive(Debug)]
pub(super) enum NoHead {
    /// The connection ended before its first byte: somebody looked whether the port is open.
    Nothing,
    /// It is answered with this status.
    Bad { status: &'static str, why: String },
    /// There is nobody to be answered.
    Gone(TransportError),
    /// It is TLS.
    Encrypted,
}

/// Reads a request's head.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S, peer: &str) -> Result<Head, NoHead> {
    let address = || peer.to_owned();
    match head::read(stream, parse).await {
        Ok(head::Head { head: request, rest }) => {
            check_host(&request)?;
            Ok(Head { request, rest })
        }
        Err(head::NoHead::Ended(read)) if read.is_empty() => Err(NoHead::Nothing),
        Err(head::NoHead::Ended(read) | head::NoHead::Malformed { read, .. }) if head::is_tls(&read) => {
            Err(NoHead::Encrypted)
        }
        Err(head::NoHead::Ended(_)) => {
            let why = "it hung up before its request ended".to_owned();
            Err(NoHead::Gone(TransportError::Handshake { address: address(), why }))
        }
        Err(head::NoHead::Lost(error)) => {
            Err(NoHead::Gone(TransportError::Lost { address: address(), why: error.to_string() }))
        }
        Err(head::NoHead::TooLong) => {
            let why = "the head of its request is too long".to_owned();
            Err(NoHead::Bad { status: "431 Request Header Fields Too Large", why })
        }
        Err(head::NoHead::Malformed { why, .. }) => Err(NoHead::bad(why)),
    }
}

impl NoHead {
    fn bad(why: String) -> Self {
        Self::Bad { status: "400 Bad Request", why }
    }
}

/// The request and the length of its head, once that is whole.
fn parse(read: &[u8]) -> Result<Option<(http::Request<()>, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head_len = match parsed.parse(read) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("its request is no HTTP: {error}")),
    };
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut request = http::Request::builder()
        .method(parsed.method.unwrap_or_default())
        .uri(parsed.path.unwrap_or_default())
        .version(version);
    for header in parsed.headers.iter() {
        request = request.header(header.name, header.value);
    }
    let request = request.body(()).map_err(|error| format!("its request is no HTTP: {error}"))?;
    Ok(Some((request, head_len)))
}

/// There is one `Host`, as RFC 9112 demands in section 3.2, and it is one. HTTP/1.0, which some balancers still use to look
/// after a port, knows none.
fn check_host(request: &http::Request<()>) -> Result<(), NoHead> {
    let is_old = request.version() == Version::HTTP_10 && !request.headers().contains_key(header::HOST);
    if is_old || names_one_host(request.headers()) {
        return Ok(());
    }
    Err(NoHead::bad("its request does not have one Host".to_owned()))
}

fn names_one_host(headers: &HeaderMap<HeaderValue>) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host =
        hosts.next().and_then(|host| host.to_str().ok()).and_then(|host| host.parse::<Authority>().ok());
    host.is_some_and(|host| !host.host().is_empty() && !host.as_str().contains('@')) && hosts.next().is_none()
}
