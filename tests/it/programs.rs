//! nginx and haproxy between a sender and its receiver, as Debian has them; `.ci/run` installs them. Each test prints the
//! bytes that crossed twice: `cargo test --release --test it -- --ignored --show-output programs`.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::either::{Sender, fetch};
use crate::listen_tls::Identity;
use crate::program::{Program, arrived, filled, program, resent};
use crate::proxy::{Plan, Proxy};
use crate::support::{Ended, Place, Receiver, Running, random, send, wsferry};

const SIZE: usize = 64 << 20;
/// Something happens to the first connection after so many bytes.
const MIDDLE: u64 = 32 << 20;
/// What a cut may cost at most: nearly a window.
const WINDOW: u64 = 16 << 20;

/// nginx in front of a receiver, a port for each way to stand there.
struct Nginx {
    program: Program<5>,
    identity: Identity,
}

impl Nginx {
    fn start(place: &Place, receiver: SocketAddr) -> Self {
        let identity = Identity::make(place, "nginx");
        let users = place.file("users", b"ferry:{PLAIN}p@ss word%\n");
        let program = Program::start(place, "nginx-light", |ports| {
            let [plain, tls, password, token, hasty] = ports.map(|port| port.to_string());
            let values = [
                ("PLAIN", plain),
                ("TLS", tls),
                ("PASSWORD", password),
                ("TOKEN", token),
                ("HASTY", hasty),
                ("RECEIVER", receiver.to_string()),
                ("USERS", text(&users)),
                ("CERTIFICATE", text(&identity.certificate)),
                ("KEY", text(&identity.key)),
            ];
            let mut nginx = program("nginx");
            nginx.arg("-e").arg(place.path("nginx.log")).arg("-c").arg(filled(place, "nginx.conf", &values));
            nginx
        });
        Self { program, identity }
    }

    fn plain(&self) -> String {
        self.program.url(0)
    }

    fn tls(&self) -> String {
        format!("wss://localhost:{}", self.program.ports[1])
    }

    fn password(&self) -> String {
        self.program.url(2)
    }

    fn token(&self) -> String {
        self.program.url(3)
    }

    fn hasty(&self) -> String {
        self.program.url(4)
    }
}

/// haproxy in front of one receiver, and of two that it shares the senders among.
struct Haproxy {
    program: Program<3>,
    identity: Identity,
    socket: PathBuf,
}

impl Haproxy {
    fn start(place: &Place, receiver: SocketAddr, other: SocketAddr) -> Self {
        let identity = Identity::make(place, "haproxy");
        let mut both = std::fs::read(&identity.certificate).unwrap();
        both.extend(std::fs::read(&identity.key).unwrap());
        let both = place.file("both.pem", &both);
        let program = Program::start(place, "haproxy", |ports| {
            let [plain, tls, several] = ports.map(|port| port.to_string());
            let values = [
                ("PLAIN", plain),
                ("TLS", tls),
                ("SEVERAL", several),
                ("RECEIVER", receiver.to_string()),
                ("OTHER", other.to_string()),
                ("PEM", text(&both)),
            ];
            let mut haproxy = program("haproxy");
            haproxy.arg("-db").arg("-f").arg(filled(place, "haproxy.cfg", &values));
            haproxy
        });
        Self { program, identity, socket: place.path("haproxy.sock") }
    }

    fn plain(&self) -> String {
        self.program.url(0)
    }

    fn tls(&self) -> String {
        format!("wss://localhost:{}", self.program.ports[1])
    }

