//! Paths that end connections soon, carry little, or take small frames alone.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::gateway::{Busy, Gateway, Limits, TooLarge};
use crate::support::{PATIENCE, Place, Receiver, Running, random, send, send_well, wsferry};

const MB: u64 = 1_000_000;

/// Sends a file through a gateway with these limits. Gives the part of it that was sent twice, by the sender's word, and
/// the connections that it took.
fn through(limits: Limits, size: u64, flags: &[&str]) -> (f64, usize) {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let gateway = Gateway::start(receiver.address(), limits);
    let bytes = random(size as usize, 71);
    let finished = send_well(&place.file("f", &bytes), &gateway.url(), flags);
    assert!(place.received("f") == bytes, "{limits:?}");
    let resent = finished["resent_bytes"].as_u64().unwrap();
    // What the gateway read is what crossed: nothing is left out of the count, but for what its socket still held.
    let crossed = gateway.read.load(Ordering::Relaxed) * 3 / 4;
    assert!(
        crossed <= size + resent + size / 100 + 200_000,
        "{crossed} bytes crossed, {resent} of them again: {limits:?}"
    );
    let connections = gateway.connections.load(Ordering::Relaxed);
    println!("{limits:?}: {resent} of {size} again, {connections} connections");
    (resent as f64 / size as f64, connections)
}

/// Connections that live so long on paths of these rates: at most this part is sent twice.
fn assert_cheap_cuts(most: f64, cases: &[(Option<u64>, f64, u64)]) {
    for &(rate, life, size) in cases {
        let limits = Limits { rate, life: Some(Duration::from_secs_f64(life)), ..Limits::default() };
        let (resent, connections) = through(limits, size, &[]);
        // A fast machine is done behind the first cut.
        assert!(connections > 1, "{rate:?}: {connections} connections");
        assert!(resent <= most, "{rate:?}, {life} s: {resent}");
    }
}

#[test]
fn a_cut_costs_what_the_path_held() {
    // Twice the aim of 5%: at these rates it is also the machine that is measured, which may be busy.
    let cases = [(Some(8 * MB), 2.0, 40 * MB), (Some(50 * MB), 0.3, 64 * MB), (None, 0.3, 400 * MB)];
    assert_cheap_cuts(0.1, &cases);
}

#[test]
#[ignore = "several minutes at the rates of slow paths"]
fn a_cut_costs_what_the_path_held_also_where_that_is_little() {
    let cases = [(Some(2 * MB), 5.0, 64 << 20), (Some(MB), 5.0, 16 << 20), (Some(700_000), 5.0, 16 << 20)];
    assert_cheap_cuts(0.05, &cases);
}

#[test]
fn a_connection_that_passes_less_than_a_block_still_makes_progress() {
    for bytes in [8 << 20, 2 * MB, 300_000, 100_000] {
        let size = (15 * bytes).min(40 * MB);
        let (_, connections) = through(Limits { bytes: Some(bytes), ..Limits::default() }, size, &[]);
        let needed = size * 4 / 3 / bytes;
        assert!((needed..=3 * needed + 10).contains(&(connections as u64)), "{connections}, {needed} needed");
    }
}

#[test]
fn a_gateway_that_drops_what_is_idle_gets_chunks_that_arrive_in_time() {
    let limits = Limits { rate: Some(200_000), idle: Some(Duration::from_secs(2)), ..Limits::default() };
    let (resent, connections) = through(limits, 1_500_000, &[]);
    assert_eq!(connections, 1);
    assert!(resent <= 0.0, "{resent}");
}

#[test]
fn a_gateway_that_takes_small_frames_alone_gets_them_whatever_it_says() {
    for too_large in [
        TooLarge::Close(1009),
        TooLarge::Close(1008),
        TooLarge::Close(1002),
        TooLarge::Close(1011),
        TooLarge::Reset,
        TooLarge::Truncate,
        TooLarge::Stall,
    ] {
        for limit in [65_535, 32_768, 8192] {
            let limits = Limits { frame: Some((limit, too_large)), ..Limits::default() };
            let (_, connections) = through(limits, 3 * MB, &["--stall-timeout", "1s"]);
            assert!(connections <= 5, "{limits:?}: {connections}");
        }
    }
}

#[test]
fn a_path_that_takes_less_than_the_least_frame_is_told_so_at_once() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    for too_large in [TooLarge::Close(1009), TooLarge::Reset] {
        let limits = Limits { frame: Some((1000, too_large)), ..Limits::default() };
        let gateway = Gateway::start(receiver.address(), limits);
        let ended = send(&place.file("f", &random(100_000, 72)), &gateway.url(), &[]);
        ended.assert_error(1, &["carries no frame of 2048 characters"]);
        assert!(gateway.connections.load(Ordering::Relaxed) <= 8);
    }
}

