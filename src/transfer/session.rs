//! A sender's side of many files: one connection, made again when it is cut.

use std::fmt::Display;
use std::io::Read;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::content::Content;
use super::recovery::{self, Next};
use super::run::{Run, Transfer};
use super::send::{Terms, attempt, link_config};
use super::succession::{Next as Another, Succession};
use super::{Error, Event, SendOptions, Shutdown, Summary, part, tell};
use crate::protocol::{self, Code, FileName, Link};
use crate::runtime::{self, Stream};
use crate::storage::{self, Entry, Skipped, Source, SourceError};
use crate::transport::{Connection, Remote, TransportError};

/// How long a connection is waited for without a word.
const PATIENCE: Duration = Duration::from_secs(1);

/// What to do when the connection is cut, or would be soon.
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
    /// A connection that is this old is left once another one is open, so that whatever ends connections of an age cuts
    /// nothing. It carries something first, however short this is.
    pub max_connection_age: Option<Duration>,
}

impl RetryOptions {
    /// How long to wait behind so many attempts: doubling, with jitter, so that many senders do not come back at one
    /// moment.
    pub(super) fn delay(&self, attempts: u32) -> Duration {
        let doubled = self.first_delay.saturating_mul(1 << attempts.min(16));
        let longest = doubled.min(self.longest_delay);
        longest.mul_f64(0.5 + 0.5 * (rand::random::<u64>() as f64 / u64::MAX as f64))
    }
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            retry_for: Duration::ZERO,
            wait_for_name: false,
            first_delay: Duration::from_millis(100),
            longest_delay: Duration::from_secs(5),
            max_connection_age: None,
        }
    }
}

/// Sends files to one endpoint, over one connection as long as it lasts.
#[derive(Debug)]
pub struct Session {
    remote: Arc<Remote>,
    options: SendOptions,
    retry: RetryOptions,
    connection: Option<Connection<Stream>>,
    /// When it was dialled.
    since: Instant,
    /// Its machine, if it has said hello already.
    link: Option<Link>,
    /// This run of the program, for the receiver.
    session: String,
    /// A receiver took or refused a file of this session: from then on a lost connection is a cut.
    reached: bool,
    path: protocol::Path,
    next_id: u64,
    /// How many files the receiver was told to expect behind the last one.
    owes: u64,
    shutdown: Option<Shutdown>,
}

impl Session {
    /// A session over connections to there: to a [`Dialer`](crate::transport::Dialer)'s URL, an
    /// [`Endpoint`](crate::transport::Endpoint), which needs no options, or a [`Program`](crate::transport::Program).
    pub fn new(remote: impl Into<Remote>, options: SendOptions, retry: RetryOptions) -> Self {
        Self {
            remote: Arc::new(remote.into()),
            options,
            retry,
            connection: None,
            since: Instant::now(),
            link: None,
            session: random_id(),
            reached: false,
            path: protocol::Path::default(),
            next_id: 0,
            owes: 0,
            shutdown: None,
        }
    }

    /// The same, which ends with [`Error::Stopped`] at this signal if there is a connection, and tells the receiver. While there
    /// is none nobody needs to be told, and what waits for one may be dropped.
    pub fn stopped_by(self, shutdown: Shutdown) -> Self {
        Self { shutdown: Some(shutdown), ..self }
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
        let source = Source::open(path, name.map(Into::into))?.growing(self.options.growing);
        let transfer = Transfer::of(self.next_id, source, &self.options)?;
        self.send_one(transfer, observer).await
    }