    fn several(&self) -> String {
        self.program.url(2)
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Sends a new file, which has to arrive without a cut.
fn crosses_at_once(place: &Place, what: &str, url: &str, flags: &[&str]) {
    let name = what.replace(' ', "-");
    let bytes = random(SIZE, name.len() as u64);
    let ended = send(&place.file(&name, &bytes), url, flags);
    let finished = arrived(what, &ended, place, &name, &bytes);
    assert_eq!(ended.events("reconnecting"), [] as [Value; 0], "{what}");
    assert_eq!(resent(&finished), 0, "{what}");
}

fn refused(place: &Place, url: &str, flags: &[&str], words: &[&str]) {
    send(&place.file("refused", b"refused"), url, flags).assert_error(4, words);
    assert!(!place.inbox().join("refused").exists());
}

/// A sender that is watched until it says that it was cut. That it does not hear of anyone is no reason for it to leave.
struct Cut {
    sender: Running,
    events: Vec<Value>,
}

impl Cut {
    fn start(file: &Path, url: &str) -> Self {
        let mut sender = wsferry();
        sender.arg("send").arg(file).arg(url).args(["--json", "--stall-timeout", "10min"]);
        let sender = Running::start(&mut sender);
        Self { sender, events: Vec::new() }
    }

    fn wait(&mut self) {
        self.events.push(self.sender.wait_for(|event| event["event"] == "reconnecting"));
    }

    fn end(self) -> Ended {
        for event in &self.events {
            println!("cut: {}", event["reason"]);
        }
        self.sender.end()
    }
}

/// In front of a receiver: `act` is called in the middle of the first connection that carries a file.
fn in_the_middle(receiver: SocketAddr, rate: Option<u64>, act: impl Fn() + Send + Sync + 'static) -> Proxy {
    let act: Arc<dyn Fn() + Send + Sync> = Arc::new(act);
    Proxy::start(receiver, move |number| {
        let first = Plan { pause: Some((MIDDLE, act.clone())), rate, ..Plan::default() };
        (if number == 0 { first } else { Plan::default() }, Plan::default())
    })
}

#[test]
#[ignore = "needs nginx"]
fn a_file_crosses_nginx_plainly_over_tls_with_a_password_and_with_a_token() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let nginx = Nginx::start(&place, receiver.address());
    crosses_at_once(&place, "nginx", &nginx.plain(), &[]);
    let trust = ["--ca-cert", nginx.identity.certificate.to_str().unwrap()];
    crosses_at_once(&place, "nginx with TLS and HTTP 2", &nginx.tls(), &trust);
    crosses_at_once(&place, "nginx with a password", &nginx.password(), &["--user", "ferry:p@ss word%"]);
    let header = "X-Token: token-of-the-tests";
    crosses_at_once(&place, "nginx with a token in a header", &nginx.token(), &["--header", header]);
    crosses_at_once(&place, "nginx that waits for 2 s", &nginx.hasty(), &[]);

    refused(&place, &nginx.password(), &[], &["401"]);
    refused(&place, &nginx.password(), &["--user", "ferry:wrong"], &["401"]);
    refused(&place, &nginx.token(), &["--header", "X-Token: another"], &["401"]);
}

#[test]
#[ignore = "needs nginx"]
fn a_receiver_that_stands_still_for_longer_than_nginx_waits_costs_a_cut_and_no_more() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let pid = Pid::from_raw(receiver.running.pid().cast_signed()).unwrap();
    let proxy = in_the_middle(receiver.address(), None, move || kill_process(pid, Signal::STOP).unwrap());
    let nginx = Nginx::start(&place, proxy.address());
    stands_still(&place, "nginx", &nginx.hasty(), &receiver);
}

#[test]
#[ignore = "needs haproxy"]
fn a_receiver_that_stands_still_for_longer_than_haproxy_waits_costs_a_cut_and_no_more() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let pid = Pid::from_raw(receiver.running.pid().cast_signed()).unwrap();
    let proxy = in_the_middle(receiver.address(), None, move || kill_process(pid, Signal::STOP).unwrap());
    let haproxy = Haproxy::start(&place, proxy.address(), receiver.address());
    stands_still(&place, "haproxy", &haproxy.plain(), &receiver);
}

fn stands_still(place: &Place, what: &str, url: &str, receiver: &Receiver) {
    let bytes = random(SIZE, 21);
    let mut sender = Cut::start(&place.file("still", &bytes), url);
    sender.wait();
    receiver.running.signal("-CONT");
    let what = format!("{what} and a receiver that stands still for longer than 2 s");
    let finished = arrived(&what, &sender.end(), place, "still", &bytes);
    assert!(resent(&finished) <= WINDOW, "{finished}");
}

#[test]
#[ignore = "needs nginx"]
fn nginx_is_reloaded_and_started_again_in_the_middle_of_a_file() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let pid: Arc<OnceLock<Pid>> = Arc::default();
    let nginx = pid.clone();
    // What is left takes longer than the old worker may live.
    let proxy = in_the_middle(receiver.address(), Some(24 << 20), move || {
        kill_process(*nginx.get().unwrap(), Signal::HUP).unwrap();
    });
    let nginx = pid.clone();
    let second = Proxy::start(proxy.address(), move |number| {
        let nginx = nginx.clone();
        let stop = Arc::new(move || kill_process(*nginx.get().unwrap(), Signal::TERM).unwrap());
        let plan = Plan { pause: Some((MIDDLE / 4, stop)), ..Plan::default() };
        (if number == 1 { plan } else { Plan::default() }, Plan::default())
    });
    let mut nginx = Nginx::start(&place, second.address());
    pid.set(nginx.program.pid()).unwrap();

    let bytes = random(SIZE, 22);
    let mut sender = Cut::start(&place.file("reloaded", &bytes), &nginx.plain());
    sender.wait();
    sender.wait();
    nginx.program.start_again();
    let finished = arrived("nginx, reloaded and started again", &sender.end(), &place, "reloaded", &bytes);
    assert!(resent(&finished) <= 2 * WINDOW, "{finished}");
}

