//! Both sides of a plain transfer in memory: however a text is split into frames, reads and writes, whoever is slow, the
//! file and what comes back are the same.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fastrand::Rng;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use rustix::io::Errno;
use wsferry::protocol::ChunkSize;
use wsferry::runtime;
use wsferry::storage::{Inbox, InboxOptions, PlainInbox, Source};
use wsferry::transfer::plain::{PlainReceiveOptions, PlainSendOptions, receive_plain, send_plain};
use wsferry::transfer::{Error, Shutdown};
use wsferry::transport::{Connection, Kind};

use crate::model::{Fault, Lie, Model};
use crate::support::{PATIENCE, random};

/// Bytes on their way in one direction.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    capacity: usize,
    closed: bool,
    wakers: Vec<Waker>,
}

/// One end of a connection in memory. It reads and writes as much at a time as its seed likes, and pauses now and then.
struct End {
    incoming: Arc<Mutex<Pipe>>,
    outgoing: Arc<Mutex<Pipe>>,
    rng: Rng,
    /// The most bytes at a time, and one in how many times it pauses.
    read: (usize, u32),
    write: (usize, u32),
}

fn pair(rng: &mut Rng, near: [(usize, u32); 2], far: [(usize, u32); 2]) -> (End, End) {
    let mut pipe = || {
        let capacity = rng.usize(1..30_000);
        Arc::new(Mutex::new(Pipe { capacity, ..Pipe::default() }))
    };
    let (there, back) = (pipe(), pipe());
    let end =
        |incoming: &Arc<Mutex<Pipe>>, outgoing: &Arc<Mutex<Pipe>>, rng: &mut Rng, [read, write]: [_; 2]| {
            End { incoming: incoming.clone(), outgoing: outgoing.clone(), rng: rng.fork(), read, write }
        };
    (end(&back, &there, rng, near), end(&there, &back, rng, far))
}

