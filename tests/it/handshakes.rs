//! Handshakes that are no sender's: web pages, requests without a host, noise.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Place, Receiver, Running, send_well, wsferry};

/// Flags, or headers.
type Words<'a> = &'a [&'a str];

/// What a receiver answers to a handshake with these headers: the status line's number.
fn status(receiver: &Receiver, headers: &[&str]) -> u16 {
    let mut stream = TcpStream::connect(receiver.address()).unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: wsferry.v1\r\n{}\r\n",
        headers.iter().map(|header| format!("{header}\r\n")).collect::<String>()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    std::str::from_utf8(&answer).unwrap().strip_prefix("HTTP/1.1 ").unwrap().parse().unwrap()
}

#[test]
fn web_pages_are_refused_unless_their_origin_is_allowed_and_a_host_is_demanded() {
    let host = "Host: 127.0.0.1:9000";
    let place = Place::new();
    let allowed: &[&str] =
        &["--allow-origin", "https://Example.com", "--allow-origin", "http://localhost:3000"];
    let cases: [(Words, &[(Words, u16)]); 3] = [
        (
            &[],
            &[
                (&[host], 101),
                (&[host, "Origin: http://evil.example"], 403),
                // The page that is served from this very address, and the one whose name was made to lead here.
                (&[host, "Origin: http://127.0.0.1:9000"], 403),
                (&["Host: evil.example:9000", "Origin: http://evil.example:9000"], 403),
                (&[host, "Origin: null"], 403),
                (&[host, "Origin:"], 403),
                (&[host, "oRiGiN: http://evil.example"], 403),
                // Behind a proxy the host may be any name, once.
                (&["Host: files.example"], 101),
                (&["Host: [::1]:9000"], 101),
                (&[], 400),
                (&["Host:"], 400),
                (&["Host: a b"], 400),
                (&["Host: me@example.com"], 400),
                (&[host, host], 400),
                (&[host, "Host: other.example"], 400),
            ],
        ),
        (
            allowed,
            &[
                (&[host], 101),
                (&[host, "Origin: https://example.com"], 101),
                (&[host, "Origin: HTTPS://EXAMPLE.COM:443"], 101),
                (&[host, "Origin: http://localhost:3000"], 101),
                (&[host, "Origin: http://example.com"], 403),
                (&[host, "Origin: https://example.com:8443"], 403),
                (&[host, "Origin: https://example.com.evil.org"], 403),
                (&[host, "Origin: https://sub.example.com"], 403),
                (&[host, "Origin: http://localhost"], 403),
                (&[host, "Origin: null"], 403),
                (&[host, "Origin: https://example.com", "Origin: http://evil.example"], 403),
                (&[host, "Origin: https://example.com http://evil.example"], 403),
                (&["Origin: https://example.com"], 400),
            ],
        ),
        (
            &["--allow-origin", "*"],
            &[
                (&[host, "Origin: http://evil.example"], 101),
                (&[host, "Origin: null"], 101),
                (&["Origin: null"], 400),
            ],
        ),
    ];
    for (flags, requests) in cases {
        let receiver = Receiver::start(&place, flags);
        for (headers, expected) in requests {
            assert_eq!(status(&receiver, headers), *expected, "{flags:?}: {headers:?}");
        }
        send_well(&place.file("f", b"a program's"), &receiver.url, &[]);
    }
}

#[test]
fn a_refused_page_is_named_with_what_to_do_and_an_origin_that_is_none_is_a_usage_error() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    assert_eq!(status(&receiver, &["Host: x", "Origin: https://example.com"]), 403);
    let failed = receiver.running.wait_for(|event| event["event"] == "failed");
    assert!(failed["reason"].as_str().unwrap().contains("https://example.com"), "{failed}");
    receiver.running.signal("-TERM");
    receiver
        .running
        .end()
        .assert_error(3, &["a web page of https://example.com", "--allow-origin https://example.com"]);
    for origin in ["example.com", "null", "https://example.com/", "https://"] {
        let flags = ["receive", "--allow-origin", origin, "--listen", "127.0.0.1:0"];
        let ended = Running::start(wsferry().args(flags)).end();
        assert_eq!(ended.code(), 2, "{ended:?}");
        assert!(ended.errors.contains("--allow-origin"), "{ended:?}");
    }
}
