//! WebSocket's own rules, at the edges: what other programs may do, and what they may not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use serde_json::{Value, json};
use wsferry::protocol::chunk::{self, Header};
use wsferry::protocol::message::frame_of;
use wsferry::protocol::{Feature, Hello, MIN_OFFERS, Message};

use crate::support::{PATIENCE, Place, Receiver, random, send_well};

/// A client that writes its frames byte by byte.
struct Raw {
    stream: TcpStream,
}

impl Raw {
    fn dial(receiver: &Receiver) -> Self {
        let mut stream = TcpStream::connect(receiver.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Protocol: wsferry.v1\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        // RFC 6455's own example of a key.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Self { stream }
    }

    /// A masked frame with this first byte.
    fn say(&mut self, first: u8, payload: &[u8]) {
        let key = [1, 2, 3, 4];
        let mut frame = vec![first];
        match payload.len() {
            len @ ..126 => frame.push(0x80 | len as u8),
            len @ ..=0xffff => frame.extend([&[0xfe][..], &(len as u16).to_be_bytes()].concat()),
            len => frame.extend([&[0xff][..], &(len as u64).to_be_bytes()].concat()),
        }
        frame.extend(key);
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        // What is refused may be hung up on before it is written.
        let _ = self.stream.write_all(&frame);
    }

    /// The next frame: its first byte, its payload.
    fn hear(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).unwrap();
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.stream.read_exact(&mut len).unwrap();
                usize::from(u16::from_be_bytes(len))
            }
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).unwrap();
        (head[0], payload)
    }

    fn hear_message(&mut self) -> Value {
        let (first, payload) = self.hear();
        assert_eq!(first, 0x81, "one text frame, not masked");
        Message::parse(&payload).unwrap();
        // Behind its kind and its CRC-32.
        serde_json::from_slice(&payload[11..]).unwrap()
    }

    /// Says hello, and hears the receiver's.
    fn greet(&mut self) {
        let hello = Hello {
            features: vec![Feature::Zeros],
            frame_limit: 100_000,
            window: 1 << 20,
            offers: MIN_OFFERS,
            session: None,
            role: None,
            program: String::new(),
        };
        self.say(0x81, Message::Hello(hello).to_frame().as_bytes());
        assert_eq!(self.hear_message()["type"], "hello");
    }
}

fn offer() -> String {
    let (name, size) = ("f", 10);
    let id = wsferry::protocol::message::transfer_id(name, size, 0, 0, None);
    let offer = json!({"type": "offer", "transfer": 0, "id": id, "path": name, "size": size, "mtime": 0,
        "mtime_ns": 0});
    frame_of(&offer.to_string())
}

#[test]
fn a_message_in_pieces_with_a_ping_between_them_is_one_message() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let mut raw = Raw::dial(&receiver);
    raw.greet();
    let offer = offer();
    raw.say(0x01, &offer.as_bytes()[..7]);
    raw.say(0x89, b"are you there");
    raw.say(0x00, &offer.as_bytes()[7..50]);
    raw.say(0x00, b"");
    raw.say(0x80, &offer.as_bytes()[50..]);
    assert_eq!(raw.hear(), (0x8a, b"are you there".to_vec()));
    assert_eq!(raw.hear_message()["type"], "accept");
    // The chunk, too, and a second message in pieces behind the first.
    let mut frame = vec![0; chunk::frame_len(10)];
    chunk::encode(Header { transfer: 0, sequence: 0, offset: 0 }, b"0123456789", &mut frame);
    raw.say(0x01, &frame[..20]);
    raw.say(0x80, &frame[20..]);
    assert_eq!(raw.hear_message()["type"], "ack");
    let digest = blake3::hash(b"0123456789").into();
    raw.say(0x81, Message::Finish { transfer: 0, digest }.to_frame().as_bytes());
    while raw.hear_message()["type"] != "receipt" {}
    assert_eq!(place.received("f"), b"0123456789");
    // A close is answered with its code.
    raw.say(0x88, &1000u16.to_be_bytes());
    assert_eq!(raw.hear(), (0x88, 1000u16.to_be_bytes().to_vec()));
    assert_eq!(raw.stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn what_a_gateway_made_binary_is_taken_as_the_text_that_it_was() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let mut raw = Raw::dial(&receiver);
    raw.greet();
    let offer = offer();
    // Whole, and in pieces.
    raw.say(0x02, &offer.as_bytes()[..50]);
    raw.say(0x80, &offer.as_bytes()[50..]);
    assert_eq!(raw.hear_message()["type"], "accept");
    let mut frame = vec![0; chunk::frame_len(10)];
    chunk::encode(Header { transfer: 0, sequence: 0, offset: 0 }, b"0123456789", &mut frame);
    raw.say(0x82, &frame);
    assert_eq!(raw.hear_message()["type"], "ack", "what is sent stays text");
    let digest = blake3::hash(b"0123456789").into();
    raw.say(0x82, Message::Finish { transfer: 0, digest }.to_frame().as_bytes());
    while raw.hear_message()["type"] != "receipt" {}
    assert_eq!(place.received("f"), b"0123456789");
}

