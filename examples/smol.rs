//! A sender and a receiver on smol, over TCP streams that smol made.
//!
//! ```sh
//! cargo run --example smol
//! ```
//!
//! smol's streams have the traits of the crate `futures`, which are all that the library asks for.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use smol::net::{TcpListener, TcpStream};
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
    fastrand::Rng::with_seed(16).fill(&mut content);
    fs::write(dir.path().join("file.bin"), &content)?;
    let inbox = Arc::new(Inbox::open(&dir.path().join("inbox"), InboxOptions::default())?);

    let sent = smol::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let receiver = smol::spawn(receive(listener, inbox));
        let sent = send(&dir.path().join("file.bin"), address).await?;
        receiver.await?;
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
    let mut connection = client_handshake(stream, &url).await?;
    let sent = send_file(&mut connection, &source, &SendOptions::default(), &mut |_| {}).await?;
    connection.close(1000).await;
    Ok(sent)
}

/// Receives what one sender sends, until it hangs up.
async fn receive(listener: TcpListener, inbox: Arc<Inbox>) -> Result<(), Failure> {
    let (stream, address) = listener.accept().await?;
    let mut connection = server_handshake(stream, Caller::tcp(address), &Gate::default()).await?;
    let (_stop, shutdown) = Shutdown::new();
    let options = ReceiveOptions::default();
    receive_files(&mut connection, &inbox, &options, shutdown, &mut |_, _| {}).await?;
    Ok(())
}
