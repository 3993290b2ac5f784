//! The events of `--json`: what stands in each, for those that print them and for `bench`, which reads those of its own
//! processes. EVENTS.md says what the fields mean.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wsferry::protocol::{FileDigest, OfferKind};

/// One line of `--json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JsonEvent {
    Listening {
        url: String,
        urls: Vec<String>,
        #[serde(flatten)]
        concerns: Concerns,
    },
    Started {
        transfer: u64,
        name: String,
        kind: OfferKind,
        size: Option<u64>,
        peer: String,
    },
    Resumed {
        transfer: u64,
        name: String,
        offset: u64,
    },
    Progress {
        transfer: u64,
        name: String,
        acknowledged: u64,
        total: Option<u64>,
        durable: u64,
        resumed_at: u64,
        verified: u64,
        resent_bytes: u64,
        bytes_per_second: Option<f64>,
        average_bytes_per_second: f64,
    },
    Notice {
        transfer: Option<u64>,
        name: Option<String>,
        reason: String,
    },
    Connecting {
        transfer: Option<u64>,
        name: Option<String>,
        to: String,
    },
    Reconnecting {
        transfer: Option<u64>,
        name: Option<String>,
        seconds: f64,
        attempt: u32,
        reason: String,
    },
    Reconnected {
        seconds: f64,
        attempts: u32,
    },
    Skipped {
        transfer: Option<u64>,
        name: String,
        reason: String,
    },
    Finished(Finished),
    Failed {
        transfer: Option<u64>,
        name: Option<String>,
        exit_code: u8,
        reason: String,
        advice: Option<String>,
    },
    Foreseen {
        transfer: Option<u64>,
        name: String,
        kind: OfferKind,
        size: u64,
        held: u64,
        would: Would,
    },
    Exec {
        transfer: u64,
        name: String,
        exit_code: Option<i32>,
        seconds: f64,
        reason: Option<String>,
    },
    Unserved(Counted),
    Refused(Counted),
    Floor {
        bytes_per_second: f64,
        slowest: f64,
        fastest: f64,
    },
    Measured {
        chunk_size: u64,
        window: u64,
        bytes_per_second: f64,
        slowest: f64,
        fastest: f64,
        runs: u32,
        of_floor: Option<f64>,
        sender_cpu_seconds_per_gb: Option<f64>,
        receiver_cpu_seconds_per_gb: Option<f64>,
        wire_overhead_percent: f64,
        peak_memory: Option<u64>,
    },
    Recommended {
        chunk_size: u64,
        window: u64,
        command: String,
        doubt: Option<String>,
    },
    Probed(Box<Probed>),
    Profile {
        name: String,
        path: String,
        facts: Vec<ProfileFact>,
    },
    Config {
        file: Option<String>,
        is_there: bool,
    },
    Setting {
        command: String,
        flag: String,
        value: Option<String>,
        source: SettingSource,
        line: Option<usize>,
        variable: String,
    },
    Partial {
        name: Option<String>,
        id: String,
        size: Option<u64>,
        received: u64,
        durable: u64,
        age_seconds: u64,
        being_written: Option<bool>,
    },
    Pruned {
        name: Option<String>,
        received: u64,
    },
    Digest {
        name: String,
        size: u64,
        blake3: String,
    },
}

impl JsonEvent {
    /// Something worth knowing that is about no transfer.
    pub fn notice(reason: impl Into<String>) -> Self {
        Self::Notice { transfer: None, name: None, reason: reason.into() }
    }

    /// The line, without its end.
    pub fn line(&self) -> String {
        // A `Value` sorts its keys, which is the order that lines have always had.
        let value: Value = serde_json::to_value(self).expect("an event holds nothing that JSON cannot say");
        value.to_string()
    }
}

/// What a side that listens is there for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Concerns {
    /// Where what is received goes.
    Directory(String),
    /// What is sent.
    Files(Vec<String>),
}

/// A transfer that went well, and what the process has used so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    pub transfer: u64,
    pub name: String,
    pub kind: OfferKind,
    pub size: u64,
    pub seconds: f64,
    pub average_bytes_per_second: f64,
    pub resumed_at: u64,
    pub new_bytes: u64,
    pub resent_bytes: u64,
    pub damaged_chunks: u32,
    pub repaired_blocks: u64,
    pub already_there: bool,
    pub blake3: Option<FileDigest>,
    pub warnings: Vec<String>,
    pub wire_bytes: u64,
    pub cpu_seconds: f64,
    pub peak_memory: Option<u64>,
}

/// What would become of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Would {
    Send,
    Resume,
    Compare,
    AlreadyThere,
    Make,
}

/// What was counted instead of told one by one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    pub count: u64,
    pub seconds: u64,
    pub reason: String,
}

/// What a path carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probed {
    pub url: String,
    pub program: String,
    pub proxy: Option<String>,
    pub tls: Option<ProbedTls>,
    pub server: Option<String>,
    pub via: Option<String>,
    pub text: bool,
    pub binary: bool,
    pub largest_frame: usize,
    pub refused_frame: Option<usize>,
    pub refused: Option<End>,
    pub round_trip_seconds: f64,
    pub bytes_per_second: Option<f64>,
    pub cut: Option<ProbedCut>,
    pub in_use: Option<Lived>,
    pub idle: Option<Lived>,
    pub flags: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbedTls {
    pub version: String,
    pub cipher: String,
    pub alpn: Option<String>,
}

/// Connections that are cut while they carry something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbedCut {
    pub characters: u64,
    pub seconds: f64,
    pub ended: End,
    pub limit: Limit,
}

/// A connection that was watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lived {
    pub seconds: f64,
    pub ended: Option<End>,
}

/// What became of a frame that did not pass, or of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum End {
    Closed { code: u16 },
    Lost,
    Stalled,
    Damaged,
}

