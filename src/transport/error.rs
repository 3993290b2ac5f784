//! What can go wrong on the way.

use std::io;
use std::time::Duration;

use super::Refusal;
use super::dial::{ProxyFault, TlsFault};
use crate::protocol::SUBPROTOCOL;

/// Why a connection could not be made, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// Nobody could be reached.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Host and port.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A proxy did not lead there.
    #[error("the proxy {proxy} did not connect to {address}: {fault}")]
    Proxy {
        /// The proxy, without credentials.
        proxy: String,
        /// Host and port.
        address: String,
        /// Why.
        fault: ProxyFault,
    },
    /// TLS with the peer could not be spoken.
    #[error("no TLS with {address}: {fault}")]
    Tls {
        /// Host and port.
        address: String,
        /// Why.
        fault: TlsFault,
    },
    /// The peer speaks TLS where none was spoken to it.
    #[error("{address} speaks TLS on this port; dial it with wss://")]
    SpeaksTls {
        /// The peer.
        address: String,
    },
    /// The peer took the connection and did not finish the handshake.
    #[error("{address} is connected and said nothing of a WebSocket handshake for {} s", .limit.as_secs())]
    HandshakeTimeout {
        /// The peer.
        address: String,
        /// How long it had.
        limit: Duration,
    },
    /// A program was started, or started this one, and ended before it said what this protocol begins with.
    #[error("{address} said nothing of wsferry: {why}")]
    Unanswered {
        /// The command line, or what this side's pipes are.
        address: String,
        /// What the system said.
        why: String,
    },
    /// Something else came over a pipe, before what this protocol begins with.
    #[error(
        "{address} printed {said:?} before wsferry began: something on the way there, such as a file that a login \
         shell reads, writes to its standard output, and must not"
    )]
    Noise {
        /// The command line, or what this side's pipes are.
        address: String,
        /// The first line of it, made safe to print.
        said: String,
    },
    /// The peer speaks HTTP, but no WebSocket here.
    #[error("{address} answered HTTP {status} and no WebSocket handshake; {}", explain_status(*.status, *.asked, .location))]
    NotWebSocket {
        /// The peer.
        address: String,
        /// Its status code.
        status: u16,
        /// What it was asked.
        asked: Asked,
        /// Where it sends the caller instead, made safe to print.
        location: Option<String>,
        /// How long it wants the caller to wait.
        retry_after: Option<Duration>,
    },
    /// The peer speaks WebSocket, but not this protocol.
    #[error("{address} speaks WebSocket, but not {SUBPROTOCOL}: it is no wsferry")]
    NotWsferry {
        /// The peer.
        address: String,
    },
    /// The peer's handshake makes no sense.
    #[error("the WebSocket handshake with {address} failed: {why}")]
    Handshake {
        /// The peer.
        address: String,
        /// What was wrong.
        why: String,
    },
    /// A web page wanted to connect.
    #[error("a web page of {origin} wanted to connect from {address}, and may not")]
    Page {
        /// The peer.
        address: String,
        /// What the browser says of the page, made safe to print.
        origin: String,
    },
    /// Somebody who wanted to connect and may not, or not now.
    #[error("refused {address}: {refusal}")]
    Refused {
        /// The peer.
        address: String,
        /// Why.
        refusal: Refusal,
    },
    /// The peer speaks TLS on a port that does not.
    #[error("{address} speaks TLS, and this port does not")]
    Encrypted {
        /// The peer.
        address: String,
    },
    /// The peer speaks without TLS on a port that has it.
    #[error("{address} does not speak TLS, and this port does")]
    Unencrypted {
        /// The peer.
        address: String,
    },
    /// Who dialled does not speak TLS as this side does.
    #[error("the TLS handshake with {address} failed: {why}")]
    TlsHandshake {
        /// The peer.
        address: String,
        /// What was wrong.
        why: String,
    },
    /// The connection broke without a word.
    #[error("the connection to {address} was lost: {why}")]
    Lost {
        /// The peer.
        address: String,
        /// What the system said.
        why: String,
    },
    /// The peer, or something on the path, closed the connection.
    #[error("{address} closed the connection with code {code}{}", explain(*.code, .reason))]
    Closed {
        /// The peer.
        address: String,
        /// RFC 6455's close code; 1005 if there was none.
        code: u16,
        /// The peer's words, made safe to print.
        reason: String,
    },
    /// There is no memory for its large frames, because other connections have it.
    #[error(
        "{address} sends larger frames than there is memory for at the moment; smaller ones can always be read"
    )]
    Crowded {
        /// The peer.
        address: String,
    },
    /// A frame that breaks WebSocket's rules or limits, or is not text.
    #[error("{address} sent what this protocol does not allow: {why}")]
    Frame {
        /// The peer.
        address: String,
        /// What was wrong.
        why: String,
    },
}

/// What a handshake asked for, as far as a refusal may be about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asked {
    /// It was asked over TLS.
    pub over_tls: bool,
    /// It named this crate's subprotocol.
    pub subprotocol: bool,
    /// It said who calls.
    pub authorized: bool,
}

fn explain_status(status: u16, asked: Asked, location: &Option<String>) -> String {
    let words = match (status, location) {
        (300..=399, Some(location)) => {
            return format!("it says that this is at {location} now, and a redirection is not followed");
        }
        (300..=399, None) => "it sends callers somewhere else, and does not say where",
        (400, _) => "it does not understand the request",
        (401, _) if asked.authorized => "it does not take who it was told",
        (401, _) => "it wants to know who calls",
        (403, _) => "it does not let this caller in",
        (407, _) => "a proxy on the way wants to know who calls",
        (421, _) => "it does not answer for this host name",
        (426, _) => "it wants another protocol, or a subprotocol that did not arrive",
        (429, _) => "there were too many requests: try again later",
        (502 | 504, _) => "it is a gateway, and cannot reach what is behind it: is wsferry running there?",
        (503, _) => "it has too much to do, or nothing behind it: try again later",
        _ => "is it a wsferry, and is the path right?",
    };
    words.to_owned()
}

fn explain(code: u16, reason: &str) -> String {
    let meaning = match code {
        1000 => " (normal)",
        1001 => " (going away)",
        1003 => " (it does not take this kind of data)",
        1008 => " (policy)",
        1009 => " (a message was too big for it)",
        1011 => " (it met an internal error)",
        1012 => " (to be connected to again)",
        1013 => " (try again later)",
        _ => "",
    };
    if reason.is_empty() { meaning.to_owned() } else { format!("{meaning}: {reason}") }
}
