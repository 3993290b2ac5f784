//! A gateway on loopback that understands WebSocket frames, and has the limits of real ones.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// What becomes of a frame towards the receiver that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLarge {
    /// The connection is closed with this code.
    Close(u16),
    /// It is cut without a word.
    Reset,
    /// The frame is cut short.
    Truncate,
    /// Neither it nor anything behind it passes.
    Stall,
}

/// The gateway's limits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// The most bytes of a frame's payload.
    pub frame: Option<(usize, TooLarge)>,
    /// How long a connection lives.
    pub life: Option<Duration>,
    /// How long a connection may pass no whole frame towards the receiver.
    pub idle: Option<Duration>,
    /// Bytes a second towards the receiver.
    pub rate: Option<u64>,
    /// Bytes a connection passes towards the receiver.
    pub bytes: Option<u64>,
    /// How much later everything comes, either way.
    pub delay: Option<Duration>,
    /// Connections that are sent away with 429, to come back in so many seconds: each of this number, from the second on.
    pub busy: Option<(Busy, u64)>,
}

/// Which connections a gateway sends away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// The second, the fourth, and so on.
    EachSecond,
    /// The second and the third.
    Twice,
}

impl Busy {
    fn has(self, number: usize) -> bool {
        match self {
            Self::EachSecond => number.is_multiple_of(2),
            Self::Twice => number == 2 || number == 3,
        }
    }
}

/// A running gateway; it stops when dropped.
pub struct Gateway {
    address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    /// Bytes that reached the receiver, and bytes that were read from the sender.
    pub passed: Arc<AtomicU64>,
    pub read: Arc<AtomicU64>,
    /// The most bytes of a frame's payload that came from the sender.
    pub largest: Arc<AtomicUsize>,
    /// Connections that were cut since they had lived for so long.
    pub expired: Arc<AtomicUsize>,
    stopped: Arc<AtomicUsize>,
}

