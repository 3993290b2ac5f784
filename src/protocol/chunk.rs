//! The chunk frame: a fixed-width ASCII header, then the bytes in Base64; or, for a run of zeros, their number.
//!
//! ```text
//! C 00000007 00000000002a 00000000300000 9f1c2ab0 aGVsbG8gd29ybGQ...
//! Z 00000007 00000000002b 00000000600000 51d0a17e 00000040000000
//!   transfer sequence     offset         CRC-32   body, or how many zeros
//! ```

use super::codec::{Decoder, Encoder, TILE};

/// The characters of the header: kind, transfer, sequence number, offset, CRC-32, a space behind each. They are a multiple of
/// 16, which a body behind them likes.
pub const HEADER_LEN: usize = CRC_AT + 8 + 1;
/// The first character of every chunk frame.
pub const KIND: u8 = b'C';
/// The first character of every frame that stands for a run of zeros.
pub const ZEROS_KIND: u8 = b'Z';
/// The characters of a frame that stands for a run of zeros.
pub const ZEROS_LEN: usize = HEADER_LEN + OFFSET_DIGITS;
/// The most blocks of one run of zeros: what a frame makes its receiver do has a bound.
pub const MAX_ZERO_BLOCKS: u64 = 1024;
/// The largest sequence number: 12 hexadecimal digits.
pub const MAX_SEQUENCE: u64 = (1 << 48) - 1;

/// The number of no transfer: what comes under it is verified, acknowledged and thrown away. It measures a path.
pub const NO_TRANSFER: u32 = u32::MAX;

const TRANSFER_AT: usize = 2;
const TRANSFER_DIGITS: usize = 8;
const SEQUENCE_AT: usize = TRANSFER_AT + TRANSFER_DIGITS + 1;
const SEQUENCE_DIGITS: usize = 12;
const OFFSET_AT: usize = SEQUENCE_AT + SEQUENCE_DIGITS + 1;
const OFFSET_DIGITS: usize = 14;
const CRC_AT: usize = OFFSET_AT + OFFSET_DIGITS + 1;

/// What a frame that carries a part of a file says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The transfer's number.
    pub transfer: u32,
    /// Which of the connection's chunk frames this is, from 0.
    pub sequence: u64,
    /// Where the bytes begin in the file.
    pub offset: u64,
}

/// A chunk frame, checked against its CRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Which bytes.
    pub header: Header,
    /// How many there are.
    pub len: usize,
}

/// A run of zeros, checked against its CRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zeros {
    /// Which bytes.
    pub header: Header,
    /// How many there are.
    pub len: u64,
}

/// Why a chunk frame could not be read. Each of them is what damage on the way looks like, so each is
/// answered with a `nak`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The frame ends inside the header, or carries no bytes.
    #[error("a chunk frame has {0} characters, at least {min} are expected", min = HEADER_LEN + 4)]
    TooShort(usize),
    /// The frame is longer than any block.
    #[error("a chunk frame has {0} characters, at most {max} are allowed", max = super::geometry::MAX_FRAME)]
    TooLong(usize),
    /// A frame that stands for a run of zeros has another length than all of them.
    #[error("a run of zeros has {0} characters, {ZEROS_LEN} are expected")]
    ZerosLen(usize),
    /// A header character is not what the layout asks for.
    #[error("the chunk header has an unexpected character at {0}")]
    Header(usize),
    /// The body is not canonical Base64.
    #[error("the chunk's body is not canonical Base64")]
    Body,
    /// The CRC-32 of header fields and bytes is not the header's.
    #[error("the chunk's CRC-32 is {computed:08x}, its header says {stated:08x}")]
    Crc {
        /// What the header says.
        stated: u32,
        /// What the bytes give.
        computed: u32,
    },
}

/// The characters of a chunk frame that carries `len` bytes.
pub const fn frame_len(len: usize) -> usize {
    HEADER_LEN + len.div_ceil(3) * 4
}

