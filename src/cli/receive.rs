//! `wsferry receive`.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use wsferry::protocol::{HeartbeatConfig, MAX_FRAME, MIN_FRAME_LIMIT};
use wsferry::runtime;
use wsferry::storage::{Inbox, InboxOptions, Outlet};
use wsferry::transfer::plain::PlainReceiveOptions;
use wsferry::transfer::{
    self, Error, Event, Metrics, ReceiveOptions, Receptacle, RetryOptions, ServeOptions, Served, Shutdown,
};
use wsferry::transport::{Program, Remote, mask_url};

use super::advice::Does;
use super::args::ReceiveArgs;
use super::event::{Concerns, JsonEvent};
use super::exit::Exit;
use super::guests::{Desk, Kind, Running};
use super::house::House;
use super::limits;
use super::listen::Purpose;
use super::log;
use super::output::Output;
use super::signals::{self, Hangup};
use super::stdio;
use super::words;

/// How often partial files that have become too old are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long to keep trying after a cut, if nothing else is said.
const RETRY_FOR: Duration = Duration::from_secs(10 * 60);

/// How the sender is reached.
enum Way {
    /// It dials.
    Listen,
    /// This side does, or starts a program.
    Reach(Remote),
    /// It started this.
    Stdio,
}

pub fn run(args: ReceiveArgs, output: &Output) -> Exit {
    log::start(args.log, output);
    let (way, directory) = match way(&args, output) {
        Ok(found) => found,
        Err(usage) => return output.error(&usage, Exit::Usage),
    };
    match way {
        Way::Listen => listen(&args, &directory, output),
        Way::Reach(remote) => fetch(&args, &directory, remote, output),
        Way::Stdio => over_stdio(&args, &directory, output),
    }
}

/// Turns flags into a way, or says which of them makes no sense.
fn way(args: &ReceiveArgs, output: &Output) -> Result<(Way, PathBuf), String> {
    let directory = args.directory()?.to_owned();
    // As curl does: what is in the file may be anything, and the terminal would do what it says.
    if args.stdout && std::io::stdout().is_terminal() {
        return Err("--stdout: standard output is a terminal; redirect it, or pipe it on".to_owned());
    }
    let (url, pipe) = (args.url(), &args.pipe);
    if let Some(url) = url.as_ref().filter(|_| pipe.is_given()) {
        return Err(format!("{} takes the place of a URL; {} is one too many", pipe.given(), mask_url(url)));
    }
    let listening = [
        (args.plain, "--plain"),
        (args.allow_bench, "--allow-bench"),
        (!args.allow_origin.is_empty(), "--allow-origin"),
    ];
    // What is set for all runs is no mistake of this one.
    let sources = &args.dial.sources;
    let listening = args.listen.given(sources).or(sources.first_given(&listening));
    let retrying = sources.first_given(&[(args.retry_for.is_some(), "--retry-for")]);
    let sized = sources.first_given(&[(args.frame_limit.is_some(), "--frame-limit")]);
    let (unfit, why) = match (&url, &pipe.via) {
        (Some(_), _) => (listening, "is for a side that listens, and a URL is dialled"),
        (None, Some(_)) => (listening.or(args.dial.given_any()), "says nothing where a command is started"),
        _ if pipe.stdio => {
            (listening.or(args.dial.given_any()).or(retrying), "says nothing over standard input and output")
        }
        _ => (
            args.dial.for_dialling().or(retrying).or(sized),
            "is for a side that dials: name a URL before the directory",
        ),
    };
    if let Some(flag) = unfit {
        return Err(format!("{flag} {why}"));
    }
    if let Some(limit) = args.frame_limit.filter(|limit| limit.as_u64() < MIN_FRAME_LIMIT as u64) {
        let limit = limit.as_u64();
        return Err(format!("--frame-limit is {limit}; at least {MIN_FRAME_LIMIT} characters are needed"));
    }
    let way = match (url, &pipe.via) {
        (Some(url), _) => Way::Reach(args.dial.dialer(&url, output)?.into()),
        (None, Some(command)) => Way::Reach(Program::new(command).into()),
        _ if pipe.stdio => Way::Stdio,
        _ => Way::Listen,
    };
    Ok((way, directory))
}

