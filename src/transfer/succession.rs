//! The next connection, made while this one is in use, so that this one can be left with nothing on its way.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncWrite};

use super::pump::{Jobs, Pump, Side};
use super::{Error, RetryOptions, recovery};
use crate::protocol::{Action, Due, Hello, Link, LinkConfig, LinkEvent, Role, Violation, Write};
use crate::runtime::{Stream, Timer};
use crate::transport::{Connection, Remote};

/// A connection is made once this one is old enough; where that fails this one stays, and it is tried again.
pub(super) struct Succession {
    remote: Arc<Remote>,
    config: LinkConfig,
    retry: RetryOptions,
    /// When to dial.
    due: Instant,
    timer: Timer,
    /// How often it failed.
    attempts: u32,
    state: State,
}

type Opening = Pin<Box<dyn Future<Output = Result<Box<Standing>, Error>> + Send>>;

enum State {
    Waiting,
    Opening(Opening),
    Standing(Box<Standing>),
}

/// A connection on which both sides have said hello, and nothing else.
struct Standing {
    connection: Connection<Stream>,
    pump: Pump<Standby>,
    since: Instant,
}

/// A connection to begin with, its machine, and when it was dialled.
pub(super) struct Next {
    pub(super) connection: Connection<Stream>,
    pub(super) link: Link,
    pub(super) since: Instant,
}

impl Succession {
    pub(super) fn new(remote: Arc<Remote>, config: LinkConfig, retry: RetryOptions, due: Instant) -> Self {
        Self { remote, config, retry, due, timer: Timer::new(), attempts: 0, state: State::Waiting }
    }

    /// Goes on with it. Why the next connection could not be made, or did not last.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let error = loop {
            match &mut self.state {
                State::Waiting => {
                    if self.timer.poll_at(self.due, cx).is_pending() {
                        return Poll::Pending;
                    }
                    let opening = open(self.remote.clone(), self.config.clone());
                    self.state = State::Opening(Box::pin(opening));
                }
                State::Opening(opening) => match opening.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(standing)) => self.state = State::Standing(standing),
                    Poll::Ready(Err(error)) => break error,
                },
                // The receiver asks whether somebody is there.
                State::Standing(standing) => match standing.pump.poll(&mut standing.connection, cx) {
                    Poll::Ready(Err(error)) => break error,
                    Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
                },
            }
        };
        let delay = self.retry.delay(self.attempts);
        self.attempts += 1;
        self.due = Instant::now() + recovery::delay(&error, delay, Duration::MAX);
        self.state = State::Waiting;
        Poll::Ready(error)
    }

    /// How often it failed.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether the next connection is there.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, State::Standing(_))
    }

    /// The next connection, if it is there.
    pub(super) fn take(self) -> Option<Next> {
        let State::Standing(standing) = self.state else { return None };
        let Standing { connection, pump, since } = *standing;
        Some(Next { connection, link: pump.link, since })
    }
}

async fn open(remote: Arc<Remote>, config: LinkConfig) -> Result<Box<Standing>, Error> {
    // From here on it ages, for whoever ends connections of an age.
    let since = Instant::now();
    let mut connection = remote.connect().await?;
    let pump = greet(&mut connection, config).await?;
    Ok(Box::new(Standing { connection, pump, since }))
}

/// Says hello, and hears the other side's.
pub(super) async fn greet<S>(
    connection: &mut Connection<S>,
    config: LinkConfig,
) -> Result<Pump<Standby>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let side = Standby { greets: true, peer: connection.peer().to_owned() };
    let mut pump = Pump::new(Link::new(config, Instant::now()), side, connection);
    pump.run(connection).await?;
    pump.side.greets = false;
    Ok(pump)
}

/// The side of a connection on which nothing happens yet.
pub(super) struct Standby {
    /// Until the peer has said hello.
    greets: bool,
    peer: String,
}

impl Side for Standby {
    type Outcome = ();

    const FRAMES_PER_TURN: usize = 8;

    fn turn(&mut self, _: &mut Link, _: &mut Jobs<()>, _: &mut Context<'_>) -> Result<bool, Error> {
        Ok(false)
    }

    fn begin(&mut self, _: Action, _: &mut Jobs<()>) {
        unreachable!("nothing is offered here")
    }

    fn end(&mut self, (): (), _: &mut Link) -> Result<(), Error> {
        Ok(())
    }

    fn read(&mut self, _: Due, _: &mut [u8], _: &mut Link) -> bool {
        unreachable!("nothing is offered here")
    }

    fn write(&mut self, _: Write, _: &[u8], _: &mut Link) {
        unreachable!("nothing is received here")
    }

    fn hear(&mut self, event: LinkEvent, _: &mut Link, _: u64) -> Result<(), Error> {
        match event {
            LinkEvent::Ended { code, reason, again } => {
                Err(Error::peer_ended(&self.peer, Role::Sender, code, reason, again))
            }
            LinkEvent::Receiver(..) => {
                let violation =
                    Violation::Unexpected { came: "offer", state: "this side sends and takes nothing" };
                Err(Error::Violation { peer: self.peer.clone(), violation })
            }
            LinkEvent::Greeted(Hello { role: Some(role @ Role::Sender), .. }) => {
                Err(Error::SameRole { peer: self.peer.clone(), role })
            }
            LinkEvent::Greeted(_) | LinkEvent::Sender(..) => Ok(()),
        }
    }

    fn heard(&mut self, _: &Link, _: u64) {}

    fn tells_at(&self) -> Option<Instant> {
        None
    }

    fn is_over(&self, link: &Link) -> bool {
        self.greets && link.peer().is_some()
    }
}
