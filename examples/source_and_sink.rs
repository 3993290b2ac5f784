//! A source and a sink of one's own: bytes that are made as they are sent, and hashed as they come. No file is read or
//! written.
//!
//! ```sh
//! cargo run --example source_and_sink
//! ```
//!
//! A source is anything that has the trait [`Read`]: [`Session::send_stream`] needs neither its size nor a second look at
//! it. A sink takes what the machine of a connection, [`Link`], gives out.

use std::error::Error;
use std::future::poll_fn;
use std::io::{self, Read};
use std::task::Poll;
use std::time::Instant;

use futures::FutureExt;
use futures::future::join;
use wsferry::protocol::{
    Action, Code, Done, Feature, FileDigest, HeartbeatConfig, Hello, Link, LinkConfig, LinkEvent, MAX_FRAME,
    MIN_OFFERS, Opened, Path, ReceiverEvent, Receiving, Violation, Write,
};
use wsferry::runtime::{self, Stream};
use wsferry::transfer::{Listener, RetryOptions, SendOptions, Session};
use wsferry::transport::{Connection, Endpoint, Gate, TransportError, server_handshake};

type Failure = Box<dyn Error + Send + Sync>;

const LEN: u64 = 7_000_001;

fn main() -> Result<(), Failure> {
    run()
}

/// Sends seven megabytes that nobody has, and compares the digests of both sides.
pub fn run() -> Result<(), Failure> {
    runtime::block_on(async {
        let listener = Listener::bind("127.0.0.1:0").await?;
        let url: Endpoint = format!("ws://{}", listener.address()).parse()?;
        let receiver = runtime::spawn(async move {
            let (stream, caller) = listener.accept().await?;
            let connection = server_handshake(stream, caller, &Gate::default()).await?;
            Sink::new(connection).receive().await
        });

        let sender = async {
            let mut session = Session::new(url, SendOptions::default(), RetryOptions::default());
            let sent = session.send_stream(Noise::new(), "noise.bin".parse()?, &mut |_| {}).await;
            session.close().await;
            Ok::<_, Failure>(sent?)
        };
        let (sent, received) = join(sender, receiver).await;
        // Where both failed, the sink knows why.
        let ((received, bytes), sent) = (received?, sent?);

        let mut whole = Vec::new();
        Noise::new().read_to_end(&mut whole)?;
        println!("{bytes} bytes came, whose digest is {received}");
        assert_eq!((bytes, sent.size()), (LEN, LEN));
        assert_eq!((Some(received), received), (sent.digest, blake3::hash(&whole).into()));
        Ok(())
    })
}

/// A source: random bytes, the same each time.
struct Noise {
    random: fastrand::Rng,
    left: u64,
}

impl Noise {
    fn new() -> Self {
        Self { random: fastrand::Rng::with_seed(17), left: LEN }
    }
}

impl Read for Noise {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        into[..len].fill_with(|| self.random.u8(..));
        self.left -= len as u64;
        Ok(len)
    }
}

/// A sink: knows the digest of what came, and nothing else of it. Of what is cut nothing is left to go on with.
struct Sink {
    connection: Connection<Stream>,
    link: Link,
    bytes: Vec<u8>,
    hasher: blake3::Hasher,
}

impl Sink {
    fn new(connection: Connection<Stream>) -> Self {
        let hello = Hello {
            // Without it the size has to be known beforehand.
            features: vec![Feature::LateSize],
            frame_limit: MAX_FRAME as u64,
            window: 4 << 20,
            offers: MIN_OFFERS,
            session: None,
            program: "an example".to_owned(),
            role: None,
        };
        let (path, receiving, heartbeat) =
            (Path::default(), Receiving::default(), HeartbeatConfig::default());
        let link = Link::new(LinkConfig { hello, path, receiving, heartbeat }, Instant::now());
        Self { connection, link, bytes: Vec::new(), hasher: blake3::Hasher::new() }
    }

    /// Receives one file; its digest and its size.
    async fn receive(mut self) -> Result<(FileDigest, u64), Failure> {
        let mut sealed = None;
        loop {
            while let Some(action) = self.link.poll_action(Instant::now()) {
                self.act(action);
            }
            while let Some(event) = self.link.poll_event() {
                match event {
                    LinkEvent::Receiver(_, ReceiverEvent::Sealed { digest, .. }) => sealed = digest,
                    LinkEvent::Receiver(_, ReceiverEvent::Refused { reason, .. })
                    | LinkEvent::Receiver(_, ReceiverEvent::Cancelled { reason, .. })
                    | LinkEvent::Ended { reason, .. } => return Err(reason.into()),
                    _ => {}
                }
            }
            while let Some(message) = self.link.poll_message(Instant::now()) {
                poll_fn(|cx| self.connection.poll_ready(cx)).await?;
                self.connection.send(&message.to_frame());
            }
            poll_fn(|cx| self.connection.poll_flush(cx)).await?;
            if let Some(digest) = sealed
                && self.link.is_told()
            {
                self.connection.close(1000).await;
                return Ok((digest, self.hasher.count()));
            }
            self.take().await?;
        }
    }

    fn act(&mut self, action: Action) {
        let number = action.transfer();
        let done = match action {
            // Nothing is there, whatever it is.
            Action::Open { .. } => Done::Opened(Opened::default()),
            // What was hashed is as durable as it will be.
            Action::Sync { .. } => Done::Synced,
            Action::Seal { digest, .. } if digest == self.hasher.finalize().into() => {
                Done::Sealed(Some(digest))
            }
            _ => {
                return drop(self.link.fail(number, Code::Digest, "nothing is kept to look at again", false));
            }
        };
        self.link.done(number, done, Instant::now());
    }

    /// Takes what has come, or waits for it until the machine has to be asked again.
    async fn take(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        if let Some(frame) = self.frame().now_or_never() {
            return frame;
        }
        self.link.handle_drained(false, now);
        let until = self.link.timeout(now);
        match runtime::timeout(until.saturating_duration_since(now), self.frame()).await {
            Some(frame) => frame,
            None => self.link.handle_timeout(Instant::now()).map_err(|silence| format!("{silence:?}").into()),
        }
    }

    async fn frame(&mut self) -> Result<(), Failure> {
        let write = poll_fn(|cx| {
            let Poll::Ready(frame) = self.connection.poll_receive(cx) else { return Poll::Pending };
            Poll::Ready(frame.map(|frame| self.link.handle_frame(frame, &mut self.bytes, Instant::now())))
        });
        let write: Result<Result<Option<Write>, Violation>, TransportError> = write.await;
        match write?? {
            Some(Write::Bytes { offset, len, .. }) if offset == self.hasher.count() => {
                self.hasher.update(&self.bytes[..len]);
            }
            // A chunk that came damaged comes again behind others.
            Some(Write::Bytes { transfer, .. } | Write::Zeros { transfer, .. }) => {
                self.link.fail(transfer, Code::Other, "bytes are taken in order alone", true);
            }
            None => {}
        }
        Ok(())
    }
}
