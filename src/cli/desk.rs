//! What a sender shows of all its files: a bar for each, or, of directories, one for all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use wsferry::protocol::OfferKind;
use wsferry::storage::{SkipReason, Skipped, What};
use wsferry::transfer::{Error, Event, Summary};

use super::advice::{self, Does};
use super::args::SendArgs;
use super::bar::Bar;
use super::event::JsonEvent;
use super::exit::Exit;
use super::outage::Outage;
use super::output::{self, Output};
use super::progress::{self, View};
use super::tree;
use super::words;

/// Shows what happens to all files.
pub struct Desk<'a> {
    args: &'a SendArgs,
    output: &'a Output,
    /// Directories are sent: one line says how it went.
    is_tree: bool,
    started: Instant,
    views: BTreeMap<u64, View>,
    names: HashMap<u64, String>,
    overall: Option<Overall>,
    outage: Outage,
    /// Acknowledged bytes of the files that are on their way, and of those that are done.
    acknowledged: HashMap<u64, u64>,
    /// All of them together.
    done: u64,
    /// Those that are done or failed, where there are few.
    ended: BTreeSet<u64>,
    /// The first of them that failed, in the order of the command line.
    worst: Option<(u64, Exit)>,
    counts: Counts,
    /// The connection ended before all was sent.
    is_cut: bool,
}

/// The bar over all files, and what there is of them.
struct Overall {
    bar: Bar,
    total: Arc<Total>,
}

#[derive(Default)]
struct Total {
    files: AtomicU64,
    bytes: AtomicU64,
    /// The program is done: nobody wants to know any more.
    is_over: AtomicBool,
}

#[derive(Default)]
struct Counts {
    /// Files, and of directories and links those that were made, or found as they should be.
    sent: u64,
    there: u64,
    directories: u64,
    links: u64,
    failed: u64,
    /// Links that are left out.
    left_out: u64,
    skipped: u64,
    /// Bytes of all that is there now, and of what moved.
    bytes: u64,
    moved: u64,
}

impl<'a> Desk<'a> {
    pub fn new(args: &'a SendArgs, output: &'a Output) -> Self {
        let files = args.files();
        let is_tree = files.iter().any(|path| path.is_dir());
        let several = files.len() > 1 || is_tree;
        let is_shown = several && output.has_bars();
        Self {
            args,
            output,
            is_tree,
            started: Instant::now(),
            views: BTreeMap::new(),
            names: HashMap::new(),
            overall: is_shown.then(|| Overall::new(args, output)),
            outage: Outage::default(),
            acknowledged: HashMap::new(),
            done: 0,
            ended: BTreeSet::new(),
            worst: None,
            counts: Counts::default(),
            is_cut: false,
        }
    }

    /// Shows an event of a file, or of the connection.
    pub fn show(&mut self, file: Option<u64>, event: &Event) {
        let Some(file) = file else {
            let views: Vec<&View> = self.views.values().collect();
            let overall = self.overall.as_ref().map(|all| &all.bar);
            return progress::connection(self.output, &views, overall, &mut self.outage, event);
        };
        if progress::is_life(event) {
            self.outage.end(self.output, self.output.bars.is_hidden());
        }
        match event {
            Event::Offered { name, .. } => {
                self.names.insert(file, name.clone());
                return;
            }
            Event::Skipped(skipped) => return self.skip(file, skipped),
            _ => {}
        }
        if !self.views.contains_key(&file) {
            let view = View::new(self.output.clone(), file + 1, self.name(file));
            self.views.insert(file, if self.is_tree { view.without_bar() } else { view });
        }
        if let Some(view) = self.views.get_mut(&file) {
            view.show(event);
        }
        match event {
            Event::Progress(progress) => {
                self.advance(file, progress.acknowledged);
            }
            Event::Finished(summary) => self.finish(file, summary),
            Event::Failed(error) => self.fail(file, error, true),
            _ => {}
        }
    }

