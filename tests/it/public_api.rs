//! What is public, read from the sources: a list that is compared, so that nothing becomes public by accident.
//!
//! `WSFERRY_PUBLIC_API=renew cargo test --test it public_api` writes it anew.

mod modules;
mod outline;

use std::path::Path;

use modules::Modules;
use outline::Outline;

const LIST: &str = "tests/public-api.txt";

fn outline() -> Outline {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    Outline::of(&Modules::read(&crate_dir.join("src")))
}

#[test]
fn what_is_public_is_what_the_list_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(LIST);
    let outline = outline();
    let others: String = outline.others.iter().map(|other| format!("// {other}\n")).collect();
    let now = format!("{}\n// Of other crates:\n{others}", outline.text);
    if std::env::var_os("WSFERRY_PUBLIC_API").is_some_and(|word| word == "renew") {
        std::fs::write(&path, &now).unwrap();
    }
    let listed = std::fs::read_to_string(&path).unwrap();
    let first = listed.lines().zip(now.lines()).find(|(listed, now)| listed != now);
    assert!(
        listed == now,
        "what is public is not what {LIST} says, first at {first:?}; if that is meant, renew it with \
         WSFERRY_PUBLIC_API=renew"
    );
}

#[test]
fn what_is_public_names_no_runtime_and_no_crate_that_carries_frames() {
    // Words of their own that last: a digest, networks, the traits of streams and of what can be written down.
    let allowed = ["blake3", "futures", "ipnet", "serde", "std", "u32"];
    // The name that a certificate has to have, which is no part of rustls itself.
    let is_allowed = |path: &&String| {
        let name = path.split("::").next().unwrap();
        allowed.contains(&name) || path.as_str() == "futures_rustls::pki_types::ServerName"
    };
    let others = outline().others;
    let strangers: Vec<&String> = others.iter().filter(|path| !is_allowed(path)).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}
