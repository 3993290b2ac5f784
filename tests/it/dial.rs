//! Dialling: who calls, where to, what is remembered, what is said, and what never is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;

use serde_json::json;

use crate::support::{Ended, Peer, Place, Receiver, Running, random, send, send_well, wsferry};

/// Reads up to the end of a head, or what is no head as far as its first byte.
pub fn head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.first().is_none_or(u8::is_ascii_uppercase) {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Copies both ways until either ends.
pub fn copy_both(client: &TcpStream, server: &TcpStream) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::copy(&mut { client }, &mut { server });
            let _ = server.shutdown(std::net::Shutdown::Both);
        });
        let _ = std::io::copy(&mut { server }, &mut { client });
        let _ = client.shutdown(std::net::Shutdown::Both);
    });
}

/// A server that answers each request with this, and tells what the heads were.
pub fn answering(answer: &'static str) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, heads) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            if tell.send(head(&mut stream)).is_err() {
                return;
            }
            let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
        }
    });
    (address, heads)
}

/// The values of a header.
pub fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

#[test]
fn who_calls_is_said_by_flag_file_environment_or_url() {
    let place = Place::new();
    let file = place.file("f", b"x");
    let token = place.file("token", b"from-file\n");
    let headers = place.file("headers", b"Authorization: Basic b3duOm93bg==\n\nX-Key: one\n");
    let (token, headers) = (token.to_str().unwrap(), format!("@{}", headers.display()));
    let (address, heads) = answering("401 Unauthorized");
    let plain = format!("ws://{address}/a?b=c");
    let with_user = format!("ws://me:pass%40word@{address}/a?b=c");
    let cases: [(&str, &[&str], Option<&str>); 9] = [
        (&plain, &[], None),
        (&plain, &["--token", "abc"], Some("Bearer abc")),
        (&plain, &["--token-file", token], Some("Bearer from-file")),
        (&plain, &["-u", "me:pass:word"], Some("Basic bWU6cGFzczp3b3Jk")),
        (&with_user, &[], Some("Basic bWU6cGFzc0B3b3Jk")),
        (&plain, &["-H", "Authorization: Own thing"], Some("Own thing")),
        (&plain, &["-H", &headers], Some("Basic b3duOm93bg==")),
        (&plain, &["--plain", "--token", "abc"], Some("Bearer abc")),
        (&plain, &["-H", "Host: files.example", "-H", "X-Key: one"], None),
    ];
    for (url, flags, expected) in cases {
        let words = match expected {
            None => "wants to know who calls; say it with --token-file FILE",
            Some(_) => "does not take who it was told; is that right in --token-file",
        };
        send(&file, url, flags).assert_error(4, &["HTTP 401", words]);
        let head = heads.recv().unwrap();
        assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
        assert_eq!(values(&head, "authorization"), Vec::from_iter(expected), "{flags:?}: {head}");
        let host = if flags.contains(&"Host: files.example") {
            "files.example".to_owned()
        } else {
            address.to_string()
        };
        assert_eq!(values(&head, "host"), [host], "{head}");
        let has_key = flags.iter().any(|flag| flag.starts_with("X-Key") || flag.starts_with('@'));
        assert_eq!(values(&head, "x-key"), Vec::from_iter(has_key.then_some("one")), "{head}");
    }
    for (url, flags, expected) in [
        (&plain, &[][..], "Bearer of-env"),
        (&plain, &["--token", "abc"], "Bearer abc"),
        (&with_user, &[], "Basic bWU6cGFzc0B3b3Jk"),
    ] {
        let mut command = wsferry();
        command.arg("send").arg(&file).arg(url).args(flags).env("WSFERRY_TOKEN", "of-env");
        assert_eq!(Running::start(&mut command).end().code(), 4);
        assert_eq!(values(&heads.recv().unwrap(), "authorization"), [expected]);
    }
}

/// Asserts that nothing that was said holds a secret.
fn assert_masked(ended: &Ended) {
    let said = format!("{}\n{}", ended.lines.join("\n"), ended.errors);
    assert!(!said.contains("SECRET"), "{said}");
    assert!(!said.contains(&SECRET_BASE64[..16]), "{said}");
}

/// `u-SECRET:p-SECRET` in Base64.
const SECRET_BASE64: &str = "dS1TRUNSRVQ6cC1TRUNSRVQ=";

