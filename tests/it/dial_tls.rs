//! `wss://`: what is trusted and what is not, what is said of it, and that none of it is tried again.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crate::certificates::{Authority, Front, self_signed};
use crate::dial::{copy_both, head};
use crate::proxy::{Plan, Proxy};
use crate::support::{Ended, Place, Receiver, Running, random, send, send_well, wsferry};

const NAMES: &[&str] = &["localhost", "127.0.0.1"];

/// A file beside the inbox that holds a text; its path.
fn written(place: &Place, name: &str, text: &str) -> String {
    place.file(name, text.as_bytes()).to_str().unwrap().to_owned()
}

#[test]
fn a_file_goes_over_tls_to_a_server_that_is_trusted() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    let authority = Authority::new("An Authority");
    let ca = written(&place, "ca.pem", &authority.issued.pem);
    let front = Front::start(receiver.address(), authority.issue(NAMES).server(None));
    let url = front.url();
    let bytes = random(5_000_000, 1);

    send_well(&place.file("a", &bytes), &url, &["--ca-cert", &ca]);
    assert!(place.received("a") == bytes);
    let twin = url.replace("wss:", "https:");
    let finished = send(&place.file("b", &bytes), &twin, &["--ca-cert", &ca]);
    assert_eq!(finished.code(), 0, "{finished:?}");
    assert_eq!(finished.event("started")["peer"], format!("{url}/"));
    // By its address, of which no name is asked for.
    let address = format!("wss://{}", front.address());
    send_well(&place.file("c", &bytes), &address, &["--ca-cert", &ca]);
    // Without the protocol, too.
    let ended = send(&place.file("e", &bytes), &format!("{url}/e"), &["--plain", "--ca-cert", &ca]);
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(place.received("e") == bytes);
}

#[test]
fn a_certificate_that_is_not_trusted_is_told_with_what_is_wrong_and_what_helps() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let file = place.file("f", b"x");
    let (ours, others) = (Authority::new("An Authority"), Authority::new("Some Other"));
    let ca = written(&place, "ca.pem", &ours.issued.pem);
    let trusting: &[&str] = &["--ca-cert", &ca];
    let cases = [
        (
            others.issue(NAMES),
            trusting,
            &[
                "CN=the server's own",
                "signed by CN=Some Other",
                "not trusted here",
                "--ca-cert",
                "--insecure",
            ][..],
        ),
        (self_signed(NAMES), trusting, &["CN=made at home", "is self-signed", "--ca-cert"]),
        (
            ours.issue_for(NAMES, 2019..2020),
            trusting,
            &["CN=the server's own", "expired at 2020-01-01T00:00:00Z"],
        ),
        (ours.issue_for(NAMES, 2090..2091), trusting, &["is valid from 2090-01-01T00:00:00Z on", "clock"]),
        (
            ours.issue(&["a.example", "10.1.2.3"]),
            trusting,
            &["is for a.example, 10.1.2.3, and not for localhost", "--server-name"],
        ),
    ];
    for (certificate, flags, words) in cases {
        let front = Front::start(receiver.address(), certificate.server(None));
        send(&file, &front.url(), flags).assert_error(1, &[&["no TLS with localhost:"], words].concat());
        assert_eq!(front.count(), 1, "it is not tried again");
    }
    assert!(!place.inbox().join("f").exists());
}

#[test]
fn what_is_wrong_with_a_certificate_that_was_named_is_told_and_nothing_that_was_done_already() {
    let place = Place::new();
    let file = place.file("f", b"x");
    let receiver = Receiver::start(&place, &[]);
    let (good, nameless, another) = (self_signed(NAMES), self_signed(&[]), self_signed(NAMES));
    let signed = Authority::new("An Authority");
    let nameless_too = signed.issue(&[]);
    let elsewhere = &["--server-name", "other.example"][..];
    let no_names = &["names nobody: it has no subjectAltName"][..];
    for (shown, trusted, flags, words) in [
        (&nameless, &nameless, &[][..], no_names),
        (&nameless_too, &signed.issued, &[], no_names),
        (
            &good,
            &good,
            elsewhere,
            &["is for localhost, 127.0.0.1, and not for other.example", "--server-name"],
        ),
        (&good, &another, &[], &["CN=made at home", "is self-signed", "the file of --ca-cert has another"]),
        (&nameless_too, &another, &[], &["signed by CN=An Authority", "the file of --ca-cert has"]),
    ] {
        let ca = written(&place, "ca.pem", &trusted.pem);
        let front = Front::start(receiver.address(), shown.server(None));
        let ended = send(&file, &front.url(), &[&["--ca-cert", &ca], flags].concat());
        ended.assert_error(1, &[&["no TLS with localhost:"], words].concat());
        assert!(!ended.errors.contains("name the certificate"), "that was done: {ended:?}");
    }
}

