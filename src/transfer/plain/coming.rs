//! A file that is coming: decoded, hashed and written as it comes.

use std::time::Instant;

use crate::protocol::codec::{BadText, Decoder};
use crate::storage::{PlainFile, StorageError};

/// Bytes that are gathered before they are hashed and written: what comes at a time is less than is quick.
const GATHERED: usize = 64 * 1024;
/// Hashing is quickest in multiples of this.
const STRIDE: usize = 16 * 1024;
/// Bytes of a file's beginning that say what it is.
const HEAD: usize = 8192;

/// A file that is coming.
pub(super) struct Coming {
    pub(super) file: PlainFile,
    /// None if the message is binary.
    decoder: Option<Decoder>,
    pub(super) hasher: blake3::Hasher,
    /// `gathered[..filled]` is to be hashed and written.
    gathered: Vec<u8>,
    filled: usize,
    /// The beginning, until the name is known.
    head: Option<Vec<u8>>,
    pub(super) limit: u64,
    pub(super) started: Instant,
}

/// Why a piece was not taken.
pub(super) enum Refused {
    Text(BadText),
    Storage(StorageError),
}

impl Coming {
    pub(super) fn new(file: PlainFile, is_text: bool, limit: u64) -> Self {
        Self {
            limit: limit.min(file.free()),
            file,
            decoder: is_text.then(Decoder::lenient),
            hasher: blake3::Hasher::new(),
            gathered: Vec::new(),
            filled: 0,
            head: Some(Vec::new()),
            started: Instant::now(),
        }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.file.len() + self.filled as u64
    }

    /// Takes the next part of the message.
    pub(super) fn take(&mut self, part: &[u8], is_last: bool) -> Result<(), Refused> {
        let room = self.filled + Decoder::room(part.len()).max(part.len());
        if self.gathered.len() < room {
            self.gathered.resize(room, 0);
        }
        let before = self.filled;
        match self.decoder.take() {
            None => {
                self.gathered[before..before + part.len()].copy_from_slice(part);
                self.filled += part.len();
            }
            Some(mut decoder) => {
                let decoded = decoder.feed(part, &mut self.gathered[before..]);
                self.filled += decoded.map_err(Refused::Text)?;
                if is_last {
                    let (rest, len) = decoder.finish().map_err(Refused::Text)?;
                    self.gathered[self.filled..self.filled + len].copy_from_slice(&rest[..len]);
                    self.filled += len;
                } else {
                    self.decoder = Some(decoder);
                }
            }
        }
        if let Some(head) = &mut self.head {
            let new = &self.gathered[before..self.filled];
            head.extend_from_slice(&new[..new.len().min(HEAD - head.len())]);
        }
        if is_last {
            self.write(self.filled).map_err(Refused::Storage)
        } else if self.filled >= GATHERED {
            self.write(self.filled / STRIDE * STRIDE).map_err(Refused::Storage)
        } else {
            Ok(())
        }
    }

    /// Hashes and writes what was gathered first.
    fn write(&mut self, len: usize) -> Result<(), StorageError> {
        self.hasher.update(&self.gathered[..len]);
        self.file.write(&self.gathered[..len])?;
        self.gathered.copy_within(len..self.filled, 0);
        self.filled -= len;
        Ok(())
    }

    /// Its name is known.
    pub(super) fn is_named(&self) -> bool {
        self.head.is_none()
    }

    /// It has no name yet, and as much has come as can tell one.
    pub(super) fn is_to_be_named(&self, is_last: bool) -> bool {
        self.head.as_ref().is_some_and(|head| head.len() >= HEAD || is_last)
    }

    /// Enough has come to tell what it is.
    pub(super) fn name_it(&mut self) {
        if let Some(kind) = self.head.take().and_then(|head| infer::get(&head)) {
            self.file.set_extension(kind.extension());
        }
    }
}
