//! `wsferry receive`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use indicatif::BinaryBytes;
use serde_json::json;
use wsferry::protocol::HeartbeatConfig;
use wsferry::runtime::{self, TcpListener};
use wsferry::storage::{Inbox, InboxOptions};
use wsferry::transfer::plain::PlainReceiveOptions;
use wsferry::transfer::{self, Error, ErrorKind, Event, ReceiveOptions, ServeOptions, Shutdown};
use wsferry::transport::TransportError;

use super::args::ReceiveArgs;
use super::exit::Exit;
use super::flood::{self, Admission, Counted, Flood};
use super::limits;
use super::output::{self, Output};
use super::progress::View;
use super::signals::{self, Hangup};

/// How often partial files that have become too old are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

pub fn run(args: ReceiveArgs, output: &Output) -> Exit {
    let port = args.listen.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains('/'));
    if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        let what = format!("--listen is {}; expected HOST:PORT, such as 127.0.0.1:9000", args.listen);
        return output.error(&what, Exit::Usage);
    }
    let (hang_up, drain) = Shutdown::new();
    let (shutdown, signalled) = match signals::watch(Hangup::Tells(hang_up), None, output) {
        Ok(watch) => watch,
        Err(error) => return output.error(&format_args!("cannot watch for signals: {error}"), Exit::Failed),
    };
    limits::raise_descriptors();
    // Before the directory is made.
    let listener = match runtime::block_on(TcpListener::bind(&args.listen)) {
        Ok(listener) => listener,
        Err(error) => {
            return output.error(&format_args!("cannot listen on {}: {error}", args.listen), Exit::Failed);
        }
    };
    let keep_partial = args.keep_partial.into();
    let options = InboxOptions { overwrite: args.overwrite, allow_bench: args.allow_bench, keep_partial };
    let inbox = match Inbox::open(&args.directory, options) {
        Ok(inbox) => Arc::new(inbox),
        Err(error) => return output.error(&error, Exit::Failed),
    };
    for warning in inbox.warnings() {
        let what = format!("{}: {warning}", args.directory.display());
        output.event(json!({ "event": "notice", "transfer": null, "name": null, "reason": what }));
        output.notice(&what);
    }
    match runtime::block_on(serve(&args, &listener, &inbox, (shutdown, drain), output)) {
        Ok(Some(exit)) => exit,
        Ok(None) => {
            for partial in inbox.resumable() {
                output.notice(&format!(
                    "can be resumed: {}, {} of {} received",
                    partial.name,
                    BinaryBytes(partial.received),
                    BinaryBytes(partial.size)
                ));
            }
            signalled.exit()
        }
        Err(error) => output.error(&error, Exit::Failed),
    }
}

/// Refused offers that are told one by one in a minute.
const REFUSALS_TOLD: u32 = 20;

/// Serves until a signal (`None`) or, with `--once`, until all of the first sender's was received or refused.
async fn serve(
    args: &ReceiveArgs,
    listener: &TcpListener,
    inbox: &Arc<Inbox>,
    (shutdown, drain): (Shutdown, Shutdown),
    output: &Output,
) -> Result<Option<Exit>, String> {
    let address = listener.local_addr();
    let address = address.map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    let directory = args.directory.display();
    output.event(json!({
        "event": "listening", "url": format!("ws://{address}"), "directory": directory.to_string(),
    }));
    output.line(&format!("listening on ws://{address}, writing to {directory}"));

    let desk = Arc::new(Desk::new(output.clone()));
    let watching = desk.clone();
    let observer = Arc::new(move |connection, event| watching.show(connection, &event));
    drop(runtime::spawn(sweep(Arc::downgrade(inbox))));
    let heartbeat = HeartbeatConfig::with_stall(args.stall_timeout.into());
    let receive = ReceiveOptions { heartbeat, ..ReceiveOptions::default() };
    let stall = args.stall_timeout.into();
    let limit = args.plain_limit.map_or(u64::MAX, |limit| limit.as_u64());
    let plain = args.plain.then_some(PlainReceiveOptions { limit, stall });
    let options =
        ServeOptions { receive, plain, once: args.once, origins: args.origins(), drain: Some(drain) };
    let served = transfer::serve(listener, inbox, options, shutdown, observer).await;
    desk.tell_count(Kind::Unserved);
    desk.tell_count(Kind::Refused);
    let served = served.map_err(|error| format!("cannot accept connections on ws://{address}: {error}"))?;
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

/// Shows what happens on all connections.
struct Desk {
    output: Output,
    shown: Mutex<Shown>,
}

/// What is shown, and what is only counted.
struct Shown {
    /// A connection has one from its transfer's start to its end.
    views: HashMap<u64, View>,
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

impl Desk {
    fn new(output: Output) -> Self {
        let (unserved, refused) = (Flood::new(1), Flood::new(REFUSALS_TOLD));
        Self { output, shown: Mutex::new(Shown { views: HashMap::new(), unserved, refused }) }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows an event of one connection.
    fn show(self: &Arc<Self>, connection: u64, event: &Event) {
        let mut shown = self.shown();
        if let Event::Started { name, .. } = event {
            shown.views.insert(connection, View::new(self.output.clone(), connection, name.clone(), None));
        }
        if let Some(view) = shown.views.get_mut(&connection) {
            view.show(event);
        }
        let (kind, error) = match event {
            Event::Finished(summary) => {
                shown.views.remove(&connection);
                self.output.event(output::finished(connection, summary));
                self.output.line(&output::describe(false, summary));
                return;
            }
            Event::Failed(error @ Error::Declined { .. }) => (Some(Kind::Refused), error),
            Event::Unserved(error) => (Some(Kind::Unserved), error),
            Event::Failed(error) => (None, error),
            _ => return,
        };
        let view = shown.views.remove(&connection);
        if let Some(kind) = kind {
            match shown.flood(kind).admit(&error.to_string(), Instant::now()) {
                Admission::First => self.clone().tell_count_later(kind),
                Admission::Another => {}
                Admission::Counted => return,
            }
        }
        self.failed(connection, view.as_ref(), error);
    }

    fn failed(&self, connection: u64, view: Option<&View>, error: &Error) {
        let name = match error {
            Error::Declined { name, .. } => Some(name.as_str()),
            _ => view.map(View::name),
        };
        let advice = match (error, error.kind(), name) {
            (Error::Transport(TransportError::Page { origin, .. }), ..) => {
                format!("; if it is yours, start with --allow-origin {origin}")
            }
            (_, ErrorKind::Interrupted, Some(name)) if !view.is_some_and(View::is_plain) => {
                format!("; the sender of {name} can resume it")
            }
            _ => String::new(),
        };
        self.output.failed(Some(connection), name, error, &advice, Exit::from(error.kind()));
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
