//! The listening side of the handshake. It reads the request's head itself: a head has a limit, and a plain GET
//! gets an answer that says what this port is.
//!
//! Any web page can have its reader's browser dial this port, on loopback too. The browser says in `Origin` whose page it
//! is, and a page cannot keep it from that; so a request with an `Origin` is refused unless that one is allowed. That holds
//! also for a page whose name was made to lead here (DNS rebinding), which is why any `Host` is taken: behind a proxy it
//! may be any name.

use async_tungstenite::tungstenite::handshake::server::{create_response, write_response};
use async_tungstenite::tungstenite::http::uri::Authority;
use async_tungstenite::tungstenite::http::{self, HeaderMap, HeaderValue, header};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frame::Role;
use super::{Connection, MAX_HEAD, Origins, TransportError};
use crate::protocol::SUBPROTOCOL;
use crate::protocol::message::clip;

/// The most headers of a request.
const MAX_HEADERS: usize = 100;

/// What a peer that dialled asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// A WebSocket without any subprotocol, instead of this crate's.
    pub is_plain: bool,
    /// The path and query of its URL, as they came.
    pub target: String,
}

/// Answers the handshake of a peer that dialled and asks for this crate's subprotocol; of web pages those that `origins`
/// allow.
pub async fn handshake<S>(stream: S, peer: String, origins: &Origins) -> Result<Connection<S>, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    answer_handshake(stream, peer, origins, false).await.map(|(connection, _)| connection)
}

/// As [`handshake`], also for a peer that asks for no subprotocol: says which of them it is.
pub async fn open_handshake<S>(
    stream: S,
    peer: String,
    origins: &Origins,
) -> Result<(Connection<S>, Request), TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    answer_handshake(stream, peer, origins, true).await
}

async fn answer_handshake<S>(
    mut stream: S,
    peer: String,
    origins: &Origins,
    takes_plain: bool,
) -> Result<(Connection<S>, Request), TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken =
        |error: std::io::Error| TransportError::Lost { address: peer.clone(), why: error.to_string() };
    let failed = |why: &str| TransportError::Handshake { address: peer.clone(), why: why.to_owned() };

    let mut read = Vec::new();
    let (request, head_len) = loop {
        let mut bytes = [0; 2048];
        let n = stream.read(&mut bytes).await.map_err(broken)?;
        if n == 0 {
            return Err(failed("it hung up before its request ended"));
        }
        read.extend_from_slice(&bytes[..n]);
        match parse(&read) {
            Ok(Some(parsed)) => break parsed,
            Ok(None) if read.len() < MAX_HEAD => {}
            Ok(None) => {
                refuse(&mut stream, "431 Request Header Fields Too Large", "").await;
                return Err(failed("the head of its request is too long"));
            }
            Err(why) => {
                refuse(&mut stream, "400 Bad Request", "").await;
                return Err(failed(&why));
            }
        }
    };
    if !names_one_host(request.headers()) {
        refuse(&mut stream, "400 Bad Request", "").await;
        return Err(failed("its request does not have one Host"));
    }
    if let Some(origin) = refused_origin(request.headers(), origins) {
        refuse(&mut stream, "403 Forbidden", "").await;
        return Err(TransportError::Page { address: peer, origin });
    }
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let speaks_ours = offered.any(|protocol| protocol.trim() == SUBPROTOCOL);
    let is_plain = takes_plain && !request.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let mut response = match create_response(&request) {
        Ok(response) if speaks_ours || is_plain => response,
        answer_only => {
            let why = if answer_only.is_ok() {
                format!("it does not ask for the subprotocol {SUBPROTOCOL}")
            } else {
                "it asks for no WebSocket".to_owned()
            };
            let extra = format!(
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
            );
            refuse(&mut stream, "426 Upgrade Required", &extra).await;
            return Err(failed(&why));
        }
    };
    if speaks_ours {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    let mut head = Vec::new();
    write_response(&mut head, &response).map_err(|error| failed(&error.to_string()))?;
    stream.write_all(&head).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;

    let asked = Request { is_plain, target: request.uri().to_string() };
    Ok((Connection::new(stream, Role::Server, &read[head_len..], peer), asked))
}

/// Whether there is one `Host`, as RFC 9112 demands in section 3.2, and it is one.
fn names_one_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host =
        hosts.next().and_then(|host| host.to_str().ok()).and_then(|host| host.parse::<Authority>().ok());
    host.is_some_and(|host| !host.host().is_empty() && !host.as_str().contains('@')) && hosts.next().is_none()
}

/// What the request says in `Origin`, made safe to print, if a page from there may not connect.
fn refused_origin(headers: &HeaderMap, origins: &Origins) -> Option<String> {
    let said: Vec<_> = headers.get_all(header::ORIGIN).iter().map(HeaderValue::as_bytes).collect();
    let text = |origin: &[u8]| std::str::from_utf8(origin).is_ok_and(|origin| origins.allow(origin));
    match said.as_slice() {
        [] => None,
        [origin] if text(origin) => None,
        // Several are as good as none that is allowed, whatever they are.
        _ if origins.any => None,
        refused => Some(clip(&String::from_utf8_lossy(&refused.join(&b", "[..]))).into_owned()),
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
    if parsed.version != Some(1) {
        return Err("its request is not HTTP/1.1".to_owned());
    }
    let mut request = http::Request::builder()
        .method(parsed.method.unwrap_or_default())
        .uri(parsed.path.unwrap_or_default());
    for header in parsed.headers.iter() {
        request = request.header(header.name, header.value);
    }
    let request = request.body(()).map_err(|error| format!("its request is no HTTP: {error}"))?;
    Ok(Some((request, head_len)))
}

/// Answers a request that is no sender's. Whether that arrives changes nothing about why.
async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, status: &str, headers: &str) {
    let body = "This is a wsferry receiver. Send it a file with:  wsferry send FILE ws://HOST:PORT\n";
    let answer = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        let _ = stream.close().await;
    }
}
