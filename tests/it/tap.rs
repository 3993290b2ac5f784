//! A tap on the way from a sender to a receiver: it passes everything on, and keeps a ledger of what crossed.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::support::message;

/// What crossed, over all connections of all runs.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Bytes of chunks that senders sent, and those of them that a receiver acknowledged.
    pub payload: u64,
    pub acknowledged: u64,
    /// Bytes that were sent although there had been a receipt, and although they had been acknowledged.
    pub again_after_receipt: u64,
    pub again_after_ack: u64,
    /// Receipts.
    pub receipts: u64,
    /// Connections that were begun.
    pub connections: u64,
    /// The most characters of a frame that a sender sent.
    pub largest_frame: usize,
    files: HashMap<String, Account>,
}

/// What is known of one path.
#[derive(Debug, Default)]
struct Account {
    /// From here to there.
    acknowledged: Vec<(u64, u64)>,
    has_receipt: bool,
}

impl std::fmt::Display for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} connections, {} receipts, {} bytes sent and {} acknowledged, again after a receipt {}, after an \
             acknowledgement {}",
            self.connections,
            self.receipts,
            self.payload,
            self.acknowledged,
            self.again_after_receipt,
            self.again_after_ack
        )
    }
}

/// One connection.
#[derive(Debug, Default)]
struct Log {
    paths: HashMap<u64, String>,
    /// Sequence numbers begin at 0 and have no gaps: chunks by transfer, offset, length.
    in_flight: VecDeque<(u64, u64, u64)>,
    dealt_with: u64,
}

impl Ledger {
    /// A receiver was killed. What it had acknowledged of files without a receipt went with it: of a file of at most one
    /// block nothing is durable before it is whole. Gives how many bytes that are.
    pub fn receiver_died(&mut self) -> u64 {
        let files = self.files.values_mut().filter(|account| !account.has_receipt);
        files.flat_map(|account| account.acknowledged.drain(..)).map(|(from, to)| to - from).sum()
    }

    fn on_sent(&mut self, log: &mut Log, frame: &str) {
        self.largest_frame = self.largest_frame.max(frame.len());
        let number = |at: std::ops::Range<usize>| u64::from_str_radix(&frame[at], 16).unwrap();
        match frame.as_bytes()[0] {
            b'C' => {
                let (transfer, offset, body) = (number(2..10), number(24..38), &frame[48..]);
                let padding = body.bytes().rev().take_while(|&byte| byte == b'=').count();
                let len = (body.len() / 4 * 3 - padding) as u64;
                let account = self.files.entry(log.paths[&transfer].clone()).or_default();
                let again = account.acknowledged.iter();
                let again = again.map(|&(from, to)| to.min(offset + len).saturating_sub(from.max(offset)));
                self.again_after_ack += again.sum::<u64>();
                self.again_after_receipt += if account.has_receipt { len } else { 0 };
                self.payload += len;
                log.in_flight.push_back((transfer, offset, len));
            }
            b'Z' => log.in_flight.push_back((number(2..10), 0, 0)),
            _ => {
                let message = message(frame).unwrap();
                if message["type"] == "offer" {
                    let path = message["path"].as_str().unwrap().to_owned();
                    log.paths.insert(message["transfer"].as_u64().unwrap(), path);
                }
            }
        }
    }

    fn on_heard(&mut self, log: &mut Log, frame: &str) {
        let message = message(frame).unwrap();
        if message["type"] == "ack" {
            while log.dealt_with < message["sequence"].as_u64().unwrap() {
                let (transfer, offset, len) = log.in_flight.pop_front().unwrap();
                let account = self.files.entry(log.paths[&transfer].clone()).or_default();
                account.acknowledged.push((offset, offset + len));
                self.acknowledged += len;
                log.dealt_with += 1;
            }
        }
        for file in message["files"].as_array().into_iter().flatten() {
            let path = log.paths[&file[0].as_u64().unwrap()].clone();
            self.files.entry(path).or_default().has_receipt = true;
            self.receipts += 1;
        }
    }
}

/// A listening tap; it stops when dropped.
pub struct Tap {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    passing: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Tap {
    pub fn start(target: SocketAddr, ledger: &Arc<Mutex<Ledger>>) -> Self {
        Self::between(target, ledger, true)
    }

    /// On the way to a sender that listens.
    pub fn start_at_sender(target: SocketAddr, ledger: &Arc<Mutex<Ledger>>) -> Self {
        Self::between(target, ledger, false)
    }

    fn between(target: SocketAddr, ledger: &Arc<Mutex<Ledger>>, dials_to_send: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tap = Self {
            address: listener.local_addr().unwrap(),
            is_over: Arc::default(),
            passing: Arc::default(),
        };
        let (is_over, passing, ledger) = (tap.is_over.clone(), tap.passing.clone(), ledger.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = TcpStream::connect(target) else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                ledger.lock().unwrap().connections += 1;
                let log = Arc::new(Mutex::new(Log::default()));
                for is_there in [true, false] {
                    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                    if !is_there {
                        std::mem::swap(&mut from, &mut to);
                    }
                    let (ledger, log) = (ledger.clone(), log.clone());
                    let thread = thread::spawn(move || {
                        let _ = pass(&from, &to, |frame| {
                            let (mut ledger, mut log) = (ledger.lock().unwrap(), log.lock().unwrap());
                            if is_there == dials_to_send {
                                ledger.on_sent(&mut log, frame);
                            } else {
                                ledger.on_heard(&mut log, frame);
                            }
                        });
                        let _ = from.shutdown(Shutdown::Both);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                    passing.lock().unwrap().push(thread);
                }
            }
        });
        tap
    }

    /// Waits until all that is on its way is entered: one side of each connection is gone.
    pub fn end(self) {
        for thread in self.passing.lock().unwrap().drain(..) {
            thread.join().expect("both programs keep to the protocol");
        }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// Passes an HTTP head and then WebSocket frames; each text is entered before it is passed on.
fn pass(from: &TcpStream, mut to: &TcpStream, mut enter: impl FnMut(&str)) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(0);
        let last = head.len() - 1;
        from.read_exact(&mut head[last..])?;
    }
    to.write_all(&head)?;
    loop {
        let mut frame = vec![0; 2];
        from.read_exact(&mut frame)?;
        let (is_masked, short) = (frame[1] & 0x80 != 0, frame[1] & 0x7f);
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        frame.resize(2 + extended, 0);
        from.read_exact(&mut frame[2..])?;
        let len = frame[2..].iter().fold(0, |len, &byte| len << 8 | usize::from(byte));
        let len = if extended == 0 { usize::from(short) } else { len };
        let header = frame.len() + if is_masked { 4 } else { 0 };
        let start = frame.len();
        frame.resize(header + len, 0);
        from.read_exact(&mut frame[start..])?;
        // What is no whole text is a close or a ping; neither program fragments.
        if frame[0] == 0x81 {
            let mask = &frame[start..header];
            let text = frame[header..].iter().enumerate();
            let text = text.map(|(at, byte)| byte ^ mask.get(at % 4).copied().unwrap_or(0)).collect();
            enter(&String::from_utf8(text).unwrap());
        }
        to.write_all(&frame)?;
    }
}
