//! The same of the transport: a value of every variant, or several where what it says branches.

use std::io;
use std::time::Duration;

use wsferry::transport::dial::{CertificateFault, CertificateFaultKind, ProxyFault, TlsFault};
use wsferry::transport::{Asked, Refusal, TlsError, TransportError};

use super::samples::PEER;

/// What this side dials.
const URL: &str = "ws://files.example:9000";
const HOST: &str = "files.example:443";
const PROXY: &str = "http://proxy.example:3128";

/// All of them.
pub fn all() -> Vec<TransportError> {
    let tls = tls(tls_faults(&certificate_kinds()));
    [dialling(), tls, proxies(proxy_faults()), listening(refusals()), connected()]
        .into_iter()
        .flatten()
        .collect()
}

fn url() -> String {
    URL.to_owned()
}

fn peer() -> String {
    PEER.to_owned()
}

pub fn certificate_kinds() -> Vec<CertificateFaultKind> {
    use CertificateFaultKind::{Expired, Nameless, NotNamed, NotYetValid, Other, Untrusted, WrongName};
    vec![Untrusted, NotNamed, Expired, NotYetValid, WrongName, Nameless, Other]
}

/// One of each, and one for each fault of a certificate, in the words that are made for it.
pub fn tls_faults(kinds: &[CertificateFaultKind]) -> Vec<TlsFault> {
    let certificate = |&kind: &CertificateFaultKind| {
        let what = match kind {
            CertificateFaultKind::Untrusted | CertificateFaultKind::NotNamed => "is self-signed",
            CertificateFaultKind::Expired => "expired at 2024-01-01T00:00:00Z",
            CertificateFaultKind::NotYetValid => "is valid from 2099-01-01T00:00:00Z on; is the clock right?",
            CertificateFaultKind::WrongName => "is for other.example, and not for files.example",
            CertificateFaultKind::Nameless => {
                "names nobody: it has no subjectAltName, and nothing else in it counts"
            }
            _ => "is not good: invalid peer certificate: BadEncoding",
        };
        TlsFault::Certificate(CertificateFault { kind, what: format!("its certificate, CN=files, {what}") })
    };
    let mut faults: Vec<TlsFault> = kinds.iter().map(certificate).collect();
    faults.extend([
        TlsFault::NoTrust("No CA certificates were loaded from the system".to_owned()),
        TlsFault::NotTls,
        TlsFault::NoVersion,
        TlsFault::Identity("certificate required".to_owned()),
        TlsFault::NoSuchName,
        TlsFault::Other("it ended the handshake (handshake failure)".to_owned()),
    ]);
    faults
}

pub fn tls(faults: Vec<TlsFault>) -> Vec<TransportError> {
    faults.into_iter().map(|fault| TransportError::Tls { address: HOST.to_owned(), fault }).collect()
}

/// One of each, and one for each advice.
pub fn proxy_faults() -> Vec<ProxyFault> {
    let certificate = tls_faults(&[CertificateFaultKind::Untrusted]).remove(0);
    vec![
        ProxyFault::Unreachable("Connection refused (os error 111)".to_owned()),
        ProxyFault::Lookup("failed to lookup address information: Name or service not known".to_owned()),
        ProxyFault::Status(403),
        ProxyFault::Status(502),
        ProxyFault::Status(500),
        ProxyFault::Login("it wants to know who calls (HTTP 407, by Basic)".to_owned()),
        ProxyFault::Denied("it may not connect there, by its rules".to_owned()),
        ProxyFault::Failed("the host cannot be reached".to_owned()),
        ProxyFault::Tls(TlsFault::NotTls),
        ProxyFault::Tls(certificate),
        ProxyFault::SpeaksTls,
    ]
}

pub fn proxies(faults: Vec<ProxyFault>) -> Vec<TransportError> {
    let (proxy, address) = (PROXY.to_owned(), HOST.to_owned());
    let fault = |fault| TransportError::Proxy { proxy: proxy.clone(), address: address.clone(), fault };
    faults.into_iter().map(fault).collect()
}

