//! What the kernel alone costs of the exercise.
//!
//! Plain threads move as many bytes as it has at Base64's expansion, both ways at the same time over one connection of loopback
//! TCP, with a codec that costs nothing: the client reads the file and writes to the socket, and reads what comes back; the
//! server reads, writes the file, and sends back what came. No WebSocket, no hash, no comparison.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of the file that are read at a time.
const RAW: usize = 192 * 1024;
/// What they become on the wire.
const WIRE: usize = RAW / 3 * 4;

/// Moves `source` to `target`, which is padded to a multiple of three bytes, and back to nowhere; how long it took, from
/// connecting to the end of what came back.
pub fn measure(source: &Path, target: &Path) -> io::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (from, to) = (File::open(source)?, File::create(target)?);
    let started = Instant::now();
    let client = TcpStream::connect(address)?;
    let (server, _) = listener.accept()?;
    thread::scope(|scope| {
        let serving = scope.spawn(move || serve(server, to));
        let sending = scope.spawn(|| send(from, &client));
        let taken = take(&client);
        // Why the server gave up is the reason for what the client met.
        let mut ends = [serving.join(), sending.join(), Ok(taken)].into_iter();
        ends.try_for_each(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(started.elapsed())
}

fn send(mut from: File, mut stream: &TcpStream) -> io::Result<()> {
    let mut wire = vec![0; WIRE];
    loop {
        let n = from.read(&mut wire[..RAW])?;
        if n == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        stream.write_all(&wire[..n.div_ceil(3) * 4])?;
    }
}

fn take(mut stream: &TcpStream) -> io::Result<()> {
    let mut wire = vec![0; WIRE];
    while stream.read(&mut wire)? > 0 {}
    Ok(())
}

fn serve(mut stream: TcpStream, mut to: File) -> io::Result<()> {
    let mut wire = vec![0; WIRE];
    let (mut came, mut written) = (0, 0);
    loop {
        let n = stream.read(&mut wire)?;
        came += n;
        let raw = came / 4 * 3 - written;
        to.write_all(&wire[..raw])?;
        written += raw;
        if n == 0 {
            return to.sync_data();
        }
        stream.write_all(&wire[..n])?;
    }
}
