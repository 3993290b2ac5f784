//! No allocation per chunk: both pumps on one thread, whose allocations are counted.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures::future::Either;
use futures::{AsyncRead, AsyncWrite};
use wsferry::protocol::ChunkSize;
use wsferry::runtime;
use wsferry::storage::{Inbox, InboxOptions, Source};
use wsferry::transfer::{Event, ReceiveOptions, SendOptions, Shutdown, receive_files, send_file};
use wsferry::transport::{Caller, Gate, client_handshake, server_handshake};

use crate::support::{Place, random};

/// Bytes on their way in one direction; both wakers are those of the one task.
struct Pipe {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    waker: Option<Waker>,
}

/// One end of a connection in memory.
struct End {
    incoming: Arc<Mutex<Pipe>>,
    outgoing: Arc<Mutex<Pipe>>,
}

fn pair() -> (End, End) {
    let pipe = || {
        let bytes = vec![0; 300_000].into_boxed_slice();
        Arc::new(Mutex::new(Pipe { bytes, start: 0, end: 0, waker: None }))
    };
    let (there, back) = (pipe(), pipe());
    (End { incoming: back.clone(), outgoing: there.clone() }, End { incoming: there, outgoing: back })
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut [u8]) -> Poll<std::io::Result<usize>> {
        let mut pipe = self.incoming.lock().unwrap();
        let count = to.len().min(pipe.end - pipe.start);
        let waker = pipe.waker.replace(cx.waker().clone());
        if count == 0 {
            return Poll::Pending;
        }
        to[..count].copy_from_slice(&pipe.bytes[pipe.start..pipe.start + count]);
        pipe.start += count;
        if pipe.start == pipe.end {
            (pipe.start, pipe.end) = (0, 0);
        }
        waker.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<std::io::Result<usize>> {
        let mut pipe = self.outgoing.lock().unwrap();
        let end = pipe.end;
        let count = from.len().min(pipe.bytes.len() - end);
        let waker = pipe.waker.replace(cx.waker().clone());
        if count == 0 {
            return Poll::Pending;
        }
        pipe.bytes[end..end + count].copy_from_slice(&from[..count]);
        pipe.end += count;
        waker.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The allocations of a transfer, both sides, on the thread that moves the chunks.
fn allocations(bytes: &[u8], chunk: u64) -> u64 {
    let place = Place::new();
    let source = Arc::new(Source::open(&place.file("f", bytes), None).unwrap());
    let inbox = Arc::new(Inbox::open(&place.inbox(), InboxOptions::default()).unwrap());
    let counted = allocation_counter::measure(|| {
        runtime::block_on(async {
            let (near, far) = pair();
            let endpoint = "ws://127.0.0.1:1".parse().unwrap();
            let gate = Gate::default();
            let handshakes = futures::future::join(
                client_handshake(near, &endpoint),
                server_handshake(far, Caller::unix(), &gate),
            );
            let (near, far) = handshakes.await;
            let (mut near, mut far) = (near.unwrap(), far.unwrap());
            let options = SendOptions { chunk: ChunkSize::at_most(chunk), ..SendOptions::default() };
            let (_stop, shutdown) = Shutdown::new();
            let receive = ReceiveOptions::default();
            let mut received = None;
            let mut watch = |_, event| {
                if let Event::Finished(summary) = event {
                    received = Some(summary.digest);
                }
            };
            let mut sent = None;
            // The connection ends when the sender hangs up, which waits for the receiver to do the same.
            let send = async {
                sent = Some(send_file(&mut near, &source, &options, &mut |_| {}).await);
                near.close(1000).await;
            };
            let receive = receive_files(&mut far, &inbox, &receive, shutdown, &mut watch);
            match futures::future::select(std::pin::pin!(receive), std::pin::pin!(send)).await {
                Either::Left((ended, _)) => ended.unwrap(),
                Either::Right(_) => panic!("the receiver does not hang up here"),
            }
            assert_eq!(Some(sent.unwrap().unwrap().digest), received);
        });
    });
    assert!(place.received("f") == bytes);
    counted.count_total
}

#[test]
fn ten_times_as_many_chunks_cost_no_more_allocations() {
    let bytes = random(60 << 20, 1);
    // The first run pays for what a thread keeps.
    allocations(&bytes, 60_000);
    let (few, many) = (allocations(&bytes, 60_000), allocations(&bytes, 6_000));
    let more_chunks = bytes.len() / 6_000 - bytes.len() / 60_000;
    // Blocks, acknowledgements and timers allocate; there are as many of them in both runs, give or take.
    assert!(
        many < few + more_chunks as u64 / 5,
        "{few} allocations became {many} with {more_chunks} more chunks"
    );
}
