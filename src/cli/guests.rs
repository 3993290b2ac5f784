//! What is shown of many connections, or of one that this side reaches out for to receive.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use wsferry::protocol::OfferKind;
use wsferry::runtime;
use wsferry::storage::Skipped;
use wsferry::transfer::{Error, Event};

use super::advice::{self, Does};
use super::event::{self, JsonEvent};
use super::exec::Exec;
use super::exit::Exit;
use super::flood::{self, Admission, Counted, Flood};
use super::group::Group;
use super::outage::Outage;
use super::output::{self, Output};
use super::progress::{self, View};
use super::words;

/// Refused offers that are told one by one in a minute.
const REFUSALS_TOLD: u32 = 20;

/// Shows what happens on all connections.
pub struct Desk {
    output: Output,
    does: Does,
    /// The same command goes on where it was.
    resumes: bool,
    exec: Option<Running>,
    shown: Mutex<Shown>,
}

/// What `--exec` runs, and where the files are that it runs for.
pub struct Running {
    exec: Exec,
    directory: PathBuf,
}

impl Running {
    pub fn new(command: &str, directory: &Path, output: &Output) -> io::Result<Self> {
        Ok(Self { exec: Exec::new(command, output)?, directory: directory.canonicalize()? })
    }
}

/// A connection, and a transfer on it.
type Key = (u64, Option<u64>);

/// What is shown, and what is only counted.
struct Shown {
    /// A transfer has one from its start to its end: by its connection, and its number there.
    views: HashMap<Key, View>,
    /// What comes in directories, by its connection.
    groups: HashMap<u64, Group>,
    /// How many transfers there were: programs tell them apart by their numbers.
    transfers: u64,
    outage: Outage,
    unserved: Flood,
    refused: Flood,
}

/// What may come as a flood.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Connections that end before a file is offered.
    Unserved,
    /// Offers that are refused.
    Refused,
}

impl Shown {
    fn flood(&mut self, kind: Kind) -> &mut Flood {
        match kind {
            Kind::Unserved => &mut self.unserved,
            Kind::Refused => &mut self.refused,
        }
    }
}

/// Whether it is one of many: a bar and a line for all of them will do.
fn is_in_directory(name: &str, kind: OfferKind) -> bool {
    name.contains('/') || kind != OfferKind::File
}

/// A name, and how many more there are.
fn with_others(name: &str, others: usize) -> String {
    match others {
        0 => name.to_owned(),
        1 => format!("{name} and 1 more file"),
        others => format!("{name} and {others} more files"),
    }
}

/// The name of what failed.
fn name_of<'a>(view: Option<&'a View>, error: &'a Error) -> Option<&'a str> {
    match error {
        Error::Declined { name, .. } => Some(name),
        _ => view.map(View::name),
    }
}

impl Desk {
    pub fn new(output: Output, does: Does, exec: Option<Running>) -> Self {
        let (unserved, refused) = (Flood::new(1), Flood::new(REFUSALS_TOLD));
        Self {
            output,
            does,
            resumes: true,
            exec,
            shown: Mutex::new(Shown {
                views: HashMap::new(),
                groups: HashMap::new(),
                transfers: 0,
                outage: Outage::default(),
                unserved,
                refused,
            }),
        }
    }

    /// The same, of what cannot be gone on with by another run.
    pub fn without_resume(self) -> Self {
        Self { resumes: false, ..self }
    }

