//! RFC 6455's frames: bytes of the socket become messages, messages become bytes. Knows no socket.
//!
//! A chunk is encoded where the socket takes it from and decoded where the socket put it: between the two there is
//! no copy, no allocation, and masking happens in place.

use std::io::Cursor;
use std::ops::Range;

use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
use async_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::BUFFER;
use crate::protocol::MAX_FRAME;

/// The longest header: flags and opcode, 64 bits of length, the mask.
const MAX_HEADER: usize = 14;
/// The longest payload of a control frame.
const MAX_CONTROL: usize = 125;
/// Bytes that a connection begins with; it grows with what comes, not with what is announced.
const FIRST: usize = 4096;

/// Which side of the connection this is. A client masks what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

/// Something that came. Ranges are to be looked up with [`Input::get`], before more is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A text message in one frame.
    Text(Range<usize>),
    /// A text message that came in several frames: see [`Input::joined`].
    Joined,
    /// One of its frames, and not the last.
    Piece,
    Ping(Range<usize>),
    Pong,
    Close(Range<usize>),
}

/// What has come and has not been taken.
#[derive(Debug)]
pub(super) struct Input {
    role: Role,
    /// `buffer[start..end]` has come. All of it is initialized, so that nothing is cleared twice.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes from `start` on that the frame there needs, as far as that is known.
    needed: usize,
    /// The frames so far of a message that comes in several.
    joined: Vec<u8>,
    is_joining: bool,
}

impl Input {
    /// With bytes that came behind the handshake.
    pub(super) fn new(role: Role, rest: &[u8]) -> Self {
        let (buffer, end) = (rest.to_vec(), rest.len());
        Self { role, buffer, start: 0, end, needed: MAX_HEADER, joined: Vec::new(), is_joining: false }
    }

    /// Where to read to; then [`filled`](Self::filled).
    ///
    /// A large frame is read to its end and not beyond, but for a header: what is behind it would have to be moved
    /// to the front. Small frames are read many at a time.
    pub(super) fn space(&mut self) -> &mut [u8] {
        let wanted = self.needed.max(BUFFER);
        if self.start > 0 && (self.start == self.end || self.start + wanted > self.buffer.len()) {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize((2 * self.end).clamp(FIRST, wanted), 0);
        }
        let limit = self.buffer.len().min(self.start + wanted);
        &mut self.buffer[self.end..limit]
    }

    /// That many bytes were read into [`space`](Self::space).
    pub(super) fn filled(&mut self, count: usize) {
        self.end += count;
    }

    pub(super) fn get(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// The message of the last [`Incoming::Joined`].
    pub(super) fn joined(&self) -> &[u8] {
        &self.joined
    }

    /// The next frame, or message, if it is there as a whole. `Err` says which rule it breaks.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, String> {
        if !self.is_joining {
            self.joined = Vec::new();
        }
        let Some((header, payload)) = self.next_frame()? else { return Ok(None) };
        Ok(Some(match header.opcode {
            OpCode::Control(Control::Ping) => Incoming::Ping(payload),
            OpCode::Control(Control::Pong) => Incoming::Pong,
            OpCode::Control(_) => Incoming::Close(payload),
            OpCode::Data(_) if header.is_final && !self.is_joining => Incoming::Text(payload),
            OpCode::Data(_) => {
                self.joined.extend_from_slice(&self.buffer[payload]);
                self.is_joining = !header.is_final;
                if header.is_final { Incoming::Joined } else { Incoming::Piece }
            }
        }))
    }

