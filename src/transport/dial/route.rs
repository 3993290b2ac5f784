//! What a connection went through: as far as this side can see it.

use async_tungstenite::tungstenite::http::{HeaderMap, HeaderName, header};
use futures_rustls::rustls::{CommonState, ProtocolVersion};

use crate::protocol::message::clip;

/// The way that one connection took. All of it is safe to print.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// The proxy that this side had connect there, without credentials.
    pub proxy: Option<String>,
    /// What TLS came to with whoever answers for the URL; none without TLS.
    pub tls: Option<TlsRoute>,
    /// What the handshake's answer says of the server that gave it (`Server`).
    pub server: Option<String>,
    /// What it says of the gateways on the way (`Via`), the nearest last.
    pub via: Option<String>,
}

/// What a TLS handshake came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsRoute {
    /// `TLS 1.2` or `TLS 1.3`.
    pub version: String,
    /// The cipher suite, by IANA's name.
    pub cipher: String,
    /// The protocol that the server chose of those on offer (ALPN), if it did.
    pub alpn: Option<String>,
}

impl Route {
    /// Takes what the handshake's answer says.
    pub(super) fn hear(&mut self, headers: &HeaderMap) {
        self.server = said(headers, header::SERVER);
        self.via = said(headers, header::VIA);
    }
}

impl TlsRoute {
    /// Once the handshake is over.
    pub(super) fn of(session: &CommonState) -> Self {
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3".to_owned(),
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2".to_owned(),
            other => format!("{other:?}"),
        };
        let cipher = session.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
        // rustls marks those of TLS 1.3, IANA does not.
        let cipher = cipher.unwrap_or_default().replacen("TLS13_", "TLS_", 1);
        let alpn = session.alpn_protocol().map(|name| clip(&String::from_utf8_lossy(name)).into_owned());
        Self { version, cipher, alpn }
    }
}

/// All values of a header, as one text.
fn said(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let values: Vec<_> =
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let text = values.join(", ");
    (!text.is_empty()).then(|| clip(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_tungstenite::tungstenite::http::HeaderValue;

    #[test]
    fn what_an_answer_says_of_itself_is_clipped_and_made_safe_to_print() {
        let mut headers = HeaderMap::new();
        let mut route = Route::default();
        route.hear(&headers);
        assert_eq!(route, Route::default());
        headers.append(header::VIA, HeaderValue::from_static("1.1 vegur"));
        headers.append(header::VIA, HeaderValue::from_static("1.1 a, 2 b"));
        headers.append(header::SERVER, HeaderValue::from_bytes(b"a\xff\tb\xe2\x80\xaec").unwrap());
        route.hear(&headers);
        assert_eq!(route.via.as_deref(), Some("1.1 vegur, 1.1 a, 2 b"));
        assert_eq!(route.server.as_deref(), Some("a\u{fffd}\u{fffd}b\u{fffd}c"));
        headers.insert(header::SERVER, "x".repeat(10_000).parse().unwrap());
        route.hear(&headers);
        let server = route.server.unwrap();
        assert!(server.chars().count() < 1000 && server.ends_with("x…"), "{server}");
    }
}
