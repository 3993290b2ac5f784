//! Who dials is let in: the connections that are accepted, on each of which something is done, until all of it has an end.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::mpsc;
use futures::future::{BoxFuture, Either, FutureExt, select};
use futures::stream::{FuturesUnordered, StreamExt};
use rustix::process::{Resource, getrlimit};

use super::addresses::Addresses;
use super::greeting::{Admission, Greeted, House};
use super::guests::{Guests, Said};
use super::listener::Listener;
use super::metrics::Metrics;
use super::{ErrorKind, Event, ServeLimits, ServeObserver, Served, Shutdown};
use crate::runtime::{self, Stream};
use crate::transport::{Budget, Caller, Connection, Gate, Refusal, Request, Tls, TransportError};

/// How long to wait when the system has no descriptor for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections at one time, however many descriptors there are, unless fewer are asked for.
pub(super) const MAX_CONNECTIONS: u64 = 4096;
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

/// Who is let in, and for how long.
pub(super) struct Hosting {
    pub(super) gate: Gate,
    pub(super) tls: Option<Tls>,
    pub(super) limits: ServeLimits,
    pub(super) metrics: Option<Metrics>,
    pub(super) drain: Option<Shutdown>,
    pub(super) guests: Guests,
}

/// What is done on a connection that is open, up to its end.
pub(super) trait Host: Send + Sync + 'static {
    /// Why nothing more can be done on any connection, if that is so.
    fn failure(&self) -> Option<ErrorKind> {
        None
    }

    fn serve(
        &self,
        connection: Connection<Stream>,
        request: Request,
        shutdown: Shutdown,
        tell: &Tell,
    ) -> impl Future<Output = ()> + Send;
}

/// Accepts connections until told to stop, or until the guests say that it is over.
///
/// # Errors
/// If the listener itself fails.
pub(super) async fn host(
    listener: &Listener,
    hosting: Hosting,
    host: Arc<impl Host>,
    shutdown: Shutdown,
    observer: ServeObserver,
) -> io::Result<Option<Served>> {
    let Hosting { gate, tls, limits, metrics, drain, mut guests } = hosting;
    let (most, _) = most_at_a_time(limits.connections);
    let house = Arc::new(House {
        gate,
        tls,
        addresses: Addresses::new(limits.per_address),
        metrics: metrics.clone(),
    });
    let (tell, mut told) = mpsc::unbounded();
    let mut connections = FuturesUnordered::new();
    // Dropped, with what is left in it, when there is nothing else to be done.
    let mut sent_away = FuturesUnordered::<BoxFuture<()>>::new();
    let mut shutdown = shutdown.fuse();
    let drain = async {
        match drain {
            Some(drain) => drain.await,
            None => std::future::pending().await,
        }
    };
    let mut drain = std::pin::pin!(drain.fuse());
    let mut number = 0;
    let budget = Budget::default();
    let mut accept_from = Instant::now();
    let mut failed = None;
    while !guests.is_closing || !connections.is_empty() {
        if failed.is_none()
            && let Some(kind) = host.failure()
        {
            failed = Some(kind);
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
                        metrics: metrics.clone(),
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
                    let (host, budget, house) = (host.clone(), budget.clone(), house.clone());
                    let connection = async move {
                        let stopped = shutdown.clone();
                        // Boxed, so that what many idle connections take is the state that each is in, not the largest.
                        let greeting = house.greet(stream, caller, admission, limits.handshake).boxed();
                        if let Either::Left((greeted, _)) = select(greeting, stopped).await {
                            serve_greeted(greeted, &*host, &budget, shutdown, &tell).await;
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
    Ok(failed.map(Err).or_else(|| guests.outcome()))
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

/// Descriptors for connections and files.
pub(super) fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_BESIDE)
}

/// As many connections, and files beside one on each, as there are descriptors for.
pub(super) fn most_at_a_time(most: u64) -> (usize, u64) {
    let all = descriptors();
    let for_files = all / FILES_PART;
    let connections = ((all - for_files) / DESCRIPTORS_EACH).min(most).clamp(1, MAX_CONNECTIONS);
    let connections = usize::try_from(connections).expect("it is at most 4096");
    (connections, for_files / DESCRIPTORS_OF_FILE)
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

/// Does what there is to do on a connection that was greeted, if it is open.
async fn serve_greeted(
    greeted: Result<Greeted, TransportError>,
    host: &impl Host,
    budget: &Budget,
    shutdown: Shutdown,
    tell: &Tell,
) {
    let (mut connection, request, _counted) = match greeted {
        Ok(Greeted::Open(connection, request, counted)) => (*connection, request, counted),
        Ok(Greeted::Page(page, status)) => return tell.event(None, Event::Answered { page, status }),
        Ok(Greeted::Nothing) => return,
        Err(error) => return tell.event(None, Event::Unserved(error.into())),
    };
    tracing::debug!(connection = tell.number, peer = connection.peer(), is_plain = request.is_plain, "open");
    connection.share_memory(budget);
    host.serve(connection, request, shutdown, tell).boxed().await;
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

/// Whether the listener will never accept again; a connection that broke while it was accepted, or a lack of
/// descriptors, passes.
fn is_fatal(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)
    )
}