#[test]
fn no_secret_is_ever_shown_nor_told_to_the_peer() {
    let place = Place::new();
    let bytes = random(3_000_000, 5);
    let file = place.file("f", &bytes);
    // Answers that say them back, as an echo of what a gateway was asked for.
    let (moved, _heads) =
        answering("302 Found\r\nLocation: https://u-SECRET:x@login.example/in?next=SECRET&SECRET#SECRET");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
    let receiver = Receiver::start(&place, &["--overwrite"]);
    let ways: [&[&str]; 5] = [
        &[],
        &["--token", "t-SECRET"],
        &["-H", "X-Key: SECRET", "-H", "Authorization: SECRET"],
        &["-u", "u-SECRET:p-SECRET"],
        &["-H", "Cookie: session=SECRET"],
    ];
    for (address, code) in [(moved, 1), (closed, 1), (deaf, 1), (receiver.address(), 0)] {
        for (number, flags) in ways.iter().enumerate() {
            let user = if number == 0 { "u-SECRET:p-SECRET@" } else { "" };
            let url = format!("ws://{user}{address}/a?key=SECRET&SECRET");
            for output in [&["--json"][..], &[]] {
                let mut command = wsferry();
                command.arg("send").arg(&file).arg(&url).args(*flags).args(output);
                let ended = Running::start(&mut command).end();
                assert_eq!(ended.code(), code, "{ended:?}");
                assert_masked(&ended);
            }
            let proxied = ["--proxy", &format!("http://u-SECRET:p-SECRET@{address}")];
            let ended = send(&file, &url, &[*flags, &proxied].concat());
            assert_eq!(ended.code(), 1, "{ended:?}");
            assert_masked(&ended);
        }
    }
    receiver.running.signal("-TERM");
    assert_masked(&receiver.running.end());
}

#[test]
fn flags_that_make_no_sense_are_usage_errors_that_show_no_secret() {
    let place = Place::new();
    let file = place.file("f", b"x");
    let empty = place.file("empty", b"\n");
    let empty = empty.to_str().unwrap();
    let not = place.file("not.pem", b"SECRET");
    let not = not.to_str().unwrap();
    let cases: [(&str, &[&str], &[&str]); 19] = [
        ("ws://h", &["-H", "SECRET"], &["--header", "colon"]),
        ("ws://h", &["-H", "Upgrade: SECRET"], &["--header", "upgrade belongs to"]),
        ("ws://h", &["-H", "A: SEC\nRET: SECRET"], &["--header", "characters"]),
        ("ws://h", &["-H", "@/there/is/none"], &["--header", "/there/is/none"]),
        ("ws://h", &["--token", "SECRET\n"], &["--token", "characters"]),
        ("ws://h", &["--token", ""], &["--token", "empty"]),
        ("ws://h", &["--token-file", empty], &[empty, "empty"]),
        ("ws://h", &["--token-file", "/there/is/none"], &["--token-file"]),
        ("ws://h", &["-u", "SECRET"], &["--user", "NAME:PASSWORD"]),
        ("ws://SECRET:SECRET@h", &["--token", "SECRET"], &["--token and the URL's user", "who calls"]),
        (
            "ws://h",
            &["--token", "SECRET", "-H", "authorization: SECRET"],
            &["--token and an Authorization", "who calls"],
        ),
        ("ws://h", &["--proxy", "ftp://SECRET@p"], &["--proxy", "ftp"]),
        ("ws://h", &["--proxy", "http://p:SECRET"], &["--proxy", "expected"]),
        ("wss://h", &["--ca-cert", not], &["--ca-cert", "no certificate"]),
        ("wss://h", &["--ca-cert", "/there/is/none"], &["--ca-cert", "/there/is/none"]),
        ("ws://h", &["--server-name", "a.example"], &["--server-name is for wss://"]),
        ("wss://h", &["--server-name", "a b"], &["--server-name a b"]),
        ("ws://SECRET:SECRET@:9000?SECRET", &[], &["bad URL"]),
        ("ws://h/?SECRET#SECRET", &[], &["bad URL", "fragment"]),
    ];
    for (url, flags, words) in cases {
        let ended = send(&file, url, flags);
        ended.assert_error(2, words);
        assert_masked(&ended);
    }
    for flags in [
        &["--token", "SECRET", "--user", "a:SECRET"][..],
        &["--token", "SECRET", "--token-file", "x"],
        &["--proxy", "p:SECRET", "--no-proxy"],
        &["-4", "-6"],
        &["--cert", "x"],
        &["--insecure", "--ca-cert", "x"],
        &["--connect-to", "nowhere"],
    ] {
        let ended = send(&file, "ws://h", flags);
        assert_eq!(ended.code(), 2, "{ended:?}");
        assert_masked(&ended);
    }
    // Two URLs, of which one stands where a file should; and one alone.
    let mut command = wsferry();
    command.arg("send").args(["ws://h/?SECRET", "ws://h"]);
    let ended = Running::start(&mut command).end();
    ended.assert_error(2, &["comes last", "ws://h/?***"]);
    assert_masked(&ended);
    let ended = Running::start(wsferry().args(["send", "ws://me:SECRET@h"])).end();
    ended.assert_error(2, &["needs a file and a URL", "ws://***@h"]);
    assert_masked(&ended);
}

