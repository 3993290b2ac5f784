//! A receiver's side of many senders: accepts connections and receives on each.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::mpsc;
use futures::future::{BoxFuture, Either, FutureExt, select};
use futures::stream::{FuturesUnordered, StreamExt};
use rustix::process::{Resource, getrlimit};

use super::addresses::Addresses;
use super::berths::Berths;
use super::claims::Claims;
use super::greeting::{Admission, Greeted, House};
use super::guests::{Guests, Said};
use super::listener::Listener;
use super::metrics::Metrics;
use super::once::Offered;
use super::plain::{PlainReceiveOptions, receive_all_plain};
use super::receive::{Receptacle, receive_claimed};
use super::{Error, ErrorKind, Event, ReceiveOptions, Shutdown};
use crate::protocol::Code;
use crate::runtime::{self, Stream};
use crate::storage::PlainInbox;
use crate::transport::{
    Budget, Caller, Connection, Gate, HANDSHAKE_TIMEOUT, Refusal, Request, Tls, TransportError,
};

/// How long to wait when the system has no descriptor for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections at one time, however many descriptors there are, unless fewer are asked for.
const MAX_CONNECTIONS: u64 = 4096;
/// Connections at one time that are only told to go, and how long each has for it.
const MAX_SENT_AWAY: usize = 16;
const SENT_AWAY_WITHIN: Duration = Duration::from_secs(2);
/// A part of the descriptors is for files that are received beside the first on a connection.
const FILES_PART: u64 = 4;
/// Descriptors of each of them.
const DESCRIPTORS_OF_FILE: u64 = 5;
/// Descriptors of a connection: its socket, its partial file, its journal, its lock, and two that are open for a moment
/// while the file is opened or sealed.
const DESCRIPTORS_EACH: u64 = 6;
/// Descriptors of the rest: standard streams, the listener, the runtime's, the destination's.
const DESCRIPTORS_BESIDE: u64 = 24;

/// How to serve.
#[derive(Debug, Clone, Default)]
pub struct ServeOptions {
    /// How to receive on each connection.
    pub receive: ReceiveOptions,
    /// How to receive from peers that speak no subprotocol; `None` sends them away.
    pub plain: Option<PlainReceiveOptions>,
    /// Stop once all that the first sender meant to send was received or refused.
    pub once: bool,
    /// What whoever dials has to say.
    pub gate: Gate,
    /// TLS, which they have to speak if there is any.
    pub tls: Option<Tls>,
    /// How many may connect, and how fast they have to be.
    pub limits: ServeLimits,
    /// What counts the events, and is read over HTTP.
    pub metrics: Option<Metrics>,
    /// Once this is given, no connection is accepted any more; serving ends with the last transfer that runs.
    pub drain: Option<Shutdown>,
}

/// How many may connect, and how fast they have to be.
#[derive(Debug, Clone, Copy)]
pub struct ServeLimits {
    /// The most connections at one time; those beyond wait to be accepted.
    pub connections: u64,
    /// The most of one address, or of one /64 of IPv6; those beyond are sent away.
    pub per_address: Option<u64>,
    /// How long the handshakes may take, that of TLS included.
    pub handshake: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self { connections: MAX_CONNECTIONS, per_address: None, handshake: HANDSHAKE_TIMEOUT }
    }
}

/// How a transfer that ended for good ended, or all of a sender's: done, or the kind of the first error.
pub type Served = Result<(), ErrorKind>;

/// Told what happens, with a number for the connection it happens on, and one for the transfer on it, if it is about one.
pub type ServeObserver = Arc<dyn Fn(u64, Option<u64>, Event) + Send + Sync>;

