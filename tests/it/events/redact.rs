//! What varies from run to run gives way to a word in brackets.

use serde_json::Value;

/// Numbers of time, rates and what is used: of any value, null apart.
const MEASURED: [&str; 22] = [
    "age_seconds",
    "average_bytes_per_second",
    "bytes_per_second",
    "cpu_seconds",
    "fastest",
    "of_floor",
    "peak_memory",
    "receiver_cpu_seconds_per_gb",
    "round_trip_seconds",
    "seconds",
    "sender_cpu_seconds_per_gb",
    "slowest",
    "wire_bytes",
    "wire_overhead_percent",
    // How far it was when somebody looked, or the path broke.
    "acknowledged",
    "durable",
    "new_bytes",
    "offset",
    "received",
    "resent_bytes",
    "resumed_at",
    "verified",
];

/// An event without what varies: numbers by the names of their fields, and each of these texts wherever it stands.
pub struct Redactor {
    texts: Vec<(String, &'static str)>,
}

impl Redactor {
    /// Of what runs in this directory.
    pub fn of(directory: &str) -> Self {
        let version = format!("wsferry {}", env!("CARGO_PKG_VERSION"));
        Self {
            texts: vec![
                (directory.trim_end_matches('/').to_owned(), "[DIR]"),
                (version, "wsferry [VERSION]"),
            ],
        }
    }

    /// With another text that varies.
    pub fn and(mut self, text: &str, word: &'static str) -> Self {
        self.texts.push((text.to_owned(), word));
        self
    }

    pub fn apply(&self, event: &Value) -> Value {
        let mut event = event.clone();
        self.walk(None, &mut event);
        event
    }

    fn walk(&self, name: Option<&str>, value: &mut Value) {
        match value {
            Value::Number(_) if name.is_some_and(|name| MEASURED.contains(&name)) => {
                *value = "[NUMBER]".into();
            }
            Value::String(text) => {
                for (varying, word) in &self.texts {
                    *text = text.replace(varying, word);
                }
                *text = without_why(&without_ports(text));
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.walk(name, value)),
            Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| self.walk(Some(name), value)),
            _ => {}
        }
    }
}

/// Ports of this machine's addresses.
fn without_ports(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let mut left = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        left.push_str("127.0.0.1:");
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        left.push_str(if rest.len() < part.len() { "[PORT]" } else { "" });
        left.push_str(rest);
    }
    left
}

/// How a connection is seen to be gone is a race between the two ways.
fn without_why(text: &str) -> String {
    match text.split_once(" was lost: ") {
        Some((what, _)) => format!("{what} was lost: [WHY]"),
        None => text.to_owned(),
    }
}

#[test]
fn what_varies_is_taken_out_and_the_rest_stays() {
    let event = serde_json::json!({
        "event": "x", "seconds": 1.5, "size": 10, "durable": null, "resent_bytes": 0, "cut": {"seconds": 3},
        "name": "/tmp/a/f", "url": "ws://127.0.0.1:4711/", "reason": "the connection to 127.0.0.1:1 was lost: it hung up",
    });
    let redacted = Redactor::of("/tmp/a/").apply(&event);
    let expected = serde_json::json!({
        "event": "x", "seconds": "[NUMBER]", "size": 10, "durable": null, "resent_bytes": "[NUMBER]",
        "cut": {"seconds": "[NUMBER]"}, "name": "[DIR]/f", "url": "ws://127.0.0.1:[PORT]/",
        "reason": "the connection to 127.0.0.1:[PORT] was lost: [WHY]",
    });
    assert_eq!(redacted, expected);
}