#[test]
#[ignore = "many times 64 MiB at the rates of real paths, several minutes"]
fn sixty_four_mib_arrive_through_each_kind_of_gateway_without_a_flag() {
    let frame = |limit, too_large| Limits { frame: Some((limit, too_large)), ..Limits::default() };
    let life = |seconds, rate| Limits {
        life: Some(Duration::from_secs_f64(seconds)),
        rate: Some(rate),
        ..Limits::default()
    };
    let cases = [
        frame(32_768, TooLarge::Close(1009)),
        frame(32_768, TooLarge::Close(1008)),
        frame(32_768, TooLarge::Close(1002)),
        frame(65_535, TooLarge::Reset),
        frame(65_535, TooLarge::Truncate),
        frame(65_535, TooLarge::Stall),
        life(0.3, 50 * MB),
        life(2.0, 12 * MB),
        life(5.0, 6 * MB),
        Limits { idle: Some(Duration::from_millis(500)), rate: Some(6 * MB), ..Limits::default() },
        Limits { delay: Some(Duration::from_millis(100)), ..Limits::default() },
        Limits { bytes: Some(8 << 20), ..Limits::default() },
        Limits { bytes: Some(8 << 20), busy: Some((Busy::EachSecond, 1)), ..Limits::default() },
    ];
    let place = Place::new();
    let bytes = random(64 << 20, 75);
    let file = place.file("f", &bytes);
    for limits in cases {
        let inbox = Place::new();
        let receiver = Receiver::start(&inbox, &[]);
        let gateway = Gateway::start(receiver.address(), limits);
        let sending = Running::start(wsferry().arg("send").arg(&file).arg(gateway.url()).arg("--json"));
        let ended = sending.end_within(5 * PATIENCE);
        assert_eq!(ended.code(), 0, "{limits:?}: {ended:?}");
        assert!(inbox.received("f") == bytes, "{limits:?}");
        let (finished, connections) = (ended.event("finished"), gateway.connections.load(Ordering::Relaxed));
        let (resent, seconds) = (&finished["resent_bytes"], &finished["seconds"]);
        println!("{limits:?}: {seconds} s, {resent} bytes again, {connections} connections");
        if limits.life.is_some() || limits.bytes.is_some() {
            assert!(connections > 1, "{limits:?}");
        }
    }
}

#[test]
fn an_answer_that_is_no_handshake_is_said_as_what_it_is() {
    let place = Place::new();
    let file = place.file("f", &random(1000, 73));
    for (exit, answer, words) in [
        (
            1,
            "301 Moved\r\nLocation: wss://elsewhere.example/inbox",
            "this is at wss://elsewhere.example/inbox now",
        ),
        (4, "401 Unauthorized", "wants to know who calls"),
        (4, "403 Forbidden", "does not let this caller in"),
        (1, "429 Too Many Requests\r\nRetry-After: 3", "try again later"),
        (1, "404 Not Found", "is the path right?"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let answering = thread::spawn(move || refuse(listener.accept().unwrap().0, answer));
        send(&file, &url, &[]).assert_error(exit, &["HTTP", words]);
        answering.join().unwrap();
    }
}

#[test]
fn a_gateway_that_is_busy_for_a_while_is_left_alone_for_as_long_as_it_asks() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let target = receiver.address();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    // The first connection is cut in mid-file; then two others are refused; then all is well.
    thread::spawn(move || {
        for number in 0.. {
            let (client, _) = listener.accept().unwrap();
            match number {
                1 => refuse(client, "429 Too Many Requests\r\nRetry-After: 2"),
                2 => refuse(client, "404 Not Found"),
                _ => pass(
                    client,
                    TcpStream::connect(target).unwrap(),
                    if number == 0 { 1 << 20 } else { u64::MAX },
                ),
            }
        }
    });
    let bytes = random(4_000_000, 74);
    let ended = send(&place.file("f", &bytes), &url, &[]);
    assert_eq!(ended.code(), 0, "{ended:?}");
    let waits: Vec<f64> =
        ended.events("reconnecting").iter().map(|event| event["seconds"].as_f64().unwrap()).collect();
    assert!(waits.len() == 3 && waits[0] < 1.0 && waits[1] >= 2.0 && waits[2] < 1.0, "{waits:?}");
    assert!(place.received("f") == bytes);
}

fn refuse(mut client: TcpStream, answer: &str) {
    let mut head = [0; 4096];
    let _ = client.read(&mut head);
    let _ = write!(client, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
}

/// Passes bytes on both ways; towards the receiver so many, then the connection is cut.
fn pass(client: TcpStream, server: TcpStream, most: u64) {
    let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    thread::spawn(move || {
        let _ = std::io::copy(&mut (&client).take(most), &mut &server);
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    });
}
