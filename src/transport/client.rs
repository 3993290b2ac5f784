//! The dialling side of the handshake.

use async_tungstenite::client_async_with_config;
use async_tungstenite::tungstenite::client::ClientRequestBuilder;
use async_tungstenite::tungstenite::{Error as WsError, error::ProtocolError};
use futures::{AsyncRead, AsyncWrite};

use super::{Connection, Endpoint, TransportError, config};
use crate::protocol::SUBPROTOCOL;

/// Opens a WebSocket over a stream that leads to `endpoint`.
pub async fn handshake<S>(stream: S, endpoint: &Endpoint) -> Result<Connection<S>, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = ClientRequestBuilder::new(endpoint.uri()).with_sub_protocol(SUBPROTOCOL);
    match client_async_with_config(request, stream, Some(config())).await {
        Ok((socket, _response)) => Ok(Connection::new(socket, endpoint.to_string())),
        Err(error) => Err(explain(error, endpoint.to_string())),
    }
}

fn explain(error: WsError, address: String) -> TransportError {
    match error {
        WsError::Http(response) => {
            TransportError::NotWebSocket { address, status: response.status().as_u16() }
        }
        WsError::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => {
            TransportError::NotWsferry { address }
        }
        WsError::Io(error) => TransportError::Lost { address, why: error.to_string() },
        error => TransportError::Handshake { address, why: format!("{error}; is it a `wsferry receive`?") },
    }
}
