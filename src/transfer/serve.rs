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

use super::claims::Claims;
use super::once::{Offered, Once};
use super::plain::{PlainReceiveOptions, receive_all_plain};
use super::receive::receive_claimed;
use super::{Error, ErrorKind, Event, ReceiveOptions, Shutdown, ShutdownHandle};
use crate::protocol::Code;
use crate::runtime::{self, TcpListener, TcpStream};
use crate::storage::{Inbox, PlainInbox};
use crate::transport::{
    Budget, Connection, HANDSHAKE_TIMEOUT, Origins, Request, TransportError, open_server_handshake,
    server_handshake,
};

/// How long to wait when the system has no descriptor for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections at one time, however many descriptors there are.
const MAX_CONNECTIONS: u64 = 4096;
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

/// Told what happens, with a number for the connection it happens on.
pub type ServeObserver = Arc<dyn Fn(u64, Event) + Send + Sync>;

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
    let most = most_connections();
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
                    let (budget, plain) = (budget.clone(), plain.clone());
                    let tell = Tell { number, observer: observer.clone(), tell: tell.clone() };
                    let connection = async move {
                        let places = Places { inbox: &inbox, claims: &claims, plain: plain.as_deref() };
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

/// As many connections as there are descriptors for.
fn most_connections() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = descriptors.saturating_sub(DESCRIPTORS_BESIDE) / DESCRIPTORS_EACH;
    usize::try_from(most.clamp(1, MAX_CONNECTIONS)).expect("it is at most 4096")
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
    /// A file was offered and has not ended.
    is_running: bool,
    /// How many more its sender means to offer.
    left: u64,
}

/// What happens on a connection, as far as it decides how long to serve.
pub(super) enum Said {
    Offered(Offered),
    Started,
    /// Another transfer is writing the name: its sender may be back.
    Busy,
    /// The transfer ended for good.
    Ended(Served),
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
        self.live.insert(number, Guest { _handle: handle, is_running: false, left: 0 });
        shutdown
    }

    fn hear(&mut self, number: u64, said: Said) {
        if let Some(guest) = self.live.get_mut(&number) {
            match &said {
                Said::Offered(offered) => (guest.is_running, guest.left) = (true, offered.left),
                Said::Started | Said::GaveUp => {}
                Said::Busy | Said::Ended(_) | Said::Lost => guest.is_running = false,
            }
        }
        match (&mut self.once, said) {
            (None, _) => {}
            (Some(once), Said::Offered(offered)) => once.offered(number, offered),
            (Some(once), Said::Started) => once.started(number, Instant::now()),
            (Some(once), Said::Busy) => once.busy(number),
            (Some(once), Said::Ended(served)) => once.ended(number, served),
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
        self.live.retain(|_, guest| guest.is_running || guest.left > 0);
    }
}

/// Where files go.
#[derive(Clone, Copy)]
struct Places<'a> {
    inbox: &'a Arc<Inbox>,
    claims: &'a Claims,
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
    pub(super) fn event(&self, event: Event) {
        (self.observer)(self.number, event);
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
        Err(error) => tell.event(Event::Unserved(error.into())),
    }
}

/// Receives files on one connection until it ends.
async fn receive_all(
    mut connection: Connection<TcpStream>,
    places: Places<'_>,
    options: &ReceiveOptions,
    shutdown: Shutdown,
    tell: Tell,
) {
    let mut served = false;
    loop {
        let (mut offered, mut started) = (false, false);
        let mut observer = |event| {
            match &event {
                Event::Offered { name, left, session } => {
                    offered = true;
                    let (name, left, session) = (name.clone(), *left, session.clone());
                    tell.say(Said::Offered(Offered { name, left, session }));
                }
                Event::Started { .. } => {
                    started = true;
                    tell.say(Said::Started);
                }
                _ => {}
            }
            tell.event(event);
        };
        let destination = (places.inbox, places.claims);
        let received =
            receive_claimed(&mut connection, destination, options, shutdown.clone(), &mut observer).await;
        served |= offered;
        match received {
            Ok(Some(summary)) => {
                tell.event(Event::Finished(summary));
                tell.say(Said::Ended(Ok(())));
            }
            Ok(None) => return,
            // Nothing was under way.
            Err(Error::Stopped) if !offered => return,
            Err(error) => {
                let declined = matches!(error, Error::Declined { .. });
                let kind = error.kind();
                let said = match &error {
                    // A name that is being written is free again soon.
                    Error::Declined { code: Code::Busy, .. } => Some(Said::Busy),
                    Error::PeerEnded { code: Code::Source, .. } if !offered => Some(Said::GaveUp),
                    // What a stranger says before a file was taken or refused is no transfer.
                    _ if kind != ErrorKind::Interrupted && (started || declined) => {
                        Some(Said::Ended(Err(kind)))
                    }
                    _ => None,
                };
                tell.event(if served { Event::Failed(error) } else { Event::Unserved(error) });
                if let Some(said) = said {
                    tell.say(said);
                }
                if !declined {
                    return;
                }
            }
        }
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
