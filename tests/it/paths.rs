//! Paths that end connections soon, carry little, or take small frames alone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::gateway::{Gateway, Limits, TooLarge};
use crate::support::{Place, Receiver, random, send, send_well};

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

/// Connections that live so long on paths of these rates: at most 5% are sent twice.
fn assert_cheap_cuts(cases: &[(Option<u64>, f64, u64)]) {
    for &(rate, life, size) in cases {
        let limits = Limits { rate, life: Some(Duration::from_secs_f64(life)), ..Limits::default() };
        let (resent, connections) = through(limits, size, &[]);
        assert!(connections > 2, "{rate:?}: {connections} connections");
        assert!(resent <= 0.05, "{rate:?}, {life} s: {resent}");
    }
}

#[test]
fn a_cut_costs_what_the_path_held() {
    assert_cheap_cuts(&[(Some(8 * MB), 2.0, 40 * MB), (Some(50 * MB), 0.3, 64 * MB), (None, 0.3, 400 * MB)]);
}

#[test]
#[ignore = "several minutes at the rates of slow paths"]
fn a_cut_costs_what_the_path_held_also_where_that_is_little() {
    assert_cheap_cuts(&[
        (Some(2 * MB), 5.0, 64 << 20),
        (Some(MB), 5.0, 16 << 20),
        (Some(700_000), 5.0, 16 << 20),
        (None, 0.3, 64 << 20),
    ]);
}

#[test]
fn a_connection_that_passes_less_than_a_block_still_makes_progress() {
    for (bytes, most) in [(8 << 20, 0.5), (2 * MB, 0.5), (300_000, 1.0), (100_000, 2.0)] {
        let size = (15 * bytes).min(40 * MB);
        let (resent, connections) = through(Limits { bytes: Some(bytes), ..Limits::default() }, size, &[]);
        assert!(connections as u64 >= size * 4 / 3 / bytes, "{connections}");
        assert!(resent <= most, "{bytes} bytes a connection: {resent}");
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