    /// Sends what cannot be read twice, whose size need not be known: standard input, a pipe, under `name`. What the receiver
    /// has not made durable is kept in memory, [`MOST_KEPT`](crate::storage::MOST_KEPT) bytes at the most, so that a
    /// connection that is cut loses nothing; there is no resume in another run.
    ///
    /// # Errors
    /// All that can end a transfer and is not cured by another connection.
    pub async fn send_stream(
        &mut self,
        reader: impl Read + Send + 'static,
        name: FileName,
        observer: &mut (dyn FnMut(Event) + Send),
    ) -> Result<Summary, Error> {
        let path = name.to_string().into();
        let cannot = |source| SourceError::Io { operation: "read", path, source };
        let stream = storage::Stream::new(name.into(), random_id(), reader).map_err(cannot)?;
        let transfer = Transfer::new(self.next_id, Content::Stream(Arc::new(stream)));
        self.send_one(transfer, observer).await
    }

    async fn send_one(
        &mut self,
        transfer: Transfer,
        observer: &mut (dyn FnMut(Event) + Send),
    ) -> Result<Summary, Error> {
        let mut result = None;
        let run = Run::of(transfer, self.retry, self.reached, self.path.clone());
        let mut watch = |_, event| match event {
            Event::Finished(summary) => result = Some(Ok(summary)),
            Event::Failed(error) => result = Some(Err(error)),
            event => observer(event),
        };
        self.go(run, &mut watch).await?;
        result.expect("a file that was sent has an end")
    }

    /// Sends files, directories and links, many at a time: for instance what a [`Scan`](crate::storage::Scan) finds. The observer is told of each by its number, in order from 0 on over the whole
    /// session, and how it ended; and of what concerns none of them.
    ///
    /// # Errors
    /// What ended the connection for good: files that were not told to have ended were not sent, or not to their ends.
    pub async fn send_all(
        &mut self,
        items: impl Iterator<Item = Result<Entry, Skipped>> + Send + 'static,
        observer: &mut (dyn FnMut(Option<u64>, Event) + Send),
    ) -> Result<(), Error> {
        let run = Run::new(Box::new(items), self.next_id, self.retry, self.reached, self.path.clone());
        self.go(run, observer).await
    }

    async fn go(
        &mut self,
        mut run: Run,
        observer: &mut (dyn FnMut(Option<u64>, Event) + Send),
    ) -> Result<(), Error> {
        let result = self.run(&mut run, observer).await;
        (self.reached, self.next_id) = (run.reached, run.next_id());
        self.path = run.path;
        result
    }

