//! Without the protocol: a whole file as one Base64 text message, which comes back.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{self, Error, Message, WebSocket};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::support::{Ended, PATIENCE, Place, Receiver, Running, random, send, send_well, wsferry};

/// No limits: what the library would do in ten lines.
fn config() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(None).max_frame_size(None)
}

/// A client that asks for no subprotocol.
fn dial(url: &str) -> WebSocket<TcpStream> {
    let address = url.strip_prefix("ws://").unwrap().split('/').next().unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    tungstenite::client::client_with_config(url, stream, Some(config())).unwrap().0
}

/// A frame as a client sends it.
fn masked(is_final: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![u8::from(is_final) << 7 | opcode];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    let key = [7, 77, 177, 27];
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The code and reason that a peer closes with.
fn closed(socket: &mut WebSocket<TcpStream>) -> (u16, String) {
    loop {
        match socket.read() {
            Ok(Message::Close(Some(CloseFrame { code, reason }))) => {
                return (code.into(), reason.to_string());
            }
            Ok(_) => {}
            Err(error) => panic!("no closing words: {error}"),
        }
    }
}

fn send_plain(file: &std::path::Path, url: &str, flags: &[&str]) -> Ended {
    send(file, url, &[&["--plain"], flags].concat())
}

#[test]
fn files_of_every_size_go_as_one_message_in_fragments_or_in_one_frame() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    for (number, len) in [0, 1, 2, 3, 4, 5, 98_303, 98_304, 98_305, 3_000_000].into_iter().enumerate() {
        let bytes = random(len, number as u64);
        let file = place.file("f", &bytes);
        for (how, flags) in [
            ("fragments", &[][..]),
            ("small", &["--chunk-size", "1000"]),
            ("one", &["--one-frame"]),
            ("mute", &["--no-echo"]),
        ] {
            let name = format!("{len}-{how}");
            let sent = send_plain(&file, &format!("{}/{name}", receiver.url), flags);
            assert_eq!(sent.code(), 0, "{sent:?}");
            assert_eq!(sent.event("finished")["blake3"], blake3::hash(&bytes).to_string());
            let received = receiver.running.wait_for(|event| event["event"] == "finished");
            assert_eq!((&received["name"], &received["size"]), (&name.into(), &len.into()));
            assert_eq!(received["blake3"], blake3::hash(&bytes).to_string());
        }
        for how in ["fragments", "small", "one", "mute"] {
            assert!(place.received(&format!("{len}-{how}")) == bytes, "{len} {how}");
        }
    }
    assert!(!place.listing().contains(&".wsferry".to_owned()));
}

#[test]
fn any_client_gets_back_what_it_sent_character_by_character() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    let bytes = random(100_001, 1);
    let text = STANDARD.encode(&bytes);
    let wrapped: String =
        text.as_bytes().chunks(76).map(|line| format!("{}\r\n", String::from_utf8_lossy(line))).collect();
    let messages = [
        Message::text(text.clone()),
        Message::text(wrapped),
        Message::text(text.trim_end_matches('=')),
        Message::binary(bytes.clone()),
        Message::text(""),
    ];
    let mut socket = dial(&receiver.url);
    for (number, message) in (1..).zip(&messages) {
        socket.send(message.clone()).unwrap();
        loop {
            match socket.read().unwrap() {
                Message::Ping(_) => {}
                echo => break assert!(echo == *message, "message {number}"),
            }
        }
        let expected = if message.is_empty() { &[][..] } else { &bytes };
        assert!(place.received(&format!("received-000{number}.bin")) == expected, "message {number}");
    }
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
}

#[test]
fn the_url_names_the_file_or_its_content_says_what_it_is() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    let png = [&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], &random(60_000, 2)].concat();
    let file = place.file("picture", &png);
    for target in ["", "/", "/up/picture.png?token=a/b", "/up/h%C3%A9.png", "/"] {
        assert_eq!(send_plain(&file, &format!("{}{target}", receiver.url), &[]).code(), 0);
    }
    let names = ["hé.png", "picture.png", "received-0001.png", "received-0002.png", "received-0003.png"];
    let mut listing = place.listing();
    listing.sort();
    let mut expected = names.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(listing, expected);
    for target in ["/..", "/a%2fb", "/%00", "/.wsferry"] {
        let refused = send_plain(&file, &format!("{}{target}", receiver.url), &[]);
        refused.assert_error(4, &["does not want it", "1008", "name is not allowed"]);
    }
    // A second message under the same name is a second file.
    let mut socket = dial(&format!("{}/twice.txt", receiver.url));
    for text in ["QQ==", "Qg=="] {
        socket.send(Message::text(text)).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text(text));
    }
    assert_eq!(
        (place.received("twice.txt"), place.received("twice-0002.txt")),
        (b"A".to_vec(), b"B".to_vec())
    );
}

