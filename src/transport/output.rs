//! What goes: messages, whole or in parts, become bytes for the socket. Knows no socket.
//!
//! A chunk is encoded where the socket takes it from: between the two there is no copy and no allocation, and masking
//! happens in place.

use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
use async_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::frame::{FIRST, Kind, MAX_CONTROL, MAX_HEADER, Role, mask_next};

/// What is to be written to the socket.
#[derive(Debug)]
pub(super) struct Output {
    role: Role,
    /// `buffer[written..filled]` is to be written. All of it is initialized.
    buffer: Vec<u8>,
    written: usize,
    filled: usize,
    /// Bytes that the frame which was begun still announces, and the key of the next.
    left: u64,
    key: Option<[u8; 4]>,
    /// A message in several frames was begun and not ended.
    is_within: bool,
}

/// The payload of a frame whose length is not known while it is gathered. It goes without being copied once more.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Behind space for the header.
    bytes: Vec<u8>,
}

impl Gathered {
    /// Adds bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.resize(MAX_HEADER, 0);
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn payload(&self) -> &[u8] {
        self.bytes.get(MAX_HEADER..).unwrap_or_default()
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.payload().len()
    }
}

impl Output {
    pub(super) fn new(role: Role) -> Self {
        Self { role, buffer: Vec::new(), written: 0, filled: 0, left: 0, key: None, is_within: false }
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

    /// Between two frames: only there may another one stand.
    pub(super) fn is_between_frames(&self) -> bool {
        self.left == 0
    }

    /// Bytes of memory in use, empty or not.
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gives back the buffer, if nothing is in it.
    pub(super) fn shrink(&mut self) {
        if self.pending().is_empty() {
            self.buffer.truncate(FIRST);
            self.buffer.shrink_to_fit();
        }
    }

    /// Adds a text frame of `len` bytes, which `fill` writes: all of them, in UTF-8.
    pub(super) fn text(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) {
        self.fragment(Kind::Text, true, len, fill);
    }

    /// Adds a frame of a message: the message's only one or its last, or one that others follow.
    pub(super) fn fragment(&mut self, kind: Kind, last: bool, len: usize, fill: impl FnOnce(&mut [u8])) {
        let opcode = self.opcode(kind, last);
        self.begin(opcode, last, len as u64, len);
        self.feed(len, fill);
    }

    /// As [`fragment`](Self::fragment), of all that was gathered. Where nothing else is to be written the two change their
    /// memory, and nothing is copied.
    pub(super) fn gathered(&mut self, kind: Kind, last: bool, gathered: &mut Gathered) {
        let len = gathered.len();
        if !self.pending().is_empty() || len == 0 {
            self.fragment(kind, last, len, |frame| frame.copy_from_slice(gathered.payload()));
        } else {
            let opcode = self.opcode(kind, last);
            let (header, head) = self.header(opcode, last, len as u64);
            std::mem::swap(&mut self.buffer, &mut gathered.bytes);
            (self.written, self.filled) = (MAX_HEADER - head, self.buffer.len());
            self.buffer[self.written..MAX_HEADER].copy_from_slice(&header[..head]);
            self.mask(MAX_HEADER, len);
        }
        gathered.bytes.clear();
    }

    /// Begins the one frame of a message: its bytes come with [`feed`](Self::feed), and nothing else before all of them
    /// have.
    pub(super) fn begin_message(&mut self, kind: Kind, len: u64) {
        self.begin(OpCode::Data(kind.into()), true, len, 0);
    }

    /// Adds a control frame.
    pub(super) fn control(&mut self, kind: Control, payload: &[u8]) {
        let payload = &payload[..payload.len().min(MAX_CONTROL)];
        self.begin(OpCode::Control(kind), true, payload.len() as u64, payload.len());
        self.feed(payload.len(), |frame| frame.copy_from_slice(payload));
    }

    fn opcode(&mut self, kind: Kind, last: bool) -> OpCode {
        let data = if self.is_within { Data::Continue } else { kind.into() };
        self.is_within = !last;
        OpCode::Data(data)
    }

    /// Adds a header, with space for `soon` bytes behind it.
    fn begin(&mut self, opcode: OpCode, is_final: bool, len: u64, soon: usize) {
        let (header, head) = self.header(opcode, is_final, len);
        self.make_space(head + soon);
        self.buffer[self.filled..self.filled + head].copy_from_slice(&header[..head]);
        self.filled += head;
    }

    /// The header of the next frame, and how long it is.
    fn header(&mut self, opcode: OpCode, is_final: bool, len: u64) -> ([u8; MAX_HEADER], usize) {
        assert!(self.is_between_frames(), "a frame is ended before the next is begun");
        let mask = (self.role == Role::Client).then(rand::random);
        let header = FrameHeader { opcode, is_final, mask, ..FrameHeader::default() };
        let mut bytes = [0; MAX_HEADER];
        header.format(len, &mut &mut bytes[..]).expect("there is space for the longest header");
        (self.left, self.key) = (len, mask);
        (bytes, header.len(len))
    }

    /// Adds the next `len` bytes of the frame that was begun, which `fill` writes.
    pub(super) fn feed(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) {
        assert!(len as u64 <= self.left, "a frame has no more bytes than it announced");
        self.make_space(len);
        fill(&mut self.buffer[self.filled..self.filled + len]);
        self.mask(self.filled, len);
        self.filled += len;
    }

    /// Masks the next bytes of the frame that was begun, which are at `start`.
    fn mask(&mut self, start: usize, len: usize) {
        if let Some(key) = &mut self.key {
            mask_next(&mut self.buffer[start..start + len], key);
        }
        self.left -= len as u64;
    }

    fn make_space(&mut self, len: usize) {
        if self.buffer.len() < self.filled + len {
            // What is written makes room first: a peer that always leaves a little unread shall not cost more than that.
            self.buffer.copy_within(self.written..self.filled, 0);
            (self.written, self.filled) = (0, self.filled - self.written);
        }
        if self.buffer.len() < self.filled + len {
            self.buffer.resize(self.filled + len, 0);
        }
    }
}
