//! A program that is started, and spoken to over its standard input and output.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncWrite};

use super::pipe::{self, PipeRole};
use super::{Connection, TransportError};
use crate::runtime::{self, Stream, family};

/// How long a program may take to end once its pipes are closed, and then once it was asked to; then it is killed.
const ENDS_WITHIN: Duration = Duration::from_millis(500);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// A command line that a shell runs, and that leads to the other side: `ssh host wsferry receive --stdio DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    command: String,
}

impl Program {
    /// What `sh -c` is to run.
    pub fn new(command: impl Into<String>) -> Self {
        Self { command: command.into() }
    }

    /// Starts it, and opens a connection. It ends with the connection. What it prints as errors goes where this process's
    /// go.
    ///
    /// # Errors
    /// If it cannot be started, ends at once, or does not speak this protocol.
    pub async fn start(&self) -> Result<Connection<Stream>, TransportError> {
        let peer = self.to_string();
        let command = self.command.clone();
        let started = runtime::spawn_blocking(move || start(&command)).await;
        let stream = started
            .map_err(|error| TransportError::Unanswered { address: peer.clone(), why: error.to_string() })?;
        pipe::handshake(stream, PipeRole::Starter, peer).await
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.command)
    }
}

fn start(command: &str) -> io::Result<Stream> {
    let mut child =
        Command::new("sh").arg("-c").arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let pipes = child.stdout.take().zip(child.stdin.take()).expect("both were asked for");
    // From here on it ends with this.
    let child = Running { child: Arc::new(Mutex::new(child)), has_said_all: false };
    let pipes = Stream::pipes(pipes.0.into(), pipes.1.into())?;
    Ok(Stream::new(Talk { pipes, ending: None, child }))
}

/// The pipes of a program that runs.
struct Talk {
    // First: a program that reads its end goes by itself.
    pipes: Stream,
    /// Waits for the program, whose pipes have ended.
    ending: Option<Ending>,
    child: Running,
}

type Ending = Pin<Box<dyn Future<Output = Option<ExitStatus>> + Send>>;

impl Talk {
    /// Why the pipes have ended: nothing if the program ended well, or runs on without them.
    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let child = &self.child.child;
        let ending = self.ending.get_or_insert_with(|| {
            let child = child.clone();
            Box::pin(runtime::spawn_blocking(move || wait(&child)))
        });
        let status = ready!(ending.as_mut().poll(cx));
        self.ending = Some(Box::pin(std::future::ready(status)));
        Poll::Ready(match status {
            Some(status) if !status.success() => {
                Err(io::Error::other(format!("the command ended with {status}")))
            }
            _ => Ok(()),
        })
    }
}

impl AsyncRead for Talk {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.child.has_said_all {
            match ready!(Pin::new(&mut self.pipes).poll_read(cx, into)) {
                Ok(0) if !into.is_empty() => self.child.has_said_all = true,
                read => return Poll::Ready(read),
            }
        }
        self.poll_ending(cx).map_ok(|()| 0)
    }
}

impl AsyncWrite for Talk {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.pipes).poll_write(cx, from)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.poll_ending(cx).map(|ended| Err(ended.err().unwrap_or(error)))
            }
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipes).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipes).poll_close(cx)
    }
}

/// A program that is ended, with what it started, unless it ends by itself, and whose end is taken note of: none is left as
/// a zombie.
struct Running {
    child: Arc<Mutex<Child>>,
    /// All that it said was read: what it still does is its own affair.
    has_said_all: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.has_said_all {
            let child = self.child.clone();
            thread::spawn(move || drop(child.lock().unwrap_or_else(PoisonError::into_inner).wait()));
        } else if wait(&self.child).is_none() {
            let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            family::end(&mut child, ENDS_WITHIN);
            let _ = child.wait();
        }
    }
}

/// Blocks until it has ended, for a while.
fn wait(child: &Mutex<Child>) -> Option<ExitStatus> {
    let deadline = Instant::now() + ENDS_WITHIN;
    loop {
        let ended = child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
        match ended {
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK),
            ended => return ended.ok().flatten(),
        }
    }
}