#[test]
fn each_refusal_is_told_with_what_it_means_and_which_flag_helps() {
    let place = Place::new();
    let file = place.file("f", b"x");
    let moved = &["at https://other.example/x?y=*** now", "not followed", "name that URL"][..];
    for (answer, words) in [
        ("301 Moved\r\nLocation: https://other.example/x?y=z", moved),
        ("302 Found\r\nLocation: https://other.example/x?y=z", moved),
        ("307 Temporary\r\nLocation: https://other.example/x?y=z", moved),
        ("308 Permanent\r\nLocation: https://other.example/x?y=z", moved),
        ("302 Found", &["does not say where"]),
        ("401 Unauthorized", &["wants to know who calls", "--token-file", "--token", "--user", "--header"]),
        ("403 Forbidden", &["does not let this caller in", "--token-file"]),
        ("404 Not Found", &["is the path right?"]),
        (
            "407 Proxy Authentication Required",
            &["a proxy on the way", "--proxy http://NAME:PASSWORD@HOST:PORT"],
        ),
        ("421 Misdirected Request", &["host name", "--connect-to"]),
        ("426 Upgrade Required", &["subprotocol", "--no-subprotocol"]),
        ("429 Too Many Requests", &["too many requests", "later"]),
        ("502 Bad Gateway", &["gateway", "behind it", "is wsferry running there?"]),
        ("503 Service Unavailable", &["later"]),
        ("504 Gateway Timeout", &["gateway", "behind it"]),
        ("200 OK", &["no WebSocket handshake", "is it a wsferry"]),
    ] {
        let (address, heads) = answering(answer);
        let status = format!("HTTP {}", &answer[..3]);
        let exit = if matches!(&answer[..3], "401" | "403") { 4 } else { 1 };
        send(&file, &format!("ws://{address}"), &[])
            .assert_error(exit, &[&[status.as_str()], words].concat());
        assert_eq!(
            heads.try_iter().count(),
            1,
            "{answer}: a receiver that was never reached is not waited for"
        );
    }
}

#[test]
fn a_cookie_that_a_balancer_sets_goes_back_on_the_next_connection() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let target = receiver.address();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/in/box", listener.local_addr().unwrap());
    let (tell, heads) = mpsc::channel();
    // Each connection but the third is cut after a megabyte.
    thread::spawn(move || {
        for (number, mut client) in listener.incoming().map_while(Result::ok).enumerate() {
            let mut server = TcpStream::connect(target).unwrap();
            let request = head(&mut client);
            server.write_all(request.as_bytes()).unwrap();
            tell.send(request).unwrap();
            let answer = head(&mut server);
            let cookies = format!(
                "\r\nSet-Cookie: SERVER=s{number}; Path=/; HttpOnly\r\nSet-Cookie: other=1; Path=/elsewhere"
            );
            let answer = answer.replacen("\r\n", &format!("{cookies}\r\n"), 1);
            client.write_all(answer.as_bytes()).unwrap();
            thread::spawn(move || {
                let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from, &mut to));
                let most = if number < 2 { 1 << 20 } else { u64::MAX };
                let _ = std::io::copy(&mut (&client).take(most), &mut &server);
                let _ =
                    (client.shutdown(std::net::Shutdown::Both), server.shutdown(std::net::Shutdown::Both));
            });
        }
    });
    let bytes = random(4_000_000, 6);
    send_well(&place.file("f", &bytes), &url, &["-H", "Cookie: own=1"]);
    assert!(place.received("f") == bytes);
    let cookies: Vec<String> = heads.try_iter().map(|head| values(&head, "cookie").join("|")).collect();
    assert_eq!(cookies, ["own=1", "own=1; SERVER=s0", "own=1; SERVER=s1"]);
}

