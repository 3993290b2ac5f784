//! A receiver's side of one connection without the protocol.

use futures::future::poll_fn;

use super::file_name;
use super::receive::{PlainReceiveOptions, receive_plain};
use crate::protocol::Code;
use crate::protocol::message::clip;
use crate::runtime::{self, Stream};
use crate::storage::{PlainInbox, StorageError};
use crate::transfer::guests::Said;
use crate::transfer::hosting::Tell;
use crate::transfer::once::Offered;
use crate::transfer::{CLOSE_TIMEOUT, Error, ErrorKind, Event, Shutdown};
use crate::transport::Connection;

/// Receives messages as files on one connection until it ends: the first under the name in its URL, if there is one.
pub(in crate::transfer) async fn receive_all_plain(
    mut connection: Connection<Stream>,
    (inbox, options): &(PlainInbox, PlainReceiveOptions),
    target: &str,
    shutdown: Shutdown,
    tell: &Tell,
) {
    let name = match file_name(target) {
        Ok(name) => name,
        Err(error) => {
            let (peer, reason) = (connection.peer().to_owned(), format!("its name is not allowed: {error}"));
            runtime::timeout(CLOSE_TIMEOUT, connection.close_with(1008, &reason)).await;
            let name = clip(target).into_owned();
            tell.say(Said::Offered(offered(&name)));
            tell.event(
                Some(0),
                Event::Failed(Error::Declined { peer, name: name.clone(), code: Code::Name, reason }),
            );
            return tell.say(Said::Ended(name, Err(ErrorKind::Refused)));
        }
    };
    // What nobody named is like no other's.
    let nameless = tell.nameless();
    let mut served = false;
    for number in 1.. {
        let id = Some(number);
        let (mut last, mut started) = (None, false);
        let mut said = nameless.clone();
        let mut observer = |event| {
            match &event {
                Event::Offered { name, .. } => {
                    last = Some(name.clone());
                    if !name.is_empty() {
                        said.clone_from(name);
                    }
                    tell.say(Said::Offered(offered(&said)));
                }
                Event::Started { .. } => {
                    started = true;
                    tell.say(Said::Started(said.clone()));
                }
                _ => {}
            }
            tell.event(id, event);
        };
        let name = (name.as_ref(), number);
        let received =
            receive_plain(&mut connection, inbox, name, options, shutdown.clone(), &mut observer).await;
        served |= last.is_some();
        let error = match received {
            Ok(Some(summary)) => {
                tell.event(id, Event::Finished(summary));
                tell.say(Said::Ended(said, Ok(())));
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
        let event = match (error, last) {
            // Refused at once.
            (Error::Storage(error), Some(name)) if !started && kind == ErrorKind::Refused => {
                let (peer, reason) = (connection.peer().to_owned(), error.to_string());
                Event::Failed(Error::Declined { peer, name, code: error.code(), reason })
            }
            (error, _) if served => Event::Failed(error),
            (error, _) => Event::Unserved(error),
        };
        tell.event(id, event);
        // What a stranger says before there is a file is no transfer.
        if is_busy {
            tell.say(Said::Postponed(said));
        } else if is_offered && kind != ErrorKind::Interrupted {
            tell.say(Said::Ended(said, Err(kind)));
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
