//! WebSockets: dial, listen, move messages, whole within the protocol's limits or piece by piece without.
//!
//! Knows no files. Works over any `futures` `AsyncRead + AsyncWrite`.

mod budget;
mod bulk;
mod client;
mod connection;
pub mod dial;
mod endpoint;
mod error;
mod frame;
mod head;
mod input;
mod mask;
mod origin;
mod output;
mod pipe;
mod program;
mod remote;
mod server;
mod tls;

pub use budget::Budget;
pub use client::handshake as client_handshake;
pub use connection::Connection;
pub use dial::{DialOptions, Dialer};
pub use endpoint::Endpoint;
pub use error::{Asked, TransportError};
pub use frame::Kind;
pub use input::Piece;
pub use mask::mask_url;
pub use origin::{Origin, Origins};
pub(crate) use output::Gathered;
pub use pipe::{PipeRole, handshake as pipe_handshake};
pub use program::Program;
pub use remote::Remote;
pub(crate) use server::{Answered, Asking, Availability, Request};
pub use server::{
    Caller, Gate, HEALTH, METRICS, Page, Prefix, Proxies, Proxy, Refusal, Token, WithoutSubprotocol,
    handshake as server_handshake,
};
pub use tls::{Tls, TlsError};

use std::time::Duration;

/// How long connecting, and then the WebSocket handshake, may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes read from the socket at a time, and gathered before they are written to it, where frames are smaller.
const BUFFER: usize = 128 * 1024;
/// The most bytes of a handshake's head.
const MAX_HEAD: usize = 16 * 1024;
