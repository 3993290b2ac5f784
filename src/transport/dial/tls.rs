//! TLS, by rustls.

use std::fmt;
use std::io;
use std::sync::Arc;

use futures_rustls::TlsConnector;
use futures_rustls::pki_types::pem::PemObject;
use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use futures_rustls::rustls::client::WebPkiServerVerifier;
use futures_rustls::rustls::client::danger::ServerCertVerifier;
use futures_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use futures_rustls::rustls::sign::CertifiedKey;
use futures_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, PeerIncompatible, RootCertStore,
};

use super::super::bulk::Bulk;
use super::certificate::{CertificateFault, Signatures, Verifier};
use super::route::TlsRoute;
use crate::runtime::Stream;

/// How TLS is spoken.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// Which certificates are trusted.
    pub trust: Trust,
    /// Who this side is, where a server asks for a certificate.
    pub identity: Option<Identity>,
    /// The name that is asked for and that the certificate has to have, instead of the URL's host.
    pub server_name: Option<ServerName<'static>>,
}

/// Which servers are trusted.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// Those that this machine trusts, or `SSL_CERT_FILE` and `SSL_CERT_DIR` say.
    #[default]
    Platform,
    /// Those whose certificates these have signed, or are.
    Only(Roots),
    /// All. Whoever is on the way can read and change what is sent.
    Anyone,
}

/// Certificates that are trusted.
#[derive(Debug, Clone)]
pub struct Roots(Vec<CertificateDer<'static>>);

impl Roots {
    /// Reads certificates from a text in PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        certificates(pem).map(Self)
    }
}

/// A certificate of this side's, and its key.
#[derive(Clone)]
pub struct Identity {
    certificates: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl Identity {
    /// Reads a chain of certificates, this side's first, and the private key of that one, from texts in PEM.
    pub fn from_pem(certificates_pem: &[u8], key_pem: &[u8]) -> Result<Self, String> {
        let certificates = certificates(certificates_pem)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem)
            .map_err(|_| "there is no private key in PEM, or it is encrypted".to_owned())?;
        CertifiedKey::from_der(certificates.clone(), key.clone_key(), &provider())
            .map_err(|error| format!("key and certificate do not go together: {error}"))?;
        Ok(Self { certificates, key: Arc::new(key) })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err("there is no certificate in PEM".to_owned()),
    }
}

/// Why TLS could not be spoken. Another try would end the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFault {
    /// The server's certificate is not taken.
    Certificate(CertificateFault),
    /// No certificate that this machine trusts was found on it, or what was named is none; why.
    NoTrust(String),
    /// What came is no TLS.
    NotTls,
    /// Neither TLS 1.2 nor 1.3 is spoken there.
    NoVersion,
    /// The server wants a certificate, or does not take the one it got; its words.
    Identity(String),
    /// It knows no server of this name.
    NoSuchName,
    /// Anything else.
    Other(String),
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(fault) => fault.fmt(f),
            Self::NoTrust(why) => write!(f, "there are no certificates to trust: {why}"),
            Self::NotTls => f.write_str("what it answers is no TLS"),
            Self::NoVersion => f.write_str("it speaks neither TLS 1.2 nor TLS 1.3"),
            Self::Identity(said) => write!(f, "it wants a client certificate that it knows ({said})"),
            Self::NoSuchName => f.write_str("it knows no server of this name"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl TlsFault {
    /// What stands behind an error of a stream, if TLS does; not what may pass by itself.
    pub(in crate::transport) fn of(error: &io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<Error>()?;
        Some(match error {
            Error::AlertReceived(AlertDescription::InternalError | AlertDescription::UserCanceled) => {
                return None;
            }
            Error::InvalidCertificate(CertificateError::Other(other)) => {
                match other.0.downcast_ref::<CertificateFault>() {
                    Some(fault) => Self::Certificate(fault.clone()),
                    None => Self::Other(error.to_string()),
                }
            }
            Error::InvalidMessage(_) => Self::NotTls,
            Error::AlertReceived(AlertDescription::ProtocolVersion)
            | Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Self::NoVersion,
            Error::AlertReceived(
                alert @ (AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied),
            ) => Self::Identity(words(*alert)),
            Error::AlertReceived(AlertDescription::UnrecognisedName) => Self::NoSuchName,
            Error::AlertReceived(alert) => Self::Other(format!("it ended the handshake ({})", words(*alert))),
            error => Self::Other(error.to_string()),
        })
    }
}

/// What an alert is called, in words: `certificate required`, `unknown CA`.
fn words(alert: AlertDescription) -> String {
    let name = format!("{alert:?}");
    let mut words = String::new();
    let mut before = 'A';
    for c in name.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            words.push(' ');
        }
        words.push(c);
        before = c;
    }
    let lower = |word: &str| match word.chars().all(char::is_uppercase) {
        true => word.to_owned(),
        false => word.to_lowercase(),
    };
    words.split(' ').map(lower).collect::<Vec<_>>().join(" ")
}

/// Speaks TLS over streams.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// With what the options say. Reads the certificates that this machine trusts, if it comes to those.
    pub(super) fn new(options: &TlsOptions) -> Result<Self, TlsFault> {
        let provider = Arc::new(provider());
        let (inner, pinned) = match &options.trust {
            Trust::Platform => (platform(&provider)?, Vec::new()),
            Trust::Only(Roots(roots)) => (only(roots, &provider)?, roots.clone()),
            Trust::Anyone => (Arc::new(Signatures(provider.clone())) as _, Vec::new()),
        };
        let other = |error: Error| TlsFault::Other(error.to_string());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { inner, pinned }));
        let mut config = match &options.identity {
            Some(Identity { certificates, key }) => {
                config.with_client_auth_cert(certificates.clone(), key.clone_key()).map_err(other)?
            }
            None => config.with_no_client_auth(),
        };
        // A handshake of WebSocket is HTTP/1.1's: a server that prefers HTTP/2 must not choose it.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Begins to speak it, and tells what it came to.
    pub(super) async fn secure(
        &self,
        stream: Stream,
        name: ServerName<'static>,
    ) -> io::Result<(Stream, TlsRoute)> {
        let stream = self.0.connect(name, Bulk::new(stream)).await?;
        let route = TlsRoute::of(stream.get_ref().1);
        Ok((Stream::new(stream), route))
    }
}

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

fn platform(provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TlsFault> {
    let verifier = rustls_platform_verifier::Verifier::new(provider.clone());
    verifier.map(|verifier| Arc::new(verifier) as _).map_err(|error| TlsFault::NoTrust(error.to_string()))
}

fn only(
    roots: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsFault> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| TlsFault::NoTrust(error.to_string()))?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build();
    verifier.map(|verifier| verifier as _).map_err(|error| TlsFault::NoTrust(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_called_by_words() {
        for (alert, called) in [
            (AlertDescription::CertificateRequired, "certificate required"),
            (AlertDescription::UnknownCA, "unknown CA"),
            (AlertDescription::AccessDenied, "access denied"),
            (AlertDescription::HandshakeFailure, "handshake failure"),
        ] {
            assert_eq!(words(alert), called);
        }
    }
}
