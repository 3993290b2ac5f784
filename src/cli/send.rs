//! `wsferry send`.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use bytesize::ByteSize;
use futures::future::{Either, select};
use wsferry::protocol::{
    ChunkSize, FileName, HeartbeatConfig, MAX_FRAME, MIN_FRAME_LIMIT, NameError, RelativePath,
};
use wsferry::runtime;
use wsferry::storage::{FollowEnd, Follower, Root, SourceError};
use wsferry::transfer::{Error, Event, RetryOptions, SendOptions, Session};
use wsferry::transport::{Dialer, Program, Remote, mask_url};

use super::advice;
use super::args::{ChunkArg, SendArgs};
use super::desk::Desk;
use super::exit::Exit;
use super::foresight::Foresight;
use super::offer;
use super::output::Output;
use super::plain;
use super::signals::{self, Hangup};
use super::tree;

/// How long a sender that was told to stop may take to do so: it has nothing to put in order.
const STOP_PATIENCE: Duration = Duration::from_millis(500);
/// The same where a command was started, which has some time to end by itself.
const STOP_PATIENCE_OF_COMMAND: Duration = Duration::from_millis(1500);
/// How much of that it may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(300);

/// How the receiver is reached.
enum Way {
    /// This side dials.
    Url(Box<Dialer>),
    /// It starts a program.
    Program(Program),
    /// The receiver dials.
    Listen,
    /// It started this.
    Stdio,
}

pub fn run(args: SendArgs, output: &Output) -> Exit {
    let (way, options) = match resolve(&args, output) {
        Ok(resolved) => resolved,
        Err(usage) => return output.error(&usage, Exit::Usage),
    };
    // A file that is followed is sent to its end first.
    let patience = if args.pipe.via.is_some() { STOP_PATIENCE_OF_COMMAND } else { STOP_PATIENCE };
    let patience = (!args.follow).then_some(patience);
    let remote = match way {
        Way::Listen => return offer::run(args, options, output),
        Way::Stdio => return offer::over_stdio(&args, &options, output),
        Way::Url(dialer) if args.plain => Err(dialer),
        Way::Url(dialer) => Ok(Remote::Url(dialer)),
        Way::Program(program) => Ok(program.into()),
    };
    let (shutdown, signalled) = match signals::watch(Hangup::IsIgnored, patience, output) {
        Ok(watch) => watch,
        Err(error) => return output.error(&format_args!("cannot watch for signals: {error}"), Exit::Failed),
    };
    let stopped = match args.plain || args.is_input() {
        true => plain::STOPPED,
        false => signals::STOPPED,
    };
    let (told, end) = (shutdown.clone(), FollowEnd::default());
    let sending = async {
        let remote = match remote {
            Err(dialer) => return Some(plain::send_all(&args, &dialer, options.chunk, output).await),
            Ok(remote) => remote,
        };
        let session = Session::new(remote, options, retry(&args));
        // What is followed ends well.
        let session = if args.follow { session } else { session.stopped_by(told) };
        send(&args, session, end.clone(), output).await
    };
    let ended = runtime::block_on(async {
        match select(pin!(sending), shutdown).await {
            Either::Left((exit, _)) => exit,
            Either::Right((_, sending)) if args.follow => {
                end.end();
                sending.await
            }
            // It tells the receiver, if there is one that can be told at once.
            Either::Right((_, sending)) => runtime::timeout(GOODBYE, sending).await.flatten(),
        }
    });
    ended.unwrap_or_else(|| {
        output.bars.clear().ok();
        output.error(&stopped, signalled.exit())
    })
}