impl Gateway {
    pub fn start(target: SocketAddr, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            passed: Arc::default(),
            read: Arc::default(),
            largest: Arc::default(),
            expired: Arc::default(),
            stopped: Arc::default(),
        };
        let largest = gateway.largest.clone();
        let (connections, stopped) = (gateway.connections.clone(), gateway.stopped.clone());
        let (passed, read) = (gateway.passed.clone(), gateway.read.clone());
        let expired = gateway.expired.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) > 0 {
                    return;
                }
                let Ok(server) = TcpStream::connect(target) else { continue };
                let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
                if let Some((_, seconds)) = limits.busy.filter(|(busy, _)| busy.has(number)) {
                    thread::spawn(move || send_away(client, seconds));
                    continue;
                }
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let mut there = There {
                    client: client.try_clone().unwrap(),
                    server: server.try_clone().unwrap(),
                    later: limits.delay.map(|delay| later(server.try_clone().unwrap(), delay)),
                    limits,
                    left: limits.bytes.unwrap_or(u64::MAX),
                    last_frame: Instant::now(),
                    passed: passed.clone(),
                    read: read.clone(),
                    largest: largest.clone(),
                };
                if let Some(life) = limits.life {
                    let both = [client.try_clone().unwrap(), server.try_clone().unwrap()];
                    let expired = expired.clone();
                    thread::spawn(move || {
                        thread::sleep(life);
                        // One that has ended cannot be shut down any more.
                        let cut = both.map(|stream| stream.shutdown(Shutdown::Both).is_ok());
                        expired.fetch_add(usize::from(cut == [true, true]), Ordering::Relaxed);
                    });
                }
                thread::spawn(move || {
                    let _ = there.pass();
                    let _ = there.client.shutdown(Shutdown::Both);
                    let _ = there.server.shutdown(Shutdown::Both);
                });
                thread::spawn(move || {
                    let (mut from, mut to) = (server, client);
                    let _ = match limits.delay {
                        Some(delay) => copy_later(&mut from, &later(to.try_clone().unwrap(), delay)),
                        None => io::copy(&mut from, &mut to).map(drop),
                    };
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        });
        gateway
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stopped.store(1, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// The way from the sender to the receiver.
struct There {
    client: TcpStream,
    server: TcpStream,
    /// What is written there, where it comes later.
    later: Option<mpsc::Sender<Vec<u8>>>,
    limits: Limits,
    left: u64,
    last_frame: Instant,
    passed: Arc<AtomicU64>,
    read: Arc<AtomicU64>,
    largest: Arc<AtomicUsize>,
}

impl There {
    fn pass(&mut self) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.read(1)?);
        }
        self.write(&head)?;
        loop {
            let mut frame = self.read(2)?;
            let extended = match frame[1] & 127 {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            frame.extend(self.read(extended)?);
            let len = match extended {
                0 => usize::from(frame[1] & 127),
                _ => frame[2..].iter().fold(0, |len, &byte| len << 8 | usize::from(byte)),
            };
            let header = frame.len();
            self.largest.fetch_max(len, Ordering::Relaxed);
            frame.extend(self.read(4 + len)?);
            match self.limits.frame {
                Some((limit, too_large)) if len > limit => match too_large {
                    TooLarge::Close(code) => {
                        let code = code.to_be_bytes();
                        self.client.write_all(&[0x88, 2, code[0], code[1]])?;
                        // What the sender still sends is read, so that it hears this.
                        self.client.shutdown(Shutdown::Write)?;
                        self.server.shutdown(Shutdown::Both)?;
                        return io::copy(&mut self.client, &mut io::sink()).map(drop);
                    }
                    TooLarge::Reset => return Ok(()),
                    TooLarge::Truncate => {
                        let mut short = vec![frame[0], 0x80 | 126];
                        short.extend((limit as u16).to_be_bytes());
                        short.extend(&frame[header..header + 4 + limit]);
                        frame = short;
                    }
                    TooLarge::Stall => return io::copy(&mut self.client, &mut io::sink()).map(drop),
                },
                _ => {}
            }
            self.last_frame = Instant::now();
            self.write(&frame)?;
        }
    }

    /// Reads so many bytes at the gateway's rate.
    fn read(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        for piece in bytes.chunks_mut(8192) {
            let left = self.limits.idle.map(|idle| idle.saturating_sub(self.last_frame.elapsed()));
            if left == Some(Duration::ZERO) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.client.set_read_timeout(left)?;
            self.client.read_exact(piece)?;
            self.read.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if let Some(rate) = self.limits.rate {
                thread::sleep(Duration::from_secs_f64(piece.len() as f64 / rate as f64));
            }
        }
        Ok(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = self.left.min(bytes.len() as u64);
        match &self.later {
            Some(later) => later.send(bytes[..len as usize].to_vec()).map_err(io::Error::other)?,
            None => self.server.write_all(&bytes[..len as usize])?,
        }
        self.passed.fetch_add(len, Ordering::Relaxed);
        self.left -= len;
        if self.left == 0 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

/// What is sent there is written to the stream so much later.
fn later(mut stream: TcpStream, delay: Duration) -> mpsc::Sender<Vec<u8>> {
    let (tell, told) = mpsc::channel::<(Instant, Vec<u8>)>();
    let (pieces, came) = mpsc::channel();
    thread::spawn(move || came.into_iter().try_for_each(|piece| tell.send((Instant::now() + delay, piece))));
    thread::spawn(move || {
        for (at, piece) in told {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if stream.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
    });
    pieces
}

fn copy_later(from: &mut TcpStream, later: &mpsc::Sender<Vec<u8>>) -> io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    loop {
        let len = from.read(&mut piece)?;
        if len == 0 {
            return Ok(());
        }
        later.send(piece[..len].to_vec()).map_err(io::Error::other)?;
    }
}

/// Answers that it is busy.
pub fn send_away(mut client: TcpStream, seconds: u64) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && client.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    let _ = write!(
        client,
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n"
    );
}
