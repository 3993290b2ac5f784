//! Files that nobody announced, on a folder whose operations fail, whose power goes and whose names others play with:
//! what is called stored is that very file, durable under that name, and what is not leaves nothing behind.

use std::sync::Arc;

use rustix::io::Errno;
use wsferry::protocol::FileName;
use wsferry::storage::{Inbox, InboxOptions, StorageError};

use crate::model::{Act, DEEDS, Deed, Fault, Lie, Loss, Model};
use crate::support::random;

const OLD: &[u8] = b"what was there";

/// What can be said of a file that was called stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Durably,
    /// Directories are not synced there, and that was said.
    WithWarning,
    AsSomethingElse,
}

/// One file that is to come, to a name or to a number; what is there may be replaced, or there is nothing.
#[derive(Debug, Clone, Copy)]
struct Case {
    named: bool,
    over: bool,
}

const CASES: [Case; 3] =
    [Case { named: true, over: false }, Case { named: true, over: true }, Case { named: false, over: false }];

impl Case {
    fn model(self) -> Model {
        let model = Model::new(Lie::No);
        if self.over {
            model.put("f", OLD);
            wsferry::storage::Folder::open(&model, "f", true).unwrap().sync_all().unwrap();
        }
        model
    }

    /// Receives the file; the name that it is told to have, and what can be said of it in that moment.
    fn receive(self, model: &Model, bytes: &[u8]) -> Result<(String, Stored), StorageError> {
        let options = InboxOptions { overwrite: self.over, ..InboxOptions::default() };
        let inbox = Inbox::new(Arc::new(model.clone()), options)?.plain();
        let name: Option<FileName> = self.named.then(|| "f".parse().unwrap());
        let mut file = inbox.begin(name.as_ref())?;
        for part in bytes.chunks(bytes.len() / 3) {
            file.write(part)?;
        }
        let (name, warnings) = file.seal(blake3::hash(bytes).into())?;
        let stored = match model.content(&name) {
            Some(there) if there != bytes => Stored::AsSomethingElse,
            None => Stored::AsSomethingElse,
            _ if warnings.is_empty() => Stored::Durably,
            _ => Stored::WithWarning,
        };
        Ok((name, stored))
    }

    /// Receives it while something is wrong, then once more in peace. Whether it was stored at once.
    fn check(self, model: &Model, acts: bool) -> Result<bool, String> {
        let bytes = random(90_000, 1);
        let first = self.receive(model, &bytes);
        let told = || format!("{self:?} {:?}: {first:?}", model.done());
        if matches!(first, Ok((_, Stored::AsSomethingElse))) {
            return Err(format!("stored as something else: {}", told()));
        }
        model.disturb(&[], &[]);
        if !acts {
            for name in model.names() {
                let is_whole = [Some(&*bytes), Some(OLD)].contains(&model.content(&name).as_deref());
                if !name.starts_with(".wsferry") && !is_whole {
                    return Err(format!("{name} is something else: {}", told()));
                }
            }
        }
        let left = model.restart(Loss::All);
        if let (Ok((name, Stored::Durably)), false) = (&first, acts)
            && left.content(name).as_ref() != Some(&bytes)
        {
            return Err(format!("stored, and not durable: {}", told()));
        }
        // In peace, on the machine that goes on and on the one that was started again.
        for model in [model, &left] {
            let bytes = random(90_000, 2);
            match self.receive(model, &bytes) {
                Ok((name, Stored::AsSomethingElse)) => {
                    return Err(format!("then {name} is something else: {}", told()));
                }
                Ok(_) => {}
                Err(StorageError::Exists { .. } | StorageError::Taken { .. })
                    if !self.over && model.content("f").is_some() => {}
                Err(error) => return Err(format!("then {error}: {}", told())),
            }
            let mut names = model.names();
            names.retain(|name| name.starts_with(".wsferry"));
            if !acts && !names.is_empty() {
                return Err(format!("{names:?} is left: {}", told()));
            }
        }
        Ok(first.is_ok())
    }

    fn operations(self) -> u64 {
        let model = self.model();
        model.disturb(&[], &[]);
        self.receive(&model, &random(90_000, 1)).unwrap();
        model.log().len() as u64
    }
}

/// Runs what is to be tried; tells how often the file was stored all the same.
fn try_all(runs: impl Iterator<Item = (Case, Model, bool)>) {
    let (mut count, mut stored, mut wrong) = (0, 0, Vec::new());
    for (case, model, acts) in runs {
        count += 1;
        match case.check(&model, acts) {
            Ok(at_once) => stored += usize::from(at_once),
            Err(what) => wrong.push(what),
        }
    }
    println!("{count} runs, {stored} stored at once");
    assert!(
        wrong.is_empty(),
        "{} of {count} went wrong, such as:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    assert!(count > 100 && stored > 0 && stored < count);
}

#[test]
fn any_operation_that_fails_stores_the_file_or_nothing() {
    let errnos = [Errno::IO, Errno::ACCESS, Errno::NOSPC, Errno::INVAL, Errno::NOTSUP, Errno::MFILE];
    try_all(CASES.into_iter().flat_map(|case| {
        let faults = (0..case.operations()).flat_map(move |at| {
            errnos
                .into_iter()
                .flat_map(move |errno| [false, true].map(|forever| Fault { at, errno, forever }))
        });
        faults.map(move |fault| {
            let model = case.model();
            model.disturb(&[fault], &[]);
            (case, model, false)
        })
    }));
}

#[test]
fn whatever_others_do_meanwhile_what_is_stored_is_the_file() {
    try_all(CASES.into_iter().flat_map(|case| {
        let acts = (0..case.operations()).flat_map(|at| {
            DEEDS.into_iter().flat_map(move |deed| {
                (0..if deed == Deed::Clean { 1 } else { 3 }).map(move |which| Act { at, deed, which })
            })
        });
        acts.map(move |act| {
            let model = case.model();
            model.disturb(&[], &[act]);
            (case, model, true)
        })
    }));
}

#[test]
fn power_lost_at_any_operation_leaves_the_whole_file_or_none() {
    let bytes = random(90_000, 1);
    for case in CASES {
        let whole = case.model();
        case.receive(&whole, &bytes).unwrap();
        let operations = whole.operations();
        for at in 0..=operations {
            for loss in [Loss::All, Loss::Some(at), Loss::Some(at + 1000)] {
                let model = case.model();
                model.die_at(Some(at));
                let received = case.receive(&model, &bytes);
                let left = model.restart(loss);
                let told = format!("{case:?}, operation {at} of {operations}, {loss:?}: {received:?}");
                let names = left.names();
                for name in names.iter().filter(|name| !name.starts_with(".wsferry")) {
                    let content = left.content(name).unwrap();
                    assert!(content == bytes || (case.over && content == OLD), "{told}: {name}");
                }
                match received {
                    Ok((name, _)) => assert!(left.content(&name).as_ref() == Some(&bytes), "{told}"),
                    Err(_) => assert!(at < operations, "{told}"),
                }
                // The next one that is started finds nothing that it cannot sweep.
                match case.receive(&left, &bytes) {
                    Ok(_) => {}
                    Err(error) => {
                        let is_there = !case.over && left.content("f").as_ref() == Some(&bytes);
                        assert!(is_there, "{told}: then {error}");
                    }
                }
                assert!(!left.names().iter().any(|name| name.starts_with(".wsferry")), "{told}");
            }
        }
    }
}
