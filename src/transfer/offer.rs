//! A sender that others reach: each of them gets all files, by a run of its own.

use std::io;
use std::sync::Arc;

use futures::future::{Either, FutureExt, select};
use futures::{AsyncRead, AsyncWrite};

use super::guests::{Guests, Said};
use super::hosting::{Host, Hosting, Tell, descriptors, host};
use super::listener::Listener;
use super::run::{AHEAD, Items, Run};
use super::runs::{Claimed, Kept, Runs};
use super::send::{Terms, attempt, link_config};
use super::session::random_id;
use super::succession::greet;
use super::{
    CLOSE_TIMEOUT, Error, ErrorKind, Event, RetryOptions, SendOptions, ServeLimits, ServeObserver, Served,
    Shutdown, part, tell,
};
use crate::protocol::{Code, Link, Path};
use crate::runtime::{self, Stream};
use crate::storage::{Entry, Skipped};
use crate::transport::{Connection, Gate, Request, Tls};

/// Transfers that are open at a time on each connection: what of small files hides a long path.
const MOST_OPEN: usize = 128;

/// How to send to those that connect.
#[derive(Debug, Clone, Default)]
pub struct OfferOptions {
    /// How to send on each connection.
    pub send: SendOptions,
    /// Stop once the first receiver has all files, or has refused them.
    pub once: bool,
    /// What whoever dials has to say.
    pub gate: Gate,
    /// TLS, which they have to speak if there is any.
    pub tls: Option<Tls>,
    /// How many may connect, and how fast they have to be.
    pub limits: ServeLimits,
    /// Once this is given, no connection is accepted any more; it ends with the last receiver that is being served.
    pub drain: Option<Shutdown>,
}

/// Accepts connections and sends to each all that `items` gives, which is asked anew for each receiver; until told to
/// stop, or with [`once`](OfferOptions::once) until the first receiver has all of it. A receiver that was cut and comes back
/// goes on where it was. The observer is told of connections by their numbers, and of the files on each by theirs.
///
/// Gives how it went with the first receiver: the kind of the first file's failure, if one failed.
///
/// # Errors
/// If the listener itself fails.
pub async fn serve_files<I>(
    listener: &Listener,
    items: impl Fn() -> I + Send + Sync + 'static,
    options: OfferOptions,
    shutdown: Shutdown,
    observer: ServeObserver,
) -> io::Result<Option<Served>>
where
    I: Iterator<Item = Result<Entry, Skipped>> + Send + 'static,
{
    let OfferOptions { send, once, gate, tls, mut limits, drain } = options;
    // Each run has files open, those that are sent and those that come next.
    let each = (MOST_OPEN + AHEAD) as u64;
    limits.connections = limits.connections.min((descriptors() / each).max(1));
    let offering = Offering {
        items: Box::new(move || Box::new(items()) as Items),
        options: send,
        session: random_id(),
        runs: Runs::default(),
        once,
    };
    let hosting = Hosting { gate, tls, limits, metrics: None, drain, guests: Guests::new(false) };
    host(listener, hosting, Arc::new(offering), shutdown, observer).await
}

/// Sends all that `items` gives over one connection that is open already, such as the pipes of a program that was started
/// for it: a cut is an error.
///
/// Gives how it went: the kind of the first file's failure, if one failed.
///
/// # Errors
/// What ended the connection before all was received or refused.
pub async fn send_over<S>(
    connection: &mut Connection<S>,
    items: impl Iterator<Item = Result<Entry, Skipped>> + Send + 'static,
    options: &SendOptions,
    shutdown: Shutdown,
    observer: &mut (dyn FnMut(Option<u64>, Event) + Send),
) -> Result<Served, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let pump = match greet(connection, link_config(options, Some(random_id()))).await {
        Ok(pump) => pump,
        Err(error) => {
            tell(connection, &error, false).await;
            return Err(error);
        }
    };
    let mut kept = Kept::new(new_run(Box::new(items)));
    let terms = Terms { stop: Box::pin(shutdown), ..Terms::of(options) };
    let mut watch = |transfer, event: Event| {
        kept.failure = kept.failure.or(failure_of(&event));
        observer(transfer, event);
    };
    let (ended, _) = attempt(connection, pump.link, &mut kept.run, terms, &mut watch).await;
    // There is no other connection to offer them on.
    for (transfer, error) in std::mem::take(&mut kept.run.later) {
        watch(Some(transfer.id), Event::Failed(error));
    }
    take_leave(connection, ended, kept.run.owes).await?;
    Ok(kept.failure.map_or(Ok(()), Err))
}