#[test]
fn what_is_there_is_kept_unless_it_may_be_replaced() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    std::fs::write(place.inbox().join("f"), "kept").unwrap();
    let file = place.file("new", b"new");
    send_plain(&file, &format!("{}/f", receiver.url), &[]).assert_error(4, &["1008", "already"]);
    assert_eq!(place.received("f"), b"kept");
    drop(receiver);
    let receiver = Receiver::start(&place, &["--plain", "--overwrite"]);
    assert_eq!(send_plain(&file, &format!("{}/f", receiver.url), &[]).code(), 0);
    assert_eq!((place.received("f"), place.listing()), (b"new".to_vec(), vec!["f".to_owned()]));
}

#[test]
fn both_ways_are_served_on_one_port_and_one_of_them_only_if_asked_for() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    let file = place.file("f", &random(200_000, 3));
    let mut socket = dial(&format!("{}/plain", receiver.url));
    socket
        .write(Message::Frame(tungstenite::protocol::frame::Frame::message(
            "QUJD",
            tungstenite::protocol::frame::coding::OpCode::Data(
                tungstenite::protocol::frame::coding::Data::Text,
            ),
            false,
        )))
        .unwrap();
    socket.flush().unwrap();
    send_well(&file, &receiver.url, &[]);
    socket.get_mut().write_all(&masked(true, 0, b"REVG")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("QUJDREVG"));
    assert_eq!(place.received("plain"), b"ABCDEF");
    drop(receiver);
    let receiver = Receiver::start(&place, &[]);
    send_plain(&file, &receiver.url, &[]).assert_error(1, &["HTTP 426"]);
    // The other way round: a server that knows no wsferry.v1.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || drop(tungstenite::accept(listener.accept().unwrap().0)));
    send(&file, &url, &[]).assert_error(1, &["not wsferry.v1"]);
    server.join().unwrap();
}

#[test]
fn bad_base64_is_told_with_its_place_and_leaves_nothing() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    let good = STANDARD.encode(random(30_000, 4));
    for (at, character) in [(0, "!"), (1, "-"), (17_000, "\u{e9}"), (39_999, "="), (5000, "=")] {
        let mut text = good.clone();
        text.replace_range(at..at + 1, character);
        let expected = if character == "=" && at < 30_000 { at + 1 } else { at };
        for fragment in [1000, 100_000] {
            let mut socket = dial(&format!("{}/bad", receiver.url));
            let mut opcode = 1;
            for part in text.as_bytes().chunks(fragment) {
                // The receiver may have closed by now.
                let _ = socket.get_mut().write_all(&masked(false, std::mem::take(&mut opcode), part));
            }
            let _ = socket.get_mut().write_all(&masked(true, 0, b""));
            let (code, reason) = closed(&mut socket);
            if (at, character) == (39_999, "=") {
                // That is where padding may stand, if the character before it allows it.
                assert_eq!(code, 1007, "{reason}");
                continue;
            }
            assert_eq!(code, 1007, "{reason}");
            let near =
                (expected.saturating_sub(1)..=expected).any(|at| reason.contains(&format!("offset {at} ")));
            assert!(near, "{at}: {reason}");
            let failed = receiver.running.wait_for(|event| event["event"] == "failed");
            assert_eq!(failed["exit_code"], 1, "{failed}");
        }
    }
    assert_eq!(place.listing(), [""; 0]);
}

#[test]
fn a_file_larger_than_the_limit_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain", "--plain-limit", "100000"]);
    for (name, len) in [("fits", 100_000), ("more", 100_001), ("much", 30_000_000)] {
        let file = place.file("f", &random(len, 5));
        let sent = send_plain(&file, &format!("{}/{name}", receiver.url), &[]);
        if name == "fits" {
            assert_eq!(sent.code(), 0, "{sent:?}");
        } else {
            sent.assert_error(4, &["too big for it", "1009", "at most 100000 bytes"]);
        }
    }
    assert_eq!(place.listing(), ["fits"]);
}

