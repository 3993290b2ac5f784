//! URLs as they may be shown: without what may be secret.

/// A URL, or a text that was meant as one, with the user and the password, the query's values and the fragment masked.
pub fn mask_url(url: &str) -> String {
    let (before, rest) = match url.find("://") {
        Some(at) => url.split_at(at + 3),
        None => ("", url),
    };
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let authority = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{MASK}@{host}"),
        None => authority.to_owned(),
    };
    let (rest, fragment) = match rest.split_once('#') {
        Some((rest, _)) => (rest, format!("#{MASK}")),
        None => (rest, String::new()),
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, format!("?{}", mask_query(query))),
        None => (rest, String::new()),
    };
    format!("{before}{authority}{path}{query}{fragment}")
}

/// What stands for something secret.
pub(super) const MASK: &str = "***";

fn mask_query(query: &str) -> String {
    let masked = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}={MASK}"),
        None if pair.is_empty() => String::new(),
        // A key without a value may well be one.
        None => MASK.to_owned(),
    });
    masked.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_passwords_query_values_and_fragments_are_masked_and_nothing_else() {
        for (url, masked) in [
            ("ws://127.0.0.1:9000", "ws://127.0.0.1:9000"),
            ("wss://h/a/b", "wss://h/a/b"),
            ("wss://me:SECRET@h/a?b=SECRET&c=&SECRET", "wss://***@h/a?b=***&c=***&***"),
            ("wss://SE@CRET@h?x=SECRET?y=SECRET", "wss://***@h?x=***"),
            ("wss://h/a#SECRET", "wss://h/a#***"),
            ("wss://h/a@b?", "wss://h/a@b?"),
            ("/login?next=SECRET", "/login?next=***"),
            ("me:SECRET@h:1", "***@h:1"),
            ("", ""),
        ] {
            assert_eq!(mask_url(url), masked);
        }
    }
}