/// What meets who dials, or starts a program.
pub fn dialling() -> Vec<TransportError> {
    let connect = |address: &str, kind: io::ErrorKind, text: &str| TransportError::Connect {
        address: address.to_owned(),
        source: io::Error::new(kind, text.to_owned()),
    };
    let refused =
        |address| connect(address, io::ErrorKind::ConnectionRefused, "Connection refused (os error 111)");
    let mut usual = Asked::default();
    usual.subprotocol = true;
    let (mut over_tls, mut authorized) = (usual, usual);
    (over_tls.over_tls, authorized.authorized) = (true, true);
    let asked = |status, asked, location: Option<&str>| TransportError::NotWebSocket {
        address: url(),
        status,
        asked,
        location: location.map(str::to_owned),
        retry_after: None,
    };
    let answered = |status, location| asked(status, usual, location);
    let program = || "ssh files.example photos".to_owned();
    let mut errors = vec![
        refused("127.0.0.1:9000"),
        refused("192.0.2.7:9000"),
        refused("192.0.2.7:443"),
        connect("192.0.2.7:9000", io::ErrorKind::HostUnreachable, "No route to host (os error 113)"),
        TransportError::SpeaksTls { address: url() },
        TransportError::HandshakeTimeout { address: url(), limit: Duration::from_secs(10) },
        TransportError::Unanswered { address: program(), why: "it hung up".to_owned() },
        TransportError::Noise { address: program(), said: "Welcome to files.example!".to_owned() },
        answered(302, Some("https://other.example/")),
        answered(302, None),
    ];
    errors.extend([400, 401, 403, 404, 407, 421, 426, 429, 502, 503].map(|status| answered(status, None)));
    errors.extend([
        asked(400, over_tls, None),
        asked(401, authorized, None),
        asked(403, authorized, None),
        asked(426, Asked::default(), None),
        TransportError::NotWsferry { address: url() },
        TransportError::Handshake {
            address: url(),
            why: "its answer does not switch to WebSocket; is it a wsferry?".to_owned(),
        },
    ]);
    errors
}

pub fn refusals() -> Vec<Refusal> {
    vec![Refusal::NoToken, Refusal::WrongToken, Refusal::Path, Refusal::Crowded, Refusal::Draining]
}

/// What meets who listens; one for each refusal too.
pub fn listening(refusals: Vec<Refusal>) -> Vec<TransportError> {
    let why = |why: &str| why.to_owned();
    let mut errors = vec![
        TransportError::Page { address: peer(), origin: why("https://page.example") },
        TransportError::Encrypted { address: peer() },
        TransportError::Unencrypted { address: peer() },
        TransportError::TlsHandshake { address: peer(), why: why("received fatal alert: UnknownCA") },
        TransportError::Handshake { address: peer(), why: why("the head of its request is too long") },
    ];
    errors.extend(refusals.into_iter().map(|refusal| TransportError::Refused { address: peer(), refusal }));
    errors
}

/// What meets either side of a connection.
pub fn connected() -> Vec<TransportError> {
    vec![
        TransportError::Lost { address: peer(), why: "it hung up".to_owned() },
        TransportError::Crowded { address: peer() },
        TransportError::Frame { address: peer(), why: "a frame with reserved bits".to_owned() },
        close(1008, "THE PEER'S WORDS"),
        close(1009, ""),
    ]
}

/// A close for each code that is explained, and one that is not.
pub fn closed() -> Vec<TransportError> {
    [1000, 1001, 1003, 1005, 1008, 1011, 1012, 1013].map(|code| close(code, "")).into()
}

fn close(code: u16, reason: &str) -> TransportError {
    TransportError::Closed { address: peer(), code, reason: reason.to_owned() }
}

pub fn tls_errors() -> Vec<TlsError> {
    vec![
        TlsError::Pem { what: "certificate", why: "section start marker is missing".to_owned() },
        TlsError::Missing { what: "private key" },
        TlsError::Unusable("keys may not be consistent: KeyMismatch".to_owned()),
    ]
}