#[test]
#[ignore = "needs haproxy"]
fn a_file_crosses_haproxy_plainly_and_over_tls() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let haproxy = Haproxy::start(&place, receiver.address(), receiver.address());
    crosses_at_once(&place, "haproxy", &haproxy.plain(), &[]);
    let trust = ["--ca-cert", haproxy.identity.certificate.to_str().unwrap()];
    crosses_at_once(&place, "haproxy with TLS and HTTP 2", &haproxy.tls(), &trust);
}

/// haproxy sends each new connection to the other receiver, but those that show its cookie.
#[test]
#[ignore = "needs haproxy"]
fn who_was_cut_behind_haproxy_goes_on_with_the_receiver_that_has_the_first_half() {
    let places = [Place::new(), Place::new()];
    let receivers = [&places[0], &places[1]].map(|place| Receiver::start(place, &[]));
    let socket: Arc<OnceLock<PathBuf>> = Arc::default();
    let proxies = receivers.each_ref().map(|receiver| {
        let socket = socket.clone();
        in_the_middle(receiver.address(), None, move || {
            let mut admin = UnixStream::connect(socket.get().unwrap()).unwrap();
            admin.write_all(b"shutdown sessions server two/a; shutdown sessions server two/b\n").unwrap();
            admin.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            admin.read_to_string(&mut answer).unwrap();
            assert_eq!(answer.trim(), "", "haproxy did not do it");
        })
    });
    let place = Place::new();
    let haproxy = Haproxy::start(&place, proxies[0].address(), proxies[1].address());
    socket.set(haproxy.socket.clone()).unwrap();

    // From either of them, whichever has its turn.
    for number in 0..2 {
        let name = format!("affinity-{number}");
        let bytes = random(SIZE, 23 + number);
        let mut sender = Cut::start(&place.file(&name, &bytes), &haproxy.several());
        sender.wait();
        let ended = sender.end();
        let (has, lacks) = match places[0].inbox().join(&name).exists() {
            true => (&places[0], &places[1]),
            false => (&places[1], &places[0]),
        };
        let finished = arrived("haproxy with two receivers, cut", &ended, has, &name, &bytes);
        assert!(resent(&finished) <= WINDOW, "{finished}");
        assert!(!lacks.listing().contains(&name));
        assert!(ended.events("resumed").iter().all(|event| event["offset"].as_u64().unwrap() > 0));
    }
}

#[test]
#[ignore = "needs nginx"]
fn a_sender_that_listens_behind_nginx_is_fetched_from_plainly_over_tls_with_a_token_and_over_a_cut() {
    let place = Place::new();
    let bytes = random(SIZE, 31);
    let file = place.file("fetched", &bytes);
    let sender = Sender::start(&[&file], &[]);
    let nginx = Nginx::start(&place, sender.address());
    let trust = ["--ca-cert", nginx.identity.certificate.to_str().unwrap()];
    let header = ["--header", "X-Token: token-of-the-tests"];
    for (url, flags) in [(nginx.plain(), &[][..]), (nginx.tls(), &trust), (nginx.token(), &header)] {
        let there = Place::new();
        arrived(&format!("from behind nginx, {url}"), &fetch(&there, &url, flags), &there, "fetched", &bytes);
    }
    fetch(&Place::new(), &nginx.token(), &[]).assert_error(4, &["401"]);

    let cut = Proxy::start(sender.address(), |number| {
        let cut_after = (number == 0).then_some(MIDDLE);
        (Plan::default(), Plan { cut_after, ..Plan::default() })
    });
    drop(nginx);
    let (there, nginx) = (Place::new(), Nginx::start(&place, cut.address()));
    let ended = fetch(&there, &nginx.plain(), &[]);
    arrived("from behind nginx, cut in the middle", &ended, &there, "fetched", &bytes);
    assert_eq!(ended.events("reconnecting").len(), 1, "{ended:?}");
}
