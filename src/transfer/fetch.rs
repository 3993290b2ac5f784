//! A receiver that reaches out: one sender's files, over as many connections as it takes.

use futures::future::{Either, select};
use futures::{AsyncRead, AsyncWrite};

use super::expected::Expected;
use super::receive::{Parted, Places, receive_claimed};
use super::recovery::{self, Facts, Next};
use super::session::{connecting, random_id};
use super::{Error, ErrorKind, Event, ReceiveOptions, Receptacle, RetryOptions, Served, Shutdown};
use crate::protocol::Code;
use crate::runtime;
use crate::transport::{Connection, Remote};

/// Reaches a sender, and receives all that it means to send, over another connection when one is cut. Of the options of
/// `retry` those about delays hold.
///
/// The observer is told of each transfer by a number, in the order of coming, which stays the same over all connections;
/// and of what concerns none of them. What arrived before an error is kept, and durable, when this returns.
///
/// Gives how it went: the kind of the first file's failure, if one failed.
///
/// # Errors
/// What ended it before all that the sender meant to send was received or refused.
pub async fn receive_from(
    remote: impl Into<Remote>,
    into: impl Into<Receptacle>,
    options: &ReceiveOptions,
    retry: RetryOptions,
    shutdown: Shutdown,
    observer: &mut (dyn FnMut(Option<u64>, Event) + Send),
) -> Result<Served, Error> {
    let remote = remote.into();
    let places = Places::alone(into.into());
    let session = random_id();
    let mut expected = Expected::default();
    loop {
        let connected = {
            let mut tell = |event| observer(None, event);
            let connecting = Box::pin(connecting(&remote, remote.connect(), &mut tell));
            match select(connecting, shutdown.clone()).await {
                Either::Left((connected, _)) => connected.map_err(Error::from),
                Either::Right(_) => return Err(Error::Stopped),
            }
        };
        let error = match connected {
            Ok(mut connection) => {
                let session = Some(session.clone());
                let ended = receive_some(
                    &mut connection,
                    &places,
                    options,
                    session,
                    &mut expected,
                    &shutdown,
                    observer,
                )
                .await;
                match ended {
                    Ok(served) => return Ok(served),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        let facts = Facts {
            reached: expected.reached,
            idle: expected.moved.elapsed(),
            retry_for: retry.retry_for,
            ..Facts::default()
        };
        if recovery::next(&error, &facts) != Next::Again {
            return Err(recovery::gave_up(error, expected.attempts));
        }
        let left = retry.retry_for.saturating_sub(facts.idle);
        let delay = recovery::delay(&error, retry.delay(expected.attempts), left);
        expected.attempts += 1;
        observer(None, Event::Reconnecting { delay, attempt: expected.attempts, why: error.to_string() });
        let sleeping = Box::pin(runtime::sleep(delay));
        if let Either::Right(_) = select(sleeping, shutdown.clone()).await {
            return Err(Error::Stopped);
        }
    }
}

/// As [`receive_from`], over one connection that is open already, such as the pipes of a program that was started for it:
/// a cut is an error.
///
/// # Errors
/// What ended the connection before all that the sender meant to send was received or refused.
pub async fn receive_over<S>(
    connection: &mut Connection<S>,
    into: impl Into<Receptacle>,
    options: &ReceiveOptions,
    shutdown: Shutdown,
    observer: &mut (dyn FnMut(Option<u64>, Event) + Send),
) -> Result<Served, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (places, mut expected) = (Places::alone(into.into()), Expected::default());
    receive_some(connection, &places, options, None, &mut expected, &shutdown, observer).await
}

/// As far as one connection gets.
async fn receive_some<S>(
    connection: &mut Connection<S>,
    places: &Places,
    options: &ReceiveOptions,
    session: Option<String>,
    expected: &mut Expected,
    shutdown: &Shutdown,
    observer: &mut (dyn FnMut(Option<u64>, Event) + Send),
) -> Result<Served, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut watch = |transfer: Option<u64>, event: Event| {
        let Some(number) = transfer else { return observer(None, event) };
        if let Some((number, event)) = expected.hear(number, event) {
            observer(Some(number), event);
        }
    };
    let parted = receive_claimed(connection, places, options, session, shutdown.clone(), &mut watch).await;
    expected.end_connection();
    match parted {
        _ if expected.is_all_there() => Ok(expected.served()),
        // It says that it sends no more, although it meant to.
        Parted { error: error @ Error::PeerEnded { code: Code::Source, .. }, under_way: false } => {
            observer(None, Event::Failed(error));
            Ok(expected.served().and(Err(ErrorKind::Failed)))
        }
        Parted { error, .. } if !expected.reached => Err(error.or_nothing_offered(connection.peer())),
        Parted { error, .. } => Err(error),
    }
}
