//! What comes: bytes of the socket become messages, or pieces of messages. Knows no socket.
//!
//! A chunk is decoded where the socket put it: between the two there is no copy and no allocation, and masking is undone
//! in place.

use std::io::Cursor;
use std::ops::Range;

use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
use async_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::BUFFER;
use super::frame::{FIRST, Kind, MAX_HEADER, Role, Rules, check, mask_next};
use crate::protocol::MAX_FRAME;

/// Something that came. Ranges are to be looked up with [`Input::get`], before more is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A text message in one frame.
    Text(Range<usize>),
    /// A text message that came in several frames: see [`Input::joined`].
    Joined,
    /// One of its frames, and not the last.
    Part,
    Ping(Range<usize>),
    Pong,
    Close(Range<usize>),
}

/// Part of a message, as it came: the rest of its frame, or what is there of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What the message is.
    pub kind: Kind,
    /// The message begins with it.
    pub first: bool,
    /// The message ends with it.
    pub last: bool,
    /// Where its bytes are.
    pub(super) range: Range<usize>,
}

/// A piece, or a whole control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Piece(Piece),
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
    /// Bytes from `start` on that have to be there before anything can be handed out, as far as that is known.
    needed: usize,
    /// The frame whose payload begins at `start`.
    frame: Option<Open>,
    /// The message of which not all has been handed out.
    message: Option<Kind>,
    /// The frames so far of a message that comes in several.
    joined: Vec<u8>,
}

/// A frame whose header has been taken.
#[derive(Debug)]
struct Open {
    opcode: OpCode,
    is_final: bool,
    /// Turned to where the rest of the payload begins.
    key: Option<[u8; 4]>,
    left: u64,
    /// The message begins with it, and nothing of it was handed out.
    first: bool,
}

impl Input {
    /// With bytes that came behind the handshake.
    pub(super) fn new(role: Role, rest: &[u8]) -> Self {
        Self {
            role,
            buffer: rest.to_vec(),
            start: 0,
            end: rest.len(),
            needed: MAX_HEADER,
            frame: None,
            message: None,
            joined: Vec::new(),
        }
    }

    /// Where to read to, in a buffer of at most `limit` bytes; then [`filled`](Self::filled). There is space if
    /// `limit` is no less than [`needed`](Self::needed).
    ///
    /// A large frame is read to its end and not beyond, but for a header: what is behind it would have to be moved
    /// to the front. Small frames are read many at a time.
    pub(super) fn space(&mut self, limit: usize) -> &mut [u8] {
        let wanted = self.needed.max(BUFFER.min(limit));
        // What came filled it: there was more, whether or not what was there has been handed out meanwhile.
        let is_full = self.end == self.buffer.len();
        if self.start > 0 && (self.start == self.end || self.start + wanted > self.buffer.len()) {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let len = self.buffer.len();
        if is_full && len < wanted.max(FIRST) {
            self.buffer.resize((2 * len).clamp(FIRST, wanted.max(FIRST)), 0);
        }
        let limit = self.buffer.len().min(self.start + wanted);
        &mut self.buffer[self.end..limit]
    }

    /// That many bytes were read into [`space`](Self::space).
    pub(super) fn filled(&mut self, count: usize) {
        self.end += count;
    }

    /// How large the buffer has to be before the next thing can be handed out.
    pub(super) fn needed(&self) -> usize {
        self.needed
    }

    /// Nothing of a frame is there.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end && self.frame.is_none()
    }

    /// Bytes of memory in use, empty or not: of the buffer, and of a message that is put together.
    pub(super) fn capacity(&self) -> (usize, usize) {
        (self.buffer.capacity(), self.joined.capacity())
    }

    /// Gives back what is not in use.
    pub(super) fn shrink(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        self.buffer.truncate(self.end);
        self.buffer.shrink_to(FIRST);
        if self.message.is_none() {
            self.joined = Vec::new();
        }
    }

