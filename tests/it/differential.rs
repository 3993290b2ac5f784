//! Our frame reader beside tungstenite's: the same bytes give the same messages and the same refusals, but for what is
//! listed in [`differ`]. Shared by the fuzz target and by the test that runs what it found.

use std::io::{Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message, WebSocket};
use futures::{AsyncRead, AsyncWrite};
use wsferry::protocol::MAX_FRAME;
use wsferry::transport::{Connection, Kind, TransportError};

/// Bytes that come a few at a time, and then no more; what is written goes nowhere.
struct Wire<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl Wire<'_> {
    fn some(&mut self, to: &mut [u8]) -> Option<usize> {
        let count = self.piece.min(to.len()).min(self.bytes.len());
        let (taken, rest) = self.bytes.split_at(count);
        to[..count].copy_from_slice(taken);
        self.bytes = rest;
        (count > 0).then_some(count)
    }
}

impl Read for Wire<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        self.some(to).ok_or(std::io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        Ok(from.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        self.some(to).map_or(Poll::Pending, |count| Poll::Ready(Ok(count)))
    }
}

impl AsyncWrite for Wire<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, from: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How reading ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// There is no more, and what is there is in order.
    Open,
    Closed(u16, String),
    Refused(String),
}

type Reading = (Vec<(Kind, Vec<u8>)>, End);

