//! Who holds a name, and for how long: senders whose connection is half dead, strangers in numbers, peers that are slow,
//! and peers that only look alive.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::Message as WsMessage;
use serde_json::json;
use wsferry::protocol::message::frame_of;

use crate::hostile::{self, footprint, frame, offer, offer_as};
use crate::serving::finish;
use crate::support::{PATIENCE, Peer, Place, Receiver, Running, message, random, send_well, wsferry};

/// A path whose first connection passes so many bytes and then nothing, as where a machine or a gateway has gone: the
/// receiver's end stays open and is told nothing. It may hang up on the sender then. Later connections are good.
fn half_open(target: SocketAddr, bytes: u64, hangs_up: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
            let server = TcpStream::connect(target).unwrap();
            let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                // The sender has gone: what the receiver says goes nowhere, until it hangs up itself.
                let _ = io::copy(&mut from, &mut io::sink());
                let _ = to.shutdown(Shutdown::Both);
            });
            thread::spawn(move || {
                let most = if number == 0 { bytes } else { u64::MAX };
                let _ = io::copy(&mut (&client).take(most), &mut &server);
                match number {
                    0 if hangs_up => drop(client.shutdown(Shutdown::Both)),
                    // Held as long as the sender holds it.
                    0 => drop(io::copy(&mut &client, &mut io::sink())),
                    _ => drop(server.shutdown(Shutdown::Both)),
                }
            });
        }
    });
    url
}

fn sender(file: &Path, url: &str, flags: &[&str]) -> Running {
    Running::start(wsferry().arg("send").arg(file).arg(url).arg("--json").args(flags))
}

#[test]
fn after_a_sender_was_killed_behind_a_gateway_that_keeps_its_connection_open_the_same_command_goes_on() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(20_000_000, 1);
    let file = place.file("f", &bytes);
    let url = half_open(receiver.address(), 12_000_000, false);
    let mut killed = sender(&file, &url, &[]);
    killed.wait_for(|event| event["event"] == "progress" && event["acknowledged"].as_u64() > Some(4_000_000));
    killed.kill();
    let started = Instant::now();
    let finished = send_well(&file, &url, &[]);
    // A sign of life is waited for, for 3 s, and no stall of 30 s.
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert!(finished["resumed_at"].as_u64() > Some(0), "{finished}");
    assert!(place.received("f") == bytes);
    assert_eq!(place.listing(), ["f"]);
}

#[test]
fn a_sender_that_reconnects_takes_over_from_what_is_left_of_itself_at_once() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(20_000_000, 2);
    let file = place.file("f", &bytes);
    let url = half_open(receiver.address(), 12_000_000, true);
    let started = Instant::now();
    let ended = sender(&file, &url, &[]).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    // Sooner than a stranger would have been answered, and never refused.
    assert_eq!(ended.events("reconnecting").len(), 1, "{ended:?}");
    assert!(started.elapsed() < Duration::from_millis(2900), "{:?}", started.elapsed());
    let failed = receiver.running.wait_for(|event| event["event"] == "failed");
    assert!(failed["reason"].as_str().unwrap().contains("came back on another connection"), "{failed}");
    assert!(place.received("f") == bytes);
}

#[test]
fn two_hundred_strangers_who_want_a_busy_name_harm_neither_its_holder_nor_others() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let pid = receiver.running.pid();
    let mut holder = Peer::dial(&receiver.url);
    holder.tell(&offer("one", 3));
    holder.hear_type("accept");
    let last = Arc::new(AtomicBool::new(false));
    let was_last = last.clone();
    let answering = thread::spawn(move || {
        // Questions may come late: it answers them as long as anybody may ask.
        while !was_last.load(Ordering::SeqCst) {
            let heard = holder.hear_within(Duration::from_millis(20));
            if let Some(ping) = heard.and_then(|frame| message(&frame)).filter(|said| said["type"] == "ping")
            {
                holder.tell(&json!({"type": "pong", "token": ping["token"]}));
            }
        }
        holder
    });
    let mut strangers: Vec<_> = (0..200).map(|_| Peer::dial(&receiver.url)).collect();
    send_well(&place.file("warm", b"the pool's threads are there"), &receiver.url, &[]);
    let before = footprint(pid).1;
    for stranger in &mut strangers {
        stranger.tell(&offer("one", 3));
    }
    let bytes = random(5_000_000, 3);
    let other = sender(&place.file("other", &bytes), &receiver.url, &[]);
    let mut most = footprint(pid).1;
    for stranger in &mut strangers {
        assert_eq!(stranger.hear_type("reject")["code"], "busy");
        most = most.max(footprint(pid).1);
    }
    assert!(most <= before + 8, "{before} threads became {most}");
    assert_eq!(other.end().code(), 0);
    assert!(place.received("other") == bytes);
    // The holder was asked, and is where it was.
    strangers[0].tell(&offer_as(1, "one", 3));
    assert_eq!(strangers[0].hear_type("reject")["code"], "busy");
    last.store(true, Ordering::SeqCst);
    finish(&mut answering.join().unwrap());
    assert_eq!(place.received("one"), b"abc");
}

#[test]
fn a_receiver_that_says_the_same_again_and_again_keeps_no_sender() {
    let place = Place::new();
    let file = place.file("f", &random(100_000, 4));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let sender = sender(&file, &url, &["--stall-timeout", "1s", "--retry-for", "0s"]);
    let mut peer = Peer::receive(&listener, &json!({"frame_limit": 32768, "window": 1 << 20}));
    peer.hear_type("offer");
    peer.tell(&json!({"type": "accept", "transfer": 0}));
    let ack = frame_of(&json!({"type": "ack", "sequence": 0}).to_string());
    let started = Instant::now();
    while peer.socket.send(WsMessage::text(ack.clone())).is_ok() {
        assert!(started.elapsed() < PATIENCE, "it is kept for ever");
        // Waits for nothing: far more often than once in a stall timeout, and without filling the connection.
        thread::sleep(Duration::from_millis(20));
    }
    sender.end().assert_error(3, &["was silent for 1 s"]);
}

#[test]
fn a_frame_that_comes_byte_by_byte_for_longer_than_the_stall_timeout_is_no_stall() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--stall-timeout", "1s"]);
    let bytes = random(900, 5);
    let mut peer = Peer::dial(&receiver.url);
    peer.tell(&offer("f", bytes.len() as u64));
    peer.hear_type("accept");
    let chunk = frame(0, 0, &bytes);
    // A text frame whose mask is 0.
    let mut wire = vec![0x81, 0xfe];
    wire.extend((chunk.len() as u16).to_be_bytes());
    wire.extend([0; 4]);
    wire.extend(chunk.as_bytes());
    let stream = peer.socket.get_mut();
    stream.set_nodelay(true).unwrap();
    let started = Instant::now();
    for byte in wire {
        stream.write_all(&[byte]).unwrap();
        // How slowly it comes is what is tried.
        thread::sleep(Duration::from_millis(2));
    }
    assert!(started.elapsed() > Duration::from_secs(2), "it has to take longer than the timeout");
    peer.tell(&hostile::finish(0, &bytes));
    peer.hear_type("receipt");
    assert!(place.received("f") == bytes);
}