    /// Forgets what has come.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.role, &[]);
    }

    pub(super) fn get(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// The message of the last [`Incoming::Joined`], or as much of it as has come.
    pub(super) fn joined(&self) -> &[u8] {
        &self.joined
    }

    /// The next whole message, or control frame, if it is there. A binary one is taken as text: a gateway made it so. `Err`
    /// says which rule it breaks.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, String> {
        if self.message.is_none() {
            self.joined = Vec::new();
        }
        let rules = Rules::Messages { joined: self.joined.len() as u64, limit: MAX_FRAME as u64 };
        Ok(self.next_part(rules)?.map(|part| match part {
            Part::Ping(range) => Incoming::Ping(range),
            Part::Pong => Incoming::Pong,
            Part::Close(range) => Incoming::Close(range),
            Part::Piece(Piece { first: true, last: true, range, .. }) => Incoming::Text(range),
            Part::Piece(Piece { last, range, .. }) => {
                self.joined.extend_from_slice(&self.buffer[range]);
                if last { Incoming::Joined } else { Incoming::Part }
            }
        }))
    }

    /// The next piece of a message of any size, or control frame: as much of a frame as is there.
    pub(super) fn next_piece(&mut self) -> Result<Option<Part>, String> {
        self.next_part(Rules::Pieces)
    }

    fn next_part(&mut self, rules: Rules) -> Result<Option<Part>, String> {
        if self.frame.is_none() {
            self.frame = self.header(rules)?;
        }
        let Some(frame) = &mut self.frame else { return Ok(None) };
        let there = self.end - self.start;
        // What is to be handed out as a whole was checked to be no more than memory holds.
        let whole = matches!(rules, Rules::Messages { .. }) || matches!(frame.opcode, OpCode::Control(_));
        let wanted = if whole { frame.left as usize } else { usize::from(frame.left > 0) };
        if there < wanted {
            self.needed = wanted + MAX_HEADER;
            return Ok(None);
        }
        self.needed = MAX_HEADER;
        let taken = frame.left.min(there as u64) as usize;
        let range = self.start..self.start + taken;
        if let Some(key) = &mut frame.key {
            mask_next(&mut self.buffer[range.clone()], key);
        }
        self.start += taken;
        frame.left -= taken as u64;
        let (first, ended) = (std::mem::take(&mut frame.first), frame.left == 0);
        let (opcode, last) = (frame.opcode, ended && frame.is_final);
        if ended {
            self.frame = None;
        }
        Ok(Some(match opcode {
            OpCode::Control(Control::Ping) => Part::Ping(range),
            OpCode::Control(Control::Pong) => Part::Pong,
            OpCode::Control(_) => Part::Close(range),
            OpCode::Data(_) => {
                let kind = self.message.expect("a data frame was checked to belong to a message");
                if last {
                    self.message = None;
                }
                Part::Piece(Piece { kind, first, last, range })
            }
        }))
    }

    /// Takes the header of the next frame, if it is there.
    fn header(&mut self, rules: Rules) -> Result<Option<Open>, String> {
        let mut cursor = Cursor::new(&self.buffer[self.start..self.end]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|error| error.to_string())?;
        let Some((header, len)) = parsed else {
            self.needed = MAX_HEADER;
            return Ok(None);
        };
        check(&header, len, self.role, self.message, rules)?;
        let head = cursor.position() as usize;
        // 5.2: "the minimal number of bytes MUST be used to encode the length".
        if head != header.len(len) {
            return Err("a length that is longer than it has to be".to_owned());
        }
        self.start += head;
        let begins = match header.opcode {
            OpCode::Data(Data::Text) => Some(Kind::Text),
            OpCode::Data(Data::Binary) => Some(Kind::Binary),
            _ => None,
        };
        self.message = begins.or(self.message);
        let (opcode, is_final, key) = (header.opcode, header.is_final, header.mask);
        Ok(Some(Open { opcode, is_final, key, left: len, first: begins.is_some() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::output::{Gathered, Output};
    use proptest::prelude::*;

    /// Hands `wire` to an input in pieces of these lengths, over and over; calls `taken` until it finds nothing more.
    fn read(
        input: &mut Input,
        mut wire: &[u8],
        pieces: &[usize],
        mut taken: impl FnMut(&mut Input) -> Result<bool, String>,
    ) -> Result<(), String> {
        for piece in pieces.iter().cycle() {
            while taken(input)? {}
            if wire.is_empty() {
                break;
            }
            let space = input.space(usize::MAX);
            let count = (*piece).min(space.len()).min(wire.len());
            space[..count].copy_from_slice(&wire[..count]);
            input.filled(count);
            wire = &wire[count..];
        }
        Ok(())
    }

    /// The messages in `wire`, and pings and closing words.
    fn messages(input: &mut Input, wire: &[u8], pieces: &[usize]) -> Result<Vec<Vec<u8>>, String> {
        let mut messages = Vec::new();
        read(input, wire, pieces, |input| {
            match input.next()? {
                None => return Ok(false),
                Some(Incoming::Text(range) | Incoming::Ping(range) | Incoming::Close(range)) => {
                    messages.push(input.get(range).to_vec());
                }
                Some(Incoming::Joined) => messages.push(input.joined().to_vec()),
                Some(Incoming::Pong | Incoming::Part) => {}
            }
            Ok(true)
        })?;
        Ok(messages)
    }

    /// The messages in `wire`, put together from their pieces, and the pings between them.
    fn pieced(input: &mut Input, wire: &[u8], pieces: &[usize]) -> Result<Vec<(Kind, Vec<u8>)>, String> {
        let mut messages: Vec<(Kind, Vec<u8>)> = Vec::new();
        let mut is_within = false;
        read(input, wire, pieces, |input| {
            match input.next_piece()? {
                None => return Ok(false),
                Some(Part::Piece(Piece { kind, first, last, range })) => {
                    assert_ne!(first, is_within);
                    if first {
                        messages.push((kind, Vec::new()));
                    }
                    let message = messages.last_mut().expect("it has begun");
                    assert_eq!(message.0, kind);
                    message.1.extend_from_slice(input.get(range));
                    is_within = !last;
                }
                Some(_) => {}
            }
            Ok(true)
        })?;
        assert!(!is_within);
        Ok(messages)
    }

    fn written(output: &mut Output) -> Vec<u8> {
        let wire = output.pending().to_vec();
        output.wrote(wire.len());
        wire
    }

    fn other(role: Role) -> Role {
        if role == Role::Client { Role::Server } else { Role::Client }
    }

    /// How a message is sent.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Way {
        InOneFrame,
        InFragments,
        Gathered,
    }

    fn roles() -> impl Strategy<Value = Role> {
        prop_oneof![Just(Role::Client), Just(Role::Server)]
    }

    proptest! {
        #[test]
        fn however_the_bytes_come_the_messages_are_those_that_were_sent(
            role in roles(),
            lens in prop::collection::vec(prop_oneof![Just(125), Just(126), Just(65_535), Just(65_536), 0usize..300, 0usize..400_000], 1..6),
            pieces in prop::collection::vec(1usize..200_000, 1..5),
            rest in 0usize..40,
        ) {
            let mut output = Output::new(role);
            let sent: Vec<Vec<u8>> =
                lens.iter().map(|&len| (0..len).map(|i| b'a' + (i * 7 % 26) as u8).collect()).collect();
            for message in &sent {
                output.text(message.len(), |frame| frame.copy_from_slice(message));
            }
            let wire = written(&mut output);
            let rest = rest.min(wire.len());
            let mut input = Input::new(other(role), &wire[..rest]);
            prop_assert_eq!(messages(&mut input, &wire[rest..], &pieces).unwrap(), sent);
            prop_assert!(input.buffer.len() <= 2 * (400_000 + MAX_HEADER + BUFFER));
        }

        #[test]
        fn however_a_message_is_sent_and_comes_its_pieces_make_it(
            role in roles(),
            sent in prop::collection::vec((
                any::<bool>(),
                prop_oneof![Just(Way::InOneFrame), Just(Way::InFragments), Just(Way::Gathered)],
                prop::collection::vec(prop_oneof![0usize..200, 0usize..100_000], 1..5),
            ), 1..4),
            pieces in prop::collection::vec(prop_oneof![1usize..10, 1usize..200_000], 1..5),
        ) {
            let mut output = Output::new(role);
            let (mut expected, mut wire, mut gathered) = (Vec::new(), Vec::new(), Gathered::default());
            for (number, (is_text, way, parts)) in sent.into_iter().enumerate() {
                let kind = if is_text { Kind::Text } else { Kind::Binary };
                let len = parts.iter().sum::<usize>();
                let message: Vec<u8> = (0..len).map(|i| b'a' + ((i + number) * 7 % 26) as u8).collect();
                if way == Way::InOneFrame {
                    output.begin_message(kind, len as u64);
                }
                let mut rest = &message[..];
                for (at, &part) in parts.iter().enumerate() {
                    let (part, behind) = rest.split_at(part);
                    rest = behind;
                    let last = at + 1 == parts.len();
                    match way {
                        Way::InOneFrame => output.feed(part.len(), |frame| frame.copy_from_slice(part)),
                        Way::InFragments => {
                            output.fragment(kind, last, part.len(), |frame| frame.copy_from_slice(part));
                        }
                        Way::Gathered => {
                            let (some, more) = part.split_at(part.len() / 3);
                            gathered.extend(some);
                            gathered.extend(more);
                            output.gathered(kind, last, &mut gathered);
                        }
                    }
                    if way != Way::InOneFrame && !last {
                        output.control(Control::Ping, b"between");
                    }
                    // Every other time there is nothing else to be written.
                    if at % 2 == 0 {
                        wire.extend(written(&mut output));
                    }
                }
                expected.push((kind, message));
            }
            wire.extend(written(&mut output));
            let mut input = Input::new(other(role), &[]);
            prop_assert_eq!(pieced(&mut input, &wire, &pieces).unwrap(), expected);
            prop_assert!(input.buffer.len() <= 2 * BUFFER, "what is handed out as it comes needs no more");
        }

        #[test]
        fn arbitrary_bytes_never_panic(wire in prop::collection::vec(any::<u8>(), 0..400), piece in 1usize..50) {
            for role in [Role::Server, Role::Client] {
                let _ = messages(&mut Input::new(role, &[]), &wire, &[piece]);
                let _ = read(&mut Input::new(role, &[]), &wire, &[piece], |input| Ok(input.next_piece()?.is_some()));
            }
        }
    }

    #[test]
    fn a_length_that_is_announced_reserves_nothing() {
        let mut header = vec![0x81, 127];
        header.extend((MAX_FRAME as u64).to_be_bytes());
        let mut input = Input::new(Role::Client, &[]);
        assert_eq!(messages(&mut input, &header, &[1]), Ok(vec![]));
        assert!(input.space(usize::MAX).len() <= FIRST);
    }

    #[test]
    fn what_fills_the_space_finds_more_of_it_the_next_time() {
        let mut input = Input::new(Role::Client, &[]);
        let mut output = Output::new(Role::Server);
        output.text(20 * BUFFER, |frame| frame.fill(b'x'));
        let (mut wire, mut reads) = (&written(&mut output)[..], 0);
        while !wire.is_empty() {
            let space = input.space(BUFFER);
            let count = space.len().min(wire.len());
            space[..count].copy_from_slice(&wire[..count]);
            input.filled(count);
            (wire, reads) = (&wire[count..], reads + 1);
            while input.next_piece().unwrap().is_some() {}
        }
        assert!(reads <= 26, "{reads} reads");
        assert!(input.buffer.len() <= BUFFER);
    }

    #[test]
    fn a_large_frame_is_read_to_its_end_and_a_header_beyond() {
        let mut input = Input::new(Role::Client, &[]);
        let mut output = Output::new(Role::Server);
        output.text(500_000, |frame| frame.fill(b'x'));
        let wire = written(&mut output);
        let mut at = 0;
        while at < wire.len() {
            let space = input.space(usize::MAX);
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