#[test]
fn what_this_machine_trusts_is_what_its_environment_says() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let (ours, others) = (Authority::new("An Authority"), Authority::new("Some Other"));
    let trusted = written(&place, "ca.pem", &ours.issued.pem);
    let untrusted = written(&place, "other.pem", &others.issued.pem);
    let empty = written(&place, "empty.pem", "");
    let send_by = |front: &Front, trusted: &str| {
        let mut command = wsferry();
        command.arg("send").arg(place.file("f", b"x")).arg(front.url()).env("SSL_CERT_FILE", trusted);
        Running::start(&mut command).end()
    };
    let front = Front::start(receiver.address(), ours.issue(NAMES).server(None));
    send_by(&front, &untrusted)
        .assert_error(1, &["signed by CN=An Authority", "not trusted here", "--ca-cert"]);
    send_by(&front, &empty).assert_error(1, &["no certificates to trust", "--ca-cert"]);
    let ended = send_by(&front, &trusted);
    assert_eq!(ended.code(), 0, "{ended:?}");
    let front = Front::start(receiver.address(), self_signed(NAMES).server(None));
    send_by(&front, &trusted).assert_error(1, &["CN=made at home", "is self-signed", "--insecure"]);
}

#[test]
fn what_is_not_trusted_is_taken_where_it_is_told_to_be() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(100_000, 2);
    let at_home = self_signed(NAMES);
    let front = Front::start(receiver.address(), at_home.server(None));
    // A warning, and no more than that.
    let mut command = wsferry();
    command.arg("send").arg(place.file("a", &bytes)).arg(front.url()).arg("-k");
    let ended = Running::start(&mut command).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(ended.errors.contains("warning: --insecure takes any certificate"), "{ended:?}");
    // The very certificate, though it is an authority's.
    let pinned = written(&place, "home.pem", &at_home.pem);
    send_well(&place.file("b", &bytes), &front.url(), &["--ca-cert", &pinned]);
    // Which is trusted for its names alone, and in its time alone.
    let elsewhere = self_signed(&["a.example"]);
    let pinned = written(&place, "elsewhere.pem", &elsewhere.pem);
    let front = Front::start(receiver.address(), elsewhere.server(None));
    let file = place.file("c", &bytes);
    let flags = ["--ca-cert", &pinned];
    assert_eq!(send(&file, &front.url(), &flags).code(), 1);
    send_well(&file, &front.url(), &[&flags[..], &["--server-name", "a.example"]].concat());
    assert!(place.received("a") == bytes && place.received("b") == bytes && place.received("c") == bytes);
}

#[test]
fn a_server_that_wants_to_know_the_client_is_shown_a_certificate_or_told_of() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let (authority, others) = (Authority::new("An Authority"), Authority::new("Some Other"));
    let ca = written(&place, "ca.pem", &authority.issued.pem);
    let front = Front::start(receiver.address(), authority.issue(NAMES).server(Some(&authority)));
    let file = place.file("f", &random(3_000_000, 3));
    let trusting = ["--ca-cert", &ca];
    let shown = |authority: &Authority, name: &str| {
        let client = authority.issue(&["client.example"]);
        let cert = written(&place, &format!("{name}.pem"), &client.pem);
        [cert, written(&place, &format!("{name}.key"), &client.key_pem)]
    };
    send(&file, &front.url(), &trusting)
        .assert_error(1, &["wants a client certificate", "--cert FILE --key FILE"]);
    let [cert, key] = shown(&others, "other");
    send(&file, &front.url(), &[&trusting[..], &["--cert", &cert, "--key", &key]].concat())
        .assert_error(1, &["wants a client certificate"]);
    assert_eq!(front.count(), 2, "neither is tried again");
    let [cert, own_key] = shown(&authority, "own");
    send_well(&file, &front.url(), &[&trusting[..], &["--cert", &cert, "--key", &own_key]].concat());
    // Files that make no sense, before anything is dialled.
    for (flags, words) in [
        (["--cert", &cert, "--key", &key], "do not go together"),
        (["--cert", &ca, "--key", &ca], "no private key"),
        (["--cert", &key, "--key", &key], "no certificate"),
    ] {
        send(&file, &front.url(), &[&trusting[..], &flags].concat()).assert_error(2, &["--cert", words]);
    }
    assert_eq!(front.count(), 3);
}

