//! The build script: tells the program which commit, features and target it is built from, for `--version`.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/cli/build.rs");
    println!("cargo::rustc-env=WSFERRY_COMMIT={}", commit().unwrap_or_else(|| "unknown".to_owned()));
    println!("cargo::rustc-env=WSFERRY_FEATURES={}", features());
    println!("cargo::rustc-env=WSFERRY_TARGET={}", env::var("TARGET").unwrap_or_default());
}

fn features() -> String {
    let names = env::vars().filter_map(|(name, _)| name.strip_prefix("CARGO_FEATURE_").map(str::to_owned));
    let mut names: Vec<_> = names.filter(|name| name != "DEFAULT").map(|name| name.to_lowercase()).collect();
    names.sort();
    names.join(", ")
}

/// The commit: of the repository, or as the packager left it in what is unpacked from a registry.
fn commit() -> Option<String> {
    // What is built while it is worked on belongs to no commit; asking each time would build it anew behind each.
    if env::var("PROFILE").is_ok_and(|profile| profile != "release") {
        return Some("none: a development build".to_owned());
    }
    let here = env::var("CARGO_MANIFEST_DIR").ok()?;
    if let Ok(packed) = std::fs::read_to_string(Path::new(&here).join(".cargo_vcs_info.json")) {
        let (_, rest) = packed.split_once("\"sha1\": \"")?;
        return rest.get(..12).map(str::to_owned);
    }
    // Not that of a repository that this directory happens to lie in.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    // It is written to whenever HEAD moves. A path that is not there would have this run each time.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| said.trim().to_owned())
}
