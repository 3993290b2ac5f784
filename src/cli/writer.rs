//! What is on its way to standard output and standard error. A thread of its own writes it, so that a terminal that is
//! gone or held up, a full disk and a reader that does not read cost no transfer.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many bytes may wait before what can be missed is left out.
const MOST_PASSING: usize = 64 * 1024;
/// How many bytes may wait at all.
const MOST: usize = 16 * 1024 * 1024;

/// Where something is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// Whether something may be left out if it would have to wait for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// It is about to be out of date: progress.
    Passing,
    /// It is to be read.
    Lasting,
}

/// Writes in the order in which it is told to. Clones are one.
#[derive(Debug, Clone)]
pub struct Writer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Stream, String)>,
    /// The bytes of them, and of what is being written.
    bytes: usize,
    /// How many were written, or could not be.
    done: u64,
    /// Why standard output took no more.
    broken: Option<io::Error>,
}

impl Writer {
    /// A writer with its thread.
    pub fn new() -> Self {
        let writer = Self(Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new() }));
        let mine = writer.clone();
        let thread = std::thread::Builder::new().name("output".to_owned());
        thread.spawn(move || mine.run()).expect("a program that starts can have a thread");
        writer
    }

    /// Has this written, soon.
    pub fn write(&self, stream: Stream, text: String, weight: Weight) {
        let mut queue = self.queue();
        let most = if weight == Weight::Passing { MOST_PASSING } else { MOST };
        if queue.bytes + text.len() <= most {
            queue.bytes += text.len();
            queue.waiting.push_back((stream, text));
            self.0.changed.notify_all();
        } else if weight == Weight::Lasting && stream == Stream::Out {
            queue.broken.get_or_insert_with(|| io::Error::other("nobody reads it"));
        }
    }

    /// Waits until all is written; not for longer than `patience`, if there is one, while nothing is.
    pub fn drain(&self, patience: Option<Duration>) {
        let mut queue = self.queue();
        let (mut done, mut since) = (queue.done, Instant::now());
        while queue.bytes > 0 {
            let Some(patience) = patience else {
                queue = self.0.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if queue.done > done {
                (done, since) = (queue.done, Instant::now());
            }
            let Some(left) = patience.checked_sub(since.elapsed()) else { return };
            queue = self.0.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes why standard output took no more.
    pub fn take_broken(&self) -> Option<io::Error> {
        self.queue().broken.take()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut queue = self.queue();
        loop {
            let Some((stream, text)) = queue.waiting.pop_front() else {
                queue = self.0.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            let written = match stream {
                Stream::Out => put(&mut io::stdout(), &text),
                // There is no other place to tell of a failure.
                Stream::Err => put(&mut io::stderr(), &text).or(Ok(())),
            };
            queue = self.queue();
            queue.bytes -= text.len();
            queue.done += 1;
            if let Err(error) = written {
                queue.broken.get_or_insert(error);
            }
            self.0.changed.notify_all();
        }
    }
}

fn put(stream: &mut dyn Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}
