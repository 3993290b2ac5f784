//! `wsferry receive`.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::json;
use wsferry::protocol::{HeartbeatConfig, OfferKind};
use wsferry::runtime;
use wsferry::storage::{Inbox, InboxOptions, Outlet};
use wsferry::transfer::plain::PlainReceiveOptions;
use wsferry::transfer::{
    self, Error, ErrorKind, Event, ListenAddress, Listener, Metrics, ReceiveOptions, Receptacle,
    ServeOptions, Shutdown, Summary,
};
use wsferry::transport::{Gate, Tls, TransportError};

use super::args::ReceiveArgs;
use super::exec::Exec;
use super::exit::Exit;
use super::flood::{self, Admission, Counted, Flood};
use super::limits;
use super::log;
use super::output::Output;
use super::progress::View;
use super::signals::{self, Hangup};
use super::words;

/// How often partial files that have become too old are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

pub fn run(args: ReceiveArgs, output: &Output) -> Exit {
    let args = Arc::new(args);
    log::start(args.log, output);
    let address: ListenAddress = match args.listen.listen.parse() {
        Ok(address) => address,
        Err(error) => {
            let what = format!("--listen is {}; {error}", args.listen.listen);
            return output.error(&what, Exit::Usage);
        }
    };
    let gate = match args.listen.gate(args.origins(), args.plain) {
        Ok(gate) => gate,
        Err(error) => return output.error(&error, Exit::Usage),
    };
    let tls = match args.listen.tls() {
        Ok(tls) => tls,
        Err(error) => return output.error(&error, Exit::Failed),
    };
    let (hang_up, drain) = Shutdown::new();
    let hangup = match tls.clone() {
        Some(tls) => reload(args.clone(), tls, output.clone()),
        None => Hangup::Tells(hang_up),
    };
    // Without its handle, it would be told at once.
    let drain = tls.is_none().then_some(drain);
    let (shutdown, signalled) = match signals::watch(hangup, None, output) {
        Ok(watch) => watch,
        Err(error) => return output.error(&format_args!("cannot watch for signals: {error}"), Exit::Failed),
    };
    limits::raise_descriptors();
    // Before the directory is made.
    let listener = match runtime::block_on(address.bind()) {
        Ok(listener) => listener,
        Err(error) => {
            let what = format!("cannot listen on {}: {error}", args.listen.listen);
            return output.error(&what, Exit::Failed);
        }
    };
    if !listener.is_local() && gate.token.is_none() && !args.listen.open {
        let what = format!(
            "--listen {} lets other machines connect, and whoever does could write files into {}: \
             demand a token (--token-file FILE), or say --open",
            args.listen.listen,
            args.place()
        );
        return output.error(&what, Exit::Usage);
    }
    let house = House { listener, gate, tls, drain };
    let exit = if args.stdout {
        pass_on(&args, house, shutdown, output)
    } else {
        store(&args, house, shutdown, output)
    };
    exit.unwrap_or_else(|| signalled.exit())
}

/// Passes one file on to standard output; nothing if a signal stopped it.
fn pass_on(args: &ReceiveArgs, house: House, shutdown: Shutdown, output: &Output) -> Option<Exit> {
    // Not the buffered one: a byte that has come is to be read.
    let outlet = std::io::stdout().as_fd().try_clone_to_owned();
    let outlet = match outlet.and_then(|stdout| Outlet::new(File::from(stdout))) {
        Ok(outlet) => Arc::new(outlet),
        Err(error) => {
            let what = format_args!("cannot write to standard output: {error}");
            return Some(output.error(&what, Exit::Failed));
        }
    };
    let desk = Arc::new(Desk::new(output.clone(), None));
    match runtime::block_on(serve(args, house, (&outlet).into(), shutdown, &desk)) {
        Ok(exit) => exit,
        Err(error) => Some(output.error(&error, Exit::Failed)),
    }
}