#[test]
fn another_place_is_dialled_under_the_urls_name_and_a_socket_in_the_file_system_too() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let target = receiver.address();
    let bytes = random(2_000_000, 7);
    send_well(&place.file("a", &bytes), "ws://files.example/x", &["--connect-to", &target.to_string()]);
    let path = place.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let (tell, heads) = mpsc::channel();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut server = TcpStream::connect(target).unwrap();
            let request = head(&mut client);
            server.write_all(request.as_bytes()).unwrap();
            tell.send(request).unwrap();
            thread::spawn(move || {
                let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from, &mut to));
                let _ = std::io::copy(&mut client, &mut server);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    let socket = format!("unix:{}", path.display());
    let ended = send(&place.file("b", &bytes), &socket, &[]);
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(ended.event("started")["peer"], socket);
    send_well(&place.file("c", &bytes), "ws://files.example/x", &["--connect-to", &socket]);
    assert!(["a", "b", "c"].iter().all(|name| place.received(name) == bytes));
    let hosts: Vec<String> = heads.try_iter().map(|head| values(&head, "host").join("|")).collect();
    assert_eq!(hosts, ["localhost", "files.example"]);
    let missing = format!("unix:{}", place.path("none").display());
    send(&place.file("d", b"x"), &missing, &[]).assert_error(1, &["cannot connect to", &missing]);
}

#[test]
fn an_address_of_the_family_that_is_asked_for_is_dialled_and_a_dead_one_does_not_hold_it_up() {
    let place = Place::new();
    let file = place.file("f", b"x");
    send(&file, "ws://127.0.0.1:1", &["-6"]).assert_error(1, &["no address of IPv6"]);
    send(&file, "ws://[::1]:1", &["-4"]).assert_error(1, &["no address of IPv4"]);
    // The name has an address of each family, of which one has a listener.
    let receiver = Receiver::start(&place, &[]);
    send_well(&file, &format!("ws://localhost:{}", receiver.address().port()), &[]);
    send_well(&file, &format!("ws://localhost:{}", receiver.address().port()), &["-4"]);
}

#[test]
fn a_connection_that_takes_its_time_is_told_of() {
    let place = Place::new();
    let file = place.file("f", b"x");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/?key=SECRET", listener.local_addr().unwrap());
    for flags in [&["--json"][..], &["--json", "--plain"]] {
        let sender = Running::start(wsferry().arg("send").arg(&file).arg(&url).args(flags));
        let (stream, _) = listener.accept().unwrap();
        let told = sender.wait_for(|event| event["event"] == "connecting");
        assert_eq!(told["to"], format!("ws://{}/?key=***", listener.local_addr().unwrap()));
        drop(stream);
        assert_eq!(sender.end().code(), 1);
    }
    let sender = Running::start(wsferry().arg("send").arg(&file).arg(&url));
    let (mut stream, _) = listener.accept().unwrap();
    head(&mut stream);
    // Until it gives up by itself.
    let ended = sender.end();
    assert!(ended.errors.contains("connecting to ws://"), "{ended:?}");
    ended.assert_error(1, &["said nothing of a WebSocket handshake for 10 s"]);
}

#[test]
fn a_gateway_that_does_not_pass_the_subprotocol_is_told_of_and_passed() {
    let place = Place::new();
    let file = place.file("f", &random(10_000, 8));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let receiving = thread::spawn(move || {
        // The first does not like that none is named.
        let refused = Peer::accept(&listener, None).map(|mut peer| peer.hear());
        assert!(refused.is_none_or(|heard| heard.is_none()));
        let mut peer = Peer::accept(&listener, None).unwrap();
        peer.tell(&crate::support::hello());
        let digest = peer.hear_type("offer")["digest"].clone();
        peer.tell(&json!({"type": "accept", "transfer": 0}));
        // All of it fits one chunk.
        while !peer.hear().unwrap().starts_with('C') {}
        peer.tell(&json!({"type": "ack", "sequence": 1}));
        peer.tell(&json!({"type": "receipt", "files": [[0, digest]]}));
        while peer.hear().is_some() {}
    });
    send(&file, &url, &[]).assert_error(1, &["not wsferry.v1", "--no-subprotocol"]);
    let ended = send(&file, &url, &["--no-subprotocol"]);
    assert_eq!(ended.code(), 0, "{ended:?}");
    receiving.join().unwrap();
}
