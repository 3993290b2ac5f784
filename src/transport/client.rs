//! The dialling side of the handshake. It reads the answer's head itself, so that what a gateway sends right behind it
//! is not lost.

use std::time::Duration;

use async_tungstenite::tungstenite::client::{ClientRequestBuilder, IntoClientRequest};
use async_tungstenite::tungstenite::handshake::client::{Response, generate_request};
use async_tungstenite::tungstenite::handshake::{derive_accept_key, machine::TryParse};
use async_tungstenite::tungstenite::http::{HeaderMap, StatusCode, header};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frame::Role;
use super::{Connection, Endpoint, MAX_HEAD, TransportError};
use crate::protocol::SUBPROTOCOL;
use crate::protocol::message::clip;

/// Opens a WebSocket with this crate's subprotocol over a stream that leads to `endpoint`.
pub async fn handshake<S>(stream: S, endpoint: &Endpoint) -> Result<Connection<S>, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    ask(stream, endpoint, Some(SUBPROTOCOL)).await
}

/// Opens a WebSocket without any subprotocol over a stream that leads to `endpoint`.
pub async fn plain_handshake<S>(stream: S, endpoint: &Endpoint) -> Result<Connection<S>, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    ask(stream, endpoint, None).await
}

async fn ask<S>(
    mut stream: S,
    endpoint: &Endpoint,
    subprotocol: Option<&str>,
) -> Result<Connection<S>, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let address = endpoint.to_string();
    let advice = if subprotocol.is_some() { "; is it a `wsferry receive`?" } else { "" };
    let failed =
        |why: String| TransportError::Handshake { address: address.clone(), why: format!("{why}{advice}") };

    let mut request = ClientRequestBuilder::new(endpoint.uri());
    if let Some(subprotocol) = subprotocol {
        request = request.with_sub_protocol(subprotocol);
    }
    let request = request.into_client_request().and_then(generate_request);
    let (request, key) = request.map_err(|error| failed(error.to_string()))?;
    let hung_up = |error: std::io::Error| failed(format!("it hung up before its answer ended: {error}"));
    stream.write_all(&request).await.map_err(hung_up)?;
    stream.flush().await.map_err(hung_up)?;

    let mut read = Vec::new();
    let (head_len, response) = loop {
        let mut bytes = [0; 2048];
        let n = stream.read(&mut bytes).await.map_err(hung_up)?;
        if n == 0 {
            return Err(failed("it hung up before its answer ended".to_owned()));
        }
        read.extend_from_slice(&bytes[..n]);
        match Response::try_parse(&read).map_err(|error| failed(error.to_string()))? {
            Some(parsed) => break parsed,
            None if read.len() < MAX_HEAD => {}
            None => return Err(failed("the head of its answer is too long".to_owned())),
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let said = |name: header::HeaderName| response.headers().get(name)?.to_str().ok();
        return Err(TransportError::NotWebSocket {
            address,
            status: response.status().as_u16(),
            location: said(header::LOCATION).map(|location| clip(location).into_owned()),
            retry_after: said(header::RETRY_AFTER)
                .and_then(|value| value.trim().parse().ok())
                .map(Duration::from_secs),
        });
    }
    let headers = response.headers();
    let accepts = headers.get(header::SEC_WEBSOCKET_ACCEPT);
    if !names(headers, header::UPGRADE, "websocket") || !names(headers, header::CONNECTION, "upgrade") {
        return Err(failed("its answer does not switch to WebSocket".to_owned()));
    }
    if accepts.is_none_or(|accept| accept.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err(failed("its answer is to another request".to_owned()));
    }
    match subprotocol {
        Some(subprotocol) if !names(headers, header::SEC_WEBSOCKET_PROTOCOL, subprotocol) => {
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
    Ok(Connection::new(stream, Role::Client, &read[head_len..], address))
}

/// Whether a header lists this token.
fn names(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}
