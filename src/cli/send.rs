//! `wsferry send`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use futures::future::{Either, select};
use indicatif::BinaryBytes;
use wsferry::protocol::{ChunkSize, FileName, HeartbeatConfig, MAX_FRAME, MIN_FRAME_LIMIT};
use wsferry::runtime;
use wsferry::transfer::{Error, RetryOptions, SendOptions, Session, Summary};
use wsferry::transport::Endpoint;

use super::args::{ChunkArg, SendArgs};
use super::exit::Exit;
use super::output::{self, Mode, Output};
use super::plain;
use super::progress::{self, View};
use super::signals::{self, Hangup};

/// How long a sender that was told to stop may take to do so: it has nothing to put in order.
const STOP_PATIENCE: Duration = Duration::from_millis(500);

pub fn run(args: SendArgs, output: &Output) -> Exit {
    let (endpoint, options) = match resolve(&args, output) {
        Ok(resolved) => resolved,
        Err(usage) => return output.error(&usage, Exit::Usage),
    };
    let (shutdown, signalled) = match signals::watch(Hangup::IsIgnored, Some(STOP_PATIENCE), output) {
        Ok(watch) => watch,
        Err(error) => return output.error(&format_args!("cannot watch for signals: {error}"), Exit::Failed),
    };
    let stopped = if args.plain { plain::STOPPED } else { signals::STOPPED };
    let sending = std::pin::pin!(async {
        match args.plain {
            true => plain::send_all(&args, &endpoint, options.chunk, output).await,
            false => send_all(&args, endpoint, options, output).await,
        }
    });
    match runtime::block_on(select(sending, shutdown)) {
        Either::Left((exit, _)) => exit,
        Either::Right(_) => {
            output.bars.clear().ok();
            output.error(&stopped, signalled.exit())
        }
    }
}

/// Turns flags into options, or says which of them makes no sense.
fn resolve(args: &SendArgs, output: &Output) -> Result<(Endpoint, SendOptions), String> {
    let (files, url) = (args.files(), args.url());
    if files.is_empty() {
        return Err(format!("`wsferry send FILE... URL` needs a file and a URL; there is {url} alone"));
    }
    let endpoint = endpoint(&url)?;
    if args.name.is_some() && files.len() > 1 {
        return Err("--name goes with one file, not with several".to_owned());
    }
    if let Some((first, second, name)) = same_name(files) {
        return Err(format!(
            "{} and {} would both be named {name} at the destination; send one of them by itself, with --name",
            first.display(),
            second.display()
        ));
    }
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
    let (growing, repair, discard) = (args.growing, args.repair, args.discard);
    let heartbeat = HeartbeatConfig::with_stall(args.stall_timeout.into());
    Ok((
        endpoint,
        SendOptions {
            chunk,
            frame_limit,
            window,
            growing,
            repair,
            discard,
            heartbeat,
            ..SendOptions::default()
        },
    ))
}

/// Two files that would replace each other.
fn same_name(files: &[PathBuf]) -> Option<(&Path, &Path, Cow<'_, str>)> {
    let mut seen = HashMap::new();
    files.iter().find_map(|file| {
        let name = file.file_name()?;
        let first = seen.insert(name, file.as_path())?;
        Some((first, file.as_path(), name.to_string_lossy()))
    })
}

/// Reads a URL. What is wrong with it is told without a password that may be in it.
pub fn endpoint(url: &str) -> Result<Endpoint, String> {
    url.parse().map_err(|error| match url.rsplit_once('@') {
        Some((_, host)) => format!("bad URL …@{host}: {error}"),
        None => format!("bad URL {url}: {error}"),
    })
}

async fn send_all(args: &SendArgs, endpoint: Endpoint, options: SendOptions, output: &Output) -> Exit {
    let retry = RetryOptions {
        retry_for: args.retry_for.into(),
        wait_for_name: args.wait,
        ..RetryOptions::default()
    };
    let files = args.files();
    let count = files.len() as u64;
    let mut session = Session::new(endpoint, options, retry);
    let several = files.len() > 1 && output.mode == Mode::Human && !output.bars.is_hidden();
    let sizes: Vec<u64> =
        files.iter().map(|file| std::fs::metadata(file).map_or(0, |info| info.len())).collect();
    let overall = several.then(|| progress::overall(output, files.len(), sizes.iter().sum()));
    let mut before = 0;
    let mut worst = Exit::Done;
    let (mut sent, mut there, mut bytes) = (0, 0, 0);
    for (number, (file, size)) in (1..).zip(files.iter().zip(&sizes)) {
        let overall = overall.clone().map(|bar| (bar, before));
        session.set_left(count - number);
        match send_one(&mut session, args, file, number, overall, output).await {
            Ok(summary) => {
                output.event(output::finished(number, &summary));
                output.line(&output::describe(true, &summary));
                *(if summary.complete { &mut there } else { &mut sent }) += 1;
                bytes += summary.new_bytes();
            }
            Err((name, error)) => {
                let exit = Exit::from(error.kind());
                // What the error says to do first says it already.
                let told = exit != Exit::Interrupted || error.to_string().contains("the same command");
                let advice = if told { "" } else { "; run the same command again to resume" };
                output.failed(Some(number), Some(&name), &error, advice, exit);
                worst = if worst == Exit::Done { exit } else { worst };
                if !error.concerns_one_file() {
                    break;
                }
            }
        }
        before += size;
    }
    if let Some(overall) = overall {
        overall.finish_and_clear();
    }
    session.close().await;
    if files.len() > 1 {
        let there = if there > 0 { format!(", {there} already there") } else { String::new() };
        output.line(&format!("{sent} of {} files sent{there}, {} new", files.len(), BinaryBytes(bytes)));
    }
    worst
}

async fn send_one(
    session: &mut Session,
    args: &SendArgs,
    file: &Path,
    number: u64,
    overall: Option<(indicatif::ProgressBar, u64)>,
    output: &Output,
) -> Result<Summary, (String, Error)> {
    let own = || file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = args.name.as_ref().map_or_else(own, FileName::to_string);
    let mut view = View::new(output.clone(), number, name, overall);
    let sent = session.send(file, args.name.clone(), &mut |event| view.show(&event)).await;
    view.clear();
    sent.map_err(|error| (view.name().to_owned(), error))
}