#[test]
fn who_hangs_up_in_the_middle_leaves_nothing_and_can_begin_anew() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    let text = STANDARD.encode(random(300_000, 6));
    for politely in [false, true] {
        let mut socket = dial(&format!("{}/f", receiver.url));
        let frame = masked(politely, 1, text.as_bytes());
        let cut = if politely { frame.len() } else { 200_000 };
        socket.get_mut().write_all(&frame[..cut]).unwrap();
        if politely {
            assert_eq!(socket.read().unwrap(), Message::text(text.clone()));
            break;
        }
        drop(socket);
        let failed = receiver.running.wait_for(|event| event["event"] == "failed");
        assert_eq!(failed["exit_code"], 3, "{failed}");
        assert_eq!(place.listing(), [""; 0]);
    }
    assert!(place.received("f") == random(300_000, 6));
}

#[test]
fn with_once_the_exit_code_is_that_of_the_first_file() {
    let place = Place::new();
    let file = place.file("f", b"the one");
    let receiver = Receiver::start(&place, &["--plain", "--once"]);
    assert_eq!(send_plain(&file, &receiver.url, &[]).code(), 0);
    assert_eq!(receiver.running.end().code(), 0);
    let receiver = Receiver::start(&place, &["--plain", "--once"]);
    let mut socket = dial(&receiver.url);
    socket.send(Message::text("???")).unwrap();
    assert_eq!(closed(&mut socket).0, 1007);
    assert_eq!(receiver.running.end().code(), 1);
}

/// Resident memory of a process at its peak, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_client_that_does_not_read_what_comes_back_is_not_read_from() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain", "--stall-timeout", "2s"]);
    let mut socket = dial(&format!("{}/f", receiver.url));
    let text = STANDARD.encode(random(60_000_000, 7));
    let stream = socket.get_mut();
    stream.set_write_timeout(Some(Duration::from_millis(700))).unwrap();
    let frame = masked(true, 1, text.as_bytes());
    // The sockets' buffers take some megabytes; then nobody reads.
    let mut written = 0;
    let error = loop {
        match stream.write(&frame[written..]) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    assert!(written < frame.len() / 2, "{written} bytes were taken");
    let failed = receiver.running.wait_for(|event| event["event"] == "failed");
    assert!(failed["reason"].as_str().unwrap().contains("has to read while it sends"), "{failed}");
    assert!(peak(receiver.running.pid()) < 24 * 1024);
    let listing = loop {
        match place.listing() {
            listing if listing.is_empty() => break listing,
            _ => thread::yield_now(),
        }
    };
    assert_eq!(listing, [""; 0]);
}

#[test]
fn a_client_that_reads_late_gets_all_of_it() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    let socket = dial(&format!("{}/f", receiver.url));
    let bytes = random(30_000_000, 8);
    let text = STANDARD.encode(&bytes);
    let mut writer = socket.get_ref().try_clone().unwrap();
    let frame = masked(true, 1, text.as_bytes());
    let writing = thread::spawn(move || {
        for part in frame.chunks(50_000) {
            writer.write_all(part).unwrap();
        }
    });
    let mut socket = socket;
    // Less at a time than comes.
    let mut slow = Slow { stream: socket.get_ref().try_clone().unwrap(), most: 3000 };
    let mut wire = Vec::new();
    let mut expected = WebSocketLength::default();
    while !expected.is_whole(&wire, text.len()) {
        let mut part = [0; 8192];
        let count = slow.read(&mut part).unwrap();
        wire.extend(&part[..count]);
    }
    writing.join().unwrap();
    assert!(expected.payload == text.as_bytes());
    assert!(place.received("f") == bytes);
    let _ = socket.close(None);
}

struct Slow {
    stream: TcpStream,
    most: usize,
}

impl Read for Slow {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let most = self.most.min(to.len());
        self.stream.read(&mut to[..most])
    }
}

/// Takes a server's frames apart.
#[derive(Default)]
struct WebSocketLength {
    taken: usize,
    payload: Vec<u8>,
}

