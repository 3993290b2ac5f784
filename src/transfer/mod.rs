//! Transfers: the pumps that join the machines to files and sockets.

mod addresses;
mod berths;
mod claims;
mod content;
mod error;
mod event;
mod expected;
mod fetch;
mod greeting;
mod guests;
mod hosting;
mod listener;
mod metrics;
mod offer;
mod once;
pub mod plain;
pub mod probe;
mod pump;
mod receive;
mod recovery;
mod run;
mod runs;
mod send;
mod serve;
mod session;
mod shutdown;
mod succession;
mod throttle;

pub use error::{Error, ErrorKind};
pub use event::{Event, Summary};
pub use fetch::{receive_from, receive_over};
pub use listener::{ListenAddress, Listener};
pub use metrics::Metrics;
pub use offer::{OfferOptions, send_over, serve_files};
pub use receive::{ReceiveOptions, Receptacle, receive_files};
pub use send::{SendOptions, send_file};
pub use serve::{ServeLimits, ServeObserver, ServeOptions, Served, serve};
pub use session::{RetryOptions, Session};
pub use shutdown::{Shutdown, ShutdownHandle};

use std::cell::RefCell;
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncWrite};

use crate::protocol::message::clip;
use crate::protocol::{Code, Feature, Hello, Message, Role};
use crate::runtime;
use crate::transport::Connection;

/// How long a side that ends a connection waits for the peer to read its last words.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Turns of a pump before other tasks of its thread have one.
const TURNS_PER_POLL: usize = 8;

/// How often progress is told, unless it is asked for more often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

thread_local! {
    /// A chunk's bytes, between file and frame: one buffer for each thread that runs pumps, not for each connection.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lets one event through in each interval.
struct Pace {
    interval: Duration,
    next: Instant,
    /// Bytes that had crossed when something was told, and whether more have since.
    told: u64,
    has_more: bool,
}

impl Pace {
    fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, next: now, told: 0, has_more: false }
    }

    /// As [`is_due`](Self::is_due), where what has crossed says whether there is anything to tell.
    fn is_due_at(&mut self, now: Instant, crossed: u64) -> bool {
        let due = self.is_due(now);
        if due {
            self.told = crossed;
        }
        self.has_more = self.told != crossed;
        due
    }

    /// When what was held back is to be told.
    fn wakes_at(&self) -> Option<Instant> {
        self.has_more.then_some(self.next)
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + self.interval;
        }
        due
    }
}

/// What a side of ours says first.
fn hello(frame_limit: u64, window: u64, offers: u64, session: Option<String>, role: Option<Role>) -> Hello {
    Hello {
        features: vec![Feature::Zeros, Feature::Trees, Feature::TreeDigests, Feature::LateSize],
        frame_limit,
        window,
        offers,
        session,
        role,
        program: concat!("wsferry ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// Tells the peer of an error that it does not know of, and ends the connection with it; `again` if another may go on.
async fn tell<S>(connection: &mut Connection<S>, error: &Error, again: bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Some((code, reason)) = error.told("the file") {
        part(connection, code, &reason, again).await;
    }
}

/// Tells the peer why this connection ends, and ends it.
async fn part<S>(connection: &mut Connection<S>, code: Code, reason: &str, again: bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let close_code = match code {
        Code::Protocol => 1002,
        Code::Shutdown => 1001,
        _ => 1011,
    };
    let message = Message::Error { code, reason: clip(reason).into_owned(), again };
    let words = async {
        let ready = std::future::poll_fn(|cx| connection.poll_ready(cx)).await;
        if ready.is_ok() {
            connection.send(&message.to_frame());
            match code {
                // The other side says the same at this moment, and would wait as this one does.
                Code::Role => connection.close_first(close_code).await,
                _ => connection.close(close_code).await,
            }
        }
    };
    runtime::timeout(CLOSE_TIMEOUT, words).await;
}
