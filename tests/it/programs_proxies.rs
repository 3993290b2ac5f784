//! Proxies that a sender is told to go through (tinyproxy, squid, microsocks), stunnel in front of a receiver, and a
//! Jupyter server with jupyter-server-proxy from PyPI; `.ci/run` installs them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::listen_tls::Identity;
use crate::program::{Program, arrived, filled, program, resent};
use crate::proxy::{Plan, Proxy};
use crate::support::{PATIENCE, Place, Receiver, Running, random, send, wsferry};

const SIZE: usize = 64 << 20;
const LOGIN: &str = "ferry:pass-word";

/// Sends a new file, which has to arrive without a cut.
fn crosses(place: &Place, what: &str, command: impl FnOnce(&mut Command)) {
    let name = what.replace([' ', ':', '/'], "-");
    let bytes = random(SIZE, name.len() as u64);
    let mut sender = wsferry();
    sender.arg("send").arg("--json").arg(place.file(&name, &bytes));
    command(&mut sender);
    let finished = arrived(what, &Running::start(&mut sender).end(), place, &name, &bytes);
    assert_eq!(resent(&finished), 0, "{what}");
}

/// Through a proxy that wants the password, as a flag and as the environment has it; its log tells what went through it.
fn crosses_with_the_password(name: &str, log: &dyn Fn() -> String, port: u16) {
    let place = Place::new();
    let plain = Receiver::start(&place, &[]);
    let identity = Identity::make(&place, name);
    let tls = Receiver::start(&place, &identity.flags());
    let tls_port = tls.url.rsplit(':').next().unwrap();
    let (tls_url, trust) = (format!("wss://localhost:{tls_port}"), identity.certificate.to_str().unwrap());
    let proxy = format!("http://{LOGIN}@127.0.0.1:{port}");
    let plain_place = plain.url.strip_prefix("ws://").unwrap().to_owned();
    let seen = |place: &str| log().matches(place).count();
    // A proxy may write it down once the connection has ended.
    let was_seen = |place: &str, before: usize| {
        let deadline = Instant::now() + PATIENCE;
        while seen(place) == before {
            assert!(Instant::now() < deadline, "it went past the proxy: {}", log());
            thread::sleep(Duration::from_millis(5));
        }
    };

    let mut before = seen(&plain_place);
    crosses(&place, &format!("{name} as a flag"), |sender| {
        sender.arg(&plain.url).args(["--proxy", &proxy]);
    });
    was_seen(&plain_place, before);
    before = seen(&plain_place);
    crosses(&place, &format!("{name} as http_proxy"), |sender| {
        sender.arg(&plain.url).env("http_proxy", &proxy);
    });
    was_seen(&plain_place, before);
    crosses(&place, &format!("{name} as HTTPS_PROXY"), |sender| {
        sender.args([&tls_url, "--ca-cert", trust]).env("HTTPS_PROXY", &proxy);
    });
    was_seen(&format!("localhost:{tls_port}"), 0);
    before = seen(&plain_place);
    crosses(&place, &format!("past {name} by NO_PROXY"), |sender| {
        sender.arg(&plain.url).envs([("http_proxy", proxy.as_str()), ("NO_PROXY", "127.0.0.1")]);
    });
    assert_eq!(seen(&plain_place), before, "it went through the proxy: {}", log());

    let file = place.file("refused", b"refused");
    for login in ["", "ferry:wrong@"] {
        let ended = send(&file, &plain.url, &["--proxy", &format!("http://{login}127.0.0.1:{port}")]);
        ended.assert_error(1, &["HTTP 40", "say who calls with --proxy"]);
        assert!(!ended.errors.contains("wrong"), "a password is told: {}", ended.errors);
    }
}