/// Writes files into the directory; nothing if a signal stopped it.
fn store(args: &ReceiveArgs, house: House, shutdown: Shutdown, output: &Output) -> Option<Exit> {
    let keep_partial = args.keep_partial.into();
    let options = InboxOptions {
        overwrite: args.overwrite,
        allow_bench: args.allow_bench,
        keep_partial,
        max_file_size: args.listen.max_file_size.map(|size| size.as_u64()),
        keep_free: args.listen.keep_free.as_u64(),
        max_partials: args.listen.max_partials,
    };
    let inbox = match Inbox::open(&args.directory, options) {
        Ok(inbox) => Arc::new(inbox),
        Err(error) => return Some(output.error(&error, Exit::Failed)),
    };
    drop(runtime::spawn(sweep(Arc::downgrade(&inbox))));
    for warning in inbox.warnings() {
        let what = format!("{}: {warning}", args.directory.display());
        output.event(json!({ "event": "notice", "transfer": null, "name": null, "reason": what }));
        output.notice(&what);
    }
    let exec = match args.exec.as_ref().map(|command| Running::new(command, args, output)).transpose() {
        Ok(exec) => exec,
        Err(error) => {
            return Some(output.error(&format_args!("cannot prepare --exec: {error}"), Exit::Failed));
        }
    };
    let desk = Arc::new(Desk::new(output.clone(), exec));
    let served = runtime::block_on(serve(args, house, (&inbox).into(), shutdown, &desk));
    let has_failed = desk.exec.as_ref().is_some_and(|running| running.exec.finish());
    match served {
        Ok(Some(Exit::Done)) if has_failed => Some(Exit::Failed),
        Ok(Some(exit)) => Some(exit),
        Ok(None) => {
            for partial in inbox.resumable() {
                let of = partial.size.map(|size| format!(" of {}", words::size(size)));
                let (name, received, of) =
                    (partial.name, words::size(partial.received), of.unwrap_or_default());
                output.notice(&format!("can be resumed: {name}, {received}{of} received"));
            }
            None
        }
        Err(error) => Some(output.error(&error, Exit::Failed)),
    }
}

/// Reads certificate and key again; those that make no sense change nothing.
fn reload(args: Arc<ReceiveArgs>, tls: Tls, output: Output) -> Hangup {
    Hangup::Does(Box::new(move || match args.listen.renew(&tls) {
        Ok(()) => {
            let what = "the certificate was read again";
            output.event(json!({ "event": "notice", "transfer": null, "name": null, "reason": what }));
            output.notice(what);
        }
        Err(error) => output.trouble(&format!("{error}; the certificate from before is kept")),
    }))
}

/// Refused offers that are told one by one in a minute.
const REFUSALS_TOLD: u32 = 20;

/// Where senders knock.
struct House {
    listener: Listener,
    gate: Gate,
    tls: Option<Tls>,
    drain: Option<Shutdown>,
}

/// Serves until a signal (`None`) or, with `--once`, until all of the first sender's was received or refused.
async fn serve(
    args: &ReceiveArgs,
    House { listener, gate, tls, drain }: House,
    into: Receptacle,
    shutdown: Shutdown,
    desk: &Arc<Desk>,
) -> Result<Option<Exit>, String> {
    let output = &desk.output;
    let url = args.listen.url(listener.address());
    args.listen.tell(&listener, gate.token.is_some(), &args.place(), output);

    let watching = desk.clone();
    let observer = Arc::new(move |connection, transfer, event| watching.show((connection, transfer), &event));
    let heartbeat = HeartbeatConfig::with_stall(args.stall_timeout.into());
    let receive = ReceiveOptions { heartbeat, ..ReceiveOptions::default() };
    let stall = args.stall_timeout.into();
    let limits = [args.plain_limit, args.listen.max_file_size].into_iter().flatten();
    let limit = limits.map(|limit| limit.as_u64()).min().unwrap_or(u64::MAX);
    let plain = args.plain.then_some(PlainReceiveOptions { limit, stall });
    let options = ServeOptions {
        receive,
        plain,
        once: args.once,
        gate,
        tls,
        limits: args.listen.limits(),
        metrics: Some(Metrics::new()),
        drain,
    };
    let served = transfer::serve(&listener, into, options, shutdown, observer).await;
    desk.tell_count(Kind::Unserved);
    desk.tell_count(Kind::Refused);
    let served = served.map_err(|error| format!("cannot accept connections on {url}: {error}"))?;
    Ok(served.map(|served| served.map_or_else(Exit::from, |()| Exit::Done)))
}

/// Removes partial files that have become too old, every hour.
async fn sweep(inbox: Weak<Inbox>) {
    loop {
        runtime::sleep(SWEEP_INTERVAL).await;
        let Some(inbox) = inbox.upgrade() else { return };
        runtime::spawn_blocking(move || inbox.sweep()).await;
    }
}

/// What `--exec` runs, and where the files are that it runs for.
struct Running {
    exec: Exec,
    directory: PathBuf,
}

impl Running {
    fn new(command: &str, args: &ReceiveArgs, output: &Output) -> io::Result<Self> {
        Ok(Self { exec: Exec::new(command, output)?, directory: args.directory.canonicalize()? })
    }
}

/// Shows what happens on all connections.
struct Desk {
    output: Output,
    exec: Option<Running>,
    shown: Mutex<Shown>,
}

/// A connection, and a transfer on it.
type Key = (u64, Option<u64>);

/// What came in directories on one connection.
struct Tree {
    started: Instant,
    files: u64,
    there: u64,
    directories: u64,
    links: u64,
    bytes: u64,
}

/// What is shown, and what is only counted.
struct Shown {
    /// A transfer has one from its start to its end: by its connection, and its number there.
    views: HashMap<Key, View>,
    /// What came in directories, by its connection: one line tells of all of it.
    trees: HashMap<u64, Tree>,
    /// How many transfers there were: programs tell them apart by their numbers.
    transfers: u64,
    unserved: Flood,
    refused: Flood,
}

