//! Which flag helps against an error: the library's errors hold facts, and know no flags.

use std::io;
use std::net::IpAddr;

use wsferry::protocol::Code;
use wsferry::storage::SourceError;
use wsferry::transfer::{Error, ErrorKind};
use wsferry::transport::TransportError;
use wsferry::transport::dial::{CertificateFault, CertificateFaultKind, ProxyFault, TlsFault};

/// What this side does, which decides what there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// It listens, and receives.
    Receive,
    /// It listens, and sends.
    Offer,
    /// It reaches out for one sender, and receives.
    Fetch,
    /// It reaches out, and sends.
    Send,
}

/// What to do about an error that ends the transfer of `name`, to stand behind it; `goes_on` if another run would not begin
/// anew.
pub fn of_transfer(error: &Error, does: Does, name: Option<&str>, goes_on: bool) -> String {
    // One that was taken over goes on already.
    let is_cut = error.kind() == ErrorKind::Interrupted && goes_on && !matches!(error, Error::TakenOver);
    match (does, error, name) {
        (Does::Receive | Does::Offer, Error::Transport(TransportError::Page { origin, .. }), _) => {
            format!("; if it is yours, start with --allow-origin {origin}")
        }
        (Does::Receive | Does::Offer, Error::Transport(TransportError::Encrypted { .. }), _) => {
            "; dial ws://, or start with --tls-cert and --tls-key".to_owned()
        }
        (Does::Receive | Does::Offer, Error::Transport(TransportError::Unencrypted { .. }), _) => {
            "; dial wss://, or start without --tls-cert and --tls-key".to_owned()
        }
        (Does::Fetch, Error::Transport(TransportError::Connect { source, .. }), _)
            if source.kind() == io::ErrorKind::ConnectionRefused =>
        {
            "; nobody listens there: is `wsferry send --listen` running?".to_owned()
        }
        (Does::Send | Does::Fetch, ..) => {
            let again = if is_cut { "; run the same command again to resume" } else { "" };
            format!("{}{again}", of(error))
        }
        (Does::Offer, _, Some(name)) if is_cut => {
            format!("{}; the receiver of {name} can come back for the rest", of(error))
        }
        (Does::Offer, ..) => of(error).to_owned(),
        (Does::Receive, _, Some(name)) if is_cut => format!("; the sender of {name} can resume"),
        (Does::Receive, ..) => String::new(),
    }
}

/// What to do about it, to stand behind the error; empty if there is nothing to say.
pub fn of(error: &Error) -> &'static str {
    match error {
        Error::GaveUp { last, .. } | Error::TooNarrow { last, .. } => of(last),
        Error::Transport(error) => of_transport(error),
        Error::Refused { code, .. } | Error::PeerEnded { code, .. } => match code {
            Code::Exists => {
                "; --name sends it under another name, and a receiver with --overwrite replaces files"
            }
            Code::Discard => "; start the receiver with --allow-bench",
            _ => "",
        },
        Error::Source(SourceError::Name { .. }) => "; choose another with --name",
        _ => "",
    }
}

/// The same of a file that is sent without the protocol.
pub fn of_plain(error: &Error) -> &'static str {
    match error {
        Error::Transport(TransportError::NotWebSocket { status: 426, .. }) => {
            "; start the receiver with --plain"
        }
        error => of(error),
    }
}

fn of_transport(error: &TransportError) -> &'static str {
    match error {
        TransportError::NotWebSocket { status, location, asked, .. } => match status {
            400 if !asked.over_tls => "; if that port speaks TLS, dial it with wss://",
            300..=399 if location.is_some() => "; name that URL instead, if it is one to be trusted",
            401 | 403 if asked.authorized => {
                "; is that right in --token-file, --token, --user, --header or the URL?"
            }
            401 => "; say it with --token-file FILE, --token, --user NAME:PASSWORD or --header",
            403 => "; say who calls with --token-file FILE, --token, --user NAME:PASSWORD or --header",
            407 => "; name it with --proxy http://NAME:PASSWORD@HOST:PORT",
            421 => "; --connect-to HOST:PORT dials there and keeps the URL's host name",
            426 if !asked.subprotocol => "; start the receiver with --no-subprotocol too",
            426 => "; if a gateway does not pass the subprotocol, give both sides --no-subprotocol",
            _ => "",
        },
        TransportError::Connect { address, source } => of_reach(address, source),
        TransportError::HandshakeTimeout { .. } => "; is that the right port, and is wsferry behind it?",
        TransportError::Closed { code: 1009, .. } => "; it may take smaller ones: --frame-limit SIZE",
        TransportError::NotWsferry { .. } => {
            "; if a gateway does not pass the subprotocol, give both sides --no-subprotocol"
        }
        TransportError::Noise { .. } => "; if what was started is wsferry, it lacks --stdio",
        TransportError::Tls { fault, .. } => of_tls(fault),
        TransportError::Proxy { fault, .. } => match fault {
            ProxyFault::Login(_) => "; say who calls with --proxy SCHEME://NAME:PASSWORD@HOST:PORT",
            ProxyFault::SpeaksTls => "; name it as --proxy https://HOST:PORT",
            ProxyFault::Tls(TlsFault::NotTls) => "; name it as --proxy http://HOST:PORT",
            ProxyFault::Tls(fault) => of_tls(fault),
            _ => "; to go without a proxy: --no-proxy",
        },
        _ => "",
    }
}

/// A host's port cannot be listened on.
pub fn of_listening(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another `wsferry receive` may be running; --listen HOST:PORT chooses another port"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 may be for root alone; --listen HOST:PORT chooses another"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; that is no address of this machine; --listen 0.0.0.0:PORT takes them all"
        }
        _ => "",
    }
}

/// Nobody answers there.
fn of_reach(address: &str, error: &io::Error) -> &'static str {
    if error.kind() != io::ErrorKind::ConnectionRefused {
        return "; is that the right address, and can it be reached from here?";
    }
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let host: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    match port {
        "80" | "443" => {
            "; nobody listens there; a URL without a port means this one, and a receiver listens on 9000"
        }
        _ if host.is_some_and(|host| !host.is_loopback()) => {
            "; nobody listens there; a receiver listens on loopback alone unless --listen says otherwise"
        }
        _ => "; nobody listens there: is `wsferry receive` running?",
    }
}

fn of_tls(fault: &TlsFault) -> &'static str {
    match fault {
        TlsFault::Certificate(CertificateFault { kind, .. }) => match kind {
            CertificateFaultKind::Untrusted => {
                "; if you trust it, name the certificate with --ca-cert FILE; --insecure takes any"
            }
            CertificateFaultKind::NotNamed => {
                "; the file of --ca-cert has another: it has to hold this one, or the one that signed it; \
                 --insecure takes any"
            }
            CertificateFaultKind::WrongName => "; --server-name NAME asks for one of its own",
            CertificateFaultKind::Nameless => {
                "; give the server one with a subjectAltName of the URL's host; --insecure takes any"
            }
            _ => "",
        },
        TlsFault::NoTrust(_) => "; name those to trust with --ca-cert FILE",
        TlsFault::NotTls => "; if there is none on this port, dial it with ws://",
        TlsFault::Identity(_) => "; show one with --cert FILE --key FILE",
        TlsFault::NoSuchName => "; it may be known by another: --server-name NAME",
        _ => "",
    }
}