/// Writes a chunk frame into `frame`, which must have exactly [`frame_len`]`(bytes.len())` characters.
///
/// # Panics
/// If the frame's length is another, or a header field does not fit its digits.
pub fn encode(fields: Header, bytes: &[u8], frame: &mut [u8]) {
    assert_eq!(frame.len(), frame_len(bytes.len()), "the frame's length follows from the bytes'");
    let (header, body) = frame.split_at_mut(HEADER_LEN);
    begin_header(KIND, fields, header);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..CRC_AT]);
    let mut encoder = Encoder::default();
    let mut written = 0;
    for bytes in bytes.chunks(TILE / 4 * 3) {
        crc.update(bytes);
        written += encoder.feed(bytes, &mut body[written..]);
    }
    written += encoder.finish(&mut body[written..]);
    debug_assert_eq!(written, body.len());
    write_hex(u64::from(crc.finalize()), &mut header[CRC_AT..][..8]);
}

/// Reads a chunk frame; its bytes are the first [`Chunk::len`] of `bytes`, which grows to what the frame needs.
pub fn decode(frame: &[u8], bytes: &mut Vec<u8>) -> Result<Chunk, ChunkError> {
    if frame.len() < HEADER_LEN + 4 {
        return Err(ChunkError::TooShort(frame.len()));
    }
    if frame.len() > super::geometry::MAX_FRAME {
        return Err(ChunkError::TooLong(frame.len()));
    }
    let (header, body) = frame.split_at(HEADER_LEN);
    let (fields, stated) = read_header(KIND, header)?;
    let room = Decoder::room(body.len());
    if bytes.len() < room {
        bytes.resize(room, 0);
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..CRC_AT]);
    let mut decoder = Decoder::strict();
    let mut len = 0;
    for text in body.chunks(TILE) {
        let written = decoder.feed(text, &mut bytes[len..room]).map_err(|_| ChunkError::Body)?;
        crc.update(&bytes[len..len + written]);
        len += written;
    }
    decoder.finish().map_err(|_| ChunkError::Body)?;
    let computed = crc.finalize();
    if stated != computed {
        return Err(ChunkError::Crc { stated, computed });
    }
    Ok(Chunk { header: fields, len })
}

/// The frame that stands for a run of zeros.
///
/// # Panics
/// If a field does not fit its digits.
pub fn encode_zeros(zeros: Zeros) -> [u8; ZEROS_LEN] {
    let mut frame = [0; ZEROS_LEN];
    let (header, body) = frame.split_at_mut(HEADER_LEN);
    begin_header(ZEROS_KIND, zeros.header, header);
    write_hex(zeros.len, body);
    let crc = zeros_crc(header, body);
    write_hex(u64::from(crc), &mut header[CRC_AT..][..8]);
    frame
}

/// Reads a frame that stands for a run of zeros.
pub fn decode_zeros(frame: &[u8]) -> Result<Zeros, ChunkError> {
    if frame.len() != ZEROS_LEN {
        return Err(ChunkError::ZerosLen(frame.len()));
    }
    let (header, body) = frame.split_at(HEADER_LEN);
    let (fields, stated) = read_header(ZEROS_KIND, header)?;
    let len = read_hex(frame, HEADER_LEN, OFFSET_DIGITS)?;
    let computed = zeros_crc(header, body);
    if stated != computed {
        return Err(ChunkError::Crc { stated, computed });
    }
    Ok(Zeros { header: fields, len })
}

fn zeros_crc(header: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..CRC_AT]);
    crc.update(body);
    crc.finalize()
}

/// All of the header but its CRC.
fn begin_header(kind: u8, fields: Header, header: &mut [u8]) {
    let Header { transfer, sequence, offset } = fields;
    header.fill(b' ');
    header[0] = kind;
    write_hex(transfer.into(), &mut header[TRANSFER_AT..][..TRANSFER_DIGITS]);
    write_hex(sequence, &mut header[SEQUENCE_AT..][..SEQUENCE_DIGITS]);
    write_hex(offset, &mut header[OFFSET_AT..][..OFFSET_DIGITS]);
}