/// Sends all that is to be sent; `None` if that was stopped.
async fn send(args: &SendArgs, mut session: Session, end: FollowEnd, output: &Output) -> Option<Exit> {
    if args.dry_run {
        let items = match tree::scan(args) {
            Ok(items) => items,
            Err(usage) => return Some(output.error(&usage, Exit::Usage)),
        };
        let mut foresight = Foresight::new(output);
        let asked = session.send_all(items, &mut |file, event| foresight.show(file, &event)).await;
        if matches!(asked, Err(Error::Stopped)) {
            return None;
        }
        session.close().await;
        return Some(foresight.close(asked.err()));
    }
    let mut desk = Desk::new(args, output);
    let sent = if args.is_input() || args.follow {
        let (reader, name) = match read_once(args, end) {
            Ok(opened) => opened,
            Err(error) => {
                let error = Error::from(error);
                return Some(output.failed(
                    Some(1),
                    None,
                    &error,
                    advice::of(&error),
                    Exit::from(error.kind()),
                ));
            }
        };
        let mut watch = |event: Event| match event {
            Event::Connecting { .. } | Event::Reconnecting { .. } => desk.show(None, &event),
            event => desk.show(Some(0), &event),
        };
        let sent = session.send_stream(reader, name, &mut watch).await;
        sent.map(|summary| desk.show(Some(0), &Event::Finished(summary)))
    } else {
        match tree::scan(args) {
            Ok(items) => session.send_all(items, &mut |file, event| desk.show(file, &event)).await,
            Err(usage) => return Some(output.error(&usage, Exit::Usage)),
        }
    };
    match sent {
        Err(Error::Stopped) => return None,
        Err(error) => desk.cut(&error),
        Ok(()) => {}
    }
    session.close().await;
    Some(desk.close())
}

/// Turns flags into options, or says which of them makes no sense.
fn resolve(args: &SendArgs, output: &Output) -> Result<(Way, SendOptions), String> {
    let (files, url) = (args.files(), args.url());
    if files.is_empty() {
        return Err(format!(
            "`wsferry send FILE... URL` needs a file and a URL; there is {} alone",
            mask_url(&url)
        ));
    }
    // What is no file is named by no error: there may be a secret in it.
    let is_url = |file: &&PathBuf| file.to_str().is_some_and(|file| file.contains("://")) && !file.exists();
    if let Some(other) = files.iter().find(is_url) {
        let other = mask_url(&other.to_string_lossy());
        return Err(match args.has_no_url() {
            true => {
                format!("no URL is sent to where a flag says how the receiver is reached; there is {other}")
            }
            false => format!("one URL is sent to, which comes last; {other} stands before it"),
        });
    }
    let way = way(args, output)?;
    if args.name.is_some() && files.len() > 1 {
        return Err("--name goes with one file, not with several".to_owned());
    }
    if args.is_input() {
        check_input(args)?;
    }
    if args.plain {
        plain::check(args)?;
    }
    if args.follow && (files.len() > 1 || args.is_input() || files[0].is_dir()) {
        return Err("--follow goes with one file; nothing else is known to grow at its end".to_owned());
    }
    if let Some((first, second, name)) = same_name(files) {
        return Err(format!(
            "{} and {} would both be named {name} at the destination; send one of them by itself, with --name",
            first.display(),
            second.display()
        ));
    }
    // What the patterns say is known before anything is sent.
    tree::scan(args)?;
    let ByteSize(window) = args.window;
    if window == 0 {
        return Err("--window is 0; at least 1 byte is needed".to_owned());
    }
    let frame_limit = args.frame_limit.map_or(MAX_FRAME as u64, |limit| limit.as_u64().min(MAX_FRAME as u64));
    let largest =
        ChunkSize::for_frame_limit(frame_limit as usize).filter(|_| frame_limit >= MIN_FRAME_LIMIT as u64);
    let Some(largest) = largest else {
        return Err(format!(
            "--frame-limit is {frame_limit}; at least {MIN_FRAME_LIMIT} characters are needed"
        ));
    };
    let chunk = match args.chunk_size {
        ChunkArg::Auto => None,
        ChunkArg::Raw(ByteSize(wanted)) => {
            let Some(chunk) = ChunkSize::at_most(wanted) else {
                return Err(format!("--chunk-size is {wanted}; at least 3 bytes are needed"));
            };
            let chunk = chunk.min(largest);
            let limited = chunk == largest && args.frame_limit.is_some();
            output.lowered(
                wanted,
                chunk,
                if limited { "what the frame limit allows" } else { "a whole block" },
            );
            Some(chunk)
        }
    };
    let (growing, repair, discard, quick) = (args.growing, args.repair, args.discard, args.tree.quick);
    let heartbeat = HeartbeatConfig::with_stall(args.stall_timeout.into());
    Ok((
        way,
        SendOptions {
            chunk,
            frame_limit,
            window,
            limit: args.limit,
            dry_run: args.dry_run,
            growing,
            repair,
            discard,
            quick,
            heartbeat,
            ..SendOptions::default()
        },
    ))
}

