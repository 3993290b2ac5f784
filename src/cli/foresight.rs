//! `send --dry-run`: what would become of each file.

use wsferry::protocol::OfferKind;
use wsferry::storage::SkipReason;
use wsferry::transfer::{Error, Event};

use super::advice;
use super::event::{JsonEvent, Would};
use super::exit::Exit;
use super::output::Output;
use super::words;

/// Tells what would become of each file, and counts.
pub struct Foresight<'a> {
    output: &'a Output,
    files: u64,
    /// Those that are there, as far as name and size tell, or time.
    there: u64,
    directories: u64,
    links: u64,
    failed: u64,
    bytes: u64,
    /// The first of those that failed, in the order of the command line.
    worst: Option<(u64, Exit)>,
}

impl<'a> Foresight<'a> {
    pub fn new(output: &'a Output) -> Self {
        Self { output, files: 0, there: 0, directories: 0, links: 0, failed: 0, bytes: 0, worst: None }
    }

    /// Shows an event of a file, or of the connection.
    pub fn show(&mut self, file: Option<u64>, event: &Event) {
        match event {
            Event::Foreseen { name, kind, size, held, complete } => {
                let would = match kind {
                    // To be repaired is to be compared.
                    OfferKind::File if *complete || (*held > 0 && held >= size) => Would::Compare,
                    OfferKind::File if *held > 0 => Would::Resume,
                    OfferKind::File => Would::Send,
                    OfferKind::Directory | OfferKind::Link => Would::Make,
                };
                self.foreseen(file, (name, *kind), would, *size, *held);
            }
            // It was neither read nor compared: size and time are the same, which was asked for.
            Event::Finished(summary) => {
                self.foreseen(file, (&summary.name, summary.kind), Would::AlreadyThere, summary.size(), 0);
            }
            Event::Failed(error) => self.failed(file, error),
            Event::Skipped(skipped) => {
                let (name, reason) = (skipped.path.display().to_string(), skipped.why.to_string());
                self.output.event(JsonEvent::Skipped {
                    transfer: file.map(|file| file + 1),
                    name: name.clone(),
                    reason: reason.clone(),
                });
                if !matches!(skipped.why, SkipReason::Link) {
                    self.output.line(&format!("would skip {name}: {reason}"));
                }
                if skipped.is_failure() {
                    self.note(file, Exit::Failed);
                }
            }
            Event::Reconnecting { why, .. } => self.output.notice(&format!("cut: {why}")),
            _ => {}
        }
    }

    fn foreseen(
        &mut self,
        file: Option<u64>,
        (name, kind): (&str, OfferKind),
        would: Would,
        size: u64,
        held: u64,
    ) {
        self.output.event(JsonEvent::Foreseen {
            transfer: file.map(|file| file + 1),
            name: name.to_owned(),
            kind,
            size,
            held,
            would,
        });
        let all = words::size(size);
        let line = match would {
            Would::Make => format!("would make {name}"),
            Would::Compare => format!("would compare {name}: {all}, a file of that size is there"),
            Would::AlreadyThere => format!("would leave {name}: {all}, already there by size and time"),
            Would::Resume => {
                let percent = (u128::from(held) * 100 / u128::from(size.max(1))) as u64;
                format!("would resume {name} at {percent}%: {} of {all}", words::size(size - held.min(size)))
            }
            Would::Send => format!("would send {name}: {all}"),
        };
        self.output.line(&line);
        match would {
            Would::Make if kind == OfferKind::Link => self.links += 1,
            Would::Make => self.directories += 1,
            Would::Compare | Would::AlreadyThere => self.there += 1,
            Would::Send | Would::Resume => {
                self.files += 1;
                self.bytes += size.saturating_sub(held);
            }
        }
    }

    fn failed(&mut self, file: Option<u64>, error: &Error) {
        let name = match error {
            Error::Refused { name, .. } => Some(name.as_str()),
            _ => None,
        };
        let exit = Exit::from(error.kind());
        self.output.failed(file.map(|file| file + 1), name, error, advice::of(error), exit);
        self.note(file, exit);
    }

    fn note(&mut self, file: Option<u64>, exit: Exit) {
        self.failed += 1;
        let at = file.unwrap_or(u64::MAX);
        if self.worst.is_none_or(|(worst, _)| at < worst) {
            self.worst = Some((at, exit));
        }
    }

    /// Says what there is in all.
    pub fn close(mut self, error: Option<Error>) -> Exit {
        if let Some(error) = error {
            self.failed(None, &error);
        }
        let Self { files, there, directories, links, failed, bytes, .. } = self;
        let size = words::size(bytes);
        self.output.line(&format!(
            "would send {files} {}, {size}{}{}{}{}",
            if files == 1 { "file" } else { "files" },
            words::part(there, "there already, as far as can be told without reading", ""),
            words::part(directories, "directory", "directories"),
            words::part(links, "link", "links"),
            words::part(failed, "not to be sent", ""),
        ));
        self.worst.map_or(Exit::Done, |(_, exit)| exit)
    }
}
