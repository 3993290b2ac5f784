//! A sender's side of many files: one connection, made again when it is cut.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::send::{send_again, tell};
use super::{Error, Event, SendOptions, Summary};
use crate::protocol::{ChunkSize, Code, FileName, Progress};
use crate::runtime::{self, TcpStream};
use crate::storage::{Source, SourceError};
use crate::transport::{Connection, Endpoint, HANDSHAKE_TIMEOUT, TransportError, client_handshake};

/// How often a source that changed while it was sent is taken up again.
const MAX_CHANGES: u32 = 3;
/// Chunks do not become smaller than this because a connection stalls: no gateway is known that takes less.
const SMALLEST_AFTER_STALL: u64 = 3 * 1024;

/// What to do when the connection is cut.
#[derive(Debug, Clone, Copy)]
pub struct RetryOptions {
    /// Give up after this long without a byte that moved; zero never reconnects.
    pub retry_for: Duration,
    /// Wait, however long it takes, while another transfer is writing the name.
    pub wait_for_name: bool,
    /// The first delay; it doubles with each attempt.
    pub first_delay: Duration,
    /// The longest delay.
    pub longest_delay: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            retry_for: Duration::ZERO,
            wait_for_name: false,
            first_delay: Duration::from_millis(100),
            longest_delay: Duration::from_secs(30),
        }
    }
}

/// Sends files to one endpoint, one after another, over one connection as long as it lasts.
#[derive(Debug)]
pub struct Session {
    endpoint: Endpoint,
    options: SendOptions,
    retry: RetryOptions,
    connection: Option<Connection<TcpStream>>,
    /// A receiver took a file from this session: from then on a lost connection is a cut.
    worked: bool,
}

impl Session {
    /// A session that will dial `endpoint`.
    pub fn new(endpoint: Endpoint, options: SendOptions, retry: RetryOptions) -> Self {
        Self { endpoint, options, retry, connection: None, worked: false }
    }

    /// Sends one file, under its own name or under `name`.
    ///
    /// # Errors
    /// All that can end a transfer and is not cured by another connection.
    pub async fn send(
        &mut self,
        path: &Path,
        name: Option<FileName>,
        observer: &mut (dyn FnMut(Event) + Send),
    ) -> Result<Summary, Error> {
        // Of the version that arrives.
        let mut started = Instant::now();
        let mut source = Arc::new(Source::open(path, name.clone())?);
        let mut sent_up_to = 0;
        let mut changes = 0;
        let mut replaced = false;
        let mut budget = Budget::new(self.retry, started);
        let mut totals = Totals::default();
        let mut wire_bytes = 0;
        loop {
            let mut accepted = false;
            let mut watch = |event| {
                match &event {
                    Event::Started { .. } => accepted = true,
                    Event::Progress(progress) => budget.on_progress(progress, Instant::now()),
                    _ => {}
                }
                if let Some(event) = totals.pass(event) {
                    observer(event);
                }
            };
            let dialled = Instant::now();
            let error = match self.attempt(&source, &mut sent_up_to, &mut wire_bytes, &mut watch).await {
                Ok(mut summary) => {
                    summary.elapsed = started.elapsed();
                    summary.wire_bytes = wire_bytes;
                    summary.progress = totals.total(summary.progress);
                    self.worked = true;
                    return Ok(summary);
                }
                Err(error) => error,
            };
            self.worked |= totals.told_start || matches!(error, Error::Refused { .. });
            let busy = matches!(error, Error::Refused { code: Code::Busy, .. });
            let connection =
                if matches!(error, Error::Refused { .. }) { None } else { self.connection.take() };
            // One that is gone has not become anything.
            if matches!(error, Error::Source(SourceError::Changed { .. }))
                && changes < MAX_CHANGES
                && let Ok(became) = Source::open(path, name.clone())
            {
                // The new version is offered; of what the receiver holds only the blocks that differ are sent. To the
                // receiver this is a cut like any other, and no end.
                changes += 1;
                if let Some(connection) = connection {
                    close(connection, 1012).await;
                }
                let (delay, why) = (Duration::ZERO, error.to_string());
                observer(Event::Reconnecting { delay, attempt: changes, why });
                source = Arc::new(became);
                replaced = false;
                totals.next_connection();
                (totals.held, totals.told_start) = (None, false);
                started = Instant::now();
                budget = Budget::new(self.retry, started);
                continue;
            }
            if let Some(mut connection) = connection {
                tell(&mut connection, &error).await;
            }
            let waits = busy && self.retry.wait_for_name;
            if waits {
                budget.moved = Instant::now();
            }
            let all_held = totals.held == Some(source.geometry().size());
            if all_held
                && !replaced
                && matches!(error, Error::Transport(TransportError::Closed { code: 1012, .. }))
            {
                // What is there is another file, and will be replaced: all that moved so far was the comparison.
                replaced = true;
                totals.held = None;
                budget = Budget::new(self.retry, Instant::now());
            }
            let cut = if busy {
                // The name may be held by what is left of the connection before.
                totals.told_start || changes > 0 || budget.attempts > 0
            } else {
                // A receiver that never answered is no cut: there is probably none.
                self.worked && is_worth_another(&error)
            };
            if !waits && (!cut || budget.is_spent(Instant::now())) {
                let tried = cut && budget.attempts > 0;
                let last = Box::new(error);
                return Err(if tried { Error::GaveUp { attempts: budget.attempts, last } } else { *last });
            }
            let chunk = self.options.chunk_for(source.geometry().size());
            let too_big = matches!(error, Error::Transport(TransportError::Closed { code: 1009, .. }));
            // Chunks were to flow, and none arrived.
            let swallowed = accepted
                && budget.moved < dialled
                && dialled.elapsed() >= self.options.heartbeat.stall / 2
                && chunk.raw() / 2 >= SMALLEST_AFTER_STALL;
            if too_big || swallowed {
                // Too big for something on the path, or too slow to arrive before it counts as a stall: smaller from
                // now on.
                self.options.chunk = ChunkSize::at_most(chunk.raw() / 2).or(Some(chunk));
            }
            // Nobody would answer the receiver's pings meanwhile.
            if let Some(connection) = self.connection.take() {
                close(connection, 1000).await;
            }
            let delay = budget.next_delay();
            let (attempt, why) = (budget.attempts, error.to_string());
            observer(Event::Reconnecting { delay, attempt, why });
            runtime::sleep(delay).await;
            totals.next_connection();
        }
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            close(connection, 1000).await;
        }
    }

    async fn attempt(
        &mut self,
        source: &Arc<Source>,
        sent_up_to: &mut u64,
        wire_bytes: &mut u64,
        observer: &mut (dyn FnMut(Event) + Send),
    ) -> Result<Summary, Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(dial(&self.endpoint).await?),
        };
        let before = connection.wire_bytes();
        let sent = send_again(connection, source, &self.options, sent_up_to, observer).await;
        *wire_bytes += connection.wire_bytes() - before;
        sent
    }
}