/// Accepts connections and receives files on each, until told to stop, or with [`once`](ServeOptions::once) until all
/// that the first sender meant to send was received or refused: a connection that was cut is no end, since its sender may
/// come back. On return every journal is synced.
///
/// It serves as many connections at a time as the process has descriptors for; those beyond wait to be accepted.
///
/// # Errors
/// If the listener itself fails.
pub async fn serve(
    listener: &Listener,
    into: impl Into<Receptacle>,
    options: ServeOptions,
    shutdown: Shutdown,
    observer: ServeObserver,
) -> io::Result<Option<Served>> {
    let into = into.into();
    let (most, files) = most_at_a_time(options.limits.connections);
    let berths = Berths::new(files);
    let house = Arc::new(House {
        gate: options.gate.clone(),
        tls: options.tls.clone(),
        addresses: Addresses::new(options.limits.per_address),
        metrics: options.metrics.clone(),
    });
    let options = Arc::new(options);
    let claims = Claims::default();
    let (tell, mut told) = mpsc::unbounded();
    let mut connections = FuturesUnordered::new();
    // Dropped, with what is left in it, when there is nothing else to be done.
    let mut sent_away = FuturesUnordered::<BoxFuture<()>>::new();
    let mut guests = Guests::new(options.once);
    let mut shutdown = shutdown.fuse();
    let drain = async {
        match options.drain.clone() {
            Some(drain) => drain.await,
            None => std::future::pending().await,
        }
    };
    let mut drain = std::pin::pin!(drain.fuse());
    let mut number = 0;
    let budget = Budget::default();
    let plain = match &into {
        Receptacle::Inbox(inbox) => options.plain.map(|options| Arc::new((inbox.plain(), options))),
        // What nobody announces is of no known length, and cannot be gone on with.
        Receptacle::Outlet(_) => None,
    };
    let mut accept_from = Instant::now();
    let mut failed = None;
    while !guests.is_closing || !connections.is_empty() {
        if let Receptacle::Outlet(outlet) = &into
            && failed.is_none()
            && let Some(error) = outlet.failure()
        {
            failed = Some(Error::from(error).kind());
            // What was said before it failed may have come only now.
            while let Some(Some((number, said))) = told.next().now_or_never() {
                guests.hear(number, said);
            }
            guests.close();
            continue;
        }
        let may_accept = match guests.is_closing {
            // Who looks after the port is told that it goes.
            true => guests.is_draining && sent_away.len() < MAX_SENT_AWAY,
            false => guests.live.len() < most,
        };
        let mut accept = std::pin::pin!(accept(listener, may_accept, accept_from).fuse());
        futures::select_biased! {
            () = shutdown => guests.stop(),
            () = drain => guests.drain(),
            (number, said) = told.select_next_some() => guests.hear(number, said),
            number = connections.select_next_some() => {
                // What it said before it ended may have come only now.
                while let Some(Some((number, said))) = told.next().now_or_never() {
                    guests.hear(number, said);
                }
                guests.gone(number);
            }
            () = sent_away.select_next_some() => {}
            accepted = accept => match accepted {
                Ok((stream, caller)) => {
                    number += 1;
                    let tell = Tell {
                        number,
                        observer: observer.clone(),
                        metrics: options.metrics.clone(),
                        tell: tell.clone(),
                    };
                    tell.event(None, Event::Connected { peer: caller.shown.clone() });
                    let admission = house.admit(&caller, guests.is_closing);
                    if matches!(admission, Admission::None(_)) {
                        if sent_away.len() < MAX_SENT_AWAY {
                            sent_away.push(send_away(stream, caller, house.clone(), admission, tell).boxed());
                        } else {
                            tell.refused(caller);
                        }
                        continue;
                    }
                    let shutdown = guests.welcome(number);
                    let (into, claims, options) = (into.clone(), claims.clone(), options.clone());
                    let (budget, plain, berths) = (budget.clone(), plain.clone(), berths.clone());
                    let house = house.clone();
                    let connection = async move {
                        let places = Places { into: &into, claims: &claims, berths: &berths, plain: plain.as_deref() };
                        let stopped = shutdown.clone();
                        // Boxed, so that what many idle connections take is the state that each is in, not the largest.
                        let greeting = house.greet(stream, caller, admission, options.limits.handshake).boxed();
                        if let Either::Left((greeted, _)) = select(greeting, stopped).await {
                            receive_from(greeted, places, &budget, &options, shutdown, &tell).await;
                        }
                        tell.event(None, Event::Disconnected);
                        number
                    };
                    // The first is served here: that costs no hand-over between threads. The others have theirs.
                    connections.push(if connections.is_empty() {
                        Either::Left(Box::pin(connection))
                    } else {
                        Either::Right(runtime::spawn(connection))
                    });
                }
                Err(error) if is_fatal(&error) => return Err(error),
                // Those that are served go on meanwhile.
                Err(_) => accept_from = Instant::now() + ACCEPT_PAUSE,
            },
        }
    }
    if let Some(kind) = failed {
        return Ok(Some(Err(kind)));
    }
    Ok(guests.once.and_then(|once| once.outcome()))
}

