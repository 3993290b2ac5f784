//! A sender and a receiver on tokio, over TCP streams that tokio made.
//!
//! ```sh
//! cargo run --example tokio
//! ```
//!
//! The library takes any stream that has the traits of the crate `futures`; `tokio_util::compat` gives them to tokio's. Its
//! own timers and blocking threads run beside tokio's, and need no set-up.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::TokioAsyncReadCompatExt;
use wsferry::storage::{Inbox, InboxOptions, Source};
use wsferry::transfer::{ReceiveOptions, SendOptions, Shutdown, Summary, receive_files, send_file};
use wsferry::transport::{Caller, Endpoint, Gate, client_handshake, server_handshake};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    run()
}

/// Sends a file of random bytes over loopback and compares both copies.
pub fn run() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let mut content = vec![0; 5_000_000];
    fastrand::Rng::with_seed(15).fill(&mut content);
    fs::write(dir.path().join("file.bin"), &content)?;
    let inbox = Arc::new(Inbox::open(&dir.path().join("inbox"), InboxOptions::default())?);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_io().build()?;
    let sent = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let receiver = tokio::spawn(receive(listener, inbox));
        let sent = send(&dir.path().join("file.bin"), address).await?;
        receiver.await??;
        Ok::<_, Failure>(sent)
    })?;

    println!("{} bytes in {:?}", sent.size(), sent.elapsed);
    assert_eq!(sent.digest, Some(blake3::hash(&content).into()));
    assert!(fs::read(dir.path().join("inbox/file.bin"))? == content, "the copy differs");
    Ok(())
}

async fn send(file: &Path, address: SocketAddr) -> Result<Summary, Failure> {
    let source = Arc::new(Source::open(file, None)?);
    let stream = TcpStream::connect(address).await?;
    let url: Endpoint = format!("ws://{address}").parse()?;
    let mut connection = client_handshake(stream.compat(), &url).await?;
    let sent = send_file(&mut connection, &source, &SendOptions::default(), &mut |_| {}).await?;
    connection.close(1000).await;
    Ok(sent)
}

/// Receives what one sender sends, until it hangs up.
async fn receive(listener: TcpListener, inbox: Arc<Inbox>) -> Result<(), Failure> {
    let (stream, address) = listener.accept().await?;
    let caller = Caller::tcp(address);
    let mut connection = server_handshake(stream.compat(), caller, &Gate::default()).await?;
    let (_stop, shutdown) = Shutdown::new();
    let options = ReceiveOptions::default();
    receive_files(&mut connection, &inbox, &options, shutdown, &mut |_, _| {}).await?;
    Ok(())
}
