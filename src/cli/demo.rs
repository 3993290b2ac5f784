//! `wsferry demo`: the first minute with the tool, through the real library and real sockets.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{Either, select};
use wsferry::runtime;
use wsferry::storage::{Inbox, InboxOptions};
use wsferry::transfer::{
    self, Error, Event, Listener, RetryOptions, SendOptions, ServeOptions, Session, Shutdown, Summary,
};
use wsferry::transport::Endpoint;

use super::args::DemoArgs;
use super::exit::Exit;
use super::output::Output;
use super::progress::View;
use super::random;
use super::signals::{self, Hangup};
use super::words;

pub fn run(args: DemoArgs, output: &Output) -> Exit {
    let (mut shutdown, signalled) = match signals::watch(Hangup::Stops, None, output) {
        Ok(watch) => watch,
        Err(error) => return output.error(&format_args!("cannot watch for signals: {error}"), Exit::Failed),
    };
    let dir = match tempfile::Builder::new().prefix("wsferry-demo-").tempdir() {
        Ok(dir) => dir,
        Err(error) => return output.error(&format_args!("cannot make a directory: {error}"), Exit::Failed),
    };
    let (source, inbox) = (dir.path().join("random.bin"), dir.path().join("inbox"));
    let size = args.size.as_u64();
    output.line(&format!("making {} of random bytes in {}", words::size(size), dir.path().display()));
    match random::make(&source, size, 2, &mut shutdown) {
        Ok(()) => {}
        Err(error @ random::Error::Stopped) => return output.error(&error, signalled.exit()),
        Err(error) => return output.error(&error, Exit::Failed),
    }
    let demo = std::pin::pin!(demo(&source, &inbox, size, output));
    match runtime::block_on(select(demo, shutdown)) {
        Either::Left((Ok(exit), _)) => exit,
        Either::Left((Err(error), _)) => output.error(&error, Exit::Failed),
        Either::Right(_) => output.error(&random::Error::Stopped, signalled.exit()),
    }
}

async fn demo(
    source: &Path,
    inbox: &Path,
    size: u64,
    output: &Output,
) -> Result<Exit, Box<dyn std::error::Error>> {
    let listener = Listener::bind("127.0.0.1:0").await?;
    let url: Endpoint = format!("ws://{}", listener.address()).parse()?;
    output.line(&format!("a receiver listens on {url}"));
    let destination = Arc::new(Inbox::open(inbox, InboxOptions::default())?);
    let (stop, shutdown) = Shutdown::new();
    let receiver = runtime::spawn(async move {
        let quiet = Arc::new(|_, _, _| {});
        transfer::serve(&listener, &destination, ServeOptions::default(), shutdown, quiet).await
    });

    let summary = match send_until(source, &url, size / 2, output).await? {
        Sent::Cut(at) => {
            output.line(&format!("the connection was cut at {}; the same command again:", words::size(at)));
            match send_until(source, &url, u64::MAX, output).await? {
                Sent::Whole(summary) => *summary,
                Sent::Cut(_) => return Err("the second run was cut as well".into()),
            }
        }
        // Too small to be cut half-way.
        Sent::Whole(summary) => *summary,
    };
    output.outcome(true, &summary);
    stop.stop();
    receiver.await?;

    let arrived = inbox.join("random.bin");
    let (expected, actual) = (digest(source)?, digest(&arrived)?);
    let litter = inbox.join(".wsferry").exists();
    if expected != actual || summary.digest.is_none_or(|digest| digest.to_string() != actual) || litter {
        let what = format!("sent {expected}, received {actual}, .wsferry left behind: {litter}");
        return Ok(output.error(&what, Exit::Mismatch));
    }
    output.line(&format!("both files were read again: identical, blake3 {actual}"));
    Ok(Exit::Done)
}

enum Sent {
    Whole(Box<Summary>),
    /// Acknowledged bytes when the connection was dropped.
    Cut(u64),
}

/// Sends a file, and drops the connection once `cut_at` bytes are acknowledged.
async fn send_until(source: &Path, url: &Endpoint, cut_at: u64, output: &Output) -> Result<Sent, Error> {
    // Every step is told, so that the cut comes half-way however fast the machine is.
    let options = SendOptions { progress_interval: Duration::ZERO, ..SendOptions::default() };
    let mut session = Session::new(url.clone(), options, RetryOptions::default());
    let mut view = View::new(output.clone(), 1, "random.bin".to_owned());
    let (cut, was_cut) = oneshot::channel();
    let (cut, reached) = (Mutex::new(Some(cut)), Mutex::new(0));
    let mut observer = |event: Event| {
        if let Event::Progress(progress) = &event
            && progress.acknowledged >= cut_at
            && Some(progress.acknowledged) < progress.total
            && let Some(cut) = cut.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            *reached.lock().unwrap_or_else(PoisonError::into_inner) = progress.acknowledged;
            let _ = cut.send(());
        }
        view.show(&event);
    };
    let outcome = {
        let sending = std::pin::pin!(session.send(source, None, &mut observer));
        match select(was_cut, sending).await {
            Either::Left((Ok(()), _)) => None,
            Either::Left((Err(_), sending)) => Some(sending.await),
            Either::Right((sent, _)) => Some(sent),
        }
    };
    view.clear();
    match outcome {
        None => {
            drop(session);
            Ok(Sent::Cut(reached.into_inner().unwrap_or_else(PoisonError::into_inner)))
        }
        Some(sent) => {
            session.close().await;
            Ok(Sent::Whole(Box::new(sent?)))
        }
    }
}

/// What `b3sum` prints.
fn digest(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_string())
}
