//! Where a receiver listens: TCP, of both families where a name means both, or a Unix socket.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use futures::FutureExt;
use futures::future::select_all;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::runtime::{self, Stream, TcpListener, UnixListener};
use crate::transport::Caller;

/// The name that means this machine, in both families, whatever the machine says of it (RFC 6761, 6.3).
const LOCALHOST: &str = "localhost";
/// How often another free port is tried that is to be free in both families.
const PORT_TRIES: u32 = 16;
/// Connections that may wait to be accepted on a Unix socket.
const BACKLOG: i32 = 1024;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A host's name or address, and a port; port 0 takes a free one.
    Tcp(String, u16),
    /// A Unix socket of this name.
    Unix(PathBuf),
}

/// Sockets that accept connections. A Unix socket's file is removed when this is dropped.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<Socket>,
    address: String,
    tcp: Vec<SocketAddr>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "dropped with it")] SocketFile),
}

impl ListenAddress {
    /// Starts to listen.
    ///
    /// # Errors
    /// If that cannot be done there.
    pub async fn bind(&self) -> io::Result<Listener> {
        match self {
            Self::Tcp(host, port) => bind_tcp(host, *port).await,
            Self::Unix(path) => {
                let path = path.clone();
                let address = format!("unix:{}", path.display());
                let (listener, file) = runtime::spawn_blocking(move || bind_unix(&path)).await?;
                Ok(Listener { sockets: vec![Socket::Unix(listener, file)], address, tcp: Vec::new() })
            }
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path);
            let is_file = path.file_name().is_some();
            return if is_file {
                Ok(Self::Unix(path.to_owned()))
            } else {
                Err("it names no file".to_owned())
            };
        }
        let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains('/'));
        match parts.map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => Ok(Self::Tcp(host.to_owned(), port)),
            _ => Err("expected HOST:PORT, such as 127.0.0.1:9000, or unix:PATH".to_owned()),
        }
    }
}

impl Listener {
    /// As [`ListenAddress::bind`], of what is written like one.
    ///
    /// # Errors
    /// If it is none, or cannot be listened on.
    pub async fn bind(address: &str) -> io::Result<Self> {
        let address: ListenAddress =
            address.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        address.bind().await
    }

    /// Where it listens, for people and URLs: `127.0.0.1:9000`, `localhost:9000`, `unix:PATH`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The addresses and the port of its TCP sockets.
    pub fn tcp_addresses(&self) -> &[SocketAddr] {
        &self.tcp
    }

    /// Whether nobody but this machine can connect.
    pub fn is_local(&self) -> bool {
        self.tcp.iter().all(|address| address.ip().to_canonical().is_loopback())
    }

    /// The next connection, and who made it.
    ///
    /// # Errors
    /// As the system says.
    pub async fn accept(&self) -> io::Result<(Stream, Caller)> {
        match &*self.sockets {
            [socket] => socket.accept().await,
            sockets => select_all(sockets.iter().map(|socket| socket.accept().boxed())).await.0,
        }
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<(Stream, Caller)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok((Stream::tcp(stream), Caller::tcp(address)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::unix(stream), Caller::unix()))
            }
        }
    }
}

async fn bind_tcp(host: &str, port: u16) -> io::Result<Listener> {
    let is_localhost = host.eq_ignore_ascii_case(LOCALHOST);
    let addresses = if is_localhost {
        [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].map(|ip| (ip, port).into()).to_vec()
    } else {
        let text = format!("{host}:{port}");
        runtime::spawn_blocking(move || Ok::<_, io::Error>(text.to_socket_addrs()?.collect::<Vec<_>>()))
            .await?
    };
    let mut tries = 0;
    let (sockets, tcp) = loop {
        tries += 1;
        match bind_all(&addresses).await {
            // The port that was free in one family is taken in the other.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && port == 0 && tries < PORT_TRIES => {}
            bound => break bound?,
        }
    };
    let address = match &*tcp {
        [_, _, ..] if is_localhost => format!("{LOCALHOST}:{}", tcp[0].port()),
        all => all[0].to_string(),
    };
    Ok(Listener { sockets, address, tcp })
}

/// Sockets on all of these, with one port. An address that this machine does not have, or whose family it does not know, is
/// left out if there is another.
async fn bind_all(addresses: &[SocketAddr]) -> io::Result<(Vec<Socket>, Vec<SocketAddr>)> {
    let (mut sockets, mut bound) = (Vec::new(), Vec::<SocketAddr>::new());
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        let mut address = *address;
        if let Some(first) = bound.first() {
            address.set_port(first.port());
        }
        if bound.contains(&address) {
            continue;
        }
        match TcpListener::bind(address).await {
            Ok(listener) => {
                bound.push(listener.local_addr()?);
                sockets.push(Socket::Tcp(listener));
            }
            Err(error) if is_not_here(&error) => failure = error,
            Err(error) => return Err(error),
        }
    }
    if sockets.is_empty() { Err(failure) } else { Ok((sockets, bound)) }
}

fn is_not_here(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

/// The file of a socket that this process made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and number of it: another one of that name is not ours to remove.
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Blocks.
fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let made = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), id: (made.dev(), made.ino()) };
    // Nobody can connect before it listens, so nobody can between these lines.
    rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let listener = StdUnixListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok((listener.into(), file))
}

/// Removes the socket of a process that has ended without removing it: nobody answers there.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    let in_use = |why: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    if !found.file_type().is_socket() {
        return in_use("something that is no socket is there");
    }
    match StdUnixStream::connect(path) {
        Ok(_) => in_use("another program listens there"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port_or_a_socket() {
        let tcp = |host: &str, port| Ok(ListenAddress::Tcp(host.to_owned(), port));
        for (text, address) in [
            ("127.0.0.1:9000", tcp("127.0.0.1", 9000)),
            ("[::1]:0", tcp("[::1]", 0)),
            ("localhost:1", tcp("localhost", 1)),
            ("unix:/run/x", Ok(ListenAddress::Unix("/run/x".into()))),
            ("unix:x", Ok(ListenAddress::Unix("x".into()))),
        ] {
            assert_eq!(text.parse(), address, "{text}");
        }
        for text in ["", "9000", ":9000", "ws://a:1", "a:b", "a:70000", "unix:", "unix:/", "unix:.."] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }
}