impl WebSocketLength {
    fn is_whole(&mut self, wire: &[u8], len: usize) -> bool {
        while let [first, short, rest @ ..] = &wire[self.taken..] {
            let (head, payload) = match (short, rest) {
                (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
                (127, [a, b, c, d, e, f, g, h, ..]) => {
                    (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize)
                }
                (0..126, _) => (2, usize::from(*short)),
                _ => return false,
            };
            let from = self.taken + head;
            if wire.len() < from + payload {
                return false;
            }
            if first & 8 == 0 {
                self.payload.extend(&wire[from..from + payload]);
            }
            self.taken = from + payload;
        }
        self.payload.len() >= len
    }
}

/// What a server does with what comes.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// The whole message, once it has come.
    AtTheEnd,
    /// The whole message, in fragments of so many bytes.
    InFragments(usize),
    /// Another character at this place.
    Changed(usize),
    /// Less of it.
    Short,
    /// More than there was.
    Long,
    Binary,
    Close(u16),
    HangUp,
    Nothing,
}

/// Starts `send --plain` to a server that answers like this.
fn sent_to(answer: Answer, bytes: &[u8], flags: &[&str]) -> Ended {
    let place = Place::new();
    let file = place.file("f", bytes);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let expected = STANDARD.encode(bytes);
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut socket = tungstenite::accept_with_config(stream, Some(config())).unwrap();
        if let Answer::Close(code) = answer {
            let frame = CloseFrame { code: CloseCode::from(code), reason: "because".into() };
            let _ = socket.close(Some(frame));
            while socket.read().is_ok() {}
            return;
        }
        if let Answer::HangUp = answer {
            let mut some = [0; 1000];
            let _ = socket.get_mut().read(&mut some);
            return;
        }
        let message = match socket.read() {
            Ok(Message::Text(text)) => text.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(message == expected);
        let mut message = message.into_bytes();
        match answer {
            Answer::Changed(at) => message[at] = if message[at] == b'A' { b'B' } else { b'A' },
            Answer::Short => {
                message.pop();
            }
            Answer::Long => message.push(b'\n'),
            _ => {}
        }
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let told = match answer {
            Answer::Nothing => Ok(()),
            Answer::Binary => socket.send(Message::binary(message)),
            Answer::InFragments(len) => {
                use tungstenite::protocol::frame::{
                    Frame,
                    coding::{Data, OpCode},
                };
                let last = message.len().div_ceil(len) - 1;
                message.chunks(len).enumerate().try_for_each(|(at, part)| {
                    let data = if at == 0 { Data::Text } else { Data::Continue };
                    let frame = Frame::message(part.to_vec(), OpCode::Data(data), at == last);
                    if at % 100 == 3 {
                        socket.send(Message::Ping("between".into()))?;
                    }
                    socket.send(Message::Frame(frame))
                })
            }
            _ => socket.send(Message::text(text(message))),
        };
        // A client that is told something else may hang up.
        let _ = told;
        loop {
            match socket.read() {
                Ok(_) => {}
                Err(Error::ConnectionClosed) => break,
                Err(_) => break,
            }
        }
    });
    let ended = send_plain(&file, &url, flags);
    server.join().unwrap();
    ended
}

#[test]
fn a_server_may_answer_at_the_end_or_in_fragments_of_any_size() {
    // More than the sockets' buffers hold, both ways.
    let bytes = random(20_000_000, 9);
    for flags in [&[][..], &["--one-frame"]] {
        let ended = sent_to(Answer::AtTheEnd, &bytes, flags);
        assert_eq!(ended.code(), 0, "{ended:?}");
    }
    for len in [1, 3, 1000, 65_536] {
        let ended = sent_to(Answer::InFragments(len), &bytes[..30_000 + len], &[]);
        assert_eq!(ended.code(), 0, "{ended:?}");
    }
    let ended = sent_to(Answer::Nothing, &bytes, &["--no-echo"]);
    assert_eq!(ended.code(), 0, "{ended:?}");
}

#[test]
fn an_answer_that_is_not_what_was_sent_is_told_with_its_place() {
    let bytes = random(300_000, 10);
    for at in [0, 1, 131_071, 131_072, 399_999] {
        sent_to(Answer::Changed(at), &bytes, &[]).assert_error(5, &[&format!("at offset {at} came")]);
    }
    sent_to(Answer::Short, &bytes, &[]).assert_error(5, &["sent back 399999 characters of 400000"]);
    sent_to(Answer::Long, &bytes, &[])
        .assert_error(5, &["at offset 400000 came \\n, where nothing was sent"]);
    sent_to(Answer::Binary, &bytes, &[]).assert_error(5, &["binary"]);
}