/// The next connection, if there may be one, and not before `from`.
async fn accept(listener: &Listener, may_accept: bool, from: Instant) -> io::Result<(Stream, Caller)> {
    if !may_accept {
        return std::future::pending().await;
    }
    let pause = from.saturating_duration_since(Instant::now());
    if !pause.is_zero() {
        runtime::sleep(pause).await;
    }
    listener.accept().await
}

/// As many connections, and files beside one on each, as there are descriptors for.
fn most_at_a_time(most: u64) -> (usize, u64) {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let all = descriptors.saturating_sub(DESCRIPTORS_BESIDE);
    let for_files = all / FILES_PART;
    let connections = ((all - for_files) / DESCRIPTORS_EACH).min(most).clamp(1, MAX_CONNECTIONS);
    let connections = usize::try_from(connections).expect("it is at most 4096");
    (connections, for_files / DESCRIPTORS_OF_FILE)
}

/// Where files go.
#[derive(Clone, Copy)]
struct Places<'a> {
    into: &'a Receptacle,
    claims: &'a Claims,
    berths: &'a Berths,
    /// Those that nobody announces.
    plain: Option<&'a (PlainInbox, PlainReceiveOptions)>,
}

/// Where one connection tells what happens on it.
pub(super) struct Tell {
    number: u64,
    observer: ServeObserver,
    metrics: Option<Metrics>,
    tell: mpsc::UnboundedSender<(u64, Said)>,
}

impl Tell {
    pub(super) fn event(&self, transfer: Option<u64>, event: Event) {
        if let Some(metrics) = &self.metrics {
            metrics.observe(self.number, transfer, &event);
        }
        (self.observer)(self.number, transfer, event);
    }

    /// There is not even room to say so.
    fn refused(&self, caller: Caller) {
        let refused = TransportError::Refused { address: caller.shown, refusal: Refusal::Crowded };
        self.event(None, Event::Unserved(refused.into()));
        self.event(None, Event::Disconnected);
    }

    /// A word for a connection on which nothing is named, like no other's.
    pub(super) fn nameless(&self) -> String {
        format!("connection {}", self.number)
    }

    pub(super) fn say(&self, said: Said) {
        // Nobody listens any more once the server stops.
        let _ = self.tell.unbounded_send((self.number, said));
    }
}

/// Receives what comes on a connection that was greeted, if there is anything to come.
async fn receive_from(
    greeted: Result<Greeted, TransportError>,
    places: Places<'_>,
    budget: &Budget,
    options: &ServeOptions,
    shutdown: Shutdown,
    tell: &Tell,
) {
    let (mut connection, request, _counted) = match greeted {
        Ok(Greeted::Open(connection, request, counted)) => (*connection, request, counted),
        Ok(Greeted::Page(page, status)) => return tell.event(None, Event::Answered { page, status }),
        Ok(Greeted::Nothing) => return,
        Err(error) => return tell.event(None, Event::Unserved(error.into())),
    };
    let Request { is_plain, target } = request;
    tracing::debug!(connection = tell.number, peer = connection.peer(), is_plain, "open");
    connection.share_memory(budget);
    match places.plain.filter(|_| is_plain) {
        Some(plain) => receive_all_plain(connection, plain, &target, shutdown, tell).boxed().await,
        None => receive_all(connection, places, &options.receive, shutdown, tell).boxed().await,
    }
    tracing::debug!(connection = tell.number, "closed");
}

