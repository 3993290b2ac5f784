//! Heads of HTTP messages, read from a stream: nothing behind a head is lost.

use std::io;

use async_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue};
use futures::{AsyncRead, AsyncReadExt};

use super::MAX_HEAD;

/// The most headers of an answer.
const MAX_HEADERS: usize = 100;

/// A head, and what was read behind it.
#[derive(Debug)]
pub(super) struct Head<T> {
    pub(super) head: T,
    pub(super) rest: Vec<u8>,
}

/// Why there is none. What came until then may tell what the peer speaks instead.
#[derive(Debug)]
pub(super) enum NoHead {
    Lost(io::Error),
    Ended(Vec<u8>),
    TooLong,
    Malformed { why: String, read: Vec<u8> },
}

/// Reads until `parse` finds a whole head and says how long it is.
pub(super) async fn read<S: AsyncRead + Unpin, T>(
    stream: &mut S,
    parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, String>,
) -> Result<Head<T>, NoHead> {
    let mut read = Vec::new();
    // Not a part of the future, which is copied into others as large.
    let mut bytes = vec![0; 2048];
    loop {
        let n = stream.read(&mut bytes).await.map_err(NoHead::Lost)?;
        if n == 0 {
            return Err(NoHead::Ended(read));
        }
        read.extend_from_slice(&bytes[..n]);
        match parse(&read) {
            Ok(Some((head, len))) => return Ok(Head { head, rest: read.split_off(len) }),
            Ok(None) if read.len() < MAX_HEAD => {}
            Ok(None) => return Err(NoHead::TooLong),
            Err(why) => return Err(NoHead::Malformed { why, read }),
        }
    }
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
}

/// The answer and the length of its head, once that is whole.
pub(super) fn answer(read: &[u8]) -> Result<Option<(Answer, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let len = match parsed.parse(read) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("its answer is no HTTP: {error}")),
    };
    let mut headers = HeaderMap::new();
    for header in parsed.headers.iter() {
        let name: Result<HeaderName, _> = header.name.parse();
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(header.value)) else {
            return Err(format!("its answer has a header that is none: {}", header.name));
        };
        headers.append(name, value);
    }
    Ok(Some((Answer { status: parsed.code.unwrap_or_default(), headers }, len)))
}

/// Whether these are the first bytes of a TLS record: an alert about what came, or part of a handshake.
pub(super) fn is_tls(read: &[u8]) -> bool {
    matches!(read, [0x15 | 0x16, 3, ..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime;

    const HEAD: &[u8] = b"HTTP/1.1 101 Switching\r\nA: b\r\na: c\r\n\r\n";

    /// Gives so many bytes at a time.
    fn read_in(bytes: &[u8], piece: usize) -> Result<Head<Answer>, NoHead> {
        let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok::<_, io::Error>(piece.to_vec())).collect();
        let mut stream = futures::TryStreamExt::into_async_read(futures::stream::iter(pieces));
        runtime::block_on(read(&mut stream, answer))
    }

    #[test]
    fn a_head_is_read_however_it_comes_and_what_is_behind_it_stays() {
        for rest in [&b""[..], b"\x81\x02ab"] {
            let bytes = [HEAD, rest].concat();
            for piece in 1..=bytes.len() {
                let Head { head: Answer { status, headers }, rest: read } = read_in(&bytes, piece).unwrap();
                let values: Vec<_> = headers.get_all("a").iter().collect();
                assert_eq!(status, 101);
                assert_eq!(values, ["b", "c"]);
                // What was read and is not the head's: all of it if it came in one piece.
                assert!(rest.starts_with(&read) && (piece < bytes.len() || read == rest));
            }
        }
    }

    #[test]
    fn what_is_no_head_says_how() {
        assert!(matches!(read_in(&HEAD[..20], 7), Err(NoHead::Ended(read)) if read == HEAD[..20]));
        assert!(matches!(read_in(b"", 1), Err(NoHead::Ended(read)) if read.is_empty()));
        let long = [b"HTTP/1.1 200 OK\r\nA: ", &[b'x'; MAX_HEAD][..]].concat();
        assert!(matches!(read_in(&long, 1000), Err(NoHead::TooLong)));
        let alert = [0x15, 3, 1, 0, 2, 2, 70];
        match read_in(&alert, 7) {
            Err(NoHead::Malformed { read, .. } | NoHead::Ended(read)) => assert!(is_tls(&read)),
            other => panic!("{other:?}"),
        }
        assert!(!is_tls(HEAD) && !is_tls(b"\x15"));
        assert!(matches!(read_in(b"SSH-2.0-OpenSSH_9\r\n", 100), Err(NoHead::Malformed { .. })));
        let many = [b"HTTP/1.1 200 OK\r\n", "a: b\r\n".repeat(200).as_bytes(), b"\r\n"].concat();
        assert!(matches!(read_in(&many, 5000), Err(NoHead::Malformed { .. })));
    }
}
