//! Which flag helps against an error: the library's errors hold facts, and know no flags.

use wsferry::transfer::Error;
use wsferry::transport::TransportError;
use wsferry::transport::dial::{CertificateFault, CertificateFaultKind, ProxyFault, TlsFault};

/// What to do about it, to stand behind the error; empty if there is nothing to say.
pub fn of(error: &Error) -> &'static str {
    match error {
        Error::GaveUp { last, .. } | Error::TooNarrow { last, .. } => of(last),
        Error::Transport(error) => of_transport(error),
        _ => "",
    }
}

fn of_transport(error: &TransportError) -> &'static str {
    match error {
        TransportError::NotWebSocket { status, .. } => match status {
            300..=399 => "; send to that URL instead, if it is one to be trusted",
            401 | 403 => "; say who calls with --token, --user NAME:PASSWORD or --header",
            407 => "; name it with --proxy http://NAME:PASSWORD@HOST:PORT",
            421 => "; --connect-to HOST:PORT dials there and keeps the URL's host name",
            426 => "; if a gateway does not pass the subprotocol, give both sides --no-subprotocol",
            _ => "",
        },
        TransportError::NotWsferry { .. } => {
            "; if a gateway does not pass the subprotocol, give both sides --no-subprotocol"
        }
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

fn of_tls(fault: &TlsFault) -> &'static str {
    match fault {
        TlsFault::Certificate(CertificateFault { kind, .. }) => match kind {
            CertificateFaultKind::Untrusted => {
                "; if you trust it, name the certificate with --ca-cert FILE; --insecure takes any"
            }
            CertificateFaultKind::WrongName => "; if that is whom you mean, give --server-name NAME",
            _ => "",
        },
        TlsFault::NoTrust(_) => "; name those to trust with --ca-cert FILE",
        TlsFault::NotTls => "; if there is none on this port, dial it with ws://",
        TlsFault::Identity(_) => "; show one with --cert FILE --key FILE",
        TlsFault::NoSuchName => "; it may be known by another: --server-name NAME",
        _ => "",
    }
}
