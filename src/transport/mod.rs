//! WebSockets: dial, listen, move text frames, within limits.
//!
//! Knows no files. Works over any `futures` `AsyncRead + AsyncWrite`; the limits on frames are the protocol's.

mod client;
mod connection;
mod endpoint;
mod error;
mod server;

pub use client::handshake as client_handshake;
pub use connection::Connection;
pub use endpoint::Endpoint;
pub use error::TransportError;
pub use server::handshake as server_handshake;

use std::time::Duration;

use async_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::protocol::MAX_FRAME;

/// How long connecting, and then the WebSocket handshake, may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes read from the socket at a time, and gathered before they are written to it.
const BUFFER: usize = 128 * 1024;

/// The limits of one connection. On a frame's header the announced length is reserved at once, so the limit is
/// the protocol's largest frame and no more.
fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(BUFFER + 2 * MAX_FRAME)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME))
}
