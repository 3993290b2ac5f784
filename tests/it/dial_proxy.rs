//! Through proxies: HTTP and SOCKS5, with and without credentials, by flag and by environment.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use crate::certificates::{Authority, Front};
use crate::dial::{copy_both, head};
use crate::support::{Ended, Place, Receiver, Running, random, send, send_well, wsferry};

/// A proxy that leads to one target, whatever it is asked for, and tells what that was.
pub struct Way {
    address: SocketAddr,
    asked: mpsc::Receiver<String>,
}

impl Way {
    /// `serve` has the client and gives what was asked for, once the client was told that it is connected.
    fn start(
        target: SocketAddr,
        serve: impl Fn(&mut TcpStream) -> std::io::Result<Option<String>> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = mpsc::channel();
        thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                let Ok(Some(what)) = serve(&mut client) else { continue };
                let _ = tell.send(what);
                let server = TcpStream::connect(target).unwrap();
                thread::spawn(move || copy_both(&client, &server));
            }
        });
        Self { address, asked }
    }

    /// An HTTP proxy; with credentials it wants them.
    pub fn http(target: SocketAddr, credentials: Option<&'static str>) -> Self {
        Self::start(target, move |client| {
            let request = head(client);
            if !request.starts_with("CONNECT ") {
                client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
                return Ok(None);
            }
            let authorized = credentials.is_none_or(|credentials| {
                request.contains(&format!("\r\nProxy-Authorization: Basic {credentials}\r\n"))
            });
            if !authorized {
                let answer = "HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic realm=\"x\"\r\nProxy-Authenticate: Negotiate\r\n\r\n";
                client.write_all(answer.as_bytes())?;
                return Ok(None);
            }
            client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")?;
            let line = request.lines().next().unwrap().to_owned();
            Ok(line
                .strip_prefix("CONNECT ")
                .and_then(|line| line.strip_suffix(" HTTP/1.1"))
                .map(str::to_owned))
        })
    }

    /// A SOCKS5 proxy; with credentials it wants them.
    fn socks(target: SocketAddr, credentials: Option<(&'static str, &'static str)>) -> Self {
        Self::start(target, move |client| {
            let [5, count] = bytes(client)? else { panic!("no SOCKS5") };
            let mut methods = vec![0; usize::from(count)];
            client.read_exact(&mut methods)?;
            let method = if credentials.is_some() { 2 } else { 0 };
            if !methods.contains(&method) {
                client.write_all(&[5, 0xff])?;
                return Ok(None);
            }
            client.write_all(&[5, method])?;
            if let Some((user, password)) = credentials {
                let [1, len] = bytes(client)? else { panic!("no RFC 1929") };
                let found = text(client, len)?;
                let [len] = bytes(client)?;
                let is_right = (found.as_str(), text(client, len)?.as_str()) == (user, password);
                client.write_all(&[1, u8::from(!is_right)])?;
                if !is_right {
                    return Ok(None);
                }
            }
            let [5, 1, 0, kind] = bytes(client)? else { panic!("no CONNECT") };
            let host = match kind {
                1 => IpAddr::from(bytes::<4>(client)?).to_string(),
                4 => IpAddr::from(bytes::<16>(client)?).to_string(),
                _ => {
                    let [len] = bytes(client)?;
                    format!("name {}", text(client, len)?)
                }
            };
            let port = u16::from_be_bytes(bytes(client)?);
            // Its own address is of one kind or another.
            let own: &[u8] = if port % 2 == 0 { &[1, 0, 0, 0, 0] } else { &[3, 2, b'o', b'k'] };
            client.write_all(&[&[5, 0, 0], own, &[0, 0]].concat())?;
            Ok(Some(format!("{host} {port}")))
        })
    }

    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }
}

fn bytes<const N: usize>(stream: &mut TcpStream) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map(|()| bytes)
}

fn text(stream: &mut TcpStream, len: u8) -> std::io::Result<String> {
    let mut bytes = vec![0; usize::from(len)];
    stream.read_exact(&mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap())
}

