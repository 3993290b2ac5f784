//! A receiver's side of many senders: accepts connections and receives on each.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::{Either, FutureExt, select};
use futures::stream::{FuturesUnordered, StreamExt};

use super::plain::{PlainReceiveOptions, file_name, receive_plain};
use super::{CLOSE_TIMEOUT, Error, ErrorKind, Event, ReceiveOptions, Shutdown, receive_file};
use crate::protocol::Code;
use crate::protocol::message::clip;
use crate::runtime::{self, TcpListener, TcpStream};
use crate::storage::{Inbox, PlainInbox};
use crate::transport::{
    Budget, Connection, HANDSHAKE_TIMEOUT, Request, TransportError, open_server_handshake, server_handshake,
};

/// How long to wait when the system has no descriptor for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections at one time.
const MAX_CONNECTIONS: usize = 4096;

/// How to serve.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServeOptions {
    /// How to receive on each connection.
    pub receive: ReceiveOptions,
    /// How to receive from peers that speak no subprotocol; `None` sends them away.
    pub plain: Option<PlainReceiveOptions>,
    /// Stop after the connection that carried the first transfer that ended for good.
    pub once: bool,
}

/// How a transfer that ended for good ended: done, or the kind of its error.
pub type Served = Result<(), ErrorKind>;

/// Told what happens, with a number for the connection it happens on.
pub type ServeObserver = Arc<dyn Fn(u64, Event) + Send + Sync>;

/// Accepts connections and receives files on each, until told to stop, or with
/// [`once`](ServeOptions::once) until the first transfer ended for good: a connection that was cut is no end, since
/// its sender may come back. On return every journal is synced.
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
    let (ended, mut ends) = mpsc::unbounded();
    let mut connections = FuturesUnordered::new();
    // Dropping a connection's handle stops it.
    let mut handles = HashMap::new();
    let mut shutdown = shutdown.fuse();
    let mut number = 0;
    let budget = Budget::default();
    let plain = options.plain.map(|options| Arc::new((inbox.plain(), options)));
    let outcome = loop {
        let mut accept = std::pin::pin!(listener.accept().fuse());
        futures::select_biased! {
            () = shutdown => {
                handles.clear();
                break None;
            }
            (number, served) = ends.select_next_some() => if options.once {
                // It may carry more files; the others may go.
                handles.retain(|&other, _| other == number);
                break Some(served);
            },
            number = connections.select_next_some() => {
                handles.remove(&number);
            }
            accepted = accept => match accepted {
                // One more than can be served is hung up on.
                Ok(_) if handles.len() >= MAX_CONNECTIONS => {}
                Ok((stream, address)) => {
                    number += 1;
                    let (handle, shutdown) = Shutdown::new();
                    handles.insert(number, handle);
                    let inbox = inbox.clone();
                    let (budget, plain) = (budget.clone(), plain.clone());
                    let tell = Tell { number, observer: observer.clone(), ended: ended.clone() };
                    let connection = async move {
                        let destinations = (&inbox, plain.as_deref());
                        one_connection(stream, address.to_string(), destinations, &budget, &options, shutdown, tell)
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
                Err(_) => runtime::sleep(ACCEPT_PAUSE).await,
            },
        }
    };
    while !connections.is_empty() {
        futures::select_biased! {
            () = shutdown => handles.clear(),
            number = connections.select_next_some() => {
                handles.remove(&number);
            }
        }
    }
    Ok(outcome)
}

/// Where one connection tells what happens on it.
struct Tell {
    number: u64,
    observer: ServeObserver,
    ended: mpsc::UnboundedSender<(u64, Served)>,
}

impl Tell {
    fn event(&self, event: Event) {
        (self.observer)(self.number, event);
    }

    /// A transfer ended for good.
    fn ended(&self, served: Served) {
        // Nobody listens any more once the server stops.
        let _ = self.ended.unbounded_send((self.number, served));
    }
}

async fn one_connection(
    stream: TcpStream,
    address: String,
    (inbox, plain): (&Arc<Inbox>, Option<&(PlainInbox, PlainReceiveOptions)>),
    budget: &Budget,
    options: &ServeOptions,
    shutdown: Shutdown,
    tell: Tell,
) {
    let _ = stream.set_nodelay(true);
    let handshake = async {
        match plain {
            Some(_) => open_server_handshake(stream, address.clone()).await,
            None => server_handshake(stream, address.clone())
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
            match plain.filter(|_| request.is_plain) {
                Some(plain) => receive_all_plain(connection, plain, &request.target, shutdown, tell).await,
                None => receive_all(connection, inbox, &options.receive, shutdown, tell).await,
            }
        }
        Err(error) => tell.event(Event::Failed(error.into())),
    }
}

/// Receives files on one connection until it ends.
async fn receive_all(
    mut connection: Connection<TcpStream>,
    inbox: &Arc<Inbox>,
    options: &ReceiveOptions,
    shutdown: Shutdown,
    tell: Tell,
) {
    loop {
        let mut started = false;
        let mut observer = |event| {
            started |= matches!(event, Event::Started { .. });
            tell.event(event);
        };
        match receive_file(&mut connection, inbox, options, shutdown.clone(), &mut observer).await {
            Ok(Some(summary)) => {
                tell.event(Event::Finished(summary));
                tell.ended(Ok(()));
            }
            Ok(None) => return,
            Err(error) => {
                let declined = matches!(error, Error::Declined { .. });
                // A name that is being written is free again soon: its sender will be back.
                let busy = matches!(error, Error::Declined { code: Code::Busy, .. });
                let kind = error.kind();
                tell.event(Event::Failed(error));
                // What a stranger says before a file was taken or refused is no transfer.
                if kind != ErrorKind::Interrupted && (started || declined) && !busy {
                    tell.ended(Err(kind));
                }
                if !declined {
                    return;
                }
            }
        }
    }
}

/// Receives messages as files on one connection until it ends: the first under the name in its URL, if there is one.
async fn receive_all_plain(
    mut connection: Connection<TcpStream>,
    (inbox, options): &(PlainInbox, PlainReceiveOptions),
    target: &str,
    shutdown: Shutdown,
    tell: Tell,
) {
    let name = match file_name(target) {
        Ok(name) => name,
        Err(error) => {
            let (peer, reason) = (connection.peer().to_owned(), format!("its name is not allowed: {error}"));
            runtime::timeout(CLOSE_TIMEOUT, connection.close_with(1008, &reason)).await;
            let name = clip(target).into_owned();
            return tell.event(Event::Failed(Error::Declined { peer, name, code: Code::Name, reason }));
        }
    };
    for number in 1.. {
        let mut observer = |event| tell.event(event);
        let name = (name.as_ref(), number);
        let received = receive_plain(&mut connection, inbox, name, options, shutdown.clone(), &mut observer);
        match received.await {
            Ok(Some(summary)) => {
                tell.event(Event::Finished(summary));
                tell.ended(Ok(()));
            }
            Ok(None) => {
                // The answer to its goodbye; it is for this side to hang up first (RFC 6455, 7.1.1).
                let answered = std::future::poll_fn(|cx| connection.poll_flush(cx));
                runtime::timeout(CLOSE_TIMEOUT, answered).await;
                return;
            }
            Err(error) => {
                let kind = error.kind();
                tell.event(Event::Failed(error));
                if kind != ErrorKind::Interrupted {
                    tell.ended(Err(kind));
                }
                return;
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
