//! Base64 in parts: a text is decoded as it comes and encoded as it is made, whatever the parts' lengths.
//!
//! RFC 4648's standard alphabet, canonical: bits that stand for nothing are zero.

use base64_turbo::STANDARD as BASE64;

/// Characters coded at a time, so that what they stand for is found in the nearest cache.
pub(super) const TILE: usize = 16 * 1024;

const PAD: u8 = b'=';
const NONE: u8 = 0xff;
/// What each character stands for.
const VALUES: [u8; 256] = {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut values = [NONE; 256];
    let mut value = 0;
    while value < 64 {
        values[alphabet[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// The first character that cannot stand where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    /// It is no Base64, or padding where no text can end, or something behind the padding.
    #[error("{found} at offset {offset} is no Base64 there", found = printable(*.found))]
    Character {
        /// How many characters are before it.
        offset: u64,
        /// What is there instead.
        found: u8,
    },
    /// The text ends in the middle of a byte.
    #[error("the Base64 ends at offset {offset} in the middle of a byte")]
    End {
        /// How many characters there are.
        offset: u64,
    },
}

impl BadText {
    /// How many good characters there are.
    pub fn offset(&self) -> u64 {
        match self {
            Self::Character { offset, .. } | Self::End { offset } => *offset,
        }
    }
}

fn printable(byte: u8) -> String {
    if byte.is_ascii_graphic() { format!("{:?}", char::from(byte)) } else { format!("the byte 0x{byte:02x}") }
}

/// Decodes a text that comes in parts.
#[derive(Debug)]
pub struct Decoder {
    /// Without padding, and with white space anywhere, it is a text too.
    lenient: bool,
    /// The characters so far.
    offset: u64,
    /// Values of the group that has begun, and how much padding it has.
    values: [u8; 4],
    filled: usize,
    pads: usize,
    ended: bool,
}

impl Decoder {
    /// Takes padded text alone.
    pub fn strict() -> Self {
        Self { lenient: false, offset: 0, values: [0; 4], filled: 0, pads: 0, ended: false }
    }

    /// Takes text with or without padding, and with ASCII white space anywhere.
    pub fn lenient() -> Self {
        Self { lenient: true, ..Self::strict() }
    }

    /// The most bytes that [`feed`](Self::feed) makes of so many characters.
    pub const fn room(text: usize) -> usize {
        text.div_ceil(4) * 3 + 3
    }

    /// Decodes the next characters into `bytes`, which has [`room`](Self::room) for them; how many bytes they gave.
    pub fn feed(&mut self, mut text: &[u8], bytes: &mut [u8]) -> Result<usize, BadText> {
        let mut written = 0;
        while !text.is_empty() {
            let mut len = text.len().min(TILE);
            if self.filled > 0 {
                // To the end of the group that has begun.
                len = len.min(4 - self.filled);
            } else if !self.ended && len >= 4 {
                // Whole groups that are nothing but Base64 are decoded at once; all else character by character.
                let groups = len & !3;
                if let Ok(count) = BASE64.decode_slice(&text[..groups], &mut bytes[written..]) {
                    self.offset += groups as u64;
                    self.ended = count < groups / 4 * 3;
                    written += count;
                    text = &text[groups..];
                    continue;
                }
            }
            let (now, rest) = text.split_at(len);
            text = rest;
            for &character in now {
                written += self.take(character, &mut bytes[written..])?;
            }
        }
        Ok(written)
    }

    /// The text ends here: the bytes of a last group without padding, and how many they are.
    pub fn finish(mut self) -> Result<([u8; 2], usize), BadText> {
        let mut bytes = [0; 3];
        let len = match (self.filled, self.pads) {
            (0, _) => 0,
            (2 | 3, 0) if self.lenient && self.can_end() => self.end_group(&mut bytes),
            _ => return Err(BadText::End { offset: self.offset }),
        };
        Ok(([bytes[0], bytes[1]], len))
    }

    /// Takes one character; how many bytes it completes.
    fn take(&mut self, character: u8, bytes: &mut [u8]) -> Result<usize, BadText> {
        let offset = self.offset;
        let bad = Err(BadText::Character { offset, found: character });
        let value = VALUES[usize::from(character)];
        if self.lenient && character.is_ascii_whitespace() {
            self.offset += 1;
            return Ok(0);
        }
        if self.ended {
            return bad;
        }
        if character == PAD {
            if !self.can_end() {
                return bad;
            }
            (self.offset, self.pads) = (offset + 1, self.pads + 1);
            if self.filled + self.pads < 4 {
                return Ok(0);
            }
            self.ended = true;
            return Ok(self.end_group(bytes));
        }
        if value == NONE || self.pads > 0 {
            return bad;
        }
        self.values[self.filled] = value;
        (self.filled, self.offset) = (self.filled + 1, offset + 1);
        Ok(if self.filled < 4 { 0 } else { self.end_group(bytes) })
    }

    /// Whether the group can end here: its last character holds no bits that stand for nothing.
    fn can_end(&self) -> bool {
        match self.filled {
            2 => self.values[1] & 0b1111 == 0,
            3 => self.values[2] & 0b11 == 0,
            filled => filled == 4,
        }
    }

    /// The bytes of the group.
    fn end_group(&mut self, bytes: &mut [u8]) -> usize {
        let [a, b, c, d] = self.values;
        let group = [a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d];
        let len = self.filled - 1;
        bytes[..len].copy_from_slice(&group[..len]);
        (self.filled, self.values) = (0, [0; 4]);
        len
    }
}

/// Encodes bytes that come in parts. What makes no whole group waits for the bytes behind it.
#[derive(Debug, Default)]
pub struct Encoder {
    carry: [u8; 3],
    carried: usize,
}

impl Encoder {
    /// The characters of so many bytes, padding included.
    pub const fn text_len(bytes: u64) -> u64 {
        bytes.div_ceil(3) * 4
    }

    /// The characters that [`feed`](Self::feed) would make of so many bytes now.
    pub fn next_len(&self, bytes: usize) -> usize {
        (self.carried + bytes) / 3 * 4
    }

    /// Encodes the next bytes into `text`, which has room for [`next_len`](Self::next_len) characters; how many they
    /// gave.
    ///
    /// # Panics
    /// If there is not enough room.
    pub fn feed(&mut self, mut bytes: &[u8], text: &mut [u8]) -> usize {
        let mut written = 0;
        if self.carried > 0 {
            let missing = (3 - self.carried).min(bytes.len());
            let (now, rest) = bytes.split_at(missing);
            self.carry[self.carried..][..missing].copy_from_slice(now);
            (self.carried, bytes) = (self.carried + missing, rest);
            if self.carried < 3 {
                return 0;
            }
            written += encode(&self.carry, text);
            self.carried = 0;
        }
        let (groups, rest) = bytes.split_at(bytes.len() / 3 * 3);
        if !groups.is_empty() {
            written += encode(groups, &mut text[written..]);
        }
        self.carry[..rest.len()].copy_from_slice(rest);
        self.carried = rest.len();
        written
    }

    /// The bytes end here: encodes the last group, if there is one, into four characters; how many they are.
    pub fn finish(self, text: &mut [u8]) -> usize {
        if self.carried == 0 { 0 } else { encode(&self.carry[..self.carried], text) }
    }
}

fn encode(bytes: &[u8], text: &mut [u8]) -> usize {
    BASE64.encode_slice(bytes, text).expect("there is room for the text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use proptest::prelude::*;

    fn decode(mut decoder: Decoder, parts: &[&[u8]]) -> Result<Vec<u8>, BadText> {
        let mut bytes = Vec::new();
        for part in parts {
            let mut room = vec![0; Decoder::room(part.len())];
            let count = decoder.feed(part, &mut room)?;
            bytes.extend(&room[..count]);
        }
        let (rest, len) = decoder.finish()?;
        bytes.extend(&rest[..len]);
        Ok(bytes)
    }

    fn parts<'a>(mut text: &'a [u8], lens: &[usize]) -> Vec<&'a [u8]> {
        let mut parts = Vec::new();
        for &len in lens.iter().cycle() {
            let (part, rest) = text.split_at(len.min(text.len()));
            parts.push(part);
            text = rest;
            if text.is_empty() {
                break;
            }
        }
        parts
    }

    /// The first bad character, the plain way.
    fn naive(text: &[u8]) -> Option<u64> {
        let good = |text: &[u8]| {
            let text: Vec<u8> = text.iter().copied().filter(|c| !c.is_ascii_whitespace()).collect();
            // A beginning is good if something behind it makes a text of it.
            [&b""[..], b"A", b"AA", b"AAA", b"=", b"=="]
                .iter()
                .any(|end| STANDARD.decode([&text, *end].concat()).is_ok())
        };
        (1..=text.len()).find(|&len| !good(&text[..len])).map(|len| len as u64 - 1)
    }

    fn bytes(len: usize, seed: u8) -> Vec<u8> {
        (0..len).map(|i| (i as u8).wrapping_mul(seed | 1) ^ (i >> 8) as u8).collect()
    }

    fn len() -> impl Strategy<Value = usize> {
        prop_oneof![0..40usize, 0..40_000usize]
    }

    fn lens() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(prop_oneof![1..9usize, 1..30_000usize], 1..5)
    }

    proptest! {
        #[test]
        fn however_the_parts_fall_the_text_is_the_same_and_gives_the_bytes(len in len(), seed: u8, lens in lens(), others in lens()) {
            let bytes = bytes(len, seed);
            let mut encoder = Encoder::default();
            let mut text = Vec::new();
            for part in parts(&bytes, &lens) {
                let at = text.len();
                text.resize(at + encoder.next_len(part.len()), 0);
                prop_assert_eq!(encoder.feed(part, &mut text[at..]), text.len() - at);
            }
            let at = text.len();
            text.resize(at + 4, 0);
            let last = encoder.finish(&mut text[at..]);
            text.truncate(at + last);
            prop_assert_eq!(&text, &STANDARD.encode(&bytes).into_bytes());
            prop_assert_eq!(text.len() as u64, Encoder::text_len(bytes.len() as u64));
            prop_assert_eq!(decode(Decoder::strict(), &parts(&text, &others)), Ok(bytes.clone()));
            prop_assert_eq!(decode(Decoder::lenient(), &parts(&text, &others)), Ok(bytes));
        }

        #[test]
        fn white_space_and_missing_padding_change_nothing_for_who_is_lenient(
            len in len(), seed: u8, lens in lens(), line in 1usize..200, ending in prop_oneof![Just("\n"), Just("\r\n"), Just(" \t")],
        ) {
            let bytes = bytes(len, seed);
            let padded = STANDARD.encode(&bytes);
            for text in [padded.trim_end_matches('='), &padded] {
                let lines: Vec<&[u8]> = text.as_bytes().chunks(line).collect();
                let wrapped = lines.join(ending.as_bytes());
                prop_assert_eq!(decode(Decoder::lenient(), &parts(&wrapped, &lens)), Ok(bytes.clone()));
                let strict = decode(Decoder::strict(), &parts(&wrapped, &lens));
                prop_assert_eq!(strict.is_ok(), wrapped == padded.as_bytes());
            }
        }

        #[test]
        fn a_bad_character_anywhere_is_found_where_it_is(
            len in 1..300usize, seed: u8, at: prop::sample::Index, character: u8, lens in lens(), line in 1usize..200,
        ) {
            let text = STANDARD.encode(bytes(len, seed));
            let mut text = text.as_bytes().chunks(line).collect::<Vec<_>>().join(&b'\n');
            let at = at.index(text.len());
            text[at] = character;
            let decoded = decode(Decoder::lenient(), &parts(&text, &lens));
            match naive(&text) {
                Some(offset) => prop_assert_eq!(decoded.map_err(|bad| bad.offset()), Err(offset)),
                None => prop_assert!(!matches!(decoded, Err(BadText::Character { .. })), "{:?}", decoded),
            }
        }

        #[test]
        fn any_bytes_are_judged_as_the_plain_way_judges_them(text in prop::collection::vec(prop_oneof![
            Just(b'A'), Just(b'Q'), Just(b'/'), Just(b'='), Just(b'\n'), any::<u8>(),
        ], 0..24), lens in lens()) {
            let decoded = decode(Decoder::lenient(), &parts(&text, &lens));
            match naive(&text) {
                Some(offset) => prop_assert_eq!(decoded.map_err(|bad| bad.offset()), Err(offset)),
                None => prop_assert!(!matches!(decoded, Err(BadText::Character { .. })), "{:?}", decoded),
            }
        }
    }

    #[test]
    fn every_character_that_is_none_is_found_at_every_place() {
        let good = STANDARD.encode(bytes(30, 7));
        for at in 0..good.len() {
            for character in 0..=255u8 {
                if VALUES[usize::from(character)] != NONE
                    || character.is_ascii_whitespace()
                    || character == PAD
                {
                    continue;
                }
                let mut text = good.clone().into_bytes();
                text[at] = character;
                for cut in [1, at.max(1), text.len()] {
                    let bad = decode(Decoder::lenient(), &parts(&text, &[cut, 5]));
                    assert_eq!(bad, Err(BadText::Character { offset: at as u64, found: character }));
                }
            }
        }
    }

    #[test]
    fn ends_in_the_middle_of_a_byte_and_bits_for_nothing_are_told_apart() {
        for (text, bad) in [
            ("A", BadText::End { offset: 1 }),
            ("QUJDRA=", BadText::End { offset: 7 }),
            ("QUJDRB==", BadText::Character { offset: 6, found: b'=' }),
            ("QUJDRB", BadText::End { offset: 6 }),
            ("QUJDREV=", BadText::Character { offset: 7, found: b'=' }),
            ("QUJD=", BadText::Character { offset: 4, found: b'=' }),
            ("QQ==QQ==", BadText::Character { offset: 4, found: b'Q' }),
            ("QQ===", BadText::Character { offset: 4, found: b'=' }),
        ] {
            assert_eq!(decode(Decoder::lenient(), &[text.as_bytes()]), Err(bad), "{text}");
        }
        assert_eq!(decode(Decoder::strict(), &[b"QQ"]), Err(BadText::End { offset: 2 }));
    }
}