    pub fn output(&self) -> &Output {
        &self.output
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows an event of one transfer, or of a connection.
    pub fn show(self: &Arc<Self>, key: Key, event: &Event) {
        let mut shown = self.shown();
        if let Event::Started { name, kind, .. } = event {
            shown.transfers += 1;
            let view = View::new(self.output.clone(), shown.transfers, name.clone());
            let view = if is_in_directory(name, *kind) { view.without_bar() } else { view };
            shown.views.insert(key, view);
        }
        let Shown { views, groups, .. } = &mut *shown;
        if let Some(view) = views.get_mut(&key) {
            view.show(event);
            if let (Event::Progress(progress), true, Some(transfer)) = (event, view.is_one_of_many(), key.1) {
                let group = groups.entry(key.0).or_insert_with(|| Group::new(&self.output));
                group.advance(transfer, view.name(), progress);
            }
        } else if key.1.is_none() {
            let Shown { views, groups, outage, .. } = &mut *shown;
            let views: Vec<&View> = views.values().collect();
            let overall = groups.get(&key.0).and_then(Group::bar);
            progress::connection(&self.output, &views, overall, outage, event);
        }
        if progress::is_life(event) {
            shown.outage.end(&self.output, self.output.bars.is_hidden());
        }
        let (kind, error) = match event {
            Event::Finished(summary) => {
                let number = match shown.views.remove(&key) {
                    Some(view) => view.transfer(),
                    // It was there already.
                    None => {
                        shown.transfers += 1;
                        shown.transfers
                    }
                };
                self.output.finished(number, summary);
                if let Some(Running { exec, directory }) = &self.exec
                    && summary.kind == OfferKind::File
                    && !summary.discarded
                {
                    exec.stored(number, directory, summary);
                }
                if is_in_directory(&summary.name, summary.kind) {
                    let group = shown.groups.entry(key.0).or_insert_with(|| Group::new(&self.output));
                    group.add(key.1.unwrap_or_default(), summary);
                } else {
                    self.output.outcome(self.does == Does::Offer, summary);
                }
                return;
            }
            Event::Disconnected => {
                let group = shown.groups.remove(&key.0);
                if let Some(line) = group.and_then(|group| group.describe(self.does == Does::Offer)) {
                    self.output.line(&line);
                }
                return;
            }
            // One that had been taken is a transfer that failed.
            Event::Failed(error @ Error::Declined { .. }) if !shown.views.contains_key(&key) => {
                (Some(Kind::Refused), error)
            }
            Event::Skipped(skipped) => return self.skip(skipped),
            Event::Notice { what } if key.1.is_some() && !shown.views.contains_key(&key) => {
                self.output.event(JsonEvent::notice(what));
                return self.output.notice(what);
            }
            Event::Unserved(error) => (Some(Kind::Unserved), error),
            Event::Failed(error) => (None, error),
            _ => return,
        };
        // What ends a connection ends all transfers on it.
        let ended: Vec<Key> = match key {
            (connection, None) => shown.views.keys().filter(|key| key.0 == connection).copied().collect(),
            key => vec![key],
        };
        if let (Some(group), Some(transfer)) = (shown.groups.get_mut(&key.0), key.1) {
            group.forget(transfer);
        }
        let mut views: Vec<View> = ended.iter().filter_map(|key| shown.views.remove(key)).collect();
        views.sort_by_key(View::transfer);
        views.iter_mut().for_each(View::clear);
        if let Some(kind) = kind {
            match shown.flood(kind).admit(&error.to_string(), Instant::now()) {
                Admission::First => self.clone().tell_count_later(kind),
                Admission::Another => {}
                Admission::Counted => return,
            }
        }
        // Programs are told of each transfer, people once.
        match views.as_slice() {
            [view] => self.failed(Some(view), 0, error),
            [] => self.failed(None, 0, error),
            all if self.does == Does::Fetch => self.failed(None, all.len() - 1, error),
            [first, others @ ..] => {
                self.failed(Some(first), others.len(), error);
                let exit = Exit::from(error.kind());
                for view in others {
                    let (number, name) = (Some(view.transfer()), Some(view.name()));
                    let advice = self.advice(Some(view), name, error);
                    self.output.event(output::failed(number, name, error, &advice, exit));
                }
            }
        }
    }

    /// Something that was to be sent is not.
    fn skip(&self, skipped: &Skipped) {
        if skipped.is_failure() {
            let name = skipped.path.display().to_string();
            self.output.failed(None, Some(&name), skipped, "", Exit::Failed);
            return;
        }
        self.output.event(JsonEvent::Skipped {
            transfer: None,
            name: skipped.path.display().to_string(),
            reason: skipped.why.to_string(),
        });
        self.output.notice(&skipped.to_string());
    }

    /// Tells of a transfer that failed, and of how many others with it.
    fn failed(&self, view: Option<&View>, others: usize, error: &Error) {
        let (number, name) = (view.map(View::transfer), name_of(view, error));
        let whose = name.map(|name| with_others(name, others));
        let advice = self.advice(view, whose.as_deref(), error);
        self.output.failed(number, name, error, &advice, Exit::from(error.kind()));
    }

    fn advice(&self, view: Option<&View>, whose: Option<&str>, error: &Error) -> String {
        let goes_on = match self.does {
            Does::Fetch => self.resumes,
            _ => !view.is_some_and(View::is_endless),
        };
        advice::of_transfer(error, self.does, whose, goes_on)
    }

    /// Waits for the commands that run for files. Whether one of them failed.
    pub fn finish(&self) -> bool {
        self.exec.as_ref().is_some_and(|running| running.exec.finish())
    }

    /// Tells what is counted at the end of each period, as long as there is something.
    fn tell_count_later(self: Arc<Self>, kind: Kind) {
        drop(runtime::spawn(async move {
            loop {
                runtime::sleep(flood::PERIOD).await;
                if !self.tell_count(kind) {
                    return;
                }
            }
        }));
    }

    /// Tells what was counted; whether there was something.
    pub fn tell_count(&self, kind: Kind) -> bool {
        let counted = self.shown().flood(kind).take(Instant::now());
        let Some(Counted { count, seconds, last }) = counted else {
            return false;
        };
        let told = event::Counted { count, seconds, reason: last.clone() };
        let (event, one, many) = match kind {
            Kind::Unserved => (
                JsonEvent::Unserved(told),
                "connection ended before a transfer",
                "connections ended before a transfer",
            ),
            Kind::Refused => (JsonEvent::Refused(told), "offer was refused", "offers were refused"),
        };
        self.output.event(event);
        let (what, time) = (if count == 1 { one } else { many }, words::duration(seconds.max(1)));
        self.output.notice(&format!("{count} more {what} in the last {time}; the last: {last}"));
        true
    }
}