#[test]
fn files_go_through_each_kind_of_proxy_with_and_without_credentials() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let target = receiver.address();
    let http = Way::http(target, None);
    // me:p@ss
    let guarded = Way::http(target, Some("bWU6cEBzcw=="));
    let socks = Way::socks(target, None);
    let guarded_socks = Way::socks(target, Some(("me", "p@ss")));
    let with_user = |way: &Way, scheme: &str| format!("{scheme}://me:p%40ss@{}", way.address);
    let cases = [
        (http.url("http"), "ws://files.example:81/x", &http, "files.example:81"),
        (http.address.to_string(), "ws://files.example", &http, "files.example:80"),
        (http.url("http"), "ws://[2001:db8::1]:9000", &http, "[2001:db8::1]:9000"),
        (with_user(&guarded, "http"), "ws://files.example", &guarded, "files.example:80"),
        (socks.url("socks5h"), "ws://files.example", &socks, "name files.example 80"),
        (socks.url("socks5h"), "ws://[2001:db8::1]:81", &socks, "2001:db8::1 81"),
        (socks.url("socks5"), "ws://127.0.0.1:81", &socks, "127.0.0.1 81"),
        (socks.url("socks5"), "ws://[2001:db8::1]:82", &socks, "2001:db8::1 82"),
        (with_user(&guarded_socks, "socks5h"), "ws://files.example", &guarded_socks, "name files.example 80"),
        // One that wants none is not bothered with any.
        (with_user(&socks, "socks5h"), "ws://files.example", &socks, "name files.example 80"),
    ];
    for (number, (proxy, url, way, asked)) in cases.into_iter().enumerate() {
        let (name, bytes) = (format!("f{number}"), random(2_000_000, number as u64));
        send_well(&place.file(&name, &bytes), url, &["--proxy", &proxy]);
        assert!(place.received(&name) == bytes);
        assert_eq!(way.asked.try_iter().collect::<Vec<_>>(), [asked], "{proxy} {url}");
    }
    let flags = ["--proxy", &http.url("http"), "--connect-to", "other.example:7"];
    send_well(&place.file("g", b"x"), "ws://files.example", &flags);
    assert_eq!(http.asked.try_recv().unwrap(), "other.example:7");
}

#[test]
fn tls_goes_through_a_proxy_and_to_one() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let authority = Authority::new("An Authority");
    let ca = place.file("ca.pem", authority.issued.pem.as_bytes());
    let ca = ca.to_str().unwrap();
    let server = Front::start(receiver.address(), authority.issue(&["files.example"]).server(None));
    let inner = Way::http(server.address(), None);
    let outer = Front::start(inner.address, authority.issue(&["localhost"]).server(None));
    let bytes = random(3_000_000, 1);
    let through_tls = format!("https://localhost:{}", outer.address().port());
    for (name, proxy) in [("a", inner.url("http")), ("b", through_tls.clone())] {
        let flags = ["--proxy", &proxy, "--ca-cert", ca];
        send_well(&place.file(name, &bytes), "wss://files.example", &flags);
        assert!(place.received(name) == bytes);
        assert_eq!(inner.asked.try_recv().unwrap(), "files.example:443");
    }
    // A proxy's certificate is judged as a server's is, and its port may be the wrong one, too.
    let file = place.file("c", &bytes);
    let proxied = |proxy: &str| send(&file, "ws://files.example", &["--proxy", proxy]);
    proxied(&through_tls).assert_error(1, &["the proxy https://localhost:", "not trusted here", "--ca-cert"]);
    proxied(&inner.url("https")).assert_error(1, &["is no TLS", "--proxy http://HOST:PORT"]);
}