    async fn run(
        &mut self,
        run: &mut Run,
        observer: &mut (dyn FnMut(Option<u64>, Event) + Send),
    ) -> Result<(), Error> {
        // What cannot be opened needs no connection.
        while run.ready.is_empty()
            && let Some(work) = run.prepare(&self.options)
        {
            for (id, why) in run.prepared(runtime::spawn_blocking(work).await) {
                observer(Some(id), why.event());
            }
        }
        if run.is_taken() {
            return Ok(());
        }
        loop {
            let error = match self.attempt(run, observer).await {
                Err(error) => error,
                // Another connection goes on.
                Ok(()) if !run.is_taken() => continue,
                Ok(()) => match self.offer_again(run) {
                    None => return Ok(()),
                    Some(error) => {
                        self.wait(run, &error, observer).await;
                        continue;
                    }
                },
            };
            match recovery::next(&error, &run.facts(None)) {
                Next::Again => self.wait(run, &error, observer).await,
                Next::TooNarrow => {
                    let (peer, last) = (self.remote.to_string(), Box::new(error));
                    return Err(Error::TooNarrow { peer, last });
                }
                Next::Reoffer | Next::GiveUp => return Err(self.give_up(run, error).await),
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
        run: &mut Run,
        observer: &mut (dyn FnMut(Option<u64>, Event) + Send),
    ) -> Result<(), Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let dialling = self.remote.connect();
                (self.since, self.link) = (Instant::now(), None);
                none.insert(connecting(&self.remote, dialling, &mut |event| observer(None, event)).await?)
            }
        };
        let config = link_config(&self.options, Some(self.session.clone()));
        let mut succession = self
            .retry
            .max_connection_age
            // One that no clock reaches is none.
            .and_then(|age| self.since.checked_add(age))
            .map(|due| Succession::new(self.remote.clone(), config.clone(), self.retry, due));
        let mut link = self.link.take().unwrap_or_else(|| Link::new(config, Instant::now()));
        link.set_path(run.path.clone());
        let mut terms = Terms { succession: succession.as_mut(), ..Terms::of(&self.options) };
        if let Some(shutdown) = &self.shutdown {
            terms.stop = Box::pin(shutdown.clone());
        }
        let (result, link) = attempt(connection, link, run, terms, observer).await;
        self.owes = run.owes;
        match result {
            Ok(()) => self.link = Some(link),
            Err(Error::Violation { .. } | Error::SameRole { .. } | Error::Stopped) => {}
            Err(_) => self.connection = None,
        }
        if let Some(mut another) = succession.and_then(Succession::take) {
            match result {
                Ok(()) if !run.is_taken() => self.change_over(another).await,
                _ => drop(runtime::timeout(super::CLOSE_TIMEOUT, another.connection.close(1000)).await),
            }
        }
        result
    }

    /// Leaves the connection for another.
    async fn change_over(&mut self, Another { connection, link, since }: Another) {
        tracing::debug!(age = ?self.since.elapsed(), "another connection goes on");
        let left = self.connection.replace(connection);
        (self.link, self.since) = (Some(link), since);
        if let Some(mut left) = left {
            let why = "the sender goes on on another connection";
            runtime::timeout(super::CLOSE_TIMEOUT, left.close_with(1000, why)).await;
        }
    }

    /// Files that the receiver did not take, and may take a little later, are ready again; why they were not taken.
    fn offer_again(&mut self, run: &mut Run) -> Option<Error> {
        let mut why = None;
        for (transfer, error) in std::mem::take(&mut run.later) {
            if self.retry.wait_for_name && matches!(error, Error::Refused { code: Code::Busy, .. }) {
                run.moved = Instant::now();
            }
            run.offer_last(transfer);
            why.get_or_insert(error);
        }
        why
    }

    /// Waits until it is time for another connection.
    async fn wait(
        &mut self,
        run: &mut Run,
        error: &Error,
        observer: &mut (dyn FnMut(Option<u64>, Event) + Send),
    ) {
        // Nobody would answer the receiver's pings meanwhile.
        self.hang_up(1000).await;
        let left = self.retry.retry_for.saturating_sub(run.moved.elapsed());
        let delay = recovery::delay(error, run.next_delay(), left);
        let why = error.to_string();
        observer(None, Event::Reconnecting { delay, attempt: run.attempts, why });
        runtime::sleep(delay).await;
    }

    /// The error for the caller; the receiver is told of one that it does not know of.
    async fn give_up(&mut self, run: &Run, error: Error) -> Error {
        if let Some(mut connection) = self.connection.take() {
            // A receiver that listens takes the sender's `again` for a source that changed.
            tell(&mut connection, &error, false).await;
        }
        recovery::gave_up(error, run.attempts)
    }

    async fn hang_up(&mut self, code: u16) {
        if let Some(mut connection) = self.connection.take() {
            runtime::timeout(super::CLOSE_TIMEOUT, connection.close(code)).await;
        }
    }
}

/// Names a run of a sender: 128 random bits in hexadecimal.
pub(super) fn random_id() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// Different each time.
fn random() -> u64 {
    rand::random()
}

/// Waits for a connection, and tells of it if that takes long.
pub(super) async fn connecting(
    to: &impl Display,
    dialling: impl Future<Output = Result<Connection<Stream>, TransportError>>,
    observer: &mut (dyn FnMut(Event) + Send),
) -> Result<Connection<Stream>, TransportError> {
    let mut dialling = pin!(dialling);
    match runtime::timeout(PATIENCE, dialling.as_mut()).await {
        Some(connection) => connection,
        None => {
            observer(Event::Connecting { to: to.to_string() });
            dialling.await
        }
    }
}
