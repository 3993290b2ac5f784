//! Whole transfers over loopback through the public API, and beside them the I/O floor: what the kernel alone costs.
//!
//! Files live in memory where the machine has `/dev/shm`. Sender and receiver are threads of one process here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wsferry::floor;
use wsferry::protocol::ChunkSize;
use wsferry::runtime;
use wsferry::storage::{Inbox, InboxOptions};
use wsferry::transfer::{self, Listener, RetryOptions, SendOptions, ServeOptions, Session, Shutdown};
use wsferry::transport::Endpoint;

const SIZE: usize = 256 << 20;

struct Scene {
    dir: tempfile::TempDir,
    source: PathBuf,
    digest: String,
}

impl Scene {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("a temporary directory");
        let mut bytes = vec![0; SIZE];
        fastrand::Rng::with_seed(11).fill(&mut bytes);
        let source = dir.path().join("source");
        std::fs::write(&source, &bytes).expect("there is room");
        Self { digest: blake3::hash(&bytes).to_string(), source, dir }
    }

    fn inbox(&self) -> PathBuf {
        self.dir.path().join("inbox")
    }

    fn floor(&self) {
        let target = self.dir.path().join("floor");
        floor::measure(&self.source, &target).expect("it can be measured");
        assert_eq!(
            std::fs::metadata(&target).expect("it is there").len(),
            SIZE.div_ceil(3) as u64 * 3,
            "Base64 pads"
        );
        std::fs::remove_file(target).expect("it can go");
    }

    fn transfer(&self, options: SendOptions) {
        runtime::block_on(async {
            let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
            let url: Endpoint = format!("ws://{}", listener.address()).parse().expect("a URL");
            let inbox = Arc::new(Inbox::open(&self.inbox(), InboxOptions::default()).expect("it opens"));
            let (_stop, shutdown) = Shutdown::new();
            let receiver = runtime::spawn(async move {
                let serve = ServeOptions { once: true, ..ServeOptions::default() };
                transfer::serve(&listener, &inbox, serve, shutdown, Arc::new(|_, _, _| {})).await
            });
            let mut session = Session::new(url, options, RetryOptions::default());
            let sent = session.send(&self.source, None, &mut |_| {}).await.expect("it is sent");
            session.close().await;
            receiver.await.expect("it is received");
            assert_eq!(sent.digest.unwrap().to_string(), self.digest);
        });
        std::fs::remove_dir_all(self.inbox()).expect("it can go");
    }
}

fn transfers(c: &mut Criterion) {
    let scene = Scene::new();
    let mut group = c.benchmark_group("transfer");
    group.sample_size(10).throughput(Throughput::Bytes(SIZE as u64));
    group.bench_function("I/O floor", |b| b.iter(|| scene.floor()));
    for raw in [24_546, 48 << 10, 192 << 10, 384 << 10, 576 << 10, 768 << 10, 3 << 20] {
        let chunk = ChunkSize::at_most(raw);
        assert!(chunk.is_some(), "a chunk has bytes");
        group.bench_function(BenchmarkId::new("chunk", raw), |b| {
            b.iter(|| scene.transfer(SendOptions { chunk, ..SendOptions::default() }));
        });
    }
    for window in [1 << 20, 4 << 20, 64 << 20] {
        group.bench_function(BenchmarkId::new("window", window), |b| {
            b.iter(|| scene.transfer(SendOptions { window, ..SendOptions::default() }));
        });
    }
    group.finish();
}

criterion_group!(benches, transfers);
criterion_main!(benches);
