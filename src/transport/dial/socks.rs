//! A SOCKS5 proxy's half of a connection (RFC 1928), with a user and a password if need be (RFC 1929).

use std::io;
use std::net::SocketAddr;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::credentials::Login;

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const BY_PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xFF;
/// RFC 1929's own version.
const PASSWORD_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Where the proxy is to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Address(SocketAddr),
    /// A host, which the proxy looks up, and a port.
    Name(String, u16),
}

/// Why it does not.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It wants a user and a password, or other ones.
    Login(&'static str),
    /// It cannot, and another time it may.
    Failed(String),
    /// It does not.
    Denied(String),
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Has the proxy at the other end of `stream` connect to `target`.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: &Target,
    login: Option<&Login>,
) -> Result<(), Refusal> {
    let methods: &[u8] = if login.is_some() { &[NO_LOGIN, BY_PASSWORD] } else { &[NO_LOGIN] };
    say(stream, &[&[VERSION, methods.len() as u8], methods].concat()).await?;
    let [version, method] = hear(stream).await?;
    if version != VERSION {
        return Err(Refusal::Denied("what it answers is no SOCKS5".to_owned()));
    }
    match (method, login) {
        (NO_LOGIN, _) => {}
        (BY_PASSWORD, Some(login)) => {
            let (user, password) = (login.user().as_bytes(), login.password().reveal().as_bytes());
            let (Ok(user_len), Ok(password_len)) = (user.len().try_into(), password.len().try_into()) else {
                return Err(Refusal::Login("it takes no user or password of more than 255 bytes"));
            };
            say(stream, &[&[PASSWORD_VERSION, user_len], user, &[password_len], password].concat()).await?;
            let [_, status] = hear(stream).await?;
            if status != 0 {
                return Err(Refusal::Login("it does not take this user and password"));
            }
        }
        (NONE_ACCEPTABLE, None) => return Err(Refusal::Login("it wants to know who calls")),
        (NONE_ACCEPTABLE, Some(_)) => {
            return Err(Refusal::Login("it takes no user and password, and does not let everybody in"));
        }
        _ => return Err(Refusal::Denied("it chose a way to log in that was not offered".to_owned())),
    }
    let address = match target {
        Target::Address(SocketAddr::V4(at)) => {
            [&[IPV4][..], &at.ip().octets(), &at.port().to_be_bytes()].concat()
        }
        Target::Address(SocketAddr::V6(at)) => {
            [&[IPV6][..], &at.ip().octets(), &at.port().to_be_bytes()].concat()
        }
        Target::Name(host, port) => {
            let len = host.len().try_into();
            let len =
                len.map_err(|_| Refusal::Denied("it takes no host name of more than 255 bytes".to_owned()))?;
            [&[NAME, len], host.as_bytes(), &port.to_be_bytes()].concat()
        }
    };
    say(stream, &[&[VERSION, CONNECT, 0], &address[..]].concat()).await?;
    let [_, reply, _, kind] = hear(stream).await?;
    if reply != 0 {
        return Err(refusal(reply));
    }
    // The address that it uses, and a port: of no interest here.
    let len = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(hear::<_, 1>(stream).await?[0]),
        _ => return Err(Refusal::Denied("its answer makes no sense".to_owned())),
    };
    stream.read_exact(&mut vec![0; len + 2]).await?;
    Ok(())
}

/// RFC 1928, 6.
fn refusal(reply: u8) -> Refusal {
    let words = match reply {
        1 => "general failure",
        2 => return Refusal::Denied("it may not connect there, by its rules".to_owned()),
        3 => "the network cannot be reached",
        4 => "the host cannot be reached",
        5 => "the connection was refused",
        6 => "the time to live expired",
        7 => return Refusal::Denied("it does not make connections".to_owned()),
        8 => return Refusal::Denied("it does not know this kind of address".to_owned()),
        _ => "an unknown failure",
    };
    Refusal::Failed(format!("it cannot connect there: {words}"))
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn hear<S: AsyncRead + Unpin, const N: usize>(stream: &mut S) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
