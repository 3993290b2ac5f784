//! `wsferry receive`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::BinaryBytes;
use serde_json::json;
use wsferry::protocol::HeartbeatConfig;
use wsferry::runtime::{self, TcpListener};
use wsferry::storage::{Inbox, InboxOptions};
use wsferry::transfer::plain::PlainReceiveOptions;
use wsferry::transfer::{self, Error, ErrorKind, Event, ReceiveOptions, ServeOptions, Shutdown};

use super::args::ReceiveArgs;
use super::exit::Exit;
use super::output::{self, Output};
use super::progress::View;
use super::signals;

pub fn run(args: ReceiveArgs, output: &Output) -> Exit {
    let port = args.listen.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains('/'));
    if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        let what = format!("--listen is {}; expected HOST:PORT, such as 127.0.0.1:9000", args.listen);
        return output.error(&what, Exit::Usage);
    }
    let (shutdown, signalled) = match signals::watch(None) {
        Ok(watch) => watch,
        Err(error) => return output.error(&format_args!("cannot watch for signals: {error}"), Exit::Failed),
    };
    // Before the directory is made.
    let listener = match runtime::block_on(TcpListener::bind(&args.listen)) {
        Ok(listener) => listener,
        Err(error) => {
            return output.error(&format_args!("cannot listen on {}: {error}", args.listen), Exit::Failed);
        }
    };
    let options = InboxOptions { overwrite: args.overwrite, allow_bench: args.allow_bench };
    let inbox = match Inbox::open(&args.directory, options) {
        Ok(inbox) => Arc::new(inbox),
        Err(error) => return output.error(&error, Exit::Failed),
    };
    match runtime::block_on(serve(&args, &listener, &inbox, shutdown, output)) {
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

/// Serves until a signal (`None`) or, with `--once`, until the first finished transfer.
async fn serve(
    args: &ReceiveArgs,
    listener: &TcpListener,
    inbox: &Arc<Inbox>,
    shutdown: Shutdown,
    output: &Output,
) -> Result<Option<Exit>, String> {
    let address = listener.local_addr();
    let address = address.map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    let directory = args.directory.display();
    output.event(json!({
        "event": "listening", "url": format!("ws://{address}"), "directory": directory.to_string(),
    }));
    output.line(&format!("listening on ws://{address}, writing to {directory}"));

    let views = Mutex::new(HashMap::new());
    let watching = output.clone();
    let observer = Arc::new(move |connection, event| {
        let mut views = views.lock().unwrap_or_else(PoisonError::into_inner);
        show(&watching, &mut views, connection, &event);
    });
    let heartbeat = HeartbeatConfig::with_stall(args.stall_timeout.into());
    let receive = ReceiveOptions { heartbeat, ..ReceiveOptions::default() };
    let stall = args.stall_timeout.into();
    let limit = args.plain_limit.map_or(u64::MAX, |limit| limit.as_u64());
    let plain = args.plain.then_some(PlainReceiveOptions { limit, stall });
    let options = ServeOptions { once: args.once, receive, plain };
    let served = transfer::serve(listener, inbox, options, shutdown, observer).await;
    let served = served.map_err(|error| format!("cannot accept connections on ws://{address}: {error}"))?;
    Ok(served.map(|served| served.map_or_else(Exit::from, |()| Exit::Done)))
}

/// Shows an event of one connection; it has a view from its transfer's start to its end.
fn show(output: &Output, views: &mut HashMap<u64, View>, connection: u64, event: &Event) {
    if let Event::Started { name, .. } = event {
        views.insert(connection, View::new(output.clone(), connection, name.clone(), None));
    }
    if let Some(view) = views.get_mut(&connection) {
        view.show(event);
    }
    match event {
        Event::Finished(summary) => {
            views.remove(&connection);
            output.event(output::finished(connection, summary));
            output.line(&output::describe(false, summary));
        }
        Event::Failed(error) => {
            let view = views.remove(&connection);
            let declined = match error {
                Error::Declined { name, .. } => Some(name.as_str()),
                _ => None,
            };
            let name = view.as_ref().map(View::name).or(declined);
            let advice = match (error.kind(), name) {
                (ErrorKind::Interrupted, Some(name)) if !view.as_ref().is_some_and(View::is_plain) => {
                    format!("; the sender of {name} can resume it")
                }
                _ => String::new(),
            };
            output.failed(Some(connection), name, error, &advice, Exit::from(error.kind()));
        }
        _ => {}
    }
}
