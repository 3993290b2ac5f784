//! A sender's side of many files: one connection, made again when it is cut.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::recovery::{self, Facts, Next};
use super::send::{Attempt, Known, attempt, tell};
use super::{Error, Event, SendOptions, Summary, part};
use crate::protocol::{Code, FileName, Progress};
use crate::runtime::{self, TcpStream};
use crate::storage::{Source, SourceError};
use crate::transport::{Connection, Endpoint, HANDSHAKE_TIMEOUT, TransportError, client_handshake};

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
            longest_delay: Duration::from_secs(5),
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
    /// A receiver took or refused a file of this session: from then on a lost connection is a cut.
    reached: bool,
    known: Known,
    /// How many files the receiver was told to expect behind the last one.
    owes: u64,
}

impl Session {
    /// A session that will dial `endpoint`.
    pub fn new(endpoint: Endpoint, options: SendOptions, retry: RetryOptions) -> Self {
        let known = Known { session: Some(random_id()), ..Known::default() };
        Self { endpoint, options, retry, connection: None, reached: false, known, owes: 0 }
    }

    /// How many more files are to be sent behind the next one: a receiver that waits for this sender alone ends with the
    /// last of them.
    pub fn set_left(&mut self, files: u64) {
        self.known.left = files;
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
        let source = Source::open(path, name)?.growing(self.options.growing);
        let mut transfer = Transfer::new(Arc::new(source), self.retry);
        self.known.sent_up_to = 0;
        loop {
            let error = match self.attempt(&mut transfer, observer).await {
                Ok(summary) => return Ok(transfer.summarise(summary)),
                Err(error) => error,
            };
            match recovery::next(&error, &self.facts(&transfer)) {
                Next::Again => self.wait(&mut transfer, &error, observer).await,
                Next::Reoffer => match transfer.source.reopen() {
                    Ok(became) => self.reoffer(&mut transfer, became, &error, observer).await,
                    // Another file of that path is another transfer.
                    Err(replaced @ SourceError::Replaced(_)) => {
                        return Err(self.give_up(&transfer, replaced.into()).await);
                    }
                    // One that is gone has not become anything.
                    Err(_) => return Err(self.give_up(&transfer, error).await),
                },
                Next::GiveUp => return Err(self.give_up(&transfer, error).await),
                Next::TooNarrow => {
                    let (peer, last) = (self.endpoint.to_string(), Box::new(error));
                    return Err(Error::TooNarrow { peer, last });
                }
            }
        }
    }

    /// Says goodbye, and, where more files were to follow than could be sent, that they do not.
    pub async fn close(mut self) {
        if self.owes > 0
            && let Some(mut connection) = self.connection.take()
        {
            part(&mut connection, Code::Source, "not all files could be sent", false).await;
        }
        self.hang_up(1000).await;
    }

    /// Sends as far as one connection gets.
    async fn attempt(
        &mut self,
        transfer: &mut Transfer,
        observer: &mut (dyn FnMut(Event) + Send),
    ) -> Result<Summary, Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(dial(&self.endpoint).await?),
        };
        self.owes = self.known.left;
        let source = transfer.source.clone();
        let mut watch = |event| {
            if let Some(event) = transfer.pass(event) {
                observer(event);
            }
        };
        let attempt = attempt(connection, &source, &self.options, &self.known, &mut watch).await;
        let Attempt { result, accepted, progress, sent_up_to, path, wire_bytes } = attempt;
        self.reached |= accepted || matches!(result, Err(Error::Refused { .. }));
        (self.known.sent_up_to, self.known.path) = (sent_up_to, path);
        transfer.end_connection(progress, wire_bytes);
        if !matches!(result, Ok(_) | Err(Error::Refused { .. } | Error::Source(_) | Error::Violation { .. }))
        {
            self.connection = None;
        }
        result
    }

    fn facts(&self, transfer: &Transfer) -> Facts {
        Facts {
            reached: self.reached,
            began: transfer.told_start || transfer.changes > 0 || transfer.attempts > 0,
            changes: transfer.changes,
            // Where something moved since, some frame has passed, acknowledged or not.
            least_failed: self.known.path.least_failed().min(transfer.attempts),
            waits_for_name: self.retry.wait_for_name,
            idle: transfer.moved.elapsed(),
            retry_for: self.retry.retry_for,
        }
    }

    /// Waits until it is time for another connection.
    async fn wait(
        &mut self,
        transfer: &mut Transfer,
        error: &Error,
        observer: &mut (dyn FnMut(Event) + Send),
    ) {
        if self.retry.wait_for_name && matches!(error, Error::Refused { code: Code::Busy, .. }) {
            transfer.moved = Instant::now();
        }
        // Nobody would answer the receiver's pings meanwhile.
        self.hang_up(1000).await;
        // Whoever asks for more time than is left is not waited for any longer than that.
        let left = self.retry.retry_for.saturating_sub(transfer.moved.elapsed());
        let asked = recovery::retry_after(error).unwrap_or_default().min(left);
        let delay = transfer.next_delay().max(asked);
        observer(Event::Reconnecting { delay, attempt: transfer.attempts, why: error.to_string() });
        runtime::sleep(delay).await;
    }

    /// Goes on with what the source became: of what the receiver holds only the blocks that differ are sent. To the
    /// receiver this is a cut like any other, and no end.
    async fn reoffer(
        &mut self,
        transfer: &mut Transfer,
        became: Source,
        error: &Error,
        observer: &mut (dyn FnMut(Event) + Send),
    ) {
        self.hang_up(1012).await;
        transfer.change(became);
        observer(Event::Reconnecting {
            delay: Duration::ZERO,
            attempt: transfer.changes,
            why: error.to_string(),
        });
    }

    /// The error for the caller; the receiver is told of one that it does not know of.
    async fn give_up(&mut self, transfer: &Transfer, error: Error) -> Error {
        if !matches!(error, Error::Refused { .. })
            && let Some(mut connection) = self.connection.take()
        {
            tell(&mut connection, &error).await;
        }
        let is_interruption =
            error.kind() == super::ErrorKind::Interrupted || matches!(error, Error::Transport(_));
        match transfer.attempts {
            0 => error,
            _ if !is_interruption => error,
            attempts => Error::GaveUp { attempts, last: Box::new(error) },
        }
    }

    async fn hang_up(&mut self, code: u16) {
        if let Some(mut connection) = self.connection.take() {
            runtime::timeout(super::CLOSE_TIMEOUT, connection.close(code)).await;
        }
    }
}