    /// The connection ended for good: what was on its way was not sent to its end, or the next would have been.
    pub fn cut(&mut self, error: &Error) {
        let exit = Exit::from(error.kind());
        self.is_cut = true;
        if self.is_tree {
            self.views.values_mut().for_each(View::clear);
            self.tell(None, None, error);
            return self.note(u64::MAX, exit);
        }
        let mut on_the_way: Vec<u64> = self.views.keys().copied().collect();
        if on_the_way.is_empty() {
            on_the_way.extend((0..).find(|file| !self.ended.contains(file)));
        }
        // People need to be told once.
        let first = on_the_way[0];
        for file in on_the_way {
            self.fail(file, error, file == first);
        }
    }

    /// Says how it went.
    pub fn close(mut self) -> Exit {
        if let Some(overall) = self.overall.take() {
            overall.total.is_over.store(true, Ordering::Relaxed);
        }
        let line = if self.is_tree { self.describe_tree() } else { self.describe_files() };
        if let Some(line) = line {
            self.output.line(&line);
        }
        self.worst.map_or(Exit::Done, |(_, exit)| exit)
    }

    fn describe_files(&self) -> Option<String> {
        let Counts { sent, there, moved, .. } = self.counts;
        let files = self.args.files().len();
        let there = if there > 0 { format!(", {there} already there") } else { String::new() };
        (files > 1).then(|| format!("{sent} of {files} files sent{there}, {} new", words::size(moved)))
    }

    /// The last line of a tree.
    fn describe_tree(&self) -> Option<String> {
        let Counts { sent, there, directories, links, failed, left_out, skipped, bytes, moved } = self.counts;
        let seconds = self.started.elapsed().as_secs_f64();
        let there_as = if self.args.tree.quick { "already there by size and time" } else { "already there" };
        let rate = match moved {
            0 => String::new(),
            moved => format!(" ({})", words::rate(moved as f64 / seconds.max(1e-9))),
        };
        let of = if moved == bytes { String::new() } else { format!(" of {}", words::size(bytes)) };
        Some(format!(
            "{} {sent} {}, {}{of} in {seconds:.2} s{rate}{}{}{}{}{}{}",
            if self.is_cut { "before that sent" } else { "sent" },
            if sent == 1 { "file" } else { "files" },
            words::size(moved),
            words::part(there, there_as, ""),
            words::part(directories, "directory", "directories"),
            words::part(links, "link", "links"),
            words::part(left_out, "link left out", "links left out"),
            words::part(skipped, "skipped", ""),
            words::part(failed, "failed", ""),
        ))
    }

    fn skip(&mut self, file: u64, skipped: &Skipped) {
        // What was asked for by its own name ought to be there.
        if skipped.is_failure() || self.args.files().contains(&skipped.path) {
            self.counts.failed += 1;
            let name = if self.is_tree { skipped.path.display().to_string() } else { self.name(file) };
            let is_name = matches!(skipped.why, SkipReason::Name(_)) && !self.is_tree;
            let advice = if is_name { "; send it under another with --name" } else { "" };
            self.output.failed(Some(file + 1), Some(&name), skipped, advice, Exit::Failed);
            self.end(file);
            return self.note(file, Exit::Failed);
        }
        self.output.event(JsonEvent::Skipped {
            transfer: Some(file + 1),
            name: skipped.path.display().to_string(),
            reason: skipped.why.to_string(),
        });
        if matches!(skipped.why, SkipReason::Link) {
            self.counts.left_out += 1;
        } else {
            self.counts.skipped += 1;
            self.output.notice(&skipped.to_string());
        }
    }

