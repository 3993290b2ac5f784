//! What comes back, compared with what was sent.

use crate::protocol::codec::Encoder;
use crate::storage::{Source, SourceError};

/// Bytes of the file that are read and encoded again at a time.
const WINDOW: usize = 96 * 1024;

/// How far what came back is what was sent.
///
/// It may lag behind by any length, by the whole file if the peer answers at the end: so the file is read once more
/// instead of kept.
pub(super) struct Echo {
    /// Characters that came back.
    position: u64,
    /// The characters from `start` on.
    window: Vec<u8>,
    start: u64,
    bytes: Vec<u8>,
}

/// The first character that is another than was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Differs {
    /// How many characters were the same.
    pub(super) offset: u64,
    /// What was sent there; none behind the end.
    pub(super) sent: Option<u8>,
    pub(super) came: u8,
}

impl Echo {
    pub(super) fn new() -> Self {
        Self { position: 0, window: Vec::new(), start: 0, bytes: Vec::new() }
    }

    /// Characters that came back so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Compares the next characters.
    pub(super) fn compare(
        &mut self,
        source: &Source,
        mut came: &[u8],
    ) -> Result<Result<(), Differs>, SourceError> {
        while !came.is_empty() {
            let end = self.start + self.window.len() as u64;
            if self.position == end && !self.next_window(source)? {
                return Ok(Err(Differs { offset: self.position, sent: None, came: came[0] }));
            }
            let expected = &self.window[(self.position - self.start) as usize..];
            let len = expected.len().min(came.len());
            if expected[..len] != came[..len] {
                let same = expected.iter().zip(came).take_while(|(sent, came)| sent == came).count();
                let (offset, sent) = (self.position + same as u64, Some(expected[same]));
                return Ok(Err(Differs { offset, sent, came: came[same] }));
            }
            self.position += len as u64;
            came = &came[len..];
        }
        Ok(Ok(()))
    }

    /// Encodes the bytes behind the window; false if there are none.
    fn next_window(&mut self, source: &Source) -> Result<bool, SourceError> {
        let offset = self.position / 4 * 3;
        let len = source.geometry().size().saturating_sub(offset).min(WINDOW as u64) as usize;
        self.bytes.resize(len, 0);
        source.read_exact_at(&mut self.bytes, offset)?;
        // A window is a multiple of 3, except the last: nothing is left over but at the end.
        self.window.resize(Encoder::text_len(len as u64) as usize, 0);
        let mut encoder = Encoder::default();
        let written = encoder.feed(&self.bytes, &mut self.window);
        encoder.finish(&mut self.window[written..]);
        self.start = self.position;
        Ok(len > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use proptest::prelude::*;

    fn file(len: usize) -> (tempfile::TempDir, Source, Vec<u8>) {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + (i >> 8)) as u8).collect();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), &bytes).unwrap();
        let source = Source::open(&dir.path().join("f"), None).unwrap();
        (dir, source, STANDARD.encode(bytes).into_bytes())
    }

    proptest! {
        #[test]
        fn a_difference_anywhere_is_found_however_the_parts_fall(
            len in prop_oneof![1usize..50, Just(WINDOW), 1..3 * WINDOW], part in 1usize..100_000, at: prop::sample::Index,
        ) {
            let (_dir, source, text) = file(len);
            let mut echo = Echo::new();
            for part in text.chunks(part) {
                prop_assert_eq!(echo.compare(&source, part).unwrap(), Ok(()));
            }
            prop_assert_eq!(echo.position(), text.len() as u64);
            let behind = Differs { offset: text.len() as u64, sent: None, came: b'\n' };
            prop_assert_eq!(echo.compare(&source, b"\n").unwrap(), Err(behind));

            let at = at.index(text.len());
            let mut other = text.clone();
            other[at] ^= 1;
            let mut echo = Echo::new();
            let found = other.chunks(part).find_map(|part| echo.compare(&source, part).unwrap().err());
            prop_assert_eq!(found, Some(Differs { offset: at as u64, sent: Some(text[at]), came: other[at] }));
        }
    }
}
