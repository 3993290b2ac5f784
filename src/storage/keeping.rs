//! What has come is kept: made durable, found under its names, put away when the connection ends.

use std::io;
use std::sync::atomic::Ordering;

use super::error::StorageError;
use super::partial::Partial;
use super::target::{Stage, Target, lock, partial_of};
use crate::protocol::BlockHashes;

impl Target {
    /// Makes blocks durable: first the data, then the journal. Both get their names again if they have lost them.
    pub fn sync(&self, blocks: &[(u64, BlockHashes)]) -> Result<(), StorageError> {
        {
            let stage = self.partial()?;
            let partial = partial_of(&stage);
            if let Err(error) = partial.file().sync_data() {
                self.destination.memory.doubt(partial.id());
                partial.give_up_unsynced(self.geometry());
                return Err(self.error("sync", error));
            }
            let in_order = partial.is_in_order(&self.destination);
            if in_order.map_err(|error| self.error("stat", error))? && self.record(partial, blocks).is_ok() {
                return Ok(());
            }
        }
        self.put_in_order()?;
        let stage = self.read();
        self.record(partial_of(&stage), blocks).map_err(|error| self.error("write the journal of", error))
    }

    fn record(&self, partial: &Partial, blocks: &[(u64, BlockHashes)]) -> io::Result<()> {
        let mut warnings = Vec::new();
        let recorded = partial.record(&self.destination, self.geometry(), blocks, &mut warnings);
        lock(&self.warnings).append(&mut warnings);
        recorded
    }

    pub(super) fn put_in_order(&self) -> Result<(), StorageError> {
        match &mut *self.change() {
            Stage::Partial(partial) => partial.put_in_order(&self.destination, self.offer.path.as_str()),
            _ => Ok(()),
        }
    }

    /// At the end of a connection: makes these last blocks durable, cuts off what is behind `end`, gives back the room
    /// that was set aside for more. If nothing ever arrived, or it is to be discarded, nothing stays.
    ///
    /// What fails here loses nothing: blocks without a journal entry are hashed on the next run, or sent again.
    pub fn put_away(&self, blocks: &[(u64, BlockHashes)], end: Option<u64>) {
        if self.named.load(Ordering::Relaxed) {
            return;
        }
        let has_come = matches!(&*self.read(), Stage::Small(small) if small.opened().is_some());
        if has_come && self.partial().is_err() {
            return;
        }
        {
            let stage = self.read();
            let Stage::Partial(partial) = &*stage else { return };
            let Ok(info) = partial.file().info() else { return };
            // What is longer was another version's, and may be so again.
            let end = end.filter(|_| info.len <= self.geometry().size());
            let len = info.len.min(end.unwrap_or(info.len));
            if self.offer.discard || len == 0 {
                return partial.remove(&self.destination);
            }
            if len < info.len || lock(&self.room).reaches_beyond(len) {
                let _ = partial.file().set_len(len);
            }
        }
        if !blocks.is_empty() {
            let _ = self.sync(blocks);
        } else {
            let _ = self.put_in_order_if_need_be();
        }
    }

    pub(super) fn put_in_order_if_need_be(&self) -> Result<(), StorageError> {
        let in_order = match &*self.read() {
            Stage::Partial(partial) => partial.is_in_order(&self.destination),
            _ => Ok(true),
        };
        if in_order.map_err(|error| self.error("stat", error))? { Ok(()) } else { self.put_in_order() }
    }
}
