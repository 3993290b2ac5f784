//! The layers are real: a scan of the sources for imports that break them.

use std::path::{Path, PathBuf};

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(dir), &mut found);
    assert!(!found.is_empty());
    found
}

/// Lines of code, without comments, that mention one of `words`.
fn mentions(text: &str, words: &[&str]) -> Vec<String> {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.filter(|line| words.iter().any(|word| line.contains(word))).map(str::to_owned).collect()
}

fn assert_free_of(dir: &str, words: &[&str]) {
    for (path, text) in sources(dir) {
        let found = mentions(&text, words);
        assert!(found.is_empty(), "{} must not mention {words:?}: {found:#?}", path.display());
    }
}

#[test]
fn the_protocol_knows_no_socket_file_clock_thread_or_runtime() {
    assert_free_of(
        "protocol",
        &[
            "std::fs",
            "std::net",
            "std::thread",
            "std::io",
            "std::os",
            "std::env",
            "Instant::now",
            "SystemTime",
            "async",
            "futures",
            "tungstenite",
            "crate::storage",
            "crate::transport",
            "crate::transfer",
            "crate::runtime",
            "rustix",
            ".await",
        ],
    );
}

#[test]
fn storage_knows_no_frames_and_transport_knows_no_files() {
    assert_free_of(
        "storage",
        &[
            "tungstenite",
            "futures",
            "async",
            ".await",
            "crate::transport",
            "crate::transfer",
            "crate::runtime",
            "protocol::chunk",
            "Message",
            "Sender",
            "Receiver",
        ],
    );
    assert_free_of(
        "transport",
        &["std::fs", "rustix", "crate::storage", "crate::transfer", "protocol::Sender", "protocol::Receiver"],
    );
}

#[test]
fn only_the_runtime_file_names_async_std() {
    for (path, text) in sources("") {
        if !path.ends_with("src/runtime.rs") {
            assert_eq!(mentions(&text, &["async_std", "async-std"]), [""; 0], "{}", path.display());
        }
    }
}

#[test]
fn the_library_prints_nothing_and_never_exits() {
    let words = [
        "println!",
        "eprintln!",
        "print!(",
        "dbg!",
        "process::exit",
        "clap",
        "indicatif",
        "anyhow",
        "stdout()",
        "stderr()",
    ];
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let library = |path: &Path| path != src.join("main.rs") && !path.starts_with(src.join("cli"));
    let scanned = sources("").into_iter().filter(|(path, _)| library(path));
    let found: Vec<String> = scanned.flat_map(|(_, text)| mentions(&text, &words)).collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn the_scan_sees_what_it_looks_for() {
    assert_eq!(mentions("use std::fs;\n// use std::net\n", &["std::fs", "std::net"]), ["use std::fs;"]);
}