/// What may come as a flood.
#[derive(Debug, Clone, Copy)]
enum Kind {
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

impl Tree {
    fn new() -> Self {
        Self { started: Instant::now(), files: 0, there: 0, directories: 0, links: 0, bytes: 0 }
    }

    fn add(&mut self, summary: &Summary) {
        *match summary.kind {
            OfferKind::Directory => &mut self.directories,
            OfferKind::Link => &mut self.links,
            OfferKind::File if summary.complete => &mut self.there,
            OfferKind::File => &mut self.files,
        } += 1;
        self.bytes += summary.new_bytes();
    }

    fn describe(&self) -> String {
        let Self { started, files, there, directories, links, bytes } = self;
        let part = |count: u64, one: &str, many: &str| match count {
            0 => String::new(),
            1 => format!(", 1 {one}"),
            count => format!(", {count} {many}"),
        };
        let seconds = started.elapsed().as_secs_f64();
        format!(
            "received {files} {} in directories, {} in {seconds:.2} s{}{}{}",
            if *files == 1 { "file" } else { "files" },
            words::size(*bytes),
            part(*there, "already there", "already there"),
            part(*directories, "directory", "directories"),
            part(*links, "link", "links"),
        )
    }
}

/// Whether it is one of many: a line for all of them will do.
fn is_in_tree(name: &str, kind: OfferKind) -> bool {
    name.contains('/') || kind != OfferKind::File
}

impl Desk {
    fn new(output: Output, exec: Option<Running>) -> Self {
        let (unserved, refused) = (Flood::new(1), Flood::new(REFUSALS_TOLD));
        Self {
            output,
            exec,
            shown: Mutex::new(Shown {
                views: HashMap::new(),
                trees: HashMap::new(),
                transfers: 0,
                unserved,
                refused,
            }),
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows an event of one transfer, or of a connection.
    fn show(self: &Arc<Self>, key: Key, event: &Event) {
        let mut shown = self.shown();
        if let Event::Started { name, kind, .. } = event {
            shown.transfers += 1;
            let view = View::new(self.output.clone(), shown.transfers, name.clone());
            let view = if is_in_tree(name, *kind) { view.without_bar() } else { view };
            shown.views.insert(key, view);
        }
        if let Some(view) = shown.views.get_mut(&key) {
            view.show(event);
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
                if is_in_tree(&summary.name, summary.kind) {
                    shown.trees.entry(key.0).or_insert_with(Tree::new).add(summary);
                } else {
                    self.output.outcome(false, summary);
                }
                return;
            }
            Event::Disconnected => {
                if let Some(tree) = shown.trees.remove(&key.0) {
                    self.output.line(&tree.describe());
                }
                return;
            }
            // One that had been taken is a transfer that failed.
            Event::Failed(error @ Error::Declined { .. }) if !shown.views.contains_key(&key) => {
                (Some(Kind::Refused), error)
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
        let mut views: Vec<View> = ended.iter().filter_map(|key| shown.views.remove(key)).collect();
        views.iter_mut().for_each(View::clear);
        if let Some(kind) = kind {
            match shown.flood(kind).admit(&error.to_string(), Instant::now()) {
                Admission::First => self.clone().tell_count_later(kind),
                Admission::Another => {}
                Admission::Counted => return,
            }
        }
        if views.is_empty() {
            self.failed(None, error);
        }
        for view in &views {
            self.failed(Some(view), error);
        }
    }

    fn failed(&self, view: Option<&View>, error: &Error) {
        let name = match error {
            Error::Declined { name, .. } => Some(name.as_str()),
            _ => view.map(View::name),
        };
        let advice = match (error, error.kind(), name) {
            (Error::Transport(TransportError::Page { origin, .. }), ..) => {
                format!("; if it is yours, start with --allow-origin {origin}")
            }
            (Error::Transport(TransportError::Encrypted { .. }), ..) => {
                "; dial ws://, or start with --tls-cert and --tls-key".to_owned()
            }
            (_, ErrorKind::Interrupted, Some(name)) if !view.is_some_and(View::is_endless) => {
                format!("; the sender of {name} can resume it")
            }
            _ => String::new(),
        };
        let number = view.map(View::transfer);
        self.output.failed(number, name, error, &advice, Exit::from(error.kind()));
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
    fn tell_count(&self, kind: Kind) -> bool {
        let counted = self.shown().flood(kind).take(Instant::now());
        let Some(Counted { count, seconds, last }) = counted else {
            return false;
        };
        let (event, what) = match kind {
            Kind::Unserved => ("unserved", "connections ended before a transfer"),
            Kind::Refused => ("refused", "offers were refused"),
        };
        self.output.event(json!({ "event": event, "count": count, "seconds": seconds, "reason": last }));
        self.output.notice(&format!("{count} more {what} in the last {seconds} s; the last: {last}"));
        true
    }
}
