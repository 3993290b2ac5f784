//! The dialling side of the handshake. It reads the answer's head itself, so that what a gateway sends right behind it
//! is not lost.

use std::io;
use std::time::Duration;

use async_tungstenite::tungstenite::client::{ClientRequestBuilder, IntoClientRequest};
use async_tungstenite::tungstenite::handshake::client::generate_request;
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::http::{HeaderMap, StatusCode, header};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::dial::TlsFault;
use super::frame::Role;
use super::head::{self, Answer, Head, NoHead};
use super::{Asked, Connection, Endpoint, TransportError, mask_url};
use crate::protocol::SUBPROTOCOL;
use crate::protocol::message::clip;
use crate::runtime;

/// How long the words behind a refusal are waited for, and how many of them are read.
const WORDS_TIMEOUT: Duration = Duration::from_millis(500);
const MAX_WORDS: u64 = 2048;

/// Opens a WebSocket with this crate's subprotocol over a stream that leads to `endpoint`.
pub async fn handshake<S>(stream: S, endpoint: &Endpoint) -> Result<Connection<S>, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let headers = HeaderMap::new();
    ask(stream, endpoint, Asking { subprotocol: Some(SUBPROTOCOL), headers: &headers }, |_| {}).await
}

/// What a handshake asks for.
pub(super) struct Asking<'a> {
    pub(super) subprotocol: Option<&'a str>,
    /// Beside those of the handshake.
    pub(super) headers: &'a HeaderMap,
}

/// Opens a WebSocket over a stream. Of whatever answer comes, `answered` has the headers.
pub(super) async fn ask<S>(
    mut stream: S,
    endpoint: &Endpoint,
    asking: Asking<'_>,
    answered: impl FnOnce(&HeaderMap),
) -> Result<Connection<S>, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let address = endpoint.to_string();
    let advice = if asking.subprotocol.is_some() { "; is it a wsferry?" } else { "" };
    let failed =
        |why: String| TransportError::Handshake { address: address.clone(), why: format!("{why}{advice}") };

    let (request, key) = request(endpoint, &asking).map_err(failed)?;
    let sent = stream.write_all(&request).await;
    let sent = if sent.is_ok() { stream.flush().await } else { sent };
    let Head { head: Answer { status, headers }, rest } = match head::read(&mut stream, head::answer).await {
        Ok(head) => head,
        Err(NoHead::Lost(error)) => {
            // What was said before it hung up on what was written is worth more than that it did.
            let error = if TlsFault::of(&error).is_some() { error } else { sent.err().unwrap_or(error) };
            return Err(broken(endpoint, &error));
        }
        Err(NoHead::Ended(read) | NoHead::Malformed { read, .. })
            if !endpoint.is_tls() && head::is_tls(&read) =>
        {
            return Err(TransportError::SpeaksTls { address });
        }
        Err(NoHead::Ended(_)) => return Err(failed("it hung up before its answer ended".to_owned())),
        Err(NoHead::TooLong) => return Err(failed("the head of its answer is too long".to_owned())),
        Err(NoHead::Malformed { why, .. }) => return Err(failed(why)),
    };
    answered(&headers);
    let asked = Asked {
        over_tls: endpoint.is_tls(),
        subprotocol: asking.subprotocol.is_some(),
        authorized: asking.headers.contains_key(header::AUTHORIZATION),
    };
    if !asked.over_tls
        && (upgrades_to_tls(status, &headers)
            || (status == StatusCode::BAD_REQUEST && wants_tls(&mut stream, rest.clone()).await))
    {
        return Err(TransportError::SpeaksTls { address });
    }
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let said = |name: header::HeaderName| headers.get(name)?.to_str().ok();
        return Err(TransportError::NotWebSocket {
            address,
            status,
            asked,
            location: said(header::LOCATION).map(|location| clip(&mask_url(location)).into_owned()),
            retry_after: said(header::RETRY_AFTER)
                .and_then(|value| value.trim().parse().ok())
                .map(Duration::from_secs),
        });
    }
    let accepts = headers.get(header::SEC_WEBSOCKET_ACCEPT);
    if !names(&headers, header::UPGRADE, "websocket") || !names(&headers, header::CONNECTION, "upgrade") {
        return Err(failed("its answer does not switch to WebSocket".to_owned()));
    }
    if accepts.is_none_or(|accept| accept.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err(failed("its answer is to another request".to_owned()));
    }
    match asking.subprotocol {
        Some(subprotocol) if !names(&headers, header::SEC_WEBSOCKET_PROTOCOL, subprotocol) => {
            return Err(TransportError::NotWsferry { address });
        }
        None if headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) => {
            return Err(failed("it uses a subprotocol that nobody asked for".to_owned()));
        }
        _ => {}
    }
    if headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
        return Err(failed("it uses an extension that nobody asked for".to_owned()));
    }
    Ok(Connection::new(stream, Role::Client, &rest, address))
}

/// The request, and the key that its answer has to be to. The error shows no header's value.
fn request(endpoint: &Endpoint, asking: &Asking<'_>) -> Result<(Vec<u8>, String), String> {
    let mut builder = ClientRequestBuilder::new(endpoint.uri().clone());
    if let Some(subprotocol) = asking.subprotocol {
        builder = builder.with_sub_protocol(subprotocol);
    }
    let mut request = builder.into_client_request().map_err(|error| error.to_string())?;
    for name in asking.headers.keys() {
        // The first of a name replaces one that is there, such as the host.
        request.headers_mut().remove(name);
        for value in asking.headers.get_all(name) {
            request.headers_mut().append(name, value.clone());
        }
    }
    generate_request(request).map_err(|_| "its request cannot be written".to_owned())
}

/// A stream that broke during the handshake.
pub(super) fn broken(endpoint: &Endpoint, error: &io::Error) -> TransportError {
    match TlsFault::of(error) {
        Some(fault) => TransportError::Tls { address: endpoint.address(), fault },
        None => TransportError::Handshake {
            address: endpoint.to_string(),
            why: format!("it hung up before its answer ended: {error}"),
        },
    }
}

/// Whether a refusal is about TLS that is missing (RFC 2817, 4.2), as wsferry says it.
fn upgrades_to_tls(status: u16, headers: &HeaderMap) -> bool {
    let upgrades = headers.get_all(header::UPGRADE).into_iter().filter_map(|value| value.to_str().ok());
    let mut protocols = upgrades.flat_map(|value| value.split(',')).map(str::trim);
    let is_tls = |protocol: &str| protocol.get(..4).is_some_and(|name| name.eq_ignore_ascii_case("TLS/"));
    status == StatusCode::UPGRADE_REQUIRED && protocols.any(is_tls)
}

/// The same of servers that say so in words alone, each in its own.
async fn wants_tls<S: AsyncRead + Unpin>(stream: &mut S, rest: Vec<u8>) -> bool {
    let mut words = rest;
    let mut more = stream.take(MAX_WORDS);
    runtime::timeout(WORDS_TIMEOUT, more.read_to_end(&mut words)).await.map(drop).unwrap_or_default();
    let words = String::from_utf8_lossy(&words).to_ascii_lowercase();
    // nginx: "The plain HTTP request was sent to HTTPS port". Apache: "You're speaking plain HTTP to an SSL-enabled server
    // port". Go: "Client sent an HTTP request to an HTTPS server".
    ["to https port", "ssl-enabled server", "to an https server", "requires tls"]
        .iter()
        .any(|said| words.contains(said))
}

/// Whether a header lists this token.
fn names(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}
