//! Certificates made for a test, and TLS in front of whatever has none.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use futures::AsyncReadExt;
use futures_rustls::TlsAcceptor;
use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::crypto::aws_lc_rs;
use futures_rustls::rustls::server::WebPkiClientVerifier;
use futures_rustls::rustls::version::{TLS12, TLS13};
use futures_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use smol::net::TcpStream;
use wsferry::runtime;

/// A certificate and its key.
#[derive(Clone)]
pub struct Issued {
    pub pem: String,
    pub key_pem: String,
    der: CertificateDer<'static>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl Issued {
    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().clone(),
            key: Arc::new(PrivateKeyDer::try_from(key.serialize_der()).unwrap()),
        }
    }

    /// A server that shows it, and wants one of the client's that `clients` has signed.
    pub fn server(&self, clients: Option<&Authority>) -> Arc<ServerConfig> {
        self.server_of(&[&TLS13, &TLS12], clients)
    }

    /// One that speaks these versions alone.
    pub fn server_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        clients: Option<&Authority>,
    ) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone());
        let config = config.with_protocol_versions(versions).unwrap();
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.issued.der.clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = config.with_single_cert(vec![self.der.clone()], self.key.clone_key()).unwrap();
        // It would rather speak HTTP/2, which carries no handshake of WebSocket's first kind.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

fn params(names: &[&str], subject: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, subject);
    params
}

/// A certificate that signs others.
pub struct Authority {
    pub issued: Issued,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(&[], name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issued = Issued::new(&params.self_signed(&key).unwrap(), &key);
        Self { issued, issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| {})
    }

    /// One that is valid from the first of January to the first of January.
    pub fn issue_for(&self, names: &[&str], years: std::ops::Range<i32>) -> Issued {
        self.issue_with(names, |params| {
            params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
            params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        })
    }

    fn issue_with(&self, names: &[&str], change: impl Fn(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = params(names, "the server's own");
        change(&mut params);
        Issued::new(&params.signed_by(&key, &self.issuer).unwrap(), &key)
    }
}

/// One that nobody else has signed; as `openssl req -x509` makes them, it could sign others.
pub fn self_signed(names: &[&str]) -> Issued {
    let key = KeyPair::generate().unwrap();
    let mut params = params(names, "made at home");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Issued::new(&params.self_signed(&key).unwrap(), &key)
}

/// Speaks TLS on a port of its own, and passes what is in it on.
pub struct Front {
    address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

impl Front {
    pub fn start(target: SocketAddr, config: Arc<ServerConfig>) -> Self {
        Self::start_with(target, move |_| config.clone())
    }

    /// Each connection has its own TLS, by its number from 0.
    pub fn start_with(
        target: SocketAddr,
        config: impl Fn(usize) -> Arc<ServerConfig> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let front = Self { address: listener.local_addr().unwrap(), connections: Arc::default() };
        let connections = front.connections.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let acceptor = TlsAcceptor::from(config(connections.fetch_add(1, Ordering::SeqCst)));
                thread::spawn(move || runtime::block_on(pass(acceptor, client, target)));
            }
        });
        front
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("wss://localhost:{}", self.address.port())
    }

    pub fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn pass(acceptor: TlsAcceptor, client: std::net::TcpStream, target: SocketAddr) {
    let Ok(client) = TcpStream::try_from(client) else { return };
    let Ok(client) = acceptor.accept(client).await else { return };
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.clone().split();
    let there = async {
        let _ = futures::io::copy(from_client, &mut to_server).await;
        let _ = server.shutdown(std::net::Shutdown::Write);
    };
    let back = async {
        let _ = futures::io::copy(from_server, &mut to_client).await;
        let _ = futures::AsyncWriteExt::close(&mut to_client).await;
    };
    futures::future::join(there, back).await;
}
