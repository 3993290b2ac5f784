//! What the tests of the listening side share: raw HTTP, and a file that goes over any WebSocket.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use async_tungstenite::tungstenite::{self, Message as WsMessage, WebSocket, client::ClientRequestBuilder};
use serde_json::Value;
use wsferry::protocol::message;

use crate::hostile::{finish, frame, offer};
use crate::support::{PATIENCE, hello};

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    /// A header's value, if it is there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().filter_map(|line| {
            let (said, value) = line.split_once(':')?;
            said.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        values.next().filter(|_| values.next().is_none())
    }

    pub fn parse(answer: &[u8]) -> Self {
        let text = String::from_utf8_lossy(answer);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole head: {text:?}"));
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|head| head[..3].parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {head:?}"));
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }
}

/// Sends bytes, and reads to the end of the answer, or of its head if the connection stays open.
pub fn ask(address: SocketAddr, request: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may have answered before all of it was sent.
    let _ = stream.write_all(request);
    ask_on(stream)
}

pub fn ask_on(mut stream: impl Read) -> Reply {
    let (mut answer, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&bytes[..count]),
            Err(error) if answer.is_empty() => panic!("no answer: {error}"),
            Err(_) => break,
        }
        if answer.starts_with(b"HTTP/1.1 101 ") {
            break;
        }
    }
    Reply::parse(&answer)
}

pub fn get(address: SocketAddr, path: &str) -> Reply {
    ask(address, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
}

/// A request for a WebSocket of this path, with more headers, each with its end of line.
pub fn upgrade(path: &str, headers: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: wsferry.v1\r\n"
    )
    .into_bytes();
    request.extend_from_slice(headers);
    request.extend_from_slice(b"\r\n");
    request
}

/// Connects and hangs up without a word, as some balancers do to look after a port.
pub fn knock(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
}

/// A WebSocket of this crate's subprotocol, or of none, over any stream.
pub fn dial<S: Read + Write>(
    stream: S,
    url: &str,
    subprotocol: Option<&str>,
    headers: &[(&str, &str)],
) -> WebSocket<S> {
    let mut request = ClientRequestBuilder::new(url.parse().unwrap());
    if let Some(subprotocol) = subprotocol {
        request = request.with_sub_protocol(subprotocol);
    }
    for (name, value) in headers {
        request = request.with_header(*name, *value);
    }
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => socket,
        Err(error) => panic!("no WebSocket: {error}"),
    }
}

/// Sends a file of at most one chunk, up to its receipt.
pub fn deliver<S: Read + Write>(socket: &mut WebSocket<S>, name: &str, bytes: &[u8]) {
    tell(socket, &hello());
    tell(socket, &offer(name, bytes.len() as u64));
    hear_type(socket, "accept");
    socket.send(WsMessage::text(frame(0, 0, bytes))).unwrap();
    tell(socket, &finish(0, bytes));
    hear_type(socket, "receipt");
}

pub fn tell<S: Read + Write>(socket: &mut WebSocket<S>, message: &Value) {
    socket.send(WsMessage::text(message::frame_of(&message.to_string()))).unwrap();
}

pub fn hear_type<S: Read + Write>(socket: &mut WebSocket<S>, kind: &str) -> Value {
    loop {
        let text = socket.read().unwrap_or_else(|error| panic!("before a {kind}: {error}"));
        let WsMessage::Text(text) = text else { continue };
        if let Some(message) = crate::support::message(&text)
            && message["type"] == kind
        {
            return message;
        }
    }
}