    fn finish(&mut self, file: u64, summary: &Summary) {
        self.advance(file, summary.size());
        self.end(file);
        self.output.finished(file + 1, summary);
        if !self.is_tree {
            self.output.outcome(true, summary);
        }
        *match summary.kind {
            OfferKind::Directory => &mut self.counts.directories,
            OfferKind::Link => &mut self.counts.links,
            OfferKind::File if summary.complete => &mut self.counts.there,
            OfferKind::File => &mut self.counts.sent,
        } += 1;
        self.counts.bytes += summary.size();
        self.counts.moved += summary.new_bytes();
    }

    fn fail(&mut self, file: u64, error: &Error, aloud: bool) {
        let name = self.name(file);
        self.end(file);
        self.counts.failed += 1;
        let (number, exit) = (Some(file + 1), Exit::from(error.kind()));
        self.note(file, exit);
        if aloud {
            self.tell(number, Some(&name), error);
        } else {
            let advice = self.advice(Some(&name), error);
            self.output.event(output::failed(number, Some(&name), error, &advice, exit));
        }
    }

    fn tell(&self, number: Option<u64>, name: Option<&str>, error: &Error) {
        let (advice, exit) = (self.advice(name, error), Exit::from(error.kind()));
        self.output.failed(number, name, error, &advice, exit);
    }

    fn advice(&self, name: Option<&str>, error: &Error) -> String {
        let goes_on = !(self.args.is_input() || self.args.follow || self.args.discard);
        advice::of_transfer(error, Does::Send, name, goes_on)
    }

    /// The first failure is what the program ends with.
    fn note(&mut self, file: u64, exit: Exit) {
        if self.worst.is_none_or(|(first, _)| file < first) {
            self.worst = Some((file, exit));
        }
    }

    /// Takes a file off the screen.
    fn end(&mut self, file: u64) {
        self.acknowledged.remove(&file);
        self.names.remove(&file);
        if !self.is_tree {
            self.ended.insert(file);
        }
        if let Some(mut view) = self.views.remove(&file) {
            view.clear();
        }
    }

    /// Bytes of a file were acknowledged.
    fn advance(&mut self, file: u64, bytes: u64) {
        let before = self.acknowledged.insert(file, bytes).unwrap_or_default();
        self.done = (self.done + bytes).saturating_sub(before);
        self.show_overall(file);
    }

    fn show_overall(&self, file: u64) {
        let Some(overall) = &self.overall else { return };
        let current = self.names.get(&file).filter(|_| self.is_tree);
        overall.show(self.done, self.counts.ended(), current.map(String::as_str));
    }

    /// The name that a file has at the destination.
    fn name(&self, file: u64) -> String {
        if let Some(name) = self.names.get(&file) {
            return name.clone();
        }
        let path = self.args.files().get(usize::try_from(file).unwrap_or(usize::MAX));
        let own = path.filter(|_| !self.is_tree).and_then(|path| path.file_name());
        let own = || own.unwrap_or_default().to_string_lossy().into_owned();
        self.args.name.as_ref().map_or_else(own, ToString::to_string)
    }
}

impl Counts {
    fn ended(&self) -> u64 {
        self.sent + self.there + self.failed
    }
}

impl Overall {
    /// What there is to send is counted beside sending it.
    fn new(args: &SendArgs, output: &Output) -> Self {
        let total = Arc::new(Total::default());
        if let Ok(scan) = tree::scan(args) {
            let total = total.clone();
            std::thread::spawn(move || {
                for entry in scan.flatten() {
                    if total.is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    if let What::File { len } = entry.what {
                        total.files.fetch_add(1, Ordering::Relaxed);
                        total.bytes.fetch_add(len, Ordering::Relaxed);
                    }
                }
            });
        }
        Self { bar: Bar::over_all(output), total }
    }

    fn show(&self, bytes: u64, files: u64, current: Option<&str>) {
        let of = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let files = (files, Some(of(&self.total.files).max(files)));
        self.bar.advance_files(files, Some(of(&self.total.bytes).max(bytes)), current.unwrap_or_default());
        self.bar.advance(bytes, None);
    }
}
