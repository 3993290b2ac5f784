//! TLS on the receiver's port, with certificates that are made as the tests run and a client of rustls.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::WebSocket;
use futures_rustls::pki_types::{CertificateDer, ServerName};
use futures_rustls::rustls::{self, ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};
use rcgen::{CertifiedKey, KeyPair};

use crate::hostile::{finish, frame, offer};
use crate::http::{ask, ask_on, deliver, dial, hear_type, knock, tell};
use crate::support::{PATIENCE, Place, Receiver, Running, hello, send, wsferry};

type Client = StreamOwned<ClientConnection, TcpStream>;

/// A certificate of `localhost` and its key, as files.
pub struct Identity {
    der: CertificateDer<'static>,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Identity {
    pub fn make(place: &Place, name: &str) -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = place.file(&format!("{name}.pem"), cert.pem().as_bytes());
        let key = place.file(&format!("{name}.key"), signing_key.serialize_pem().as_bytes());
        Self { der: cert.der().clone(), certificate, key }
    }

    pub fn flags(&self) -> [&str; 4] {
        ["--tls-cert", self.certificate.to_str().unwrap(), "--tls-key", self.key.to_str().unwrap()]
    }

    /// A client that trusts this certificate alone.
    fn dial(&self, address: SocketAddr, alpn: &[&str]) -> Result<Client, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name)?;
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = StreamOwned::new(connection, stream);
        while client.conn.is_handshaking() {
            client.conn.complete_io(&mut client.sock).map_err(|error| match error.downcast() {
                Ok(error) => error,
                Err(other) => rustls::Error::General(other.to_string()),
            })?;
        }
        Ok(client)
    }

    fn websocket(&self, address: SocketAddr) -> WebSocket<Client> {
        dial(self.dial(address, &["http/1.1"]).unwrap(), "ws://localhost/", Some("wsferry.v1"), &[])
    }
}

fn address(receiver: &Receiver) -> SocketAddr {
    receiver.url.strip_prefix("wss://").unwrap().parse().unwrap()
}

