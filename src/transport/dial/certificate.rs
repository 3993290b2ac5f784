//! Judges a server's certificate, and says of one that is refused which it is, whose, and since when.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use futures_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use futures_rustls::rustls::client::verify_server_name;
use futures_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use futures_rustls::rustls::server::ParsedCertificate;
use futures_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::protocol::message::clip;

/// Why a server's certificate is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFault {
    /// What is wrong with it, for programs.
    pub kind: CertificateFaultKind,
    /// Which certificate it is and what is wrong with it, for people, made safe to print.
    pub what: String,
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateFaultKind {
    /// Nobody that this machine trusts has signed it.
    Untrusted,
    /// It is none of those that the caller named to be trusted, and none of them has signed it.
    NotNamed,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is for others.
    WrongName,
    /// It is for nobody: it has no subjectAltName.
    Nameless,
    /// Anything else.
    Other,
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for CertificateFault {}

/// Asks another verifier, and says more of what that one refuses.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) inner: Arc<dyn ServerCertVerifier>,
    /// Certificates that the caller names: a server may have one of them as its own, where webpki wants a CA's.
    pub(super) pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let Err(error) = verified else { return verified };
        let chain = std::iter::once(end_entity).chain(intermediates);
        let chain: Vec<_> = chain.filter_map(|der| Certificate::from_der(der).ok()).collect();
        let is_pinned = self.pinned.iter().any(|pinned| pinned == end_entity);
        let has_name = ParsedCertificate::try_from(end_entity)
            .is_ok_and(|parsed| verify_server_name(&parsed, server_name).is_ok());
        let is_in_time = chain.first().is_some_and(|certificate| time_fault(certificate, now).is_none());
        if is_pinned && has_name && is_in_time {
            return Ok(ServerCertVerified::assertion());
        }
        let is_of_name = matches!(
            error,
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            )
        );
        // Of one that is trusted itself, webpki says first that it is a CA's.
        let judged = Judged {
            chain: &chain,
            is_of_name: is_of_name || (is_pinned && !has_name),
            is_any_named: !self.pinned.is_empty(),
        };
        let fault = fault(&error, &judged, server_name, now);
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// What is known of what a server showed.
struct Judged<'a> {
    /// Its own certificate, and those behind it.
    chain: &'a [Certificate],
    /// It is trusted, and not for this name.
    is_of_name: bool,
    /// The caller says which certificates are trusted.
    is_any_named: bool,
}

fn fault(error: &Error, judged: &Judged<'_>, name: &ServerName<'_>, now: UnixTime) -> CertificateFault {
    let &Judged { chain, is_of_name, is_any_named } = judged;
    let Some(own) = chain.first() else {
        let what = format!("its certificate cannot be read: {error}");
        return CertificateFault { kind: CertificateFaultKind::Other, what };
    };
    let untrusted =
        if is_any_named { CertificateFaultKind::NotNamed } else { CertificateFaultKind::Untrusted };
    let (kind, what) = if let Some((kind, what)) = chain.iter().find_map(|one| time_fault(one, now)) {
        (kind, what)
    } else if is_of_name && all_names(own).is_empty() {
        let what = format!(
            "its certificate, {}, names nobody: it has no subjectAltName, and nothing else in it counts",
            subject(own)
        );
        (CertificateFaultKind::Nameless, what)
    } else if is_of_name {
        let what = format!("its certificate is for {}, and not for {}", names(own), name.to_str());
        (CertificateFaultKind::WrongName, what)
    } else if is_self_signed(own) {
        (untrusted, format!("its certificate, {}, is self-signed", subject(own)))
    } else if matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer)) {
        // The last that came is the nearest to a root.
        let issuer = chain.last().map(|last| last.tbs_certificate().issuer().to_string()).unwrap_or_default();
        let what =
            format!("its certificate, {}, is signed by {issuer}, which is not trusted here", subject(own));
        (untrusted, what)
    } else {
        (CertificateFaultKind::Other, format!("its certificate, {}, is not good: {error}", subject(own)))
    };
    CertificateFault { kind, what: clip(&what).into_owned() }
}

/// What is wrong with a certificate at this time.
fn time_fault(certificate: &Certificate, now: UnixTime) -> Option<(CertificateFaultKind, String)> {
    let validity = certificate.tbs_certificate().validity();
    let now = Duration::from_secs(now.as_secs());
    if now > validity.not_after.to_unix_duration() {
        let what = format!("its certificate, {}, expired at {}", subject(certificate), validity.not_after);
        return Some((CertificateFaultKind::Expired, what));
    }
    if now < validity.not_before.to_unix_duration() {
        let what = format!(
            "its certificate, {}, is valid from {} on; is the clock right?",
            subject(certificate),
            validity.not_before
        );
        return Some((CertificateFaultKind::NotYetValid, what));
    }
    None
}

fn is_self_signed(certificate: &Certificate) -> bool {
    certificate.tbs_certificate().issuer() == certificate.tbs_certificate().subject()
}

/// Whose it is. Many have names and no subject.
fn subject(certificate: &Certificate) -> String {
    match certificate.tbs_certificate().subject().to_string() {
        subject if subject.is_empty() => names(certificate),
        subject => subject,
    }
}

/// The names and addresses that it is for, for people.
fn names(certificate: &Certificate) -> String {
    let names: Vec<String> = all_names(certificate).iter().filter_map(readable).collect();
    if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") }
}

fn all_names(certificate: &Certificate) -> Vec<GeneralName> {
    let found = certificate.tbs_certificate().get_extension::<SubjectAltName>();
    found.ok().flatten().map(|(_, SubjectAltName(names))| names).unwrap_or_default()
}

fn readable(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        GeneralName::IpAddress(address) => {
            let bytes = address.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
                .ok()
                .map(|address| address.to_string())
        }
        _ => None,
    }
}

/// Checks that a server has the key of the certificate that it shows, and nothing else of it.
#[derive(Debug)]
pub(super) struct Signatures(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for Signatures {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
