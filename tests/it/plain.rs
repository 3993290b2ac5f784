//! Without the protocol: a whole file as one Base64 text message, which comes back.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::handshake::HandshakeError;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{self, Message, WebSocket};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::support::{Ended, PATIENCE, Place, Receiver, Running, random, send, send_well, wsferry};

/// How long a side waits for the other to hang up.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// No limits: what the library would do in ten lines.
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(None).max_frame_size(None)
}

/// A client that asks for no subprotocol.
pub fn dial(url: &str) -> WebSocket<TcpStream> {
    let address = url.strip_prefix("ws://").unwrap().split('/').next().unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    tungstenite::client::client_with_config(url, stream, Some(config())).unwrap().0
}

/// A frame as a client sends it.
pub fn masked(is_final: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
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

pub fn send_plain(file: &std::path::Path, url: &str, flags: &[&str]) -> Ended {
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
    let started = Instant::now();
    for target in ["/..", "/a%2fb", "/%00", "/.wsferry"] {
        let refused = send_plain(&file, &format!("{}{target}", receiver.url), &[]);
        refused.assert_error(4, &["does not want it", "1008", "name is not allowed"]);
    }
    assert!(started.elapsed() < 4 * CLOSE_TIMEOUT, "neither waits for the other to hang up");
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
    let ended = send_plain(&file, &receiver.url, &[]);
    ended.assert_error(1, &["HTTP 426", "start the receiver with --plain"]);
    assert!(!ended.errors.contains("--no-subprotocol"), "{ended:?}");
    // The other way round: a server that knows no wsferry.v1.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || drop(tungstenite::accept(listener.accept().unwrap().0)));
    send(&file, &url, &[]).assert_error(1, &["not wsferry.v1"]);
    server.join().unwrap();
}

#[test]
fn directories_and_several_files_under_one_name_are_refused_before_anything_is_dialled() {
    let place = Place::new();
    let (file, other) = (place.file("f", b"f"), place.file("other", b"other"));
    let receiver = Receiver::start(&place, &["--plain"]);
    let send_two = |url: &str| {
        let mut command = wsferry();
        command.args(["send", "--plain"]).args([&file, &other]).arg(url);
        Running::start(&mut command).end()
    };
    send_plain(&place.path(""), &receiver.url, &[])
        .assert_error(2, &["is a directory", "--plain sends files"]);
    let named = format!("{}/p3.jpg?x", receiver.url);
    send_two(&named).assert_error(2, &["p3.jpg is one name", "--plain", "one at a time"]);
    assert_eq!(place.listing(), [""; 0]);
    // Without one they have names of their own, or are numbered.
    assert_eq!(send_two(&receiver.url).code(), 0);
    assert_eq!(place.listing().len(), 2);
}

#[test]
fn bad_base64_is_told_with_its_place_and_leaves_nothing() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    let good = STANDARD.encode(random(30_000, 4));
    for (at, character) in [(0, "!"), (1, "-"), (17_000, "\u{e9}"), (39_999, "\0"), (5000, "=")] {
        let mut text = good.clone();
        text.replace_range(at..at + 1, character);
        for fragment in [1000, 100_000] {
            let mut socket = dial(&format!("{}/bad", receiver.url));
            let mut opcode = 1;
            for part in text.as_bytes().chunks(fragment) {
                // The receiver may have closed by now.
                let _ = socket.get_mut().write_all(&masked(false, std::mem::take(&mut opcode), part));
            }
            let (code, reason) = closed(&mut socket);
            drop(socket);
            assert_eq!(code, 1007, "{reason}");
            assert!(reason.contains(&format!("at offset {at} ")), "{at}: {reason}");
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
    drop(socket);
    assert_eq!(receiver.running.end().code(), 1);
}

#[test]
fn with_once_a_file_that_was_cut_may_come_again_with_or_without_a_name() {
    for target in ["", "/f"] {
        let place = Place::new();
        let receiver = Receiver::start(&place, &["--plain", "--once"]);
        let mut socket = dial(&format!("{}{target}", receiver.url));
        let text = STANDARD.encode(random(300_000, 7));
        socket.get_mut().write_all(&masked(true, 1, text.as_bytes())[..200_000]).unwrap();
        drop(socket);
        receiver.running.wait_for(|event| event["event"] == "failed");
        let file = place.file("f", &random(300_000, 7));
        assert_eq!(send_plain(&file, &format!("{}{target}", receiver.url), &[]).code(), 0);
        assert_eq!(receiver.running.end().code(), 0, "{target}");
    }
}

#[test]
fn on_sighup_what_comes_is_received_to_its_end_and_nothing_else_is() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    let (mut idle, mut busy) = (dial(&receiver.url), dial(&format!("{}/f", receiver.url)));
    let bytes = random(300_000, 8);
    let text = STANDARD.encode(&bytes);
    let frame = masked(true, 1, text.as_bytes());
    busy.get_mut().write_all(&frame[..200_000]).unwrap();
    receiver.running.wait_for(|event| event["event"] == "started");
    receiver.running.signal("-HUP");
    assert_eq!(closed(&mut idle).0, 1001);
    busy.get_mut().write_all(&frame[200_000..]).unwrap();
    assert_eq!(busy.read().unwrap(), Message::text(text));
    // Nobody tells that more is to come.
    assert_eq!(closed(&mut busy).0, 1001);
    drop((idle, busy));
    let ended = receiver.running.end();
    assert_eq!((ended.code(), ended.errors.as_str()), (3, ""), "{ended:?}");
    assert!(place.received("f") == bytes);
    assert_eq!(place.listing(), ["f"]);
}

#[test]
fn web_pages_send_nothing_this_way_either_unless_their_origin_is_allowed() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain", "--allow-origin", "http://localhost:3000"]);
    let dialled = |origin: &str| {
        let stream = TcpStream::connect(receiver.address()).unwrap();
        let mut request = receiver.url.as_str().into_client_request().unwrap();
        request.headers_mut().insert("Origin", origin.parse().unwrap());
        tungstenite::client::client_with_config(request, stream, Some(config())).map_err(Box::new)
    };
    match *dialled("http://evil.example").unwrap_err() {
        HandshakeError::Failure(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), 403),
        other => panic!("{other}"),
    }
    let told = receiver.running.wait_for(|event| event["event"] == "failed");
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("a web page of http://evil.example"), "{reason}");
    let (mut socket, _) = dialled("http://localhost:3000").unwrap();
    socket.send(Message::text("QUJD")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("QUJD"));
    assert_eq!(place.received("received-0001.bin"), b"ABC");
}

#[test]
fn a_name_that_is_being_written_is_told_both_ways_and_free_behind_it() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain", "--overwrite"]);
    let url = format!("{}/f", receiver.url);
    let bytes = random(300_000, 9);
    let text = STANDARD.encode(&bytes);
    let frame = masked(true, 1, text.as_bytes());
    let mut first = dial(&url);
    first.get_mut().write_all(&frame[..200_000]).unwrap();
    receiver.running.wait_for(|event| event["event"] == "started");
    let other = place.file("f", b"another");
    send_plain(&other, &url, &[]).assert_error(4, &["1008", "another transfer is writing that name"]);
    send(&other, &receiver.url, &["--retry-for", "0s"]).assert_error(4, &["another transfer is writing f"]);
    first.get_mut().write_all(&frame[200_000..]).unwrap();
    assert_eq!(first.read().unwrap(), Message::text(text));
    assert!(place.received("f") == bytes);
    assert_eq!(send_plain(&other, &url, &[]).code(), 0);
    send_well(&place.file("f", b"once more"), &receiver.url, &[]);
    assert_eq!((place.received("f"), place.listing()), (b"once more".to_vec(), vec!["f".to_owned()]));
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
