//! One thing that is sent, from its offer to its end.

use std::sync::Arc;
use std::time::Instant;

use super::LARGEST_KEPT;
use crate::protocol::{FileDigest, Hashed, Offer, OfferKind, Progress};
use crate::storage::{Entry, Source, SourceError, Stream, What};
use crate::transfer::content::{Content, Place};
use crate::transfer::{Event, SendOptions, Summary};

/// One file on its way, over as many connections as it takes.
pub(in crate::transfer) struct Transfer {
    pub(in crate::transfer) id: u64,
    pub(in crate::transfer) content: Content,
    /// Of a small file, which was hashed when it was opened.
    digest: Option<FileDigest>,
    /// Bytes that are kept of it.
    pub(super) kept: u64,
    /// Of the version that arrives.
    started: Instant,
    pub(in crate::transfer) changes: u32,
    /// The most that was acknowledged, and verified, so far.
    best: (u64, u64),
    /// What the first connection found; `None` before it was accepted.
    held: Option<u64>,
    pub(in crate::transfer) told_start: bool,
    /// It was accepted, or was on its way when a connection was cut.
    pub(in crate::transfer) began: bool,
    pub(in crate::transfer) complete: bool,
    /// It was said that the file is not where it was.
    pub(in crate::transfer) said: bool,
    /// The offset behind the last byte that was sent.
    pub(in crate::transfer) sent_up_to: u64,
    /// Blocks of what cannot be read twice that were hashed.
    pub(in crate::transfer) hashed: Hashed,
    /// Of the connections before this one.
    before: Counts,
    wire_bytes: u64,
    /// What had crossed on this connection when it was offered.
    pub(in crate::transfer) wire_before: u64,
}

#[derive(Default, Clone, Copy)]
struct Counts {
    resent: u64,
    naks: u32,
    repaired_blocks: u64,
}

impl Transfer {
    /// Opens what was found. A small file is hashed, and kept until it is sent, if there is room for its bytes.
    pub(super) fn open(id: u64, entry: Entry, options: &SendOptions, room: u64) -> Result<Self, SourceError> {
        if let What::File { .. } = entry.what {
            let source = entry.open()?.growing(options.growing);
            return Self::hashed(id, source, options, room);
        }
        let Entry { to, what, .. } = entry;
        Ok(Self::new(id, Content::Place(Place { to, what })))
    }

    /// A file that is open.
    pub(in crate::transfer) fn of(
        id: u64,
        source: Source,
        options: &SendOptions,
    ) -> Result<Self, SourceError> {
        Self::hashed(id, source, options, LARGEST_KEPT)
    }

    fn hashed(id: u64, source: Source, options: &SendOptions, room: u64) -> Result<Self, SourceError> {
        if options.quick || options.dry_run {
            // It may not have to be read at all.
            return Ok(Self::new(id, Content::File(Arc::new(source))));
        }
        let size = source.geometry().size();
        let keep = size <= LARGEST_KEPT.min(room);
        let digest = source.digest_of_small(keep)?;
        let kept = if keep { size } else { 0 };
        Ok(Self { digest, kept, ..Self::new(id, Content::File(Arc::new(source))) })
    }

    pub(in crate::transfer) fn new(id: u64, content: Content) -> Self {
        Self {
            id,
            content,
            digest: None,
            kept: 0,
            started: Instant::now(),
            changes: 0,
            best: (0, 0),
            held: None,
            told_start: false,
            began: false,
            complete: false,
            said: false,
            sent_up_to: 0,
            hashed: Hashed::default(),
            before: Counts::default(),
            wire_bytes: 0,
            wire_before: 0,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(&self.content, Content::Place(Place { what: What::Directory { .. }, .. }))
    }

    /// The file, if it is one.
    pub(in crate::transfer) fn source(&self) -> Option<&Arc<Source>> {
        match &self.content {
            Content::File(source) => Some(source),
            Content::Stream(_) | Content::Place(_) => None,
        }
    }

    /// What cannot be read twice, if it is that.
    pub(in crate::transfer) fn stream(&self) -> Option<&Arc<Stream>> {
        match &self.content {
            Content::Stream(stream) => Some(stream),
            Content::File(_) | Content::Place(_) => None,
        }
    }

    /// Bytes of the file, if that is known.
    pub(in crate::transfer) fn size(&self) -> Option<u64> {
        self.content.size()
    }

    pub(in crate::transfer) fn offer(&self) -> Offer {
        Offer { digest: self.digest, ..self.content.offer() }
    }

    /// The source became another version, which is begun anew.
    pub(in crate::transfer) fn change(
        self,
        became: Source,
        options: &SendOptions,
    ) -> Result<Self, SourceError> {
        let Self { id, changes, before, wire_bytes, said, .. } = self;
        Ok(Self { changes: changes + 1, before, wire_bytes, said, ..Self::of(id, became, options)? })
    }

    /// Another file is replaced: what was taken to be held counts no more.
    pub(in crate::transfer) fn replaces(&mut self, held: u64) {
        self.held = Some(held);
        self.best = (held, 0);
        self.complete = false;
    }

    /// Whether something moved since it was last asked.
    pub(in crate::transfer) fn note_progress(&mut self, progress: &Progress) -> bool {
        let (acknowledged, verified) = self.best;
        let moved = progress.acknowledged > acknowledged || progress.verified > verified;
        if moved {
            self.best = (acknowledged.max(progress.acknowledged), verified.max(progress.verified));
        }
        moved
    }

    /// This connection's progress, and that of those before.
    pub(in crate::transfer) fn total(&mut self, mut progress: Progress) -> Progress {
        progress.held = *self.held.get_or_insert(progress.held);
        progress.resent += self.before.resent;
        progress.naks += self.before.naks;
        progress.repaired_blocks += self.before.repaired_blocks;
        progress
    }

    /// A connection's counts, at its end.
    pub(in crate::transfer) fn end_connection(&mut self, progress: Progress, wire_bytes: u64) {
        self.before.resent += progress.resent;
        self.before.naks += progress.naks;
        self.before.repaired_blocks += progress.repaired_blocks;
        self.wire_bytes += wire_bytes - self.wire_before;
    }

    /// How it went, once all connections were counted.
    pub(in crate::transfer) fn summarise(&self, summary: Summary) -> Summary {
        let Counts { resent, naks, repaired_blocks } = self.before;
        let held = self.held.unwrap_or(summary.progress.held);
        let progress = Progress { held, resent, naks, repaired_blocks, ..summary.progress };
        Summary { elapsed: self.started.elapsed(), wire_bytes: self.wire_bytes, progress, ..summary }
    }

    pub(in crate::transfer) fn name(&self) -> String {
        self.content.name()
    }

    pub(in crate::transfer) fn kind(&self) -> OfferKind {
        self.content.kind()
    }

    /// What is said when it was accepted, once.
    pub(in crate::transfer) fn start(&mut self, peer: &str) -> Option<Event> {
        let (name, kind, size) = (self.name(), self.kind(), self.size());
        let said = std::mem::replace(&mut self.told_start, true);
        (!said).then(|| Event::Started { name, kind, size, peer: peer.to_owned() })
    }
}
