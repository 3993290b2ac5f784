//! A WebSocket peer that says whatever a test wants.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use async_tungstenite::tungstenite::handshake::server::{Request, Response};
use async_tungstenite::tungstenite::{self, Message as WsMessage, WebSocket, client::ClientRequestBuilder};
use serde_json::{Value, json};
use wsferry::protocol::message::{self, Message};

use super::PATIENCE;

/// What a peer of the tests says first: it can all that there is, and has room for everything.
pub fn hello() -> Value {
    json!({
        "type": "hello", "features": ["zeros", "trees", "tree-digests", "late-size"], "frame_limit": 4_194_352,
        "window": 64 << 20, "offers": 4096,
    })
}

/// The message that a frame carries, if it carries one that came whole.
pub fn message(frame: &str) -> Option<Value> {
    // The prefix: kind and CRC-32, which is checked.
    frame.starts_with('M').then(|| Message::parse(frame.as_bytes()).expect("a message of ours"))?;
    Some(serde_json::from_str(&frame[11..]).expect("it was parsed a line ago"))
}

/// A WebSocket peer that says whatever a test wants.
pub struct Peer {
    pub socket: WebSocket<TcpStream>,
}

impl Peer {
    /// Dials, and says hello.
    pub fn dial(url: &str) -> Self {
        let mut peer = Self::dial_silently(url);
        peer.tell(&hello());
        peer
    }

    pub fn dial_silently(url: &str) -> Self {
        let stream = TcpStream::connect(url.strip_prefix("ws://").unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = ClientRequestBuilder::new(url.parse().unwrap()).with_sub_protocol("wsferry.v1");
        Self { socket: tungstenite::client(request, stream).unwrap().0 }
    }

    /// A receiver for the next sender that dials `listener`, which says hello with the usual fields but these.
    pub fn receive(listener: &TcpListener, fields: &Value) -> Self {
        let mut peer = Self::accept(listener, Some("wsferry.v1")).unwrap();
        let mut hello = hello();
        for (field, value) in fields.as_object().into_iter().flatten() {
            hello[field] = value.clone();
        }
        peer.tell(&hello);
        peer
    }

    /// The next one that dials `listener`, answered with this subprotocol or none; `None` if it does not like that.
    pub fn accept(listener: &TcpListener, subprotocol: Option<&'static str>) -> Option<Self> {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        #[allow(clippy::result_large_err)]
        let answer = |_: &Request, mut response: Response| {
            if let Some(subprotocol) = subprotocol {
                response.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol.parse().unwrap());
            }
            Ok(response)
        };
        Some(Self { socket: tungstenite::accept_hdr(stream, answer).ok()? })
    }

    /// Sends a frame as it is.
    pub fn say(&mut self, text: impl Into<String>) {
        // The peer may have hung up already; what it said is what the tests look at.
        let _ = self.socket.send(WsMessage::text(text.into()));
    }

    /// Sends a message.
    pub fn tell(&mut self, message: &Value) {
        self.say(message::frame_of(&message.to_string()));
    }

    /// The next text; `None` when the connection has ended.
    pub fn hear(&mut self) -> Option<String> {
        loop {
            match self.socket.read() {
                Ok(WsMessage::Text(text)) => return Some(text.to_string()),
                Ok(WsMessage::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next text, if it comes so soon.
    pub fn hear_within(&mut self, time: Duration) -> Option<String> {
        self.socket.get_mut().set_read_timeout(Some(time)).unwrap();
        let text = self.hear();
        self.socket.get_mut().set_read_timeout(Some(PATIENCE)).unwrap();
        text
    }

    /// The next message of this type, past all others.
    pub fn hear_type(&mut self, kind: &str) -> Value {
        loop {
            let text = self.hear().unwrap_or_else(|| panic!("the connection ended before a {kind}"));
            if let Some(message) = message(&text)
                && message["type"] == kind
            {
                return message;
            }
        }
    }
}