/// As tinyproxy does where the password is wrong.
#[test]
fn a_proxy_that_answers_401_is_said_to_want_a_login() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://ferry:wrong@{}", listener.local_addr().unwrap());
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\n\r\n").unwrap();
    });
    let place = Place::new();
    let ended = send(&place.file("refused", b"refused"), "ws://127.0.0.1:9", &["--proxy", &proxy]);
    answering.join().unwrap();
    ended.assert_error(1, &["HTTP 401, by Basic", "say who calls with --proxy"]);
    assert!(!ended.errors.contains("wrong"), "a password is told: {}", ended.errors);
}

#[test]
#[ignore = "needs tinyproxy"]
fn a_file_crosses_tinyproxy_with_and_without_a_password() {
    for login in [format!("BasicAuth {}", LOGIN.replace(':', " ")), String::new()] {
        let place = Place::new();
        let tinyproxy = Program::start(&place, "tinyproxy", |[port]| {
            let values = [("PORT", port.to_string()), ("LOGIN", login.clone())];
            let mut tinyproxy = program("tinyproxy");
            tinyproxy.arg("-d").arg("-c").arg(filled(&place, "tinyproxy.conf", &values));
            tinyproxy
        });
        let log = || std::fs::read_to_string(place.path("tinyproxy.log")).unwrap();
        if login.is_empty() {
            let receiver = Receiver::start(&place, &[]);
            crosses(&place, "tinyproxy without a password", |sender| {
                sender.arg(&receiver.url).args(["--proxy", &format!("127.0.0.1:{}", tinyproxy.ports[0])]);
            });
            assert!(log().contains(receiver.url.strip_prefix("ws://").unwrap()), "{}", log());
        } else {
            crosses_with_the_password("tinyproxy", &log, tinyproxy.ports[0]);
        }
    }
}

#[test]
#[ignore = "needs squid"]
fn a_file_crosses_squid_with_a_password() {
    let place = Place::new();
    // It gives up root, and has to get there as somebody else.
    let shared = tempfile::tempdir().unwrap();
    std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    // LOGIN's password as crypt has it: openssl passwd -apr1 -salt wsferry0 pass-word
    std::fs::write(shared.path().join("users"), "ferry:$apr1$wsferry0$KAk/7rD3WV4JGlWgaNXxr.\n").unwrap();
    let squid = Program::start(&place, "squid", |[port]| {
        let values = [("PORT", port.to_string()), ("SHARED", shared.path().to_str().unwrap().to_owned())];
        let mut squid = program("squid");
        squid.args(["-N", "-f"]).arg(filled(&place, "squid.conf", &values));
        squid
    });
    crosses_with_the_password(
        "squid",
        &|| std::fs::read_to_string(shared.path().join("access.log")).unwrap(),
        squid.ports[0],
    );
}

#[test]
#[ignore = "needs microsocks"]
fn a_file_crosses_a_socks_proxy_with_and_without_a_password() {
    let place = Place::new();
    let receiver = Receiver::start_on(&place, "localhost:0", &[]);
    let port = receiver.url.rsplit(':').next().unwrap().to_owned();
    let url = format!("ws://localhost:{port}");
    for password in [&[][..], &["-u", "ferry", "-P", "pass-word"]] {
        let microsocks = Program::start(&place, "microsocks", |[port]| {
            let mut microsocks = program("microsocks");
            microsocks.args(["-i", "127.0.0.1", "-p", &port.to_string()]).args(password);
            microsocks
        });
        let at = format!("127.0.0.1:{}", microsocks.ports[0]);
        let login = if password.is_empty() { String::new() } else { format!("{LOGIN}@") };
        for scheme in ["socks5h", "socks5"] {
            crosses(&place, &format!("{scheme}://{login}"), |sender| {
                sender.args([&url, "--proxy", &format!("{scheme}://{login}{at}")]);
            });
        }
        // It was left to the proxy to look the host up, and once it was not.
        let log = microsocks.log();
        assert!(log.contains(&format!("connected to localhost:{port}")), "{log}");
        assert!(log.contains(&format!("connected to 127.0.0.1:{port}")) || log.contains("::1"), "{log}");
        if !password.is_empty() {
            let file = place.file("refused", b"refused");
            for login in ["", "ferry:wrong@"] {
                let ended = send(&file, &url, &["--proxy", &format!("socks5h://{login}{at}")]);
                assert_ne!(ended.code(), 0);
                assert!(ended.errors.contains("proxy") && !ended.errors.contains("wrong"), "{ended:?}");
            }
        }
    }
}