#[test]
fn how_a_server_ends_it_tells_what_to_do() {
    let bytes = random(3_000_000, 11);
    for (code, exit, words) in [
        (1009, 4, "too big for it (close code 1009): because"),
        (1003, 4, "takes no text"),
        (1007, 4, "because"),
        (1008, 4, "does not want it"),
        (1011, 3, "begins anew"),
        (1001, 3, "begins anew"),
    ] {
        sent_to(Answer::Close(code), &bytes, &[]).assert_error(exit, &[words]);
    }
    sent_to(Answer::HangUp, &bytes, &[]).assert_error(3, &["begins anew"]);
    sent_to(Answer::HangUp, &bytes, &["--no-echo"]).assert_error(3, &["begins anew"]);
    sent_to(Answer::Close(1009), &bytes, &["--no-echo", "--one-frame"]).assert_error(4, &["1009"]);
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let place = Place::new();
    let file = place.file("f", &random(100, 12));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        let mut stream = socket.get_ref().try_clone().unwrap();
        // Reads, and answers nothing, not even a question.
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    });
    send_plain(&file, &url, &["--stall-timeout", "1s"]).assert_error(3, &["silent for 1 s"]);
    // It was asked whether it lives.
    assert!(server.join().unwrap().windows(2).any(|two| two == [0x89, 0x80]));
}

#[test]
fn flags_that_make_no_sense_without_it_or_with_it_are_refused() {
    let place = Place::new();
    let file = place.file("f", b"x");
    for flags in [&["--one-frame"][..], &["--no-echo"], &["--plain", "--repair"], &["--plain", "--name", "x"]]
    {
        assert_eq!(send(&file, "ws://127.0.0.1:1", flags).code(), 2, "{flags:?}");
    }
    let ended = Running::start(wsferry().args(["receive", "--plain-limit", "1MiB"])).end();
    assert_eq!(ended.code(), 2);
}

/// Sends a file without content but of this size through both sides; gives the peak memory of each, in bytes.
fn peaks(size: u64, flags: &[&str]) -> (f64, f64) {
    let place = Place::new();
    let path = place.path("f");
    let mut file = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(&path).unwrap());
    let mut rng = fastrand::Rng::with_seed(13);
    let mut part = vec![0; 1 << 20];
    for _ in 0..size >> 20 {
        rng.fill(&mut part);
        file.write_all(&part).unwrap();
    }
    file.flush().unwrap();
    drop(file);
    let receiver = Receiver::start(&place, &["--plain"]);
    let mut command = wsferry();
    command.args(["send", "--json", "--plain"]).args(flags).arg(&path).arg(format!("{}/f", receiver.url));
    let sender = Running::start(&mut command);
    let sent = sender.wait_for(|event| event["event"] != "progress" && event["event"] != "started");
    let received = receiver.running.wait_for(|event| event["event"] == "finished");
    assert_eq!(sent["event"], "finished", "{sent}");
    assert_eq!(sent["blake3"], received["blake3"]);
    let same = std::process::Command::new("cmp").arg(&path).arg(place.inbox().join("f")).status().unwrap();
    assert!(same.success());
    let peak = |event: &serde_json::Value| event["peak_memory"].as_f64().unwrap();
    println!("{size} bytes {flags:?}: sender {}, receiver {} bytes at peak", peak(&sent), peak(&received));
    (peak(&sent), peak(&received))
}

#[test]
fn memory_stays_flat_in_fragments_and_in_one_frame() {
    for flags in [&[][..], &["--one-frame"]] {
        let (sender, receiver) = peaks(128 << 20, flags);
        assert!(sender.max(receiver) < f64::from(16 << 20), "{sender} {receiver}");
    }
}

#[test]
#[ignore = "writes 8 GiB, twice"]
fn memory_stays_flat_at_4_gib_of_one_message() {
    for flags in [&[][..], &["--one-frame"]] {
        let (sender, receiver) = peaks(4 << 30, flags);
        assert!(sender.max(receiver) < f64::from(16 << 20), "{sender} {receiver}");
    }
}