async fn close(mut connection: Connection<TcpStream>, code: u16) {
    runtime::timeout(super::CLOSE_TIMEOUT, connection.close(code)).await;
}

/// Dials an endpoint and opens a WebSocket.
pub(super) async fn dial(endpoint: &Endpoint) -> Result<Connection<TcpStream>, TransportError> {
    dial_with(endpoint, client_handshake).await
}

/// As [`dial`], with this handshake.
pub(super) async fn dial_with(
    endpoint: &Endpoint,
    handshake: impl AsyncFnOnce(TcpStream, &Endpoint) -> Result<Connection<TcpStream>, TransportError>,
) -> Result<Connection<TcpStream>, TransportError> {
    let (host, port) = (endpoint.host(), endpoint.port());
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let stream = runtime::connect(host, port, HANDSHAKE_TIMEOUT).await;
    let stream = stream.map_err(|source| TransportError::Connect { address: address.clone(), source })?;
    runtime::timeout(HANDSHAKE_TIMEOUT, handshake(stream, endpoint))
        .await
        .unwrap_or(Err(TransportError::HandshakeTimeout { address, limit: HANDSHAKE_TIMEOUT }))
}

/// Whether another connection may cure it, after one that worked: the receiver, or a gateway before it, may be
/// restarting.
fn is_worth_another(error: &Error) -> bool {
    match error {
        Error::Transport(TransportError::NotWebSocket { status, .. }) => *status >= 500,
        Error::Transport(
            TransportError::NotWsferry { .. }
            | TransportError::Frame { .. }
            | TransportError::Closed { code: 1003, .. },
        ) => false,
        Error::Transport(_) | Error::Stalled { .. } => true,
        Error::PeerEnded { code, .. } => *code == Code::Shutdown,
        _ => false,
    }
}

/// How much longer to try.
struct Budget {
    retry: RetryOptions,
    /// The most that was acknowledged, and verified, so far.
    best: (u64, u64),
    moved: Instant,
    attempts: u32,
}

impl Budget {
    fn new(retry: RetryOptions, now: Instant) -> Self {
        Self { retry, best: (0, 0), moved: now, attempts: 0 }
    }

    fn on_progress(&mut self, progress: &Progress, now: Instant) {
        let (acknowledged, verified) = self.best;
        if progress.acknowledged > acknowledged || progress.verified > verified {
            self.best = (acknowledged.max(progress.acknowledged), verified.max(progress.verified));
            self.moved = now;
            self.attempts = 0;
        }
    }

    fn is_spent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.moved) >= self.retry.retry_for
    }

    /// How long to wait before the next attempt: doubling, with jitter, so that many senders do not come back at
    /// one moment.
    fn next_delay(&mut self) -> Duration {
        let doubled = self.retry.first_delay.saturating_mul(1 << self.attempts.min(16));
        let longest = doubled.min(self.retry.longest_delay);
        self.attempts += 1;
        longest.mul_f64(0.5 + 0.5 * jitter())
    }
}

/// A number from 0 to 1, different each time.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

/// Adds up what the connections of one transfer counted.
#[derive(Default)]
struct Totals {
    /// What the first connection found; `None` before it was accepted.
    held: Option<u64>,
    before: Counts,
    current: Counts,
    told_start: bool,
}

#[derive(Default, Clone, Copy)]
struct Counts {
    resent: u64,
    naks: u32,
    repaired_blocks: u64,
}

impl Totals {
    /// Adds the earlier connections to an event; drops what was told before.
    fn pass(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Started { .. } if self.told_start => None,
            Event::Started { .. } => {
                self.told_start = true;
                Some(event)
            }
            Event::Progress(progress) => Some(Event::Progress(self.total(progress))),
            event => Some(event),
        }
    }

    fn total(&mut self, mut progress: Progress) -> Progress {
        let Progress { resent, naks, repaired_blocks, .. } = progress;
        self.current = Counts { resent, naks, repaired_blocks };
        progress.held = *self.held.get_or_insert(progress.held);
        progress.resent += self.before.resent;
        progress.naks += self.before.naks;
        progress.repaired_blocks += self.before.repaired_blocks;
        progress
    }

    fn next_connection(&mut self) {
        let Counts { resent, naks, repaired_blocks } = std::mem::take(&mut self.current);
        self.before.resent += resent;
        self.before.naks += naks;
        self.before.repaired_blocks += repaired_blocks;
    }
}