#[test]
fn what_breaks_websockets_rules_ends_that_connection_with_the_reason() {
    let place = Place::new();
    // Each has a receiver of its own, which tells of the first connection that carries no file.
    let start = || Receiver::start(&place, &[]);
    let long = vec![b'x'; 126];
    let most = vec![b'x'; 3_000_000];
    // Its CRC-32 is right.
    let text = b"{\"type\":\"\xff\"}";
    let no_text = [format!("M {:08x} ", crc32fast::hash(text)).as_bytes(), text].concat();
    type Frames<'a> = &'a [(u8, &'a [u8])];
    let cases: [(&str, Frames); 8] = [
        ("reserved bits", &[(0xc1, b"x")]),
        ("invalid opcode", &[(0x83, b"x")]),
        ("a control frame in pieces", &[(0x09, b"x")]),
        ("a control frame of 126 bytes", &[(0x89, &long)]),
        ("the continuation of no message", &[(0x80, b"x")]),
        ("a message within a message in pieces", &[(0x01, b"x"), (0x81, b"x")]),
        ("a message of 6000000 bytes, at most 4194352 are allowed", &[(0x01, &most), (0x80, &most)]),
        ("invalid utf-8", &[(0x81, &no_text)]),
    ];
    for (why, frames) in cases {
        let receiver = start();
        let mut raw = Raw::dial(&receiver);
        for (first, payload) in frames {
            raw.say(*first, payload);
        }
        let _ = raw.stream.shutdown(Shutdown::Write);
        let event = receiver.running.wait_for(|event| event["event"] == "failed");
        let reason = event["reason"].as_str().unwrap().to_lowercase();
        assert!(reason.contains(why), "{why}: {reason}");
    }
    // A frame that is not masked.
    let receiver = start();
    let mut raw = Raw::dial(&receiver);
    raw.stream.write_all(b"\x81\x01x").unwrap();
    let _ = raw.stream.shutdown(Shutdown::Write);
    receiver.running.wait_for(|event| event["reason"].as_str().is_some_and(|why| why.contains("unmasked")));
    // One character with its length in two bytes, which is for 126 and more.
    let receiver = start();
    let mut raw = Raw::dial(&receiver);
    raw.stream.write_all(b"\x81\xfe\x00\x01\0\0\0\0x").unwrap();
    let _ = raw.stream.shutdown(Shutdown::Write);
    receiver
        .running
        .wait_for(|event| event["reason"].as_str().is_some_and(|why| why.contains("longer than")));
    send_well(&place.file("g", b"still there"), &receiver.url, &[]);
}

#[test]
fn a_peer_that_pings_or_sends_pieces_without_end_and_reads_nothing_costs_no_memory() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", receiver.running.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    let before = memory();
    for first in [0x89, 0x01] {
        let mut raw = Raw::dial(&receiver);
        raw.stream.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        raw.say(first, b"");
        let frame: &[u8] = if first == 0x89 {
            // 125 bytes, to be sent back.
            &[&[0x89, 0xfd, 0, 0, 0, 0][..], &[b'p'; 125]].concat()
        } else {
            &[0x00, 0x80, 0, 0, 0, 0]
        };
        let many = frame.repeat(64 * 1024 / frame.len());
        for _ in 0..800 {
            // It may stop reading, or hang up: either is fine.
            if raw.stream.write_all(&many).is_err() {
                break;
            }
        }
        let grown = memory().saturating_sub(before);
        assert!(grown < 8 << 20, "{grown} bytes more");
        // Others are served meanwhile.
        send_well(&place.file(&format!("f{first}"), b"meanwhile"), &receiver.url, &[]);
    }
}

#[test]
fn a_ping_of_the_peer_is_answered_between_messages() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let mut raw = Raw::dial(&receiver);
    raw.greet();
    raw.say(0x81, offer().as_bytes());
    assert_eq!(raw.hear_message()["type"], "accept");
    for payload in ["a", "", "a somewhat longer one"] {
        raw.say(0x89, payload.as_bytes());
        assert_eq!(raw.hear(), (0x8a, payload.as_bytes().to_vec()));
    }
}

#[test]
fn frames_of_every_length_around_the_edges_of_the_header_cross() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--overwrite"]);
    for chunk in [54, 57, 60, 49_110, 49_113, 49_116, 3 << 20] {
        let bytes = random(chunk * 2 + 1, chunk as u64);
        let file = place.file("f", &bytes);
        send_well(&file, &receiver.url, &["--chunk-size", &format!("{chunk}B")]);
        assert!(place.received("f") == bytes, "{chunk}");
    }
}
