//! A receiver's side of one connection without the protocol.

use futures::future::poll_fn;

use super::file_name;
use super::receive::{PlainReceiveOptions, receive_plain};
use crate::protocol::Code;
use crate::protocol::message::clip;
use crate::runtime::{self, TcpStream};
use crate::storage::{PlainInbox, StorageError};
use crate::transfer::once::Offered;
use crate::transfer::serve::{Said, Tell};
use crate::transfer::{CLOSE_TIMEOUT, Error, ErrorKind, Event, Shutdown};
use crate::transport::Connection;

/// Receives messages as files on one connection until it ends: the first under the name in its URL, if there is one.
pub(in crate::transfer) async fn receive_all_plain(
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
            tell.say(Said::Offered(offered(&name)));
            tell.event(Event::Failed(Error::Declined { peer, name, code: Code::Name, reason }));
            return tell.say(Said::Ended(Err(ErrorKind::Refused)));
        }
    };
    // What nobody named is like no other's.
    let nameless = connection.peer().to_owned();
    let mut served = false;
    for number in 1.. {
        let (mut last, mut started) = (None, false);
        let mut observer = |event| {
            match &event {
                Event::Offered { name, .. } => {
                    last = Some(name.clone());
                    let name = if name.is_empty() { &nameless } else { name };
                    tell.say(Said::Offered(offered(name)));
                }
                Event::Started { .. } => {
                    started = true;
                    tell.say(Said::Started);
                }
                _ => {}
            }
            tell.event(event);
        };
        let name = (name.as_ref(), number);
        let received =
            receive_plain(&mut connection, inbox, name, options, shutdown.clone(), &mut observer).await;
        served |= last.is_some();
        let error = match received {
            Ok(Some(summary)) => {
                tell.event(Event::Finished(summary));
                tell.say(Said::Ended(Ok(())));
                continue;
            }
            Ok(None) => {
                // The answer to its goodbye; it is for this side to hang up first (RFC 6455, 7.1.1).
                let answered = poll_fn(|cx| connection.poll_flush(cx));
                runtime::timeout(CLOSE_TIMEOUT, answered).await;
                return;
            }
            // Nothing was under way.
            Err(Error::Stopped) if last.is_none() => return,
            Err(error) => error,
        };
        let (kind, is_offered) = (error.kind(), last.is_some());
        let is_nameless = last.as_ref().is_some_and(String::is_empty);
        // A name that is being written is free again soon.
        let is_busy = matches!(error, Error::Storage(StorageError::Busy { .. }));
        tell.event(match (error, last) {
            // Refused at once.
            (Error::Storage(error), Some(name)) if !started && kind == ErrorKind::Refused => {
                let (peer, reason) = (connection.peer().to_owned(), error.to_string());
                Event::Failed(Error::Declined { peer, name, code: error.code(), reason })
            }
            (error, _) if served => Event::Failed(error),
            (error, _) => Event::Unserved(error),
        });
        // What a stranger says before there is a file is no transfer.
        if is_busy {
            tell.say(Said::Busy);
        } else if is_offered && kind != ErrorKind::Interrupted {
            tell.say(Said::Ended(Err(kind)));
        } else if is_nameless {
            tell.say(Said::Lost);
        }
        return;
    }
}

/// Nobody tells whether more will follow.
fn offered(name: &str) -> Offered {
    Offered { name: name.to_owned(), left: 0, session: None }
}
