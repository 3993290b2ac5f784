//! A receiver's side of many senders: receives on each connection that is accepted.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::berths::Berths;
use super::claims::Claims;
use super::guests::{Guests, Said};
use super::hosting::{Host, Hosting, MAX_CONNECTIONS, Tell, host, most_at_a_time};
use super::listener::Listener;
use super::metrics::Metrics;
use super::once::Offered;
use super::plain::{PlainReceiveOptions, receive_all_plain};
use super::receive::{Places, Receptacle, receive_claimed};
use super::{Error, ErrorKind, Event, ReceiveOptions, Shutdown};
use crate::protocol::Code;
use crate::runtime::Stream;
use crate::storage::PlainInbox;
use crate::transport::{Connection, Gate, HANDSHAKE_TIMEOUT, Request, Tls};

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
    let (_, files) = most_at_a_time(options.limits.connections);
    let (into, claims, berths) = (into.into(), Claims::default(), Berths::new(files));
    let plain = match &into {
        Receptacle::Inbox(inbox) => options.plain.map(|options| (inbox.plain(), options)),
        // What nobody announces is of no known length, and cannot be gone on with.
        Receptacle::Outlet(_) => None,
    };
    let receiving = Receiving { places: Places { into, claims, berths }, options: options.receive, plain };
    let ServeOptions { gate, tls, limits, metrics, drain, once, .. } = options;
    let hosting = Hosting { gate, tls, limits, metrics, drain, guests: Guests::new(once) };
    host(listener, hosting, Arc::new(receiving), shutdown, observer).await
}

/// What each connection has.
struct Receiving {
    places: Places,
    options: ReceiveOptions,
    /// Those that nobody announces.
    plain: Option<(PlainInbox, PlainReceiveOptions)>,
}

impl Host for Receiving {
    fn failure(&self) -> Option<ErrorKind> {
        match &self.places.into {
            Receptacle::Inbox(_) => None,
            Receptacle::Outlet(outlet) => outlet.failure().map(|error| Error::from(error).kind()),
        }
    }

    async fn serve(&self, connection: Connection<Stream>, request: Request, shutdown: Shutdown, tell: &Tell) {
        let Request { is_plain, target } = request;
        match self.plain.as_ref().filter(|_| is_plain) {
            Some(plain) => receive_all_plain(connection, plain, &target, shutdown, tell).boxed().await,
            None => receive_all(connection, &self.places, &self.options, shutdown, tell).boxed().await,
        }
    }
}

/// Receives files on one connection until it ends.
async fn receive_all(
    mut connection: Connection<Stream>,
    places: &Places,
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
    let parted = receive_claimed(&mut connection, places, options, None, shutdown, &mut observer).await;
    let Err(error) = parted.of_peer() else { return };
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
