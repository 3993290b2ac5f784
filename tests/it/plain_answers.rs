//! Servers that answer `send --plain` in every way there is.

use std::io::Read;
use std::net::TcpListener;
use std::thread;

use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::protocol::frame::Frame;
use async_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use async_tungstenite::tungstenite::{self, Message};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::plain::{config, send_plain};
use crate::support::{Ended, Place, random};

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
        while socket.read().is_ok() {}
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