#[test]
#[ignore = "needs stunnel4"]
fn a_file_crosses_stunnel_in_front_of_a_receiver() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let identity = Identity::make(&place, "stunnel");
    let stunnel = Program::start(&place, "stunnel4", |[port]| {
        let values = [
            ("PORT", port.to_string()),
            ("RECEIVER", receiver.url.strip_prefix("ws://").unwrap().to_owned()),
            ("CERTIFICATE", identity.certificate.to_str().unwrap().to_owned()),
            ("KEY", identity.key.to_str().unwrap().to_owned()),
        ];
        let mut stunnel = program("stunnel");
        stunnel.arg(filled(&place, "stunnel.conf", &values));
        stunnel
    });
    let url = format!("wss://localhost:{}", stunnel.ports[0]);
    crosses(&place, "stunnel", |sender| {
        sender.args([&url, "--ca-cert", identity.certificate.to_str().unwrap()]);
    });
    let file = place.file("refused", b"refused");
    send(&file, &url, &["--retry-for", "0s"]).assert_error(1, &["certificate"]);
}

#[test]
#[ignore = "needs Python and jupyter-server-proxy"]
fn a_file_crosses_a_jupyter_server_with_a_token_and_a_path_and_is_cut_once() {
    const SIZE: usize = 256 << 20;
    let directory = std::env::var_os("WSFERRY_INTEROP")
        .expect("WSFERRY_INTEROP is not set: it names a directory with the libraries; see CONTRIBUTING.md");
    let python = PathBuf::from(directory).join("bin/python");
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--path", "/inbox"]);
    let address = receiver.url.strip_prefix("ws://").unwrap().split('/').next().unwrap().to_owned();
    let (_, receiver_port) = address.split_once(':').unwrap();
    let jupyter = Program::start(&place, "jupyter-server-proxy", |[port]| {
        let values = [("PORT", port.to_string()), ("RECEIVER_PORT", receiver_port.to_owned())];
        let config = filled(&place, "jupyter_server_config.py", &values);
        let mut jupyter = Command::new(&python);
        jupyter.args(["-m", "jupyter_server", "--config"]).arg(config);
        // Whatever the user who runs the tests has set up stays out of it, and stays as it is.
        for name in ["HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"] {
            jupyter.env(name, place.path("jupyter"));
        }
        jupyter
    });
    let half = SIZE as u64 / 3 * 4 / 2;
    let proxy = Proxy::start(([127, 0, 0, 1], jupyter.ports[0]).into(), move |number| {
        let plan = Plan { cut_after: (number == 0).then_some(half), ..Plan::default() };
        (plan, Plan::default())
    });
    let header = ["--header", "Authorization: token token-of-the-tests"];
    for (number, path) in
        ["/ferry/inbox".to_owned(), format!("/proxy/{receiver_port}/inbox")].iter().enumerate()
    {
        let name = format!("notebook-{number}");
        let bytes = random(SIZE >> (2 * number), 41 + number as u64);
        let ended = send(&place.file(&name, &bytes), &format!("{}{path}", proxy.url()), &header);
        let what = format!("jupyter-server-proxy at {path}");
        let finished = arrived(&what, &ended, &place, &name, &bytes);
        assert_eq!(ended.events("reconnecting").len(), 1 - number, "{ended:?}");
        assert!(resent(&finished) <= 16 << 20, "{finished}");
    }
    let file = place.file("refused", b"refused");
    let url = format!("{}/ferry/inbox", jupyter.url(0));
    send(&file, &url, &[]).assert_error(4, &["403"]);
    send(&file, &url, &["--token", "another"]).assert_error(4, &["403"]);
}
