//! Every event of `--json`, as the program tells it, line by line: `SNAPSHOTS=overwrite` writes them anew.
//!
//! What has to be told follows from the table of `EVENTS.md` and from nothing here: each of its kinds, with each of its
//! fields, has to be among what the scenes tell, and nothing else. There are no exceptions: even what is counted and told
//! once a minute is told at the end of a receiver.

mod redact;
mod scenes;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::Value;
use snapbox::{Assert, Data};

use scenes::SCENES;

/// What was told of each kind: the names of fields.
type Fields = BTreeMap<String, BTreeSet<String>>;

fn snapshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/events")
}

/// Plays all scenes side by side, since most of them wait for another program most of the time.
fn told() -> Vec<(&'static str, Vec<Value>)> {
    thread::scope(|scope| {
        let scenes: Vec<_> = SCENES.iter().map(|&(name, play)| (name, scope.spawn(play))).collect();
        let told = |(name, scene): (_, thread::ScopedJoinHandle<'_, _>)| {
            (name, scene.join().unwrap_or_else(|_| panic!("the scene {name} failed, as is said above")))
        };
        scenes.into_iter().map(told).collect()
    })
}

fn fields<'a>(events: impl IntoIterator<Item = &'a Value>) -> Fields {
    let mut fields = Fields::new();
    for event in events {
        let kind = event["event"].as_str().unwrap_or_else(|| panic!("it has a kind: {event}"));
        let object = event.as_object().expect("it has a field");
        let names = object.keys().filter(|name| *name != "event").cloned();
        fields.entry(kind.to_owned()).or_default().extend(names);
    }
    fields
}

#[test]
fn every_event_of_the_page_is_told_and_is_as_it_was_read_last() {
    let told = told();
    let assert = Assert::new().action_env("SNAPSHOTS");
    for (name, events) in &told {
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        let file = snapshots().join(format!("{name}.jsonl"));
        assert.eq(lines, Data::read_from(&file, None).raw());
    }
    let told = fields(told.iter().flat_map(|(_, events)| events));
    assert_eq!(told, table::fields(), "left what is told, right what the table of EVENTS.md says");
}

#[test]
fn no_snapshot_is_left_of_a_scene_that_is_gone() {
    let entries = std::fs::read_dir(snapshots()).unwrap().map(|entry| entry.unwrap().path());
    let found: BTreeSet<String> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(found, SCENES.iter().map(|(name, _)| (*name).to_owned()).collect());
}