#[test]
fn a_proxy_that_does_not_lead_there_is_told_with_the_reason_and_what_helps() {
    let place = Place::new();
    let file = place.file("f", b"x");
    let nowhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let proxied = |proxy: &str| -> Ended { send(&file, "ws://files.example:81/x", &["--proxy", proxy]) };
    let answering = |answer: &'static [u8]| {
        Way::start(nowhere, move |client| {
            assert!(client.read(&mut [0; 4096])? > 0);
            client.write_all(answer).map(|()| None)
        })
    };
    let told = "did not connect to files.example:81";
    let way = Way::http(nowhere, Some("bWU6cEBzcw=="));
    let login = &[told, "HTTP 407, by Basic, Negotiate", "--proxy SCHEME://NAME:PASSWORD@HOST:PORT"];
    proxied(&way.url("http")).assert_error(1, login);
    proxied(&format!("http://me:WRONG@{}", way.address)).assert_error(1, login);
    let way = Way::socks(nowhere, Some(("me", "p@ss")));
    proxied(&way.url("socks5h")).assert_error(1, &[told, "wants to know who calls", "NAME:PASSWORD"]);
    let wrong = format!("socks5h://me:WRONG@{}", way.address);
    proxied(&wrong).assert_error(1, &[told, "does not take this user and password"]);
    for (scheme, answer, words) in [
        ("http", &b"HTTP/1.1 403 No\r\n\r\n"[..], &["HTTP 403", "by its rules", "--no-proxy"][..]),
        ("http", b"HTTP/1.1 503 No\r\n\r\n", &["HTTP 503", "cannot connect there"]),
        ("http", b"HTTP/1.1 404 No\r\n\r\n", &["HTTP 404"]),
        ("http", b"", &["hung up"]),
        ("http", b"SSH-2.0-OpenSSH_9.9\r\n", &["no HTTP"]),
        ("http", b"HTTP/1.1 200 OK\r\n\r\nmore", &["more than its answer"]),
        ("http", b"\x15\x03\x01\x00\x02\x02\x46", &["speaks TLS", "--proxy https://"]),
        ("socks5h", b"HTTP/1.1 400 Bad\r\n\r\n", &["no SOCKS5"]),
        ("socks5h", b"\x05\x00\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", &["by its rules"]),
        ("socks5h", b"\x05\x00\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00", &["connection was refused"]),
        ("socks5h", b"\x05", &["hung up"]),
    ] {
        let way = answering(answer);
        let ended = proxied(&way.url(scheme));
        ended.assert_error(1, &[&[told, way.address.to_string().as_str()], words].concat());
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    proxied(&format!("http://{closed}"))
        .assert_error(1, &[told, "cannot be reached", "refused", "--no-proxy"]);
}

type Variables<'a> = &'a [(&'a str, &'a str)];

/// `send`, with these variables.
fn with_env(place: &Place, name: &str, url: &str, env: Variables, flags: &[&str]) -> Command {
    let mut command = wsferry();
    command.arg("send").arg(place.file(name, b"x")).arg(url).arg("--json").args(flags);
    command.envs(env.iter().copied());
    command
}

#[test]
fn the_environment_names_a_proxy_and_hosts_that_need_none() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let (direct, way) = (receiver.url.clone(), Way::http(receiver.address(), None));
    let socks = Way::socks(receiver.address(), Some(("me", "p@ss")));
    let proxy = way.url("http");
    let by_socks = format!("socks5h://me:p%40ss@{}", socks.address);
    let proxy = proxy.as_str();
    let cases: [(Variables, &[&str], bool); 8] = [
        (&[("HTTP_PROXY", proxy)], &[], true),
        (&[("http_proxy", proxy)], &[], true),
        (&[("ALL_PROXY", proxy)], &[], true),
        (&[("HTTPS_PROXY", proxy)], &[], false),
        (&[("ALL_PROXY", proxy), ("NO_PROXY", "example.com, 127.0.0.0/8")], &[], false),
        (&[("ALL_PROXY", proxy), ("NO_PROXY", "*.example.com,10.0.0.0/8")], &[], true),
        (&[("ALL_PROXY", proxy)], &["--no-proxy"], false),
        (&[("ALL_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", "*")], &["--proxy", proxy], true),
    ];
    for (number, (env, flags, is_proxied)) in cases.into_iter().enumerate() {
        let mut command = with_env(&place, &format!("f{number}"), &direct, env, flags);
        let ended = Running::start(&mut command).end();
        assert_eq!(ended.code(), 0, "{env:?} {flags:?}: {ended:?}");
        assert_eq!(way.asked.try_iter().count(), usize::from(is_proxied), "{env:?} {flags:?}");
    }
    let env = [("ALL_PROXY", by_socks.as_str())];
    let ended = Running::start(&mut with_env(&place, "g", "ws://files.example:7", &env, &[])).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(socks.asked.try_recv().unwrap(), "name files.example 7");
    let env = [("HTTP_PROXY", "http://u-SECRET:p-SECRET@127.0.0.1:9")];
    let ended = Running::start(&mut with_env(&place, "h", "ws://files.example", &env, &[])).end();
    ended.assert_error(1, &["the proxy http://127.0.0.1:9 did not connect", "--no-proxy"]);
    assert!(!format!("{ended:?}").contains("SECRET"));
    let env = [("ALL_PROXY", way.url("socks4"))];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    let ended = Running::start(&mut with_env(&place, "i", "ws://files.example", &env, &[])).end();
    ended.assert_error(1, &["socks4:// is not spoken"]);
}
