//! What crosses in directories on one connection: one bar while it does, and one line that says how it went.

use std::collections::HashMap;
use std::time::Instant;

use wsferry::protocol::{OfferKind, Progress};
use wsferry::transfer::Summary;

use super::bar::Bar;
use super::output::Output;
use super::words;

/// All of it, on one connection.
pub struct Group {
    started: Instant,
    bar: Option<Bar>,
    /// Of the files that are on their way, by their transfers: bytes that moved.
    moving: HashMap<u64, u64>,
    /// Bytes that moved in all.
    moved: u64,
    files: u64,
    there: u64,
    directories: u64,
    links: u64,
}

impl Group {
    pub fn new(output: &Output) -> Self {
        Self {
            started: Instant::now(),
            bar: output.has_bars().then(|| Bar::new(output)),
            moving: HashMap::new(),
            moved: 0,
            files: 0,
            there: 0,
            directories: 0,
            links: 0,
        }
    }

    /// What shows it, if there is a screen.
    pub fn bar(&self) -> Option<&Bar> {
        self.bar.as_ref()
    }

    /// Something of a file moved.
    pub fn advance(&mut self, transfer: u64, name: &str, progress: &Progress) {
        self.set(transfer, progress.acknowledged.saturating_sub(progress.held));
        self.draw(name);
    }

    /// Nothing more comes of a file that is not there.
    pub fn forget(&mut self, transfer: u64) {
        self.moving.remove(&transfer);
    }

    /// Something is there.
    pub fn add(&mut self, transfer: u64, summary: &Summary) {
        self.set(transfer, summary.new_bytes());
        self.moving.remove(&transfer);
        *match summary.kind {
            OfferKind::Directory => &mut self.directories,
            OfferKind::Link => &mut self.links,
            OfferKind::File if summary.complete => &mut self.there,
            OfferKind::File => &mut self.files,
        } += 1;
        self.draw(&summary.name);
    }

    fn set(&mut self, transfer: u64, moved: u64) {
        let before = self.moving.insert(transfer, moved).unwrap_or_default();
        self.moved = (self.moved + moved).saturating_sub(before);
    }

    fn draw(&self, name: &str) {
        if let Some(bar) = &self.bar {
            bar.advance_files((self.files + self.there, None), None, name);
            bar.advance(self.moved, None);
        }
    }

    /// How it went, if anything is there.
    pub fn describe(&self, is_sent: bool) -> Option<String> {
        let Self { started, files, there, directories, links, moved, .. } = self;
        let seconds = started.elapsed().as_secs_f64();
        (files + there + directories + links > 0).then(|| {
            format!(
                "{} {files} {} in directories, {} in {seconds:.2} s{}{}{}",
                if is_sent { "sent" } else { "received" },
                if *files == 1 { "file" } else { "files" },
                words::size(*moved),
                words::part(*there, "already there", ""),
                words::part(*directories, "directory", "directories"),
                words::part(*links, "link", "links"),
            )
        })
    }
}