impl End {
    /// How much at most now; none for a pause.
    fn most(rng: &mut Rng, (most, pauses): (usize, u32), cx: &Context<'_>) -> Option<usize> {
        if rng.u32(..pauses) == 0 {
            cx.waker().wake_by_ref();
            return None;
        }
        Some(rng.usize(1..=most))
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        let end = &mut *self;
        let Some(most) = End::most(&mut end.rng, end.read, cx) else { return Poll::Pending };
        let mut pipe = end.incoming.lock().unwrap();
        let count = most.min(to.len()).min(pipe.bytes.len());
        if count == 0 && !pipe.closed {
            pipe.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        for (to, byte) in to.iter_mut().zip(pipe.bytes.drain(..count)) {
            *to = byte;
        }
        pipe.wakers.drain(..).for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let end = &mut *self;
        let Some(most) = End::most(&mut end.rng, end.write, cx) else { return Poll::Pending };
        let mut pipe = end.outgoing.lock().unwrap();
        let count = most.min(from.len()).min(pipe.capacity - pipe.bytes.len());
        if count == 0 {
            pipe.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        pipe.bytes.extend(&from[..count]);
        pipe.wakers.drain(..).for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut pipe = self.outgoing.lock().unwrap();
        pipe.closed = true;
        pipe.wakers.drain(..).for_each(Waker::wake);
    }
}

/// Who is slow: nobody, who reads, who writes, both.
fn paces(rng: &mut Rng) -> [(usize, u32); 2] {
    let fast = (100_000, 1000);
    let slow = (300, 3);
    *rng.choice(&[[fast, fast], [slow, fast], [fast, slow], [slow, slow]]).unwrap()
}

/// A client's message in frames of random lengths, pings between them.
fn frames(message: &[u8], opcode: u8, rng: &mut Rng) -> Vec<u8> {
    let most = *rng.choice(&[10, 1000, 50_000, usize::MAX]).unwrap();
    let (mut wire, mut rest, mut opcode) = (Vec::new(), message, opcode);
    loop {
        let len = if most == usize::MAX { rest.len() } else { rng.usize(..=most.min(rest.len())) };
        let (part, behind) = rest.split_at(len);
        rest = behind;
        let last = rest.is_empty() && rng.bool();
        wire.extend(crate::plain::masked(last, std::mem::take(&mut opcode), part));
        if last {
            return wire;
        }
        if rng.u8(..5) == 0 {
            wire.extend(crate::plain::masked(true, 9 + rng.u8(..2), b"between"));
        }
    }
}

/// The message in a server's frames, read by another library; none before it is whole.
fn read_by_another(wire: &[u8]) -> Option<Message> {
    struct Wire<'a>(&'a [u8]);
    impl std::io::Read for Wire<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            std::io::Read::read(&mut self.0, to)
        }
    }
    impl std::io::Write for Wire<'_> {
        fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
            Ok(from.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let mut socket = WebSocket::from_raw_socket(Wire(wire), Role::Client, Some(config));
    loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => return Some(message),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

#[test]
fn any_split_of_a_text_gives_the_same_file_and_the_same_text_back() {
    for seed in 0..100 {
        let mut rng = Rng::with_seed(seed);
        let len = *rng.choice(&[200, 60_000, 60_000, 400_000]).unwrap();
        let bytes = random(rng.usize(..len), seed);
        let is_text = rng.u8(..5) > 0;
        let message = if is_text {
            let mut text = STANDARD.encode(&bytes).into_bytes();
            if rng.bool() {
                text.truncate(text.iter().rposition(|&c| c != b'=').map_or(0, |at| at + 1));
            }
            if rng.bool() {
                let width = rng.usize(1..100);
                text = text.chunks(width).collect::<Vec<_>>().join(&b"\r\n"[..]);
            }
            text
        } else {
            bytes.clone()
        };
        let wire = frames(&message, if is_text { 1 } else { 2 }, &mut rng);
        let dir = tempfile::tempdir().unwrap();
        let inbox = PlainInbox::open(dir.path(), false).unwrap();
        let (near_paces, far_paces) = (paces(&mut rng), paces(&mut rng));
        let (near, far) = pair(&mut rng, near_paces, far_paces);
        let name = "f".parse().unwrap();
        let came_back = runtime::block_on(async {
            let mut connection = Connection::without_handshake(far, false);
            let (_stop, shutdown) = Shutdown::new();
            let (options, mut quiet) = (PlainReceiveOptions::default(), |_| {});
            let receiving =
                receive_plain(&mut connection, &inbox, (Some(&name), 1), &options, shutdown, &mut quiet);
            let (mut reading, mut writing) = near.split();
            let write = async { writing.write_all(&wire).await };
            let read = async {
                let (mut came, mut part) = (Vec::new(), [0; 4096]);
                loop {
                    let count = reading.read(&mut part).await.unwrap();
                    came.extend(&part[..count]);
                    if came.len() >= message.len()
                        && let Some(message) = read_by_another(&came)
                    {
                        return message;
                    }
                }
            };
            let all = futures::future::join3(receiving, write, read);
            let (received, written, came) =
                runtime::timeout(PATIENCE, all).await.expect("nobody waits for ever");
            written.unwrap();
            let received = received.unwrap().expect("a file");
            assert_eq!(received.digest.unwrap().to_string(), blake3::hash(&bytes).to_string(), "seed {seed}");
            came
        });
        assert!(came_back.is_text() == is_text && came_back.into_data() == message, "seed {seed}");
        assert!(std::fs::read(dir.path().join("f")).unwrap() == bytes, "seed {seed}");
    }
}

#[test]
fn a_disk_that_is_full_before_it_was_expected_is_told_as_a_file_that_is_too_large() {
    for kind in ["write", "sync"] {
        let model = Model::new(Lie::No);
        let inbox = Inbox::new(Arc::new(model.clone()), InboxOptions::default()).unwrap().plain();
        model.disturb(&[], &[]);
        let mut file = inbox.begin(None).unwrap();
        file.write(b"x").unwrap();
        let _ = file.seal(blake3::hash(b"x").into());
        let at = model.log().iter().position(|&operation| operation == kind).unwrap() as u64;
        model.disturb(&[Fault { at, errno: Errno::NOSPC, forever: false }], &[]);
        let mut rng = Rng::with_seed(1);
        let (near, far) = pair(&mut rng, [(100_000, 1000); 2], [(100_000, 1000); 2]);
        let (error, came) = runtime::block_on(async {
            let mut connection = Connection::without_handshake(far, false);
            let (_stop, shutdown) = Shutdown::new();
            let (options, mut quiet) = (PlainReceiveOptions::default(), |_| {});
            let (mut reading, mut writing) = near.split();
            let name = "f".parse().unwrap();
            let receiving = async {
                let name = (Some(&name), 1);
                let received =
                    receive_plain(&mut connection, &inbox, name, &options, shutdown, &mut quiet).await;
                drop(connection);
                received.unwrap_err()
            };
            let talk = async move {
                writing.write_all(&crate::plain::masked(true, 1, b"QUJD")).await.unwrap();
                let (mut came, mut part) = (Vec::new(), [0; 4096]);
                let count = reading.read(&mut part).await.unwrap();
                came.extend(&part[..count]);
                came
            };
            futures::future::join(receiving, talk).await
        });
        assert!(matches!(error, Error::TooLarge { .. }), "{kind}: {error:?}");
        assert_eq!((came[0], &came[2..4]), (0x88, &1009u16.to_be_bytes()[..]), "{kind}: {came:?}");
        assert_eq!(model.content("f"), None, "{kind}");
    }
}

/// A server that sends back what comes: as it comes, later, or at the end.
async fn send_back(end: End, rng: &mut Rng) -> Vec<u8> {
    let mut connection = Connection::without_handshake(end, false);
    let lag = *rng.choice(&[0, 1, 5000, usize::MAX]).unwrap();
    let most = *rng.choice(&[1, 1000, 100_000]).unwrap();
    let (mut message, mut sent, mut ended, mut done) = (Vec::new(), 0, false, false);
    std::future::poll_fn(|cx| {
        loop {
            let mut moved = false;
            if !done && connection.poll_ready(cx).is_ready() {
                let there = message.len() - sent;
                if ended || (there > 0 && there > lag) {
                    let len = there.min(rng.usize(1..=most));
                    done = ended && len == there;
                    connection.send_fragment(Kind::Text, done, len, |frame| {
                        frame.copy_from_slice(&message[sent..sent + len]);
                    });
                    sent += len;
                    moved = true;
                }
            }
            let _ = connection.poll_flush(cx);
            match connection.poll_piece(cx) {
                Poll::Ready(Ok(piece)) => {
                    message.extend_from_slice(connection.bytes(&piece));
                    ended |= piece.last;
                    moved = true;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if !moved {
                return Poll::Pending;
            }
        }
    })
    .await;
    message
}

#[test]
fn however_late_a_server_answers_and_whoever_is_slow_the_text_is_compared() {
    for seed in 0..100 {
        let mut rng = Rng::with_seed(seed);
        let len = if rng.bool() { rng.usize(..200) } else { rng.usize(..150_000) };
        let bytes = random(len, seed);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), &bytes).unwrap();
        let source = Source::open(&dir.path().join("f"), None).unwrap();
        let (near_paces, far_paces) = (paces(&mut rng), paces(&mut rng));
        let (near, far) = pair(&mut rng, near_paces, far_paces);
        let options = PlainSendOptions {
            chunk: ChunkSize::at_most(*rng.choice(&[3, 1000, 30_000, 1 << 20]).unwrap()),
            one_frame: rng.bool(),
            ..PlainSendOptions::default()
        };
        let came = runtime::block_on(async {
            let mut quiet = |_| {};
            let sending = async {
                let mut connection = Connection::without_handshake(near, true);
                send_plain(&mut connection, &source, &options, &mut quiet).await
            };
            let both = futures::future::join(sending, send_back(far, &mut rng));
            let (sent, came) = runtime::timeout(PATIENCE, both).await.expect("nobody waits for ever");
            let sent = sent.unwrap();
            assert_eq!(sent.digest.unwrap().to_string(), blake3::hash(&bytes).to_string(), "seed {seed}");
            assert!(sent.elapsed < Duration::from_secs(30));
            came
        });
        assert!(came == STANDARD.encode(&bytes).into_bytes(), "seed {seed}");
    }
}