/// Answers somebody who is not served any more, or for whom there are too many of the same address.
async fn send_away(stream: Stream, caller: Caller, house: Arc<House>, admission: Admission, tell: Tell) {
    match house.greet(stream, caller, admission, SENT_AWAY_WITHIN).await {
        Ok(Greeted::Page(page, status)) => tell.event(None, Event::Answered { page, status }),
        Ok(Greeted::Open(..) | Greeted::Nothing) => {}
        Err(error) => tell.event(None, Event::Unserved(error.into())),
    }
    tell.event(None, Event::Disconnected);
}

/// Receives files on one connection until it ends.
async fn receive_all(
    mut connection: Connection<Stream>,
    places: Places<'_>,
    options: &ReceiveOptions,
    shutdown: Shutdown,
    tell: &Tell,
) {
    // The names of what was offered and has not ended, and whether it was accepted.
    let mut running: HashMap<u64, (String, bool)> = HashMap::new();
    let mut served = false;
    let mut observer = |transfer: Option<u64>, event: Event| {
        if let Some(number) = transfer {
            hear(&mut running, number, &event, tell);
            served = true;
        }
        tell.event(transfer, event);
    };
    let destination = (places.into, places.claims, places.berths);
    let received = receive_claimed(&mut connection, destination, options, shutdown, &mut observer).await;
    let Err(error) = received else { return };
    match &error {
        // Nothing was under way.
        Error::Stopped if running.is_empty() => return,
        Error::PeerEnded { code: Code::Source, .. } if running.is_empty() => tell.say(Said::GaveUp),
        _ => {}
    }
    let kind = error.kind();
    // What a stranger says before a file was taken is no transfer.
    if kind != ErrorKind::Interrupted {
        for (name, _) in running.into_values().filter(|&(_, accepted)| accepted) {
            tell.say(Said::Ended(name, Err(kind)));
        }
    }
    tell.event(None, if served { Event::Failed(error) } else { Event::Unserved(error) });
}

/// What an event of a transfer says of how long to serve.
fn hear(running: &mut HashMap<u64, (String, bool)>, number: u64, event: &Event, tell: &Tell) {
    match event {
        Event::Offered { name, left, session } => {
            running.insert(number, (name.clone(), false));
            let (name, left, session) = (name.clone(), *left, session.clone());
            tell.say(Said::Offered(Offered { name, left, session }));
        }
        Event::Started { .. } => {
            if let Some((name, accepted)) = running.get_mut(&number) {
                *accepted = true;
                tell.say(Said::Started(name.clone()));
            }
        }
        Event::Finished(_) => {
            if let Some((name, _)) = running.remove(&number) {
                tell.say(Said::Ended(name, Ok(())));
            }
        }
        Event::Failed(error) => {
            let Some((name, _)) = running.remove(&number) else { return };
            tell.say(match error {
                // A name that is being written is free again soon.
                Error::Declined { code: Code::Busy, .. } => Said::Postponed(name),
                Error::PeerEnded { again: true, .. } => Said::Changed(name),
                error if error.kind() == ErrorKind::Interrupted => Said::Interrupted(name),
                error => Said::Ended(name, Err(error.kind())),
            });
        }
        _ => {}
    }
}

/// Whether the listener will never accept again; a connection that broke while it was accepted, or a lack of
/// descriptors, passes.
fn is_fatal(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)
    )
}
