//! TLS on the listening side: who dials speaks it from the first byte on.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use futures_rustls::TlsAcceptor;
use futures_rustls::pki_types::pem::{self, PemObject};
use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::{self, ServerConfig, crypto};

use super::TransportError;
use super::bulk::Bulk;
use super::server::tell_to_encrypt;
use crate::runtime::Stream;

/// What is spoken inside; HTTP/2 has WebSockets of another kind.
const ALPN: &[u8] = b"http/1.1";

/// A certificate, its key, and what is agreed with them. Clones change together.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

/// Why a certificate and a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file is no PEM.
    #[error("the {what} is no PEM: {why}")]
    Pem {
        /// Which of the two.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// There is none in it.
    #[error("there is no {what} in the file, which has to be PEM")]
    Missing {
        /// Which of the two.
        what: &'static str,
    },
    /// They do not belong together, or are of a kind that is not supported.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(String),
}

impl Tls {
    /// With a certificate, followed by those that signed it, and its key, in PEM.
    ///
    /// # Errors
    /// If they make no sense.
    pub fn new(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(config(certificates, key)?))))
    }

    /// Uses these from the next connection on.
    ///
    /// # Errors
    /// If they make no sense; then nothing changes.
    pub fn renew(&self, certificates: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let config = config(certificates, key)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Answers the TLS handshake of a peer that dialled; `None` if it said nothing at all.
    ///
    /// # Errors
    /// If it does not speak TLS, or not as this side does. It was told.
    pub async fn accept(&self, mut stream: Stream, address: &str) -> Result<Option<Stream>, TransportError> {
        let lost =
            |error: io::Error| TransportError::Lost { address: address.to_owned(), why: error.to_string() };
        let mut first = [0];
        if stream.read(&mut first).await.map_err(lost)? == 0 {
            return Ok(None);
        }
        // A method of HTTP begins with a letter, a record of TLS with the number of its kind.
        if first[0].is_ascii_alphabetic() {
            tell_to_encrypt(&mut stream).await;
            return Err(TransportError::Unencrypted { address: address.to_owned() });
        }
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let stream = Seen { first: Some(first[0]), stream };
        match TlsAcceptor::from(config).accept(Bulk::new(stream)).await {
            Ok(stream) => {
                let (_, agreed) = stream.get_ref();
                tracing::debug!(peer = address, version = ?agreed.protocol_version(), "TLS");
                Ok(Some(Stream::new(stream)))
            }
            Err(error) => {
                Err(TransportError::TlsHandshake { address: address.to_owned(), why: error.to_string() })
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

fn config(certificates: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    const CERTIFICATE: &str = "certificate";
    const KEY: &str = "private key";
    let bad = |what, error: pem::Error| match error {
        pem::Error::NoItemsFound => TlsError::Missing { what },
        error => TlsError::Pem { what, why: error.to_string() },
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
    let chain = chain.map_err(|error| bad(CERTIFICATE, error))?;
    if chain.is_empty() {
        return Err(TlsError::Missing { what: CERTIFICATE });
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| bad(KEY, error))?;
    // Named, since a program may have another one as well, and then there is no default.
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let unusable = |error: rustls::Error| TlsError::Unusable(error.to_string());
    let builder = builder.map_err(unusable)?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// A stream of which one byte was read to see what it is.
struct Seen {
    first: Option<u8>,
    stream: Stream,
}

impl AsyncRead for Seen {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if !into.is_empty()
            && let Some(first) = self.first.take()
        {
            into[0] = first;
            return Poll::Ready(Ok(1));
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Seen {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    // The last words of a handshake that fails are several records, for which there is one call.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