/// What a sender says of a server that reads what comes, answers this, and hangs up.
fn answered(scheme: &str, answer: &'static [u8]) -> Ended {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        let _ = stream.write_all(answer);
    });
    let ended = send(&place.file("f", b"x"), &url, &["--insecure"]);
    answering.join().unwrap();
    ended
}

#[test]
fn other_versions_other_ports_and_other_protocols_are_told_apart() {
    let alert = |number| -> &'static [u8] { Box::leak(Box::new([0x15, 3, 2, 0, 2, 2, number])) };
    answered("wss", alert(70)).assert_error(1, &["no TLS with 127.0.0.1:", "neither TLS 1.2 nor TLS 1.3"]);
    answered("wss", alert(112)).assert_error(1, &["no server of this name", "--server-name"]);
    answered("wss", alert(40)).assert_error(1, &["handshake failure"]);
    for plain in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.9\r\n"] {
        answered("wss", plain).assert_error(1, &["no TLS", "dial it with ws://"]);
    }
    // The reverse: an alert, and the words of three servers.
    for answer in [
        alert(10),
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 60\r\n\r\n<center>The plain HTTP request was sent to HTTPS port</center>",
        b"HTTP/1.1 400 Bad Request\r\n\r\nReason: You're speaking plain HTTP to an SSL-enabled server port.",
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
    ] {
        answered("ws", answer).assert_error(1, &["speaks TLS on this port", "wss://"]);
    }
    // By a header (RFC 2817, 4.2), which any status of refusal may have.
    answered(
        "ws",
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.0, HTTP/1.1\r\nConnection: Upgrade\r\n\r\n",
    )
    .assert_error(1, &["speaks TLS on this port", "wss://"]);
    answered("ws", b"HTTP/1.1 400 Bad Request\r\n\r\nno")
        .assert_error(1, &["HTTP 400", "if that port speaks TLS, dial it with wss://"]);
}

#[test]
fn a_certificate_that_expires_in_mid_file_is_not_tried_for_ten_minutes() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let authority = Authority::new("An Authority");
    let ca = written(&place, "ca.pem", &authority.issued.pem);
    let (good, expired) =
        (authority.issue(NAMES).server(None), authority.issue_for(NAMES, 2019..2020).server(None));
    let cut = Proxy::start(receiver.address(), |_| {
        (Plan { cut_after: Some(5_000_000), ..Plan::default() }, Plan::default())
    });
    let front = Front::start_with(
        cut.address(),
        move |number| if number == 0 { good.clone() } else { expired.clone() },
    );
    let file = place.file("f", &random(20_000_000, 4));
    let ended = send(&file, &front.url(), &["--ca-cert", &ca]);
    // As at the first connection: no other try would cure it.
    ended.assert_error(1, &["no TLS with localhost:", "CN=the server's own", "expired at 2020-01-01"]);
    assert!(!ended.errors.contains("gave up"), "{ended:?}");
    let exit = &ended.event("failed")["exit_code"];
    assert_eq!(exit, 1, "{ended:?}");
    assert_eq!((front.count(), ended.events("reconnecting").len()), (2, 1), "{ended:?}");

    // What came is there still: with a certificate that is a good one, the same command goes on with it.
    let front = Front::start(receiver.address(), authority.issue(NAMES).server(None));
    let finished = send_well(&file, &front.url(), &["--ca-cert", &ca]);
    assert!(finished["resumed_at"].as_u64() >= Some(3 << 20), "{finished}");
}

#[test]
fn a_caller_who_is_not_known_any_more_in_mid_file_is_told_so_as_at_the_first_connection() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let target = receiver.address();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let cut =
        Proxy::start(target, |_| (Plan { cut_after: Some(5_000_000), ..Plan::default() }, Plan::default()));
    let behind = cut.address();
    thread::spawn(move || {
        let (first, _) = listener.accept().unwrap();
        copy_both(&first, &TcpStream::connect(behind).unwrap());
        let (mut second, _) = listener.accept().unwrap();
        head(&mut second);
        let _ = second.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    });
    let ended = send(&place.file("f", &random(20_000_000, 5)), &url, &[]);
    ended.assert_error(4, &["HTTP 401", "wants to know who calls", "--token"]);
    assert!(!ended.errors.contains("gave up"), "{ended:?}");
}