/// The fields of a header, and its CRC-32.
fn read_header(kind: u8, header: &[u8]) -> Result<(Header, u32), ChunkError> {
    for at in [TRANSFER_AT - 1, SEQUENCE_AT - 1, OFFSET_AT - 1, CRC_AT - 1, HEADER_LEN - 1] {
        if header[at] != b' ' {
            return Err(ChunkError::Header(at));
        }
    }
    if header[0] != kind {
        return Err(ChunkError::Header(0));
    }
    let transfer = read_hex(header, TRANSFER_AT, TRANSFER_DIGITS)? as u32;
    let sequence = read_hex(header, SEQUENCE_AT, SEQUENCE_DIGITS)?;
    let offset = read_hex(header, OFFSET_AT, OFFSET_DIGITS)?;
    let stated = read_hex(header, CRC_AT, 8)? as u32;
    Ok((Header { transfer, sequence, offset }, stated))
}

pub(super) fn write_hex(mut value: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
    assert_eq!(value, 0, "a header field fits its digits");
}

/// Lower-case digits alone: a frame has one spelling.
pub(super) fn read_hex(header: &[u8], at: usize, digits: usize) -> Result<u64, ChunkError> {
    let mut value = 0;
    for (at, &digit) in header.iter().enumerate().skip(at).take(digits) {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return Err(ChunkError::Header(at)),
        };
        value = value << 4 | u64::from(nibble);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use proptest::prelude::*;

    fn frame(transfer: u32, sequence: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; frame_len(bytes.len())];
        encode(Header { transfer, sequence, offset }, bytes, &mut frame);
        frame
    }

    /// The same frame, the plain way.
    fn naive(transfer: u32, sequence: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
        let fields = format!("C {transfer:08x} {sequence:012x} {offset:014x} ");
        let mut crc = crc32fast::Hasher::new();
        crc.update(fields.as_bytes());
        crc.update(bytes);
        format!("{fields}{:08x} {}", crc.finalize(), STANDARD.encode(bytes)).into_bytes()
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let good = frame(5, 7, 300, b"any bytes at all");
        let mut bytes = Vec::new();
        assert!(decode(&good, &mut bytes).is_ok());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad, &mut bytes).is_err(), "bit {bit} flipped and nobody noticed");
        }
    }

    #[test]
    fn a_frame_cut_anywhere_or_with_trailing_bytes_is_refused() {
        let good = frame(5, 7, 300, b"any bytes at all");
        let mut bytes = Vec::new();
        for len in 0..good.len() {
            assert!(decode(&good[..len], &mut bytes).is_err(), "cut to {len}");
        }
        for tail in ["A", "=", "\n", " ", "AAAA", "===="] {
            assert!(decode(&[&good, tail.as_bytes()].concat(), &mut bytes).is_err(), "tail {tail:?}");
        }
    }

    #[test]
    fn padding_ends_the_body_also_where_the_decoder_makes_a_pause() {
        let bytes: Vec<u8> = (0..30_000).map(|i| (i * 7) as u8).collect();
        for first in [TILE / 4 * 3 - 2, TILE / 4 * 3 - 1, TILE / 4 * 3] {
            // The right header, and bodies one behind the other that give the right bytes.
            let header = &frame(5, 7, 300, &bytes)[..HEADER_LEN];
            let bodies = STANDARD.encode(&bytes[..first]) + &STANDARD.encode(&bytes[first..]);
            let decoded = decode(&[header, bodies.as_bytes()].concat(), &mut Vec::new());
            assert_eq!(decoded.err(), (first % 3 > 0).then_some(ChunkError::Body), "{first} bytes");
        }
    }

    #[test]
    fn the_header_has_48_characters() {
        const { assert!(HEADER_LEN == 48) };
    }

    proptest! {
        #[test]
        fn the_fast_frame_is_the_plain_frame_and_reads_back(
            transfer: u32, sequence in 0..=MAX_SEQUENCE, offset in 0u64..1 << 56, byte: u8, len in prop_oneof![1..2000usize, 1..60_000usize],
        ) {
            let bytes: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(byte)).collect();
            let frame = frame(transfer, sequence, offset, &bytes);
            prop_assert_eq!(&frame, &naive(transfer, sequence, offset, &bytes));
            let mut decoded = Vec::new();
            let chunk = decode(&frame, &mut decoded).unwrap();
            prop_assert_eq!(chunk, Chunk { header: Header { transfer, sequence, offset }, len: bytes.len() });
            prop_assert_eq!(&decoded[..chunk.len], &bytes[..]);
        }

        #[test]
        fn arbitrary_text_never_panics(frame in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&frame, &mut Vec::new());
        }
    }
}
