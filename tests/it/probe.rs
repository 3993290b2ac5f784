//! `wsferry probe` through gateways with the limits of real ones.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use futures_rustls::rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use crate::certificates::{Authority, Front, self_signed};
use crate::dial::{copy_both, head};
use crate::dial_proxy::Way;
use crate::gateway::{Gateway, Limits, TooLarge};
use crate::support::{Ended, Place, Receiver, Running, wsferry};

fn probe(url: &str, flags: &[&str]) -> Ended {
    Running::start(wsferry().args(["probe", "--json", url]).args(flags)).end()
}

/// What a probe of the path through a gateway with these limits says.
fn probed(limits: Limits, flags: &[&str]) -> Value {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let gateway = Gateway::start(receiver.address(), limits);
    let ended = probe(&gateway.url(), flags);
    assert_eq!(ended.code(), 0, "{limits:?}: {ended:?}");
    assert!(place.listing().is_empty(), "a probe leaves nothing: {:?}", place.listing());
    ended.events("probed").pop().expect("it tells what it found").clone()
}

#[test]
fn a_path_without_limits_carries_the_largest_frame_text_and_binary() {
    let found = probed(Limits::default(), &[]);
    assert_eq!(found["largest_frame"], 4_194_352, "{found}");
    assert_eq!((&found["text"], &found["binary"]), (&json!(true), &json!(true)), "{found}");
    assert_eq!((&found["refused_frame"], &found["flags"]), (&Value::Null, &json!([])), "{found}");
    let (round_trip, rate) = (&found["round_trip_seconds"], &found["bytes_per_second"]);
    assert!(round_trip.as_f64().unwrap() < 1.0 && rate.as_f64().unwrap() > 1e6, "{found}");
    assert!(found["program"].as_str().unwrap().starts_with("wsferry "), "{found}");
}

#[test]
fn the_largest_frame_is_found_whatever_becomes_of_larger_ones() {
    for (too_large, expected) in [
        (TooLarge::Close(1009), json!({ "kind": "closed", "code": 1009 })),
        (TooLarge::Close(1008), json!({ "kind": "closed", "code": 1008 })),
        (TooLarge::Close(1002), json!({ "kind": "closed", "code": 1002 })),
        (TooLarge::Reset, json!({ "kind": "lost" })),
        (TooLarge::Truncate, json!({ "kind": "damaged" })),
        (TooLarge::Stall, json!({ "kind": "stalled" })),
    ] {
        let least = if too_large == TooLarge::Close(1002) { 32_768 } else { 8192 };
        for limit in [least, 65_535] {
            let found = probed(
                Limits { frame: Some((limit, too_large)), ..Limits::default() },
                &["--patience", "300ms"],
            );
            let largest = found["largest_frame"].as_u64().unwrap() as usize;
            assert!(
                largest <= limit && largest >= limit - limit / 128 - 16,
                "{limit} {too_large:?}: {found}"
            );
            assert!(found["refused_frame"].as_u64().unwrap() as usize > limit, "{found}");
            assert_eq!(found["refused"], expected, "{limit}: {found}");
            assert_eq!(found["flags"], json!([format!("--frame-limit {largest}")]), "{found}");
        }
    }
}

#[test]
fn the_lifetime_of_connections_and_an_idle_limit_are_told_if_they_show_while_it_watches() {
    let life = Limits { life: Some(Duration::from_millis(1500)), ..Limits::default() };
    let found = probed(life, &["--for", "5s"]);
    let lived = found["in_use"]["seconds"].as_f64().unwrap();
    assert!((0.5..4.0).contains(&lived) && !found["in_use"]["ended"].is_null(), "{found}");

    let idle = Limits { idle: Some(Duration::from_secs(1)), ..Limits::default() };
    let found = probed(idle, &["--for", "3s"]);
    let lived = found["idle"]["seconds"].as_f64().unwrap();
    assert!((0.5..2.9).contains(&lived) && !found["idle"]["ended"].is_null(), "{found}");
}

#[test]
fn what_a_connection_carries_before_it_is_cut_is_told_from_how_long_it_lives() {
    const MOST: u64 = 8 << 20;
    let found = probed(Limits { bytes: Some(MOST), ..Limits::default() }, &[]);
    assert_eq!(found["cut"]["limit"], "characters", "{found}");
    let carried = found["cut"]["characters"].as_u64().unwrap();
    assert!((MOST / 8 * 7..=MOST).contains(&carried), "{found}");

    let life = Limits { life: Some(Duration::from_millis(700)), ..Limits::default() };
    let found = probed(life, &[]);
    assert_eq!(found["cut"]["limit"], "age", "{found}");
    assert!((0.3..1.0).contains(&found["cut"]["seconds"].as_f64().unwrap()), "{found}");

    assert_eq!(probed(Limits::default(), &[])["cut"], Value::Null);
}