fn theirs(bytes: &[u8], piece: usize, is_client: bool) -> Reading {
    let role = if is_client { Role::Client } else { Role::Server };
    let config = WebSocketConfig::default().max_message_size(Some(MAX_FRAME)).max_frame_size(Some(MAX_FRAME));
    // It is cleared before each read.
    let config = config.read_buffer_size(1000);
    let mut socket = WebSocket::from_raw_socket(Wire { bytes, piece }, role, Some(config));
    let mut messages = Vec::new();
    let end = loop {
        match socket.read() {
            Ok(Message::Text(text)) => messages.push((Kind::Text, text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => messages.push((Kind::Binary, bytes.to_vec())),
            Ok(Message::Close(None)) => break End::Closed(1005, String::new()),
            Ok(Message::Close(Some(close))) => {
                break End::Closed(close.code.into(), close.reason.to_string());
            }
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => break End::Open,
            Err(error) => break End::Refused(error.to_string()),
        }
    };
    (messages, end)
}

/// The messages that our reader hands out, as a whole or put together from their pieces. The last one may not be whole.
fn ours(bytes: &[u8], piece: usize, is_client: bool, in_pieces: bool) -> (Reading, bool) {
    let mut connection = Connection::without_handshake(Wire { bytes, piece }, is_client);
    let cx = &mut Context::from_waker(Waker::noop());
    let mut messages: Vec<(Kind, Vec<u8>)> = Vec::new();
    let mut is_within = false;
    let mut idle = 0;
    let end = loop {
        let polled = if in_pieces {
            connection.poll_piece(cx).map_ok(Some)
        } else {
            connection.poll_receive(cx).map_ok(|message| {
                messages.push((Kind::Text, message.to_vec()));
                None
            })
        };
        match polled {
            Poll::Ready(Ok(Some(piece))) => {
                assert_ne!(piece.first, is_within, "a message begins where another has ended");
                if piece.first {
                    messages.push((piece.kind, Vec::new()));
                }
                messages.last_mut().expect("it has begun").1.extend_from_slice(connection.bytes(&piece));
                is_within = !piece.last;
            }
            Poll::Ready(Ok(None)) => {}
            // Many control frames in a row make it pause once.
            Poll::Pending if idle <= bytes.len() / 128 => idle += 1,
            Poll::Pending => break End::Open,
            Poll::Ready(Err(TransportError::Closed { code, reason, .. })) => break End::Closed(code, reason),
            Poll::Ready(Err(TransportError::Frame { why, .. })) => break End::Refused(why),
            Poll::Ready(Err(error)) => panic!("{error}"),
        }
    };
    ((messages, end), is_within)
}

/// Whether the two may end like this. Each difference has its place in RFC 6455.
fn differ(ours: &End, theirs: &End, unfinished: bool, in_pieces: bool) -> bool {
    let refused = |end: &End, words: &str| matches!(end, End::Refused(why) if why.contains(words));
    match (ours, theirs) {
        // 5.2: "the minimal number of bytes MUST be used to encode the length": tungstenite lets it pass.
        _ if refused(ours, "longer than it has to be") => true,
        // 7.1.7: what breaks a rule fails the connection: ours at the header, theirs where the frame is whole.
        (End::Refused(_), End::Open) => true,
        // Both refuse, each at the first rule that it looks at.
        (End::Refused(_), End::Refused(_)) => true,
        // 8.1: text that is not UTF-8. Ours is handed to who takes it for more than ASCII, as bytes, and goes on.
        (_, End::Refused(_)) if refused(theirs, "UTF-8") => !refused(ours, "UTF-8"),
        // 10.4: a limit is for the implementation to choose: pieces have none.
        (_, End::Refused(_)) if refused(theirs, "too long") => in_pieces,
        // 7.4: codes that must not stand in a frame, or that nobody has defined: theirs are reported as 1002, ours as
        // they came. 1014 was defined after tungstenite's list was made.
        (End::Closed(code, _), End::Closed(1002, why)) if why == "Protocol violation" => {
            matches!(code, 0..=999 | 1004..=1006 | 1014..=2999 | 5000..)
        }
        // Ours are made safe to print, and cut.
        (End::Closed(code, reason), End::Closed(their_code, their_reason)) => {
            code == their_code
                && (reason == their_reason || their_reason.chars().any(|c| !c.is_ascii_graphic()))
        }
        (ours, theirs) => ours == theirs && (in_pieces || !unfinished),
    }
}

/// The first byte says who reads and how many bytes come at a time; the others are what comes.
pub fn frame(data: &[u8]) {
    let Some((&how, bytes)) = data.split_first() else { return };
    let is_client = how & 1 == 1;
    let piece = [1, 2, 3, 7, 64, 1000, 5000, usize::MAX][usize::from(how >> 1 & 7)];
    let (mut their_messages, their_end) = theirs(bytes, piece, is_client);
    for in_pieces in [true, false] {
        if !in_pieces {
            // Not of the RFC: what a gateway made binary is taken as text.
            their_messages.iter_mut().for_each(|(kind, _)| *kind = Kind::Text);
        }
        let ((mut messages, end), unfinished) = ours(bytes, piece, is_client, in_pieces);
        if unfinished {
            messages.pop();
        }
        let told = || format!("ours {end:?} in_pieces {in_pieces}, theirs {their_end:?}");
        assert!(differ(&end, &their_end, unfinished, in_pieces), "{}", told());
        // One of them may have stopped before the other.
        let both = messages.len().min(their_messages.len());
        assert_eq!(messages[..both], their_messages[..both], "{}", told());
        match (&end, &their_end) {
            (_, End::Refused(why)) if why.contains("UTF-8") || why.contains("too long") => {}
            (End::Refused(_), _) => {
                assert!(their_messages.len() >= both && messages.len() == both, "{}", told())
            }
            _ => assert_eq!(messages.len(), their_messages.len(), "{}", told()),
        }
        if let Some((_, text)) = messages.get(both) {
            assert!(
                end != End::Open || std::str::from_utf8(text).is_err() || text.len() > MAX_FRAME,
                "{}",
                told()
            );
        }
    }
}

mod generated {
    use super::frame;

    /// A frame as `rng` likes it: mostly in order, now and then not.
    fn add_frame(wire: &mut Vec<u8>, rng: &mut fastrand::Rng, is_client: bool, within: &mut bool) {
        let odd = |rng: &mut fastrand::Rng| rng.u8(..40) == 0;
        let control = rng.u8(..4) == 0;
        let is_final = control || rng.bool();
        let opcode = match (control, *within) {
            _ if odd(rng) => rng.u8(..16),
            (true, _) => rng.choice([8, 9, 9, 9, 10, 10]).expect("there are some"),
            (false, true) => 0,
            (false, false) => rng.u8(1..3),
        };
        if !control {
            *within = !is_final;
        }
        let len = match rng.u8(..20) {
            _ if control => rng.usize(..126),
            0 => 65_536,
            1 => 125 + rng.usize(..3),
            2 => rng.usize(..70_000),
            _ => rng.usize(..40),
        };
        let mut payload: Vec<u8> = (0..len).map(|_| rng.u8(b' '..127)).collect();
        if opcode == 8 {
            let code =
                rng.choice([999, 1000, 1001, 1004, 1005, 1006, 1007, 1014, 1015, 2999, 3000, 4999, 5000]);
            let code: u16 = code.expect("there are some");
            payload.splice(..len.min(2), code.to_be_bytes());
            payload.truncate(if odd(rng) { rng.usize(..3) } else { 125 });
        }
        if odd(rng) && !payload.is_empty() {
            let at = rng.usize(..payload.len());
            payload[at] = rng.u8(..);
        } else if rng.u8(..8) == 0 {
            let text = "żółw🐢".as_bytes();
            payload.splice(..0, text[..rng.usize(..=text.len())].iter().copied());
            payload.truncate(if control { 125 } else { payload.len() });
        }
        wire.push(u8::from(is_final != odd(rng)) << 7 | if odd(rng) { rng.u8(..8) << 4 } else { 0 } | opcode);
        let masked = u8::from(is_client == odd(rng)) << 7;
        let len = payload.len() as u64;
        match len {
            0..126 if !odd(rng) => wire.push(masked | len as u8),
            0..65_536 if !odd(rng) => {
                wire.push(masked | 126);
                wire.extend((len as u16).to_be_bytes());
            }
            _ => {
                wire.push(masked | 127);
                wire.extend((if odd(rng) { len | rng.u64(..) << 32 } else { len }).to_be_bytes());
            }
        }
        if masked > 0 {
            let key: [u8; 4] = std::array::from_fn(|_| rng.u8(..));
            wire.extend(key);
            payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        }
        wire.extend(payload);
    }

    /// A stream as `seed` has it: frames in order, frames that are not, changed and cut, or any bytes.
    pub fn stream(seed: u64) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let how = rng.u8(..);
        let (is_client, mut within) = (how & 1 == 1, false);
        let mut wire = vec![how];
        if rng.u8(..10) == 0 {
            wire.extend((0..rng.usize(..200)).map(|_| rng.u8(..)));
            return wire;
        }
        for _ in 0..rng.usize(1..12) {
            add_frame(&mut wire, &mut rng, is_client, &mut within);
        }
        match rng.u8(..4) {
            0 => wire.truncate(1 + rng.usize(..wire.len())),
            1 => {
                let at = 1 + rng.usize(..(wire.len() - 1).min(200));
                wire[at] ^= 1 << rng.u8(..8);
            }
            _ => {}
        }
        wire
    }

    #[test]
    fn the_same_bytes_mean_the_same_to_another_reader() {
        for seed in 0..20_000 {
            let stream = stream(seed);
            let checked = std::panic::catch_unwind(|| frame(&stream));
            assert!(checked.is_ok(), "seed {seed}");
        }
    }

    #[test]
    fn most_of_what_is_generated_is_read_and_much_of_it_is_refused() {
        let mut ends = [0; 3];
        let mut read = 0;
        for seed in 0..2000 {
            let stream = stream(seed);
            let ((messages, end), _) = super::ours(&stream[1..], 1000, stream[0] & 1 == 1, true);
            read += messages.len();
            ends[match end {
                super::End::Open => 0,
                super::End::Closed(..) => 1,
                super::End::Refused(_) => 2,
            }] += 1;
        }
        assert!(read > 2000 && ends.iter().all(|&count| count > 100), "{read} messages, ends {ends:?}");
    }
}