/// Listens until a signal or, with `--once`, until all of the first sender's was received or refused.
fn listen(args: &ReceiveArgs, directory: &Path, output: &Output) -> Exit {
    let exposed = match args.stdout {
        true => "write to standard output".to_owned(),
        false => format!("write files into {}", directory.display()),
    };
    // Before the directory is made.
    let house = House::open(&args.listen, &args.dial, (args.origins(), args.plain), &exposed, output);
    let house = match house {
        Ok(house) => house,
        Err(exit) => return exit,
    };
    let signalled = house.signalled.clone();
    if args.stdout {
        let outlet = match outlet(output) {
            Ok(outlet) => outlet,
            Err(exit) => return exit,
        };
        let desk = Arc::new(Desk::new(output.clone(), Does::Receive, None));
        return match runtime::block_on(serve(args, house, (&outlet).into(), directory, &desk)) {
            Ok(exit) => exit.unwrap_or_else(|| signalled.exit()),
            Err(error) => output.error(&error, Exit::Failed),
        };
    }
    let (inbox, desk) = match open(args, directory, Does::Receive, output) {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let served = runtime::block_on(serve(args, house, (&inbox).into(), directory, &desk));
    let has_failed = desk.finish();
    match served {
        Ok(Some(Exit::Done)) if has_failed => Exit::Failed,
        Ok(Some(exit)) => exit,
        Ok(None) => {
            tell_resumable(&inbox, output);
            signalled.exit()
        }
        Err(error) => output.error(&error, Exit::Failed),
    }
}

/// Standard output, for one file; what goes wrong is told.
fn outlet(output: &Output) -> Result<Arc<Outlet>, Exit> {
    // Not the buffered one: a byte that has come is to be read.
    let stdout = std::io::stdout().as_fd().try_clone_to_owned();
    let outlet = stdout.and_then(|stdout| Outlet::new(File::from(stdout)));
    outlet.map(Arc::new).map_err(|error| {
        output.error(&format_args!("cannot write to standard output: {error}"), Exit::Failed)
    })
}

/// Reaches out, and receives all that one sender means to send.
fn fetch(args: &ReceiveArgs, directory: &Path, remote: Remote, output: &Output) -> Exit {
    receive_one(args, directory, output, async |into, shutdown, observer| {
        let retry_for = args.retry_for.map_or(RETRY_FOR, Into::into);
        let retry = RetryOptions { retry_for, ..RetryOptions::default() };
        transfer::receive_from(remote, into, &options(args), retry, shutdown, observer).await
    })
}

/// The same over the pipes of whoever started this.
fn over_stdio(args: &ReceiveArgs, directory: &Path, output: &Output) -> Exit {
    let stream = match stdio::stream() {
        Ok(stream) => stream,
        Err(error) => return output.error(&error, Exit::Usage),
    };
    receive_one(args, directory, output, async |into, shutdown, observer| {
        let mut connection = stdio::connection(stream).await?;
        transfer::receive_over(&mut connection, into, &options(args), shutdown, observer).await
    })
}

/// Receives from one sender, whose first failure is the exit code.
fn receive_one(
    args: &ReceiveArgs,
    directory: &Path,
    output: &Output,
    receive: impl AsyncFnOnce(Receptacle, Shutdown, &mut Observer<'_>) -> Result<Served, Error>,
) -> Exit {
    let (shutdown, signalled) = match signals::watch(Hangup::IsIgnored, None, output) {
        Ok(watch) => watch,
        Err(error) => return output.error(&format_args!("cannot watch for signals: {error}"), Exit::Failed),
    };
    limits::raise_descriptors();
    let opened = if args.stdout {
        let desk = |outlet| {
            (
                Receptacle::from(&outlet),
                Arc::new(Desk::new(output.clone(), Does::Fetch, None).without_resume()),
            )
        };
        outlet(output).map(desk)
    } else {
        open(args, directory, Does::Fetch, output).map(|(inbox, desk)| ((&inbox).into(), desk))
    };
    let (into, desk) = match opened {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let mut observer = |transfer, event| desk.show((0, transfer), &event);
    let received = runtime::block_on(receive(into, shutdown, &mut observer));
    let has_failed = desk.finish();
    let exit = match received {
        Ok(Ok(())) if has_failed => Exit::Failed,
        Ok(served) => served.map_or_else(Exit::from, |()| Exit::Done),
        Err(Error::Stopped) => {
            output.bars.clear().ok();
            let stopped = if args.stdout { "stopped" } else { signals::STOPPED };
            output.error(&stopped, signalled.exit())
        }
        Err(error) => {
            let exit = error.kind().into();
            desk.show((0, None), &Event::Failed(error));
            exit
        }
    };
    desk.show((0, None), &Event::Disconnected);
    exit
}

type Observer<'a> = dyn FnMut(Option<u64>, Event) + Send + 'a;

/// Opens the directory, and what shows what happens; or tells why that cannot be done.
fn open(
    args: &ReceiveArgs,
    directory: &Path,
    does: Does,
    output: &Output,
) -> Result<(Arc<Inbox>, Arc<Desk>), Exit> {
    let options = InboxOptions {
        overwrite: args.overwrite,
        allow_bench: args.allow_bench,
        keep_partial: args.keep_partial.into(),
        max_file_size: args.max_file_size.map(|size| size.as_u64()),
        keep_free: args.keep_free.as_u64(),
        max_partials: args.max_partials,
    };
    let inbox = Inbox::open(directory, options).map_err(|error| output.error(&error, Exit::Failed))?;
    for warning in inbox.warnings() {
        let what = format!("{}: {warning}", directory.display());
        output.event(JsonEvent::notice(&what));
        output.notice(&what);
    }
    let running = args.exec.as_ref().map(|command| Running::new(command, directory, output)).transpose();
    let running = running
        .map_err(|error| output.error(&format_args!("cannot prepare --exec: {error}"), Exit::Failed))?;
    let inbox = Arc::new(inbox);
    drop(runtime::spawn(sweep(Arc::downgrade(&inbox))));
    Ok((inbox, Arc::new(Desk::new(output.clone(), does, running))))
}

fn tell_resumable(inbox: &Inbox, output: &Output) {
    for partial in inbox.resumable() {
        let (name, received) = (partial.name, words::size(partial.received));
        output.notice(&match partial.size {
            Some(size) => format!("can be resumed: {name}, {received} of {} received", words::size(size)),
            None => format!("can be resumed as long as its sender runs: {name}, {received} received"),
        });
    }
}

fn options(args: &ReceiveArgs) -> ReceiveOptions {
    let frame_limit = args.frame_limit.map_or(MAX_FRAME as u64, |limit| limit.as_u64().min(MAX_FRAME as u64));
    let heartbeat = HeartbeatConfig::with_stall(args.stall_timeout.into());
    ReceiveOptions { frame_limit, heartbeat, ..ReceiveOptions::default() }
}

/// Serves until a signal (`None`) or, with `--once`, until all of the first sender's was received or refused.
async fn serve(
    args: &ReceiveArgs,
    house: House,
    into: Receptacle,
    directory: &Path,
    desk: &Arc<Desk>,
) -> Result<Option<Exit>, String> {
    let url = args.listen.url(house.listener.address());
    let place = if args.stdout { "standard output".to_owned() } else { directory.display().to_string() };
    let purpose =
        Purpose { does: format!("writing to {place}"), is_told_here: false, other: ["send", "FILE ", ""] };
    args.listen.tell(&house, &purpose, Concerns::Directory(place), desk.output());

    let watching = desk.clone();
    let observer = Arc::new(move |connection, transfer, event| watching.show((connection, transfer), &event));
    let stall = args.stall_timeout.into();
    let limits = [args.plain_limit, args.max_file_size].into_iter().flatten();
    let limit = limits.map(|limit| limit.as_u64()).min().unwrap_or(u64::MAX);
    let plain = args.plain.then_some(PlainReceiveOptions { limit, stall });
    let House { listener, gate, tls, drain, shutdown, .. } = house;
    let options = ServeOptions {
        // A frame limit is for a path that is dialled.
        receive: ReceiveOptions { frame_limit: MAX_FRAME as u64, ..options(args) },
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