#[test]
fn files_arrive_over_tls_and_http_1_is_what_is_agreed() {
    let place = Place::new();
    let identity = Identity::make(&place, "one");
    let receiver = Receiver::start(&place, &identity.flags());
    for (number, (alpn, agreed)) in
        [(&["h2", "http/1.1"][..], Some("http/1.1")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
            .into_iter()
            .enumerate()
    {
        let client = identity.dial(address(&receiver), alpn).unwrap();
        assert_eq!(client.conn.alpn_protocol(), agreed.map(str::as_bytes));
        let mut socket = dial(client, "ws://localhost/", Some("wsferry.v1"), &[]);
        let (name, bytes) = (format!("f{number}"), crate::support::random(30_000, number as u64));
        deliver(&mut socket, &name, &bytes);
        assert!(place.received(&name) == bytes);
    }
    let error = identity.dial(address(&receiver), &["h2"]).unwrap_err();
    assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol));
    // Pages are there too, and end as TLS wants it.
    let mut client = identity.dial(address(&receiver), &[]).unwrap();
    client.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("it says that this is the end");
    assert!(answer.ends_with(b"ok\n"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn who_speaks_plainly_to_tls_or_tls_to_a_plain_port_is_told() {
    let place = Place::new();
    let identity = Identity::make(&place, "one");
    let receiver = Receiver::start(&place, &identity.flags());
    for request in
        ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /healthz HTTP/1.0\r\n\r\n", "POST / HTTP/1.1\r\n\r\n"]
    {
        let reply = ask(address(&receiver), request.as_bytes());
        assert_eq!((reply.status, reply.header("Upgrade")), (426, Some("TLS/1.2, HTTP/1.1")));
        assert!(reply.body.contains("TLS") && reply.body.contains("wss://"), "{reply:?}");
        assert_eq!(reply.header("Content-Type"), Some("text/plain; charset=utf-8"));
    }
    let failed = receiver.running.wait_for(|event| event["event"] == "failed");
    assert!(
        failed["reason"].as_str().unwrap().contains("does not speak TLS, and this port does"),
        "{failed}"
    );
    deliver(&mut identity.websocket(address(&receiver)), "f", b"unharmed");

    let plain = Receiver::start(&place, &[]);
    identity.dial(plain.address(), &[]).unwrap_err();
    let failed = plain.running.wait_for(|event| event["event"] == "failed");
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.ends_with("speaks TLS, and this port does not"), "{reason}");
    plain.running.signal("-TERM");
    let ended = plain.running.end();
    let lines: Vec<&str> = ended.errors.lines().collect();
    assert!(lines.len() == 1 && lines[0].ends_with("start with --tls-cert and --tls-key"), "{lines:?}");
}

#[test]
fn records_that_are_cut_short_or_make_no_sense_end_in_time_and_harm_nobody() {
    let place = Place::new();
    let identity = Identity::make(&place, "one");
    let mut flags = identity.flags().to_vec();
    flags.extend(["--handshake-timeout", "400ms"]);
    let receiver = Receiver::start(&place, &flags);
    let mut running = identity.websocket(address(&receiver));
    tell(&mut running, &hello());
    tell(&mut running, &offer("f", 6));
    hear_type(&mut running, "accept");

    let greeting = client_hello();
    let mut garbage = greeting.clone();
    garbage[5..].iter_mut().for_each(|byte| *byte ^= 0x55);
    let cases: [(&[u8], bool); 8] = [
        (&greeting[..1], true),
        (&greeting[..3], true),
        (&greeting[..5], true),
        (&greeting[..greeting.len() - 1], true),
        (&garbage, false),
        // A record that announces more than may be.
        (&[22, 3, 1, 0xff, 0xff, 1], true),
        (&[0; 64], false),
        (&[0xff; 64], false),
    ];
    let start = Instant::now();
    // One that hangs up, and one that waits.
    for hangs_up in [true, false] {
        let waiting: Vec<_> = cases
            .iter()
            .map(|(bytes, _)| {
                let mut stream = TcpStream::connect(address(&receiver)).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(bytes).unwrap();
                if hangs_up {
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                }
                stream
            })
            .collect();
        for mut stream in waiting {
            let mut said = Vec::new();
            let _ = stream.read_to_end(&mut said);
            assert!(said.len() < 100, "an alert at most: {said:?}");
        }
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    knock(address(&receiver));
    running.send(frame(0, 0, b"abcdef").into()).unwrap();
    tell(&mut running, &finish(0, b"abcdef"));
    hear_type(&mut running, "receipt");
    let mut client = identity.dial(address(&receiver), &[]).unwrap();
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let metrics = ask_on(client).body;
    let refused: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("wsferry_connections_refused_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(refused, 2.0 * cases.len() as f64, "{metrics}");
}

/// What a client says first.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.unwrap().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut said = Vec::new();
    connection.write_tls(&mut said).unwrap();
    assert!(said.starts_with(&[22, 3]));
    said
}

#[test]
fn sighup_has_the_certificate_read_again_and_a_bad_one_changes_nothing() {
    let place = Place::new();
    let (old, new) = (Identity::make(&place, "old"), Identity::make(&place, "new"));
    let used =
        Identity { der: old.der.clone(), certificate: place.path("used.pem"), key: place.path("used.key") };
    let put = |identity: &Identity| {
        std::fs::copy(&identity.certificate, &used.certificate).unwrap();
        std::fs::copy(&identity.key, &used.key).unwrap();
    };
    put(&old);
    let receiver = Receiver::start(&place, &used.flags());
    let address = address(&receiver);
    let mut running = old.websocket(address);
    tell(&mut running, &hello());
    tell(&mut running, &offer("f", 6));
    hear_type(&mut running, "accept");
    new.dial(address, &[]).unwrap_err();

    let told = |words: &str| {
        receiver.running.signal("-HUP");
        let notice = receiver.running.wait_for(|event| event["event"] == "notice");
        let reason = notice["reason"].as_str().unwrap();
        assert!(reason.contains(words), "{reason}");
    };
    // A key of another certificate, none, no PEM, no file.
    std::fs::copy(&new.key, &used.key).unwrap();
    told("from before is kept");
    std::fs::write(&used.key, "nothing\n").unwrap();
    told("no private key");
    put(&old);
    std::fs::write(&used.certificate, "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n")
        .unwrap();
    told("from before is kept");
    std::fs::remove_file(&used.certificate).unwrap();
    told("cannot read");
    deliver(&mut old.websocket(address), "g", b"still the old one");

    put(&new);
    told("was read again");
    deliver(&mut new.websocket(address), "h", b"the new one");
    old.dial(address, &[]).unwrap_err();
    running.send(frame(0, 0, b"abcdef").into()).unwrap();
    tell(&mut running, &finish(0, b"abcdef"));
    hear_type(&mut running, "receipt");
    assert_eq!(place.listing(), ["f", "g", "h"]);
}

#[test]
fn a_certificate_that_cannot_be_used_ends_the_program_with_the_reason() {
    let place = Place::new();
    let (one, other) = (Identity::make(&place, "one"), Identity::make(&place, "other"));
    let empty = place.file("empty", b"");
    let key =
        place.file("half.key", KeyPair::generate().unwrap().serialize_pem().replace("END", "E").as_bytes());
    for (certificate, its_key, words) in [
        (&one.certificate, &other.key, "cannot be used"),
        (&one.key, &one.key, "no certificate"),
        (&one.certificate, &one.certificate, "no private key"),
        (&empty, &one.key, "no certificate"),
        (&one.certificate, &key, "private key"),
        (&place.path("none"), &one.key, "cannot read"),
    ] {
        let mut command = wsferry();
        command.arg("receive").arg(place.inbox()).args(["--listen", "127.0.0.1:0"]);
        command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(its_key);
        let files = [certificate.to_str().unwrap(), its_key.to_str().unwrap()];
        let named = if words == "cannot read" { &files[..1] } else { &files[..] };
        Running::start(&mut command).end().assert_error(1, &[&[words], named].concat());
    }
    for flag in ["--tls-cert", "--tls-key"] {
        let ended = Running::start(wsferry().arg("receive").arg(flag).arg(&one.key)).end();
        assert_eq!(ended.code(), 2, "one without the other: {ended:?}");
    }
    // A sender without TLS is told something it can make sense of.
    let receiver = Receiver::start(&place, &one.flags());
    let url = receiver.url.replace("wss://", "ws://");
    let sent = send(&one.key, &url, &["--retry-for", "0s"]);
    sent.assert_error(1, &["speaks TLS on this port", "dial it with wss://"]);
}