/// One file on its way, over as many connections as it takes.
struct Transfer {
    source: Arc<Source>,
    /// Of the version that arrives.
    started: Instant,
    changes: u32,
    retry: RetryOptions,
    /// The most that was acknowledged, and verified, so far.
    best: (u64, u64),
    moved: Instant,
    /// Connections that ended since something moved.
    attempts: u32,
    /// What the first connection found; `None` before it was accepted.
    held: Option<u64>,
    told_start: bool,
    /// Of the connections before this one.
    before: Counts,
    wire_bytes: u64,
}

#[derive(Default, Clone, Copy)]
struct Counts {
    resent: u64,
    naks: u32,
    repaired_blocks: u64,
}

impl Transfer {
    fn new(source: Arc<Source>, retry: RetryOptions) -> Self {
        let now = Instant::now();
        Self {
            source,
            started: now,
            changes: 0,
            retry,
            best: (0, 0),
            moved: now,
            attempts: 0,
            held: None,
            told_start: false,
            before: Counts::default(),
            wire_bytes: 0,
        }
    }

    /// The source became another version, which is begun anew.
    fn change(&mut self, became: Source) {
        let (changes, before, wire_bytes) = (self.changes + 1, self.before, self.wire_bytes);
        *self = Self { changes, before, wire_bytes, ..Self::new(Arc::new(became), self.retry) };
    }

    /// Adds the earlier connections to an event; drops what was told before.
    fn pass(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Started { .. } if self.told_start => None,
            Event::Started { .. } => {
                self.told_start = true;
                Some(event)
            }
            Event::Progress(progress) => {
                self.note_progress(&progress);
                Some(Event::Progress(self.total(progress)))
            }
            Event::Replacing { held } => {
                self.held = Some(held);
                self.best = (held, 0);
                Some(event)
            }
            event => Some(event),
        }
    }

    fn note_progress(&mut self, progress: &Progress) {
        let (acknowledged, verified) = self.best;
        if progress.acknowledged > acknowledged || progress.verified > verified {
            self.best = (acknowledged.max(progress.acknowledged), verified.max(progress.verified));
            self.moved = Instant::now();
            self.attempts = 0;
        }
    }

    fn total(&mut self, mut progress: Progress) -> Progress {
        progress.held = *self.held.get_or_insert(progress.held);
        progress.resent += self.before.resent;
        progress.naks += self.before.naks;
        progress.repaired_blocks += self.before.repaired_blocks;
        progress
    }

    /// A connection's counts, told or not.
    fn end_connection(&mut self, progress: Progress, wire_bytes: u64) {
        self.note_progress(&progress);
        self.before.resent += progress.resent;
        self.before.naks += progress.naks;
        self.before.repaired_blocks += progress.repaired_blocks;
        self.wire_bytes += wire_bytes;
    }

    fn summarise(&self, summary: Summary) -> Summary {
        let Counts { resent, naks, repaired_blocks } = self.before;
        let held = self.held.unwrap_or(summary.progress.held);
        let progress = Progress { held, resent, naks, repaired_blocks, ..summary.progress };
        Summary { elapsed: self.started.elapsed(), wire_bytes: self.wire_bytes, progress, ..summary }
    }

    /// How long to wait before the next attempt: doubling, with jitter, so that many senders do not come back at
    /// one moment.
    fn next_delay(&mut self) -> Duration {
        let doubled = self.retry.first_delay.saturating_mul(1 << self.attempts.min(16));
        let longest = doubled.min(self.retry.longest_delay);
        self.attempts += 1;
        longest.mul_f64(0.5 + 0.5 * (random() as f64 / u64::MAX as f64))
    }
}

/// Names a run of a sender: 128 random bits in hexadecimal.
fn random_id() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// Different each time.
fn random() -> u64 {
    rand::random()
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