    fn next_frame(&mut self) -> Result<Option<(FrameHeader, Range<usize>)>, String> {
        let bytes = &self.buffer[self.start..self.end];
        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|error| error.to_string())?;
        let Some((header, len)) = parsed else {
            self.needed = MAX_HEADER;
            return Ok(None);
        };
        self.check(&header, len)?;
        let head = cursor.position() as usize;
        if head != header.len(len) {
            return Err("a length that is longer than it has to be".to_owned());
        }
        let total = head + len as usize;
        if bytes.len() < total {
            self.needed = total + MAX_HEADER;
            return Ok(None);
        }
        let payload = self.start + head..self.start + total;
        if let Some(key) = header.mask {
            apply_mask(&mut self.buffer[payload.clone()], key);
        }
        self.start += total;
        self.needed = MAX_HEADER;
        Ok(Some((header, payload)))
    }

    /// The rules, judged by the header alone: a frame that breaks one is not waited for.
    fn check(&self, header: &FrameHeader, len: u64) -> Result<(), String> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err("a frame with reserved bits".to_owned());
        }
        match (self.role, header.mask) {
            (Role::Client, None) | (Role::Server, Some(_)) => {}
            (Role::Client, Some(_)) => return Err("a masked frame from a server".to_owned()),
            (Role::Server, None) => return Err("an unmasked frame from a client".to_owned()),
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final => Err("a control frame in pieces".to_owned()),
            OpCode::Control(_) if len > MAX_CONTROL as u64 => {
                Err(format!("a control frame of {len} bytes, at most {MAX_CONTROL} are allowed"))
            }
            OpCode::Control(_) => Ok(()),
            OpCode::Data(Data::Binary) => Err("a binary frame".to_owned()),
            OpCode::Data(Data::Text) if self.is_joining => {
                Err("a message within a message in pieces".to_owned())
            }
            OpCode::Data(Data::Continue) if !self.is_joining => {
                Err("the continuation of no message".to_owned())
            }
            OpCode::Data(_) => {
                let before = if self.is_joining { self.joined.len() as u64 } else { 0 };
                match before.saturating_add(len) {
                    size if size > MAX_FRAME as u64 => {
                        Err(format!("a message of {size} bytes, at most {MAX_FRAME} are allowed"))
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

/// What is to be written to the socket.
#[derive(Debug)]
pub(super) struct Output {
    role: Role,
    /// `buffer[written..filled]` is to be written. All of it is initialized.
    buffer: Vec<u8>,
    written: usize,
    filled: usize,
}

impl Output {
    pub(super) fn new(role: Role) -> Self {
        Self { role, buffer: Vec::new(), written: 0, filled: 0 }
    }

    /// What is to be written; then [`wrote`](Self::wrote).
    pub(super) fn pending(&self) -> &[u8] {
        &self.buffer[self.written..self.filled]
    }

    /// That many bytes of [`pending`](Self::pending) were written.
    pub(super) fn wrote(&mut self, count: usize) {
        self.written += count;
        if self.written == self.filled {
            (self.written, self.filled) = (0, 0);
        }
    }

    /// Adds a text frame of `len` bytes, which `fill` writes: all of them, in UTF-8.
    pub(super) fn text(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) {
        self.frame(OpCode::Data(Data::Text), len, fill);
    }

    /// Adds a control frame.
    pub(super) fn control(&mut self, kind: Control, payload: &[u8]) {
        let payload = &payload[..payload.len().min(MAX_CONTROL)];
        self.frame(OpCode::Control(kind), payload.len(), |frame| frame.copy_from_slice(payload));
    }

    fn frame(&mut self, opcode: OpCode, len: usize, fill: impl FnOnce(&mut [u8])) {
        let mask = (self.role == Role::Client).then(rand::random);
        let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
        let size = header.len(len as u64) + len;
        if self.buffer.len() < self.filled + size {
            // What is written makes room first: a peer that always leaves a little unread shall not cost more than that.
            self.buffer.copy_within(self.written..self.filled, 0);
            (self.written, self.filled) = (0, self.filled - self.written);
        }
        let end = self.filled + size;
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        let (mut head, payload) = self.buffer[self.filled..end].split_at_mut(header.len(len as u64));
        header.format(len as u64, &mut head).expect("a slice of the header's length takes the header");
        fill(payload);
        if let Some(key) = mask {
            apply_mask(payload, key);
        }
        self.filled = end;
    }
}

/// Masks, or unmasks.
fn apply_mask(payload: &mut [u8], key: [u8; 4]) {
    // As wide as vector registers get: it is the compiler that makes vectors of it, of those that this machine has.
    let wide: [u8; 64] = std::array::from_fn(|i| key[i % 4]);
    pulp::Arch::new().dispatch(|| {
        let (words, rest) = payload.as_chunks_mut::<64>();
        for word in words {
            word.iter_mut().zip(wide).for_each(|(byte, key)| *byte ^= key);
        }
        for (byte, key) in rest.iter_mut().zip(key.into_iter().cycle()) {
            *byte ^= key;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Hands `wire` to an input in pieces of these lengths, over and over; gives the messages that come out.
    fn read(input: &mut Input, mut wire: &[u8], pieces: &[usize]) -> Result<Vec<Vec<u8>>, String> {
        let mut messages = Vec::new();
        for piece in pieces.iter().cycle() {
            while let Some(incoming) = input.next()? {
                messages.push(match incoming {
                    Incoming::Text(range) | Incoming::Ping(range) | Incoming::Close(range) => {
                        input.get(range).to_vec()
                    }
                    Incoming::Joined => input.joined().to_vec(),
                    Incoming::Pong => b"pong".to_vec(),
                    Incoming::Piece => continue,
                });
            }
            if wire.is_empty() {
                break;
            }
            let space = input.space();
            let count = (*piece).min(space.len()).min(wire.len());
            space[..count].copy_from_slice(&wire[..count]);
            input.filled(count);
            wire = &wire[count..];
        }
        Ok(messages)
    }

    fn written(output: &mut Output) -> Vec<u8> {
        let wire = output.pending().to_vec();
        output.wrote(wire.len());
        wire
    }

    proptest! {
        #[test]
        fn however_the_bytes_come_the_messages_are_those_that_were_sent(
            role in prop_oneof![Just(Role::Client), Just(Role::Server)],
            lens in prop::collection::vec(prop_oneof![Just(125), Just(126), Just(65_535), Just(65_536), 0usize..300, 0usize..400_000], 1..6),
            pieces in prop::collection::vec(1usize..200_000, 1..5),
            rest in 0usize..40,
        ) {
            let mut output = Output::new(role);
            let messages: Vec<Vec<u8>> =
                lens.iter().map(|&len| (0..len).map(|i| b'a' + (i * 7 % 26) as u8).collect()).collect();
            for message in &messages {
                output.text(message.len(), |frame| frame.copy_from_slice(message));
            }
            let wire = written(&mut output);
            let rest = rest.min(wire.len());
            let other = if role == Role::Client { Role::Server } else { Role::Client };
            let mut input = Input::new(other, &wire[..rest]);
            prop_assert_eq!(read(&mut input, &wire[rest..], &pieces).unwrap(), messages);
            prop_assert!(input.buffer.len() <= 2 * (400_000 + MAX_HEADER + BUFFER));
        }

        #[test]
        fn arbitrary_bytes_never_panic(wire in prop::collection::vec(any::<u8>(), 0..400), piece in 1usize..50) {
            let _ = read(&mut Input::new(Role::Server, &[]), &wire, &[piece]);
            let _ = read(&mut Input::new(Role::Client, &[]), &wire, &[piece]);
        }

        #[test]
        fn a_mask_applied_twice_is_gone(bytes in prop::collection::vec(any::<u8>(), 0..300), key: [u8; 4]) {
            let mut masked = bytes.clone();
            apply_mask(&mut masked, key);
            let plain: Vec<u8> = bytes.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            prop_assert_eq!(&masked, &plain);
            apply_mask(&mut masked, key);
            prop_assert_eq!(masked, bytes);
        }
    }

    #[test]
    fn a_length_that_is_announced_reserves_nothing() {
        let mut input = Input::new(Role::Client, &[]);
        let mut header = vec![0x81, 127];
        header.extend((MAX_FRAME as u64).to_be_bytes());
        assert_eq!(read(&mut input, &header, &[1]), Ok(vec![]));
        assert!(input.space().len() + header.len() <= FIRST);
    }

    #[test]
    fn a_large_frame_is_read_to_its_end_and_a_header_beyond() {
        let mut input = Input::new(Role::Client, &[]);
        let mut output = Output::new(Role::Server);
        output.text(500_000, |frame| frame.fill(b'x'));
        let wire = written(&mut output);
        let mut at = 0;
        while at < wire.len() {
            let space = input.space();
            assert!(space.len() <= wire.len() - at + MAX_HEADER || at < 10);
            let count = space.len().min(wire.len() - at);
            space[..count].copy_from_slice(&wire[at..at + count]);
            input.filled(count);
            at += count;
            let _ = input.next();
        }
        assert_eq!(input.start, input.end, "nothing is left to be moved");
    }
}
