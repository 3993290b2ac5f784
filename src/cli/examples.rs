//! The examples that the help of each command ends with: data alone.

/// Commands, and what is done with them.
pub const EXAMPLES: [(&str, &str); 10] = [
    (
        "send",
        "  wsferry send photo.jpg album ws://127.0.0.1:9000
  wsferry send --exclude '*.o' --exclude target/ project wss://files.example --token-file FILE
  tar c album | wsferry send - --name album.tar ws://127.0.0.1:9000",
    ),
    (
        "receive",
        "  wsferry receive inbox
  wsferry receive --once inbox
  wsferry receive --listen 0.0.0.0:9000 --token-file FILE inbox",
    ),
    (
        "status",
        "  wsferry status inbox
  wsferry status --prune --older-than 7days inbox",
    ),
    (
        "hash",
        "  wsferry hash photo.jpg
  tar c album | wsferry hash",
    ),
    (
        "probe",
        "  wsferry probe wss://files.example
  wsferry probe --for 2min wss://files.example
  wsferry probe --profiles",
    ),
    (
        "bench",
        "  wsferry bench
  wsferry bench --windows 4MiB,64MiB --html bench.html
  wsferry bench wss://files.example --token-file FILE",
    ),
    ("demo", "  wsferry demo --size 64MiB"),
    (
        "config",
        "  wsferry config send
  WSFERRY_RETRY_FOR=1h wsferry config send
  wsferry config --config other.toml",
    ),
    (
        "completions",
        "  wsferry completions bash > ~/.local/share/bash-completion/completions/wsferry
  wsferry completions zsh > ~/.zfunc/_wsferry
  wsferry completions fish > ~/.config/fish/completions/wsferry.fish",
    ),
    (
        "man",
        "  wsferry man | man -l -
  wsferry man ~/.local/share/man/man1",
    ),
];
