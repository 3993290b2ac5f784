//! A receiver's side of many senders: accepts connections and receives on each.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::mpsc;
use futures::future::{Either, FutureExt, select};
use futures::stream::{FuturesUnordered, StreamExt};
use rustix::process::{Resource, getrlimit};

use super::berths::Berths;
use super::claims::Claims;
use super::once::{Offered, Once};
use super::plain::{PlainReceiveOptions, receive_all_plain};
use super::receive::receive_claimed;
use super::{Error, ErrorKind, Event, ReceiveOptions, Shutdown, ShutdownHandle};
use crate::protocol::Code;
use crate::runtime::{self, Stream, TcpListener, TcpStream};
use crate::storage::{Inbox, PlainInbox};
use crate::transport::{
    Budget, Connection, HANDSHAKE_TIMEOUT, Origins, Request, TransportError, open_server_handshake,
    server_handshake,
};

/// How long to wait when the system has no descriptor for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections at one time, however many descriptors there are.
const MAX_CONNECTIONS: u64 = 4096;
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
    /// Which web pages may connect.
    pub origins: Origins,
    /// Once this is given, no connection is accepted any more; serving ends with the last transfer that runs.
    pub drain: Option<Shutdown>,
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
    listener: &TcpListener,
    inbox: &Arc<Inbox>,
    options: ServeOptions,
    shutdown: Shutdown,
    observer: ServeObserver,
) -> io::Result<Option<Served>> {
    let (most, files) = most_at_a_time();
    let berths = Berths::new(files);
    let options = Arc::new(options);
    let claims = Claims::default();
    let (tell, mut told) = mpsc::unbounded();
    let mut connections = FuturesUnordered::new();
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
    let plain = options.plain.map(|options| Arc::new((inbox.plain(), options)));
    let mut accept_from = Instant::now();
    while !guests.is_closing || !connections.is_empty() {
        let may_accept = !guests.is_closing && guests.live.len() < most;
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
            accepted = accept => match accepted {
                Ok((stream, address)) => {
                    number += 1;
                    let shutdown = guests.welcome(number);
                    let (inbox, claims, options) = (inbox.clone(), claims.clone(), options.clone());
                    let (budget, plain, berths) = (budget.clone(), plain.clone(), berths.clone());
                    let tell = Tell { number, observer: observer.clone(), tell: tell.clone() };
                    let connection = async move {
                        let places = Places { inbox: &inbox, claims: &claims, berths: &berths, plain: plain.as_deref() };
                        one_connection(stream, address.to_string(), places, &budget, &options, shutdown, tell)
                            .await;
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
    Ok(guests.once.and_then(|once| once.outcome()))
}

/// The next connection, if there may be one, and not before `from`.
async fn accept(
    listener: &TcpListener,
    may_accept: bool,
    from: Instant,
) -> io::Result<(TcpStream, SocketAddr)> {
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
fn most_at_a_time() -> (usize, u64) {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let all = descriptors.saturating_sub(DESCRIPTORS_BESIDE);
    let for_files = all / FILES_PART;
    let connections = ((all - for_files) / DESCRIPTORS_EACH).clamp(1, MAX_CONNECTIONS);
    let connections = usize::try_from(connections).expect("it is at most 4096");
    (connections, for_files / DESCRIPTORS_OF_FILE)
}

/// The connections that are served.
struct Guests {
    live: HashMap<u64, Guest>,
    once: Option<Once>,
    /// No other is accepted.
    is_closing: bool,
}

/// One of them. Dropping it stops the connection.
struct Guest {
    _handle: ShutdownHandle,
    /// Files that were offered and have not ended.
    running: u64,
    /// How many more its sender means to offer.
    left: u64,
}

/// What happens on a connection, as far as it decides how long to serve.
pub(super) enum Said {
    Offered(Offered),
    Started(String),
    /// It may be offered again: another transfer is writing the name.
    Postponed(String),
    /// The source became another, which follows.
    Changed(String),
    /// It did not come to its end, and the same command goes on with it.
    Interrupted(String),
    /// The transfer ended for good.
    Ended(String, Served),
    /// The sender will offer no more, although it meant to.
    GaveUp,
    /// It was cut, and its sender would not be known again.
    Lost,
}

impl Guests {
    fn new(once: bool) -> Self {
        Self { live: HashMap::new(), once: once.then(Once::default), is_closing: false }
    }

    /// A connection was accepted.
    fn welcome(&mut self, number: u64) -> Shutdown {
        let (handle, shutdown) = Shutdown::new();
        self.live.insert(number, Guest { _handle: handle, running: 0, left: 0 });
        shutdown
    }

    fn hear(&mut self, number: u64, said: Said) {
        if let Some(guest) = self.live.get_mut(&number) {
            match &said {
                Said::Offered(offered) => {
                    guest.running += 1;
                    guest.left = offered.left;
                }
                Said::Started(_) | Said::GaveUp => {}
                Said::Postponed(_) | Said::Interrupted(_) | Said::Ended(..) | Said::Lost => {
                    guest.running = guest.running.saturating_sub(1);
                }
                Said::Changed(_) => {
                    guest.running = guest.running.saturating_sub(1);
                    guest.left = guest.left.max(1);
                }
            }
        }
        match (&mut self.once, said) {
            (None, _) => {}
            (Some(once), Said::Offered(offered)) => once.offered(number, offered),
            (Some(once), Said::Started(name)) => once.started(number, &name, Instant::now()),
            (Some(once), Said::Postponed(name)) => once.postponed(number, &name),
            (Some(once), Said::Changed(name)) => once.changed(number, &name),
            (Some(once), Said::Interrupted(name)) => once.interrupted(number, &name),
            (Some(once), Said::Ended(name, served)) => once.ended(number, &name, served),
            (Some(once), Said::GaveUp) => once.gave_up(number),
            (Some(once), Said::Lost) => once.lost(number),
        }
        match &self.once {
            // Its connection may carry more files; the others may go.
            Some(once) if once.is_over() => {
                self.is_closing = true;
                self.live.retain(|&number, _| once.is_chosen(number));
            }
            _ if self.is_closing => self.hang_up(),
            _ => {}
        }
    }

    fn gone(&mut self, number: u64) {
        self.live.remove(&number);
        if let Some(once) = &mut self.once {
            once.gone(number, Instant::now());
        }
    }

    fn stop(&mut self) {
        self.is_closing = true;
        self.live.clear();
    }

    fn drain(&mut self) {
        if !self.is_closing {
            self.is_closing = true;
            self.hang_up();
        }
    }

    /// Ends the connections where nothing runs and nothing is to follow.
    fn hang_up(&mut self) {
        self.live.retain(|_, guest| guest.running > 0 || guest.left > 0);
    }
}

/// Where files go.
#[derive(Clone, Copy)]
struct Places<'a> {
    inbox: &'a Arc<Inbox>,
    claims: &'a Claims,
    berths: &'a Berths,
    /// Those that nobody announces.
    plain: Option<&'a (PlainInbox, PlainReceiveOptions)>,
}

/// Where one connection tells what happens on it.
pub(super) struct Tell {
    number: u64,
    observer: ServeObserver,
    tell: mpsc::UnboundedSender<(u64, Said)>,
}

impl Tell {
    pub(super) fn event(&self, transfer: Option<u64>, event: Event) {
        (self.observer)(self.number, transfer, event);
    }

    pub(super) fn say(&self, said: Said) {
        // Nobody listens any more once the server stops.
        let _ = self.tell.unbounded_send((self.number, said));
    }
}

async fn one_connection(
    stream: TcpStream,
    address: String,
    places: Places<'_>,
    budget: &Budget,
    options: &ServeOptions,
    shutdown: Shutdown,
    tell: Tell,
) {
    let _ = stream.set_nodelay(true);
    let stream = Stream::new(stream);
    let handshake = async {
        match places.plain {
            Some(_) => open_server_handshake(stream, address.clone(), &options.origins).await,
            None => server_handshake(stream, address.clone(), &options.origins)
                .await
                .map(|connection| (connection, Request::default())),
        }
    };
    let handshake = runtime::timeout(HANDSHAKE_TIMEOUT, handshake);
    let stopped = shutdown.clone();
    let handshake = match select(std::pin::pin!(handshake), stopped).await {
        Either::Left((handshake, _)) => handshake,
        Either::Right(_) => return,
    };
    let timed_out = TransportError::HandshakeTimeout { address: address.clone(), limit: HANDSHAKE_TIMEOUT };
    match handshake.unwrap_or(Err(timed_out)) {
        Ok((mut connection, request)) => {
            connection.share_memory(budget);
            match places.plain.filter(|_| request.is_plain) {
                Some(plain) => receive_all_plain(connection, plain, &request.target, shutdown, tell).await,
                None => receive_all(connection, places, &options.receive, shutdown, tell).await,
            }
        }
        Err(error) => tell.event(None, Event::Unserved(error.into())),
    }
}

/// Receives files on one connection until it ends.
async fn receive_all(
    mut connection: Connection<Stream>,
    places: Places<'_>,
    options: &ReceiveOptions,
    shutdown: Shutdown,
    tell: Tell,
) {
    // The names of what was offered and has not ended, and whether it was accepted.
    let mut running: HashMap<u64, (String, bool)> = HashMap::new();
    let mut served = false;
    let mut observer = |transfer: Option<u64>, event: Event| {
        if let Some(number) = transfer {
            hear(&mut running, number, &event, &tell);
            served = true;
        }
        tell.event(transfer, event);
    };
    let destination = (places.inbox, places.claims, places.berths);
    let received = receive_claimed(&mut connection, destination, options, shutdown, &mut observer).await;
    tell.event(None, Event::Disconnected);
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