#[test]
fn a_path_that_carries_nothing_and_a_port_where_nobody_listens_are_told_apart() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let limits = Limits { frame: Some((1000, TooLarge::Reset)), ..Limits::default() };
    let gateway = Gateway::start(receiver.address(), limits);
    let ended = probe(&gateway.url(), &[]);
    assert_eq!((ended.code(), &ended.events("probed")[0]["largest_frame"]), (1, &json!(0)), "{ended:?}");

    let begun = Instant::now();
    let ended = probe("ws://127.0.0.1:1", &[]);
    ended.assert_error(1, &["cannot connect to 127.0.0.1:1"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "nothing is tried again");
}

/// A gateway that puts headers of its own into the handshake's answer; its address.
fn naming(target: SocketAddr, headers: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let (mut server, headers) = (TcpStream::connect(target).unwrap(), headers.clone());
            thread::spawn(move || {
                server.write_all(head(&mut client).as_bytes()).unwrap();
                let answer = head(&mut server);
                let answer = answer.strip_suffix("\r\n").unwrap().as_bytes();
                client.write_all(&[answer, &headers, b"\r\n"].concat()).unwrap();
                copy_both(&client, &server);
            });
        }
    });
    address
}

#[test]
fn a_path_without_anything_on_it_is_told_to_have_nothing() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let found = probe(&receiver.url, &[]).event("probed");
    for field in ["proxy", "tls", "server", "via"] {
        assert_eq!(found.get(field), Some(&Value::Null), "{field}: {found}");
    }
}

#[test]
fn the_proxy_the_version_of_tls_and_what_gateways_say_of_themselves_are_told() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let authority = Authority::new("An Authority");
    let ca = place.file("ca.pem", authority.issued.pem.as_bytes());
    let ca = ["--ca-cert", ca.to_str().unwrap()];
    let names = &["localhost", "127.0.0.1"];
    let headers = b"Server: nginx/1.22.1\r\nVia: 1.1 first\r\nVia: 1.1 second\r\n".to_vec();
    for (versions, expected) in [(&[&TLS13], "TLS 1.3"), (&[&TLS12], "TLS 1.2")] {
        let certificate = authority.issue(names).server_of(versions, None);
        let front = Front::start(naming(receiver.address(), headers.clone()), certificate);
        // "me:SECRET"
        let way = Way::http(front.address(), Some("bWU6U0VDUkVU"));
        let proxy = way.url("http").replace("//", "//me:SECRET@");
        let ended = probe(&front.url(), &[&ca[..], &["--proxy", &proxy]].concat());
        assert_eq!(ended.code(), 0, "{ended:?}");
        assert!(!format!("{ended:?}").contains("SECRET"), "{ended:?}");
        let found = ended.event("probed");
        assert_eq!(found["proxy"], json!(way.url("http")), "{found}");
        assert_eq!(found["tls"]["version"], json!(expected), "{found}");
        assert_eq!(found["tls"]["alpn"], json!("http/1.1"), "{found}");
        let cipher = found["tls"]["cipher"].as_str().unwrap();
        let is_of_13 = cipher.starts_with("TLS_AES_") || cipher.starts_with("TLS_CHACHA20_");
        assert_eq!(is_of_13, expected == "TLS 1.3", "{found}");
        assert!(cipher.starts_with("TLS_"), "{found}");
        assert_eq!(found["server"], json!("nginx/1.22.1"), "{found}");
        assert_eq!(found["via"], json!("1.1 first, 1.1 second"), "{found}");

        let mut command = wsferry();
        command.args(["probe", &front.url(), "--proxy", &proxy]).args(ca);
        let said = Running::start(&mut command).end().lines.join("\n");
        for line in [
            format!("proxy          {}", way.url("http")),
            format!("TLS            {expected}, {cipher}, http/1.1 by ALPN"),
            "answered by    nginx/1.22.1".to_owned(),
            "via            1.1 first, 1.1 second".to_owned(),
        ] {
            assert!(said.lines().any(|told| told == line), "{line:?} is missing: {said}");
        }
    }
}

#[test]
fn what_a_gateway_says_of_itself_moves_no_cursor_and_fills_no_screen() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let long = "x".repeat(4000);
    let headers = [b"Server: a\xff\xe2\x80\xae".as_slice(), long.as_bytes(), b"\r\n"].concat();
    let url = format!("ws://{}", naming(receiver.address(), headers));
    let found = probe(&url, &[]).event("probed");
    let server = found["server"].as_str().unwrap();
    assert!(server.starts_with("a\u{fffd}\u{fffd}x") && server.chars().count() < 1000, "{server}");
}

#[test]
fn a_probe_that_is_refused_says_which_flag_helps() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let front = Front::start(receiver.address(), self_signed(&["localhost"]).server(None));
    probe(&front.url(), &[]).assert_error(1, &["is self-signed", "--ca-cert"]);
}

#[test]
fn a_long_way_and_a_gateway_that_is_busy_are_named() {
    let found = probed(Limits { delay: Some(Duration::from_millis(100)), ..Limits::default() }, &[]);
    let round_trip = found["round_trip_seconds"].as_f64().unwrap();
    assert!((0.2..0.4).contains(&round_trip), "{found}");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let answering = std::thread::spawn(move || crate::gateway::send_away(listener.accept().unwrap().0, 7));
    probe(&url, &[]).assert_error(1, &["HTTP 429", "try again later"]);
    answering.join().unwrap();
}
