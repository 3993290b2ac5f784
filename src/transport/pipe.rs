//! The protocol over pipes: the same WebSocket frames, behind one line from each side instead of an HTTP handshake.

use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frame::Role;
use super::{Connection, TransportError};
use crate::protocol::SUBPROTOCOL;
use crate::protocol::message::clip;
use crate::runtime;

/// How long the other side may take to begin: somebody may have to type a password first.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much of what stands before the line is shown, and how long the rest of it is waited for.
const MAX_NOISE: u64 = 512;
const NOISE_WITHIN: Duration = Duration::from_millis(200);

/// Which side of a pipe this is: a client masks what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeRole {
    /// It started the program at the other end.
    Starter,
    /// It was started.
    Started,
}

/// Opens a connection over a stream that leads to a program of this protocol, and to nothing else: each side writes
/// `wsferry.v1` and a line feed, and reads the same. `peer` is shown to people.
///
/// # Errors
/// If something else is said there, or nothing.
pub async fn handshake<S>(stream: S, role: PipeRole, peer: String) -> Result<Connection<S>, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let silent = || TransportError::HandshakeTimeout { address: peer.clone(), limit: PATIENCE };
    runtime::timeout(PATIENCE, greet(stream, role, peer.clone())).await.unwrap_or_else(|| Err(silent()))
}

async fn greet<S>(mut stream: S, role: PipeRole, peer: String) -> Result<Connection<S>, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let line = format!("{SUBPROTOCOL}\n").into_bytes();
    // Why it takes nothing is told by what is read.
    if stream.write_all(&line).await.is_ok() {
        let _ = stream.flush().await;
    }
    let mut said = vec![0; line.len()];
    let mut filled = 0;
    while filled < said.len() {
        match stream.read(&mut said[filled..]).await {
            Ok(0) => return Err(unanswered(peer, &said[..filled], "it hung up")),
            Ok(count) => filled += count,
            Err(error) => return Err(unanswered(peer, &said[..filled], &error.to_string())),
        }
        if !line.starts_with(&said[..filled]) {
            let mut noise = said[..filled].to_vec();
            let mut more = stream.take(MAX_NOISE);
            runtime::timeout(NOISE_WITHIN, more.read_to_end(&mut noise)).await;
            return Err(TransportError::Noise { address: peer, said: first_line(&noise) });
        }
    }
    let role = match role {
        PipeRole::Starter => Role::Client,
        PipeRole::Started => Role::Server,
    };
    Ok(Connection::new(stream, role, &[], peer))
}

/// The pipe ended before the line did.
fn unanswered(address: String, said: &[u8], why: &str) -> TransportError {
    match said {
        [] => TransportError::Unanswered { address, why: why.to_owned() },
        noise => TransportError::Noise { address, said: first_line(noise) },
    }
}

/// The first line that says something, made safe to print.
fn first_line(noise: &[u8]) -> String {
    let text = String::from_utf8_lossy(noise);
    clip(text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()).into_owned()
}