/// A run for one receiver.
fn new_run(items: Items) -> Run {
    Run::new(
        items,
        0,
        RetryOptions { retry_for: std::time::Duration::MAX, ..RetryOptions::default() },
        true,
        Path::default(),
    )
}

/// The failure that an event is.
fn failure_of(event: &Event) -> Option<ErrorKind> {
    match event {
        Event::Failed(error) => Some(error.kind()),
        Event::Skipped(skipped) if skipped.is_failure() => Some(ErrorKind::Failed),
        _ => None,
    }
}

/// Ends a connection: the receiver is told of an error that it does not know of, and of files that are not sent.
async fn take_leave<S>(
    connection: &mut Connection<S>,
    ended: Result<(), Error>,
    owes: u64,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match &ended {
        Err(error) => tell(connection, error, error.may_pass()).await,
        Ok(()) if owes > 0 => part(connection, Code::Source, "not all files could be sent", false).await,
        Ok(()) => drop(runtime::timeout(CLOSE_TIMEOUT, connection.close(1000)).await),
    }
    ended
}

/// What each connection has.
struct Offering {
    items: Box<dyn Fn() -> Items + Send + Sync>,
    options: SendOptions,
    session: String,
    runs: Runs,
    once: bool,
}

impl Host for Offering {
    async fn serve(&self, mut connection: Connection<Stream>, _: Request, shutdown: Shutdown, tell: &Tell) {
        tell.say(Said::Serves);
        let config = link_config(&self.options, Some(self.session.clone()));
        let greeted = match select(greet(&mut connection, config).boxed(), shutdown.clone()).await {
            Either::Left((greeted, _)) => greeted,
            Either::Right(_) => Err(Error::Stopped),
        };
        let link = match greeted {
            Ok(pump) => pump.link,
            Err(error) => {
                let error = take_leave(&mut connection, Err(error), 0).await.expect_err("it is one");
                return tell.event(None, Event::Unserved(error));
            }
        };
        let session = link.peer().and_then(|peer| peer.session.clone());
        let mut claimed = self.runs.claim(session, || new_run((self.items)())).await;
        let (ended, served) = self.send(&mut connection, link, &mut claimed, shutdown, tell).await;
        let owes = claimed.kept().run.owes;
        // Whoever waits for it has it before the last words are said: they may be heard by nobody.
        self.runs.put_back(claimed, served.is_some());
        if let Some(served) = served
            && self.once
        {
            tell.say(Said::Served(served));
        }
        if let Err(error) = take_leave(&mut connection, ended, owes).await {
            tell.event(None, Event::Failed(error));
        }
    }
}

impl Offering {
    /// Sends as far as one connection gets; and how all of it went, if nothing is left to send.
    async fn send(
        &self,
        connection: &mut Connection<Stream>,
        mut link: Link,
        claimed: &mut Claimed,
        shutdown: Shutdown,
        tell: &Tell,
    ) -> (Result<(), Error>, Option<Served>) {
        let stop = select(shutdown, claimed.stop()).map(drop).boxed();
        let Kept { run, failure } = claimed.kept();
        link.set_path(run.path.clone());
        let terms = Terms { stop, most_open: MOST_OPEN, ..Terms::of(&self.options) };
        let mut watch = |transfer, event: Event| {
            *failure = failure.or(failure_of(&event));
            tell.event(transfer, event);
        };
        let (ended, _) = attempt(connection, link, run, terms, &mut watch).await;
        for (transfer, error) in std::mem::take(&mut run.later) {
            match error {
                // What is left of the connection before holds the name, for a moment: its receiver comes back for it.
                Error::Refused { code: Code::Busy, .. } => run.offer_last(transfer),
                error => watch(Some(transfer.id), Event::Failed(error)),
            }
        }
        // On the next connection they begin again, for whoever watches.
        run.ready.iter_mut().for_each(|transfer| transfer.told_start = false);
        let served = (ended.is_ok() && run.is_taken()).then(|| failure.map_or(Ok(()), Err));
        (ended, served)
    }
}
