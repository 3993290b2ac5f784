//! What one sender means to send, as far as it has said, and what has come of it: over all connections.

use std::collections::HashMap;
use std::time::Instant;

use super::{Error, ErrorKind, Event, Served};
use crate::protocol::Code;

/// The files of one sender.
#[derive(Debug)]
pub(super) struct Expected {
    /// Those that were offered and have not ended, by name.
    files: HashMap<String, File>,
    /// Their names, by the transfers' numbers on this connection.
    names: HashMap<u64, String>,
    next_number: u64,
    /// How many the sender means to offer behind the last one.
    left: u64,
    /// Something was offered: there is a sender.
    pub(super) reached: bool,
    failure: Option<ErrorKind>,
    /// When something last moved, and the connections that ended since.
    pub(super) moved: Instant,
    pub(super) attempts: u32,
}

/// A file on its way.
#[derive(Debug)]
struct File {
    number: u64,
    since: Instant,
    /// It was accepted, and what was held then.
    held: Option<u64>,
    /// The most that came so far.
    best: u64,
    /// It was accepted on a connection before this one.
    began: bool,
}

impl Default for Expected {
    fn default() -> Self {
        Self {
            files: HashMap::new(),
            names: HashMap::new(),
            next_number: 0,
            left: 0,
            reached: false,
            failure: None,
            moved: Instant::now(),
            attempts: 0,
        }
    }
}

impl Expected {
    /// Takes an event of a transfer of this connection: what to tell, and of which file. Nothing is told twice, nor what is
    /// to be tried again.
    pub(super) fn hear(&mut self, transfer: u64, event: Event) -> Option<(u64, Event)> {
        if let Event::Offered { name, left, .. } = &event {
            (self.reached, self.left) = (true, *left);
            let next = &mut self.next_number;
            let file = self.files.entry(name.clone()).or_insert_with(|| {
                let number = *next;
                *next += 1;
                File { number, since: Instant::now(), held: None, best: 0, began: false }
            });
            let number = file.number;
            self.names.insert(transfer, name.clone());
            return Some((number, event));
        }
        let name = self.names.get(&transfer)?;
        let file = self.files.get_mut(name)?;
        let number = file.number;
        let told = match event {
            Event::Started { .. } | Event::Resumed { .. } if file.began => return None,
            Event::Progress(mut progress) => {
                progress.held = *file.held.get_or_insert(progress.held);
                if progress.acknowledged > file.best {
                    file.best = progress.acknowledged;
                    self.note_move();
                }
                return Some((number, Event::Progress(progress)));
            }
            Event::Replacing { held } => {
                (file.held, file.best) = (Some(held), held);
                return Some((number, Event::Replacing { held }));
            }
            Event::Finished(mut summary) => {
                summary.progress.held = file.held.unwrap_or(summary.progress.held);
                summary.elapsed = summary.elapsed.max(file.since.elapsed());
                Event::Finished(summary)
            }
            // What is left of the connection before may hold the name, for a moment.
            Event::Failed(Error::Declined { code: Code::Busy, .. }) if file.began => return None,
            Event::Failed(error) => {
                match &error {
                    // What the source became follows.
                    Error::PeerEnded { again: true, .. } => self.left = self.left.max(1),
                    error => drop(self.failure.get_or_insert(error.kind())),
                }
                Event::Failed(error)
            }
            event => return Some((number, event)),
        };
        if matches!(told, Event::Finished(_) | Event::Failed(_)) {
            let name = self.names.remove(&transfer).expect("it was looked up");
            self.files.remove(&name);
            // A file that is to be offered again has not come any further.
            if !matches!(told, Event::Failed(Error::PeerEnded { again: true, .. })) {
                self.note_move();
            }
        }
        Some((number, told))
    }

    /// The connection has ended: what is on its way will be offered again.
    pub(super) fn end_connection(&mut self) {
        self.names.clear();
        self.files.values_mut().for_each(|file| file.began |= file.held.is_some());
    }

    /// Whether all that the sender meant to send was received or refused.
    pub(super) fn is_all_there(&self) -> bool {
        self.reached && self.left == 0 && self.files.is_empty()
    }

    /// How it went so far: the first failure.
    pub(super) fn served(&self) -> Served {
        self.failure.map_or(Ok(()), Err)
    }

    fn note_move(&mut self) {
        (self.moved, self.attempts) = (Instant::now(), 0);
    }
}