/// How the receiver is reached, or which of the flags makes no sense with that.
fn way(args: &SendArgs, output: &Output) -> Result<Way, String> {
    let alone = [
        (args.plain, "--plain"),
        (args.dry_run, "--dry-run"),
        (args.follow, "--follow"),
        (args.wait, "--wait"),
        (args.max_connection_age.is_some(), "--max-connection-age"),
        (args.is_input(), "-, standard input,"),
    ];
    // What is set for all runs is no mistake of this one.
    let sources = &args.dial.sources;
    let alone = sources.first_given(&alone);
    let plain = sources.first_given(&[(args.plain, "--plain")]);
    let (unfit, why) = match &args.pipe.via {
        Some(_) => (
            args.listen.given(sources).or(args.dial.given_any()).or(plain),
            "says nothing where a command is started",
        ),
        None if args.pipe.stdio => (
            args.listen.given(sources).or(args.dial.given_any()).or(alone),
            "does not go with --stdio, where one receiver has one connection",
        ),
        None if args.listens() => {
            (args.dial.for_dialling().or(alone), "does not go with --listen, where receivers dial")
        }
        None => (args.listen.given(sources), "is for a side that listens; it goes with --listen"),
    };
    if let Some(flag) = unfit {
        return Err(format!("{flag} {why}"));
    }
    Ok(match &args.pipe.via {
        Some(command) => Way::Program(Program::new(command)),
        None if args.pipe.stdio => Way::Stdio,
        None if args.listens() => Way::Listen,
        None => Way::Url(Box::new(args.dial.dialer(&args.url(), output)?)),
    })
}

/// Two files that would replace each other. What lies in directories whose contents are sent is not known yet.
fn same_name(files: &[PathBuf]) -> Option<(&Path, &Path, RelativePath)> {
    let mut seen = HashMap::new();
    files.iter().find_map(|file| {
        let name = Root::new(file).name()?.ok()?;
        let first = seen.insert(name.clone(), file.as_path())?;
        Some((first, file.as_path(), name))
    })
}

/// What comes on standard input goes alone, and cannot be read twice.
fn check_input(args: &SendArgs) -> Result<(), String> {
    if args.files().len() > 1 {
        return Err("- is standard input, which goes alone; a file of that name is ./-".to_owned());
    }
    if args.name.is_none() {
        return Err("- is standard input, which has no name; give it one with --name".to_owned());
    }
    for (given, flag) in [
        (args.repair, "--repair"),
        (args.tree.quick, "--quick"),
        (args.dry_run, "--dry-run"),
        (args.plain, "--plain"),
    ] {
        if given {
            return Err(format!("{flag} goes with files; - is standard input, which cannot be read twice"));
        }
    }
    Ok(())
}

/// What is read once, from its beginning to its end: standard input, or a file and what is added to it.
fn read_once(args: &SendArgs, end: FollowEnd) -> Result<(Box<dyn Read + Send>, FileName), SourceError> {
    if args.is_input() {
        return Ok((Box::new(std::io::stdin()), args.name.clone().expect("it was looked at")));
    }
    let path = &args.files()[0];
    let own = || {
        let name = path.file_name().unwrap_or_default().to_str().ok_or(NameError::NotUtf8)?;
        name.parse::<FileName>()
    };
    let name = args.name.clone().map_or_else(own, Ok);
    let name = name.map_err(|error| SourceError::Name { path: path.clone(), error })?;
    Ok((Box::new(Follower::open(path, args.until.map(Into::into), end)?), name))
}

fn retry(args: &SendArgs) -> RetryOptions {
    RetryOptions {
        retry_for: args.retry_for.into(),
        wait_for_name: args.wait,
        max_connection_age: args.max_connection_age.map(Into::into),
        ..RetryOptions::default()
    }
}
