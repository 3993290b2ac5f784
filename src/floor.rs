//! The I/O floor: what the kernel alone costs.
//!
//! Two plain threads move a file over loopback TCP, at Base64's 4/3 expansion with a codec that costs nothing: read,
//! write to the socket, read from it, write to a file, sync it at the end. No WebSocket, no hash, no journal. It is what is
//! left of a program that moves a file through text when all that it does with the bytes costs nothing, so every rate is
//! told as a part of this one, measured in the same run.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of the file that are read at a time.
const RAW: usize = 192 * 1024;
/// What they become on the wire.
const WIRE: usize = RAW / 3 * 4;

/// Moves `source` to `target`, which is padded to a multiple of three bytes, and says how long it took, from connecting
/// to the last byte synced.
///
/// # Errors
/// What the system says to reading, writing or connecting.
pub fn measure(source: &Path, target: &Path) -> io::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (mut from, to) = (File::open(source)?, File::create(target)?);
    let started = Instant::now();
    let outgoing = TcpStream::connect(address)?;
    let (incoming, _) = listener.accept()?;
    thread::scope(|scope| {
        let receiver = scope.spawn(move || receive(incoming, to));
        let sent = send(&mut from, outgoing);
        // Why the receiver gave up is the reason for a send that failed.
        receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(sent)
    })?;
    Ok(started.elapsed())
}

fn send(from: &mut File, mut stream: TcpStream) -> io::Result<()> {
    let mut wire = vec![0; WIRE];
    loop {
        let n = from.read(&mut wire[..RAW])?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&wire[..n.div_ceil(3) * 4])?;
    }
}

fn receive(mut stream: TcpStream, mut to: File) -> io::Result<()> {
    let mut wire = vec![0; WIRE];
    loop {
        let mut filled = 0;
        while filled < WIRE {
            match stream.read(&mut wire[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        to.write_all(&wire[..filled / 4 * 3])?;
        if filled < WIRE {
            return to.sync_data();
        }
    }
}