/// What decides when a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    Characters,
    Age,
    Unclear,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileFact {
    pub flags: Option<String>,
    pub why: String,
    pub source: String,
}

/// Where a flag's value comes from, if not from the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingSource {
    Default,
    Environment,
    File,
    Profile,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each, as other people's programs read it.
    const LINES: &[&str] = &[
        r#"{"directory":"in","event":"listening","url":"ws://127.0.0.1:1","urls":["ws://192.0.2.1:1"]}"#,
        r#"{"event":"listening","files":["a","b"],"url":"ws://127.0.0.1:1","urls":[]}"#,
        r#"{"event":"started","kind":"file","name":"a","peer":"192.0.2.1:1","size":null,"transfer":1}"#,
        r#"{"event":"resumed","name":"a","offset":3,"transfer":1}"#,
        r#"{"acknowledged":3,"average_bytes_per_second":0.5,"bytes_per_second":null,"durable":2,"event":"progress","name":"a","resent_bytes":0,"resumed_at":1,"total":5,"transfer":1,"verified":0}"#,
        r#"{"event":"notice","name":null,"reason":"why","transfer":null}"#,
        r#"{"event":"connecting","name":"a","to":"ws://h/","transfer":1}"#,
        r#"{"attempt":2,"event":"reconnecting","name":null,"reason":"why","seconds":0.5,"transfer":null}"#,
        r#"{"attempts":2,"event":"reconnected","seconds":0.5}"#,
        r#"{"event":"skipped","name":"a","reason":"why","transfer":null}"#,
        r#"{"already_there":false,"average_bytes_per_second":0.5,"blake3":null,"cpu_seconds":0.5,"damaged_chunks":0,"event":"finished","kind":"link","name":"a","new_bytes":3,"peak_memory":1000,"repaired_blocks":0,"resent_bytes":0,"resumed_at":0,"seconds":0.5,"size":3,"transfer":1,"warnings":["w"],"wire_bytes":4}"#,
        r#"{"advice":null,"event":"failed","exit_code":3,"name":"a","reason":"why","transfer":1}"#,
        r#"{"event":"foreseen","held":0,"kind":"file","name":"a","size":3,"transfer":1,"would":"already_there"}"#,
        r#"{"event":"exec","exit_code":null,"name":"a","reason":"why","seconds":0.5,"transfer":1}"#,
        r#"{"count":2,"event":"unserved","reason":"why","seconds":60}"#,
        r#"{"count":2,"event":"refused","reason":"why","seconds":60}"#,
        r#"{"bytes_per_second":2.5,"event":"floor","fastest":3.5,"slowest":0.5}"#,
        r#"{"bytes_per_second":2.5,"chunk_size":3,"event":"measured","fastest":3.5,"of_floor":0.5,"peak_memory":1000,"receiver_cpu_seconds_per_gb":null,"runs":3,"sender_cpu_seconds_per_gb":0.5,"slowest":0.5,"window":9,"wire_overhead_percent":33.5}"#,
        r#"{"chunk_size":3,"command":"wsferry send","doubt":null,"event":"recommended","window":9}"#,
        r#"{"binary":true,"bytes_per_second":0.5,"cut":{"characters":9,"ended":{"kind":"lost"},"limit":"age","seconds":0.5},"event":"probed","flags":["--frame-limit 9"],"idle":null,"in_use":{"ended":null,"seconds":0.5},"largest_frame":9,"program":"wsferry 1","proxy":null,"refused":{"code":1009,"kind":"closed"},"refused_frame":10,"round_trip_seconds":0.5,"server":null,"text":true,"tls":{"alpn":null,"cipher":"c","version":"TLS 1.3"},"url":"ws://h/","via":null}"#,
        r#"{"event":"profile","facts":[{"flags":null,"source":"https://s","why":"why"}],"name":"a","path":"p"}"#,
        r#"{"event":"config","file":null,"is_there":false}"#,
        r#"{"command":"send","event":"setting","flag":"--name","line":null,"source":"default","value":null,"variable":"WSFERRY_NAME"}"#,
        r#"{"age_seconds":1,"being_written":null,"durable":1,"event":"partial","id":"i","name":null,"received":2,"size":null}"#,
        r#"{"event":"pruned","name":"a","received":2}"#,
        r#"{"blake3":"00","event":"digest","name":"a","size":3}"#,
    ];

    #[test]
    fn each_event_is_read_and_printed_again_as_the_same_line() {
        for line in LINES {
            let event: JsonEvent =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert_eq!(&event.line(), line);
        }
    }

    #[test]
    fn a_field_that_is_missing_is_an_error_and_no_zero() {
        let event = LINES.iter().find(|line| line.contains(r#""finished""#)).unwrap();
        let error = serde_json::from_str::<JsonEvent>(&event.replace("wire_bytes", "wired")).unwrap_err();
        assert!(error.to_string().contains("wire_bytes"), "{error}");
    }

    #[test]
    fn the_document_has_each_event_with_each_of_its_fields() {
        let document = include_str!("EVENTS.md");
        let mut rows: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
        rows.retain(|row| !row.starts_with("| `event`"));
        let row = |event: &str| rows.iter().find(|row| row.starts_with(&format!("| `{event}` |")));
        let mut events = Vec::new();
        for line in LINES {
            let fields: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
            let event = fields["event"].as_str().unwrap().to_owned();
            let row = row(&event).unwrap_or_else(|| panic!("{event} is missing"));
            for field in fields.keys().filter(|field| *field != "event") {
                assert!(row.contains(&format!("`{field}`")), "{event}: {field} is missing");
            }
            events.push(event);
        }
        events.dedup();
        assert_eq!(events.len(), rows.len(), "the document has another one: {events:?}");
    }
}
