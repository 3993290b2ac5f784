//! From the connection to the first new chunk on the wire, by how much the receiver holds already.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::{AsyncRead, AsyncWrite};
use wsferry::protocol::BLOCK;
use wsferry::runtime::{self, Stream};
use wsferry::storage::{Inbox, InboxOptions, Source};
use wsferry::transfer::{self, Event, Listener, SendOptions, ServeOptions, Shutdown};
use wsferry::transport::{Endpoint, client_handshake};

/// A stream that tells when the first large write goes out: a chunk.
struct Tap {
    stream: Stream,
    told: Option<oneshot::Sender<Instant>>,
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, bytes)
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.len() > 8192
            && let Some(told) = self.told.take()
        {
            let _ = told.send(Instant::now());
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// A source of `size` bytes, holes but for its end, and a destination that holds all of it but its last 30 MiB, with a
/// genuine journal.
struct Scene {
    source: Arc<Source>,
    endpoint: Endpoint,
    part: PathBuf,
    held: u64,
    cut: mpsc::Receiver<()>,
    _stop: transfer::ShutdownHandle,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new(size: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("sparse");
        let held = (size - (30 << 20)) / BLOCK * BLOCK;
        let mut end = vec![0; (size - held) as usize];
        fastrand::Rng::with_seed(1).fill(&mut end);
        File::create(&path).and_then(|file| file.write_all_at(&end, held)).expect("a sparse file");
        let source = Arc::new(Source::open(&path, None).expect("it opens"));
        let inbox =
            Arc::new(Inbox::open(&dir.path().join("inbox"), InboxOptions::default()).expect("it opens"));
        let offer = || source.offer().check().expect("it is good").expect("so is its name");
        let (target, _) = inbox.begin(offer()).expect("it is taken");
        target.write_zeros(0..held).expect("holes take no room");
        for first in (0..held / BLOCK).step_by(256) {
            let blocks = first..(first + 256).min(held / BLOCK);
            let hash = |block| (block, source.hash_block(block).expect("it reads"));
            target.sync(&blocks.map(hash).collect::<Vec<_>>()).expect("it syncs");
        }
        drop(target);
        let part = part_in(&dir.path().join("inbox/.wsferry"));
        let (_, opened) = inbox.begin(offer()).expect("it is taken");
        assert_eq!(opened.held.len(), held / BLOCK);

        let (tell, cut) = mpsc::channel();
        let listener = runtime::block_on(Listener::bind("127.0.0.1:0")).expect("a free port");
        let endpoint = format!("ws://{}", listener.address()).parse().expect("a URL");
        let (stop, shutdown) = Shutdown::new();
        let _server = runtime::spawn(async move {
            let observer = Arc::new(move |_, _, event| {
                if matches!(event, Event::Failed(_)) {
                    let _ = tell.send(());
                }
            });
            transfer::serve(&listener, &inbox, ServeOptions::default(), shutdown, observer).await
        });
        Self { source, endpoint, part, held, cut, _stop: stop, _dir: dir }
    }

    /// Resumes until the first new chunk goes out, and cuts.
    fn first_chunk(&self) -> Duration {
        let elapsed = runtime::block_on(async {
            let started = Instant::now();
            let addresses = runtime::resolve(self.endpoint.host(), self.endpoint.port());
            let address = addresses.await.expect("it is an address")[0];
            let stream = runtime::connect(address).await.expect("it listens");
            let (told, first) = oneshot::channel();
            let tap = Tap { stream, told: Some(told) };
            let mut connection = client_handshake(tap, &self.endpoint).await.expect("it is a receiver");
            let mut quiet = |_| {};
            let options = SendOptions::default();
            let sending = transfer::send_file(&mut connection, &self.source, &options, &mut quiet);
            match select(first, std::pin::pin!(sending)).await {
                Either::Left((at, _)) => at.expect("it is told") - started,
                Either::Right((ended, _)) => panic!("no chunk went out: {ended:?}"),
            }
        });
        // The receiver lets go; then what came of new blocks is taken away again.
        self.cut.recv().expect("the cut is noticed");
        set_len(&self.part, self.held);
        elapsed
    }
}

fn part_in(dir: &Path) -> PathBuf {
    let mut paths = std::fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("it reads").path());
    paths.find(|path| path.extension().is_some_and(|ending| ending == "part")).expect("the partial file")
}

fn set_len(path: &Path, len: u64) {
    File::options().write(true).open(path).and_then(|file| file.set_len(len)).expect("it can be cut");
}

fn resume(c: &mut Criterion) {
    let mut group = c.benchmark_group("first new chunk after");
    group.sample_size(20);
    for (name, size) in [("64 MiB", 64 << 20), ("1 GiB", 1 << 30), ("16 GiB", 16 << 30)] {
        let scene = Scene::new(size);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_custom(|times| (0..times).map(|_| scene.first_chunk()).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, resume);
criterion_main!(benches);
