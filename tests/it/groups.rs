//! Many files at once on a model of a disk: loss of power, operations that fail, and others who act, at any moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustix::io::Errno;
use wsferry::protocol::{CheckedOffer, Kind};
use wsferry::storage::{Begun, Folder, Inbox, InboxOptions, Sealed, StorageError};

use crate::model::{Act, DEEDS, Deed, Fault, Lie, Loss, Model};
use crate::support::random;
use crate::trees::{entry, offer};

const LINK: &str = "../top";

/// A small tree: files, two of them in one directory, an empty directory, a link.
struct Tree {
    files: Vec<(&'static str, Vec<u8>)>,
    overwrite: bool,
}

impl Tree {
    fn new(paths: &[&'static str], overwrite: bool) -> Self {
        let lens = [5000, 1, 70_000, 0, 8192].into_iter().cycle();
        let files = paths.iter().zip(lens).map(|(&path, len)| (path, random(len, path.len() as u64)));
        Self { files: files.collect(), overwrite }
    }

    fn whole() -> Self {
        Self::new(&["a/x", "a/b/y", "a/b/z", "c/d/e/f", "top"], false)
    }

    fn offers(&self) -> Vec<CheckedOffer> {
        let offer = |(path, bytes): &(&str, Vec<u8>)| CheckedOffer {
            digest: Some(blake3::hash(bytes).into()),
            ..offer(path, bytes)
        };
        self.files.iter().map(offer).collect()
    }

    fn entries() -> [CheckedOffer; 2] {
        [entry("a/empty", Kind::Directory), entry("a/link", Kind::Link(LINK.to_owned()))]
    }

    fn open(&self, model: &Model) -> Result<Inbox, StorageError> {
        let options = InboxOptions { overwrite: self.overwrite, ..InboxOptions::default() };
        Inbox::new(Arc::new(model.clone()), options)
    }

    /// Receives as much as can be; gives the paths that there are receipts for, and what failed.
    fn receive(&self, model: &Model) -> (BTreeSet<String>, Vec<StorageError>) {
        let (mut receipts, mut failed) = (BTreeSet::new(), Vec::new());
        let inbox = match self.open(model) {
            Ok(inbox) => inbox,
            Err(error) => return (receipts, vec![error]),
        };
        let mut targets = Vec::new();
        for (begun, (path, bytes)) in inbox.begin_all(self.offers()).into_iter().zip(&self.files) {
            match begun {
                Ok(Begun::Stored(_)) => drop(receipts.insert((*path).to_owned())),
                Ok(Begun::Open(target, opened)) => {
                    let wrote = if opened.complete { Ok(()) } else { target.write_at(bytes, 0) };
                    match wrote {
                        Ok(()) => targets.push((*path, (target, blake3::hash(bytes).into()))),
                        Err(error) => failed.push(error),
                    }
                }
                Err(error) => failed.push(error),
            }
        }
        let (paths, targets): (Vec<&str>, Vec<_>) = targets.into_iter().unzip();
        for (sealed, path) in inbox.seal_all(&targets).into_iter().zip(paths) {
            match sealed {
                Ok(Sealed::Stored(_)) => drop(receipts.insert(path.to_owned())),
                Ok(Sealed::Differs(_)) => {}
                Err(error) => failed.push(error),
            }
        }
        for (target, _) in targets {
            target.put_away(&[], None);
        }
        if self.files.len() > 1 {
            for (placed, offer) in inbox.place_all(&Self::entries()).into_iter().zip(Self::entries()) {
                match placed {
                    Ok(_) => drop(receipts.insert(offer.path.to_string())),
                    Err(error) => failed.push(error),
                }
            }
        }
        (receipts, failed)
    }

    fn is_there(&self, model: &Model, path: &str) -> bool {
        match path {
            "a/empty" => model.is_dir(path),
            "a/link" => model.link_at(path).as_deref() == Some(LINK),
            path => {
                let (_, bytes) = self.files.iter().find(|(known, _)| *known == path).unwrap();
                model.content(path).as_ref() == Some(bytes)
            }
        }
    }

    /// All is there, and nothing else.
    fn is_whole(&self, model: &Model) -> Result<(), String> {
        let (receipts, failed) = self.receive(model);
        if !failed.is_empty() {
            return Err(format!("it does not finish: {failed:?}"));
        }
        if let Some(path) = receipts.iter().find(|path| !self.is_there(model, path)) {
            return Err(format!("{path} is another"));
        }
        Ok(())
    }

    /// Whether anything is left that nobody meant to be there.
    fn litter(&self, model: &Model) -> Vec<String> {
        let known = |name: &String| self.files.iter().any(|(path, _)| path == name) || name == "a/link";
        model.names().into_iter().filter(|name| !known(name)).collect()
    }
}

fn lose_power_everywhere(tree: &Tree, lie: Lie, before: impl Fn(&Model)) -> Result<u64, String> {
    let whole = Model::new(lie);
    before(&whole);
    let first = whole.operations();
    let (receipts, failed) = tree.receive(&whole);
    assert!(failed.is_empty() && receipts.len() >= tree.files.len(), "{failed:?}");
    let operations = whole.operations();
    for at in first..=operations {
        for loss in [Loss::All, Loss::Some(at), Loss::Some(at + 1000), Loss::Some(at + 2000)] {
            let model = Model::new(lie);
            before(&model);
            model.die_at(Some(at));
            let (mut receipts, _) = tree.receive(&model);
            let restarted = model.restart(loss);
            // And the power goes once more, early in the second run.
            for dies_at in [Some(at % 11), None] {
                if let Some(path) = receipts.iter().find(|path| !tree.is_there(&restarted, path)) {
                    return Err(format!("operation {at}, {loss:?}: there was a receipt for {path}"));
                }
                if dies_at.is_some() {
                    restarted.die_at(dies_at);
                    receipts.extend(tree.receive(&restarted).0);
                    restarted.die_at(None);
                }
            }
            let restarted = restarted.restart(loss);
            if let Some(path) = receipts.iter().find(|path| !tree.is_there(&restarted, path)) {
                return Err(format!("operation {at}, twice, {loss:?}: there was a receipt for {path}"));
            }
            tree.is_whole(&restarted).map_err(|what| format!("operation {at}, {loss:?}: {what}"))?;
            let litter = tree.litter(&restarted);
            if !litter.is_empty() {
                return Err(format!("operation {at}, {loss:?}: {litter:?} is left"));
            }
        }
    }
    Ok(operations - first)
}

#[test]
fn power_lost_at_any_operation_of_a_group_takes_nothing_that_there_is_a_receipt_for() {
    let operations = lose_power_everywhere(&Tree::whole(), Lie::No, |_| {}).unwrap();
    println!("power was lost at each of {operations} operations, in four ways, twice");
}

#[test]
fn what_was_there_is_durable_before_it_is_called_stored_and_so_is_the_way_to_it() {
    let tree = Tree::new(&["a/b/x", "a/b/y"], true);
    let there = |model: &Model| {
        model.create_dir("a", 0o777).unwrap();
        model.open_dir("a").unwrap().create_dir("b", 0o777).unwrap();
        let dir = model.open_dir("a").unwrap().open_dir("b").unwrap();
        dir.create("x", 0o644).unwrap().write_all_at(&tree.files[0].1, 0).unwrap();
    };
    lose_power_everywhere(&tree, Lie::No, there).unwrap();
    let caught = lose_power_everywhere(&tree, Lie::DirSync, there).unwrap_err();
    assert!(caught.contains("receipt for a/b/x"), "{caught}");
}

#[test]
fn the_model_catches_a_group_whose_data_or_whose_directories_are_not_synced() {
    for lie in [Lie::DataSync, Lie::DirSync] {
        let caught = lose_power_everywhere(&Tree::whole(), lie, |_| {}).unwrap_err();
        assert!(caught.contains("receipt"), "{caught}");
    }
}

#[test]
fn any_operation_of_a_group_that_fails_costs_no_more_than_another_try_and_no_other_file() {
    let tree = Tree::whole();
    let whole = Model::new(Lie::No);
    tree.receive(&whole);
    let (mut runs, mut partly) = (0, 0);
    for at in 0..whole.log().len() as u64 {
        for errno in [Errno::IO, Errno::NOSPC, Errno::ACCESS, Errno::INVAL, Errno::MFILE] {
            for forever in [false, true] {
                let model = Model::new(Lie::No);
                model.disturb(&[Fault { at, errno, forever }], &[]);
                let (receipts, failed) = tree.receive(&model);
                model.disturb(&[], &[]);
                for path in &receipts {
                    assert!(tree.is_there(&model, path), "{at} {errno:?}: a receipt for {path}");
                }
                (runs, partly) = (runs + 1, partly + u32::from(!receipts.is_empty() && !failed.is_empty()));
                tree.is_whole(&model).unwrap_or_else(|what| panic!("{at} {errno:?} {forever}: {what}"));
            }
        }
    }
    println!("{runs} runs, in {partly} of them some files failed and others did not");
    assert!(partly > 100);
}

#[test]
fn a_directory_is_not_called_durable_if_itself_or_the_one_above_cannot_be_synced() {
    let place = |model: &Model| {
        let inbox = Inbox::new(Arc::new(model.clone()), InboxOptions::default()).unwrap();
        inbox.place_all(&[entry("empty", Kind::Directory)]).pop().unwrap()
    };
    let whole = Model::new(Lie::No);
    place(&whole).unwrap();
    let log = whole.log();
    let syncs: Vec<_> = (0..).zip(&log).filter(|(_, kind)| **kind == "sync dir").map(|(at, _)| at).collect();
    assert_eq!(syncs.len(), 2, "{log:?}");
    for at in syncs {
        let model = Model::new(Lie::No);
        model.disturb(&[Fault { at, errno: Errno::IO, forever: false }], &[]);
        assert!(place(&model).is_err(), "operation {at} of {log:?}");
    }
}

#[test]
fn whatever_others_do_between_two_operations_of_a_group_no_receipt_is_wrong() {
    let mut runs = 0;
    for (tree, there) in [
        (Tree::new(&["a/b/f"], false), None),
        (Tree::new(&["a/b/f"], true), Some("other, and longer")),
        (Tree::new(&["a/b/f"], false), Some("")),
    ] {
        let model = || {
            let model = Model::new(Lie::No);
            if let Some(there) = there {
                let first = Tree::new(&["a/b/f"], false);
                if there.is_empty() {
                    first.receive(&model);
                } else {
                    let files = vec![("a/b/f", there.as_bytes().to_vec())];
                    Tree { files, ..first }.receive(&model);
                }
            }
            model.disturb(&[], &[]);
            model
        };
        let whole = model();
        assert_eq!(tree.receive(&whole).0.len(), 1);
        let log = whole.log();
        // What is looked at last is looked at for the receipt: then others may do as they like.
        let looks =
            log.iter().rev().take_while(|kind| matches!(**kind, "lookup" | "remove dir" | "stat")).count();
        for at in 0..=(log.len() - looks) as u64 {
            for deed in DEEDS.into_iter().chain([Deed::MoveDir]) {
                for which in 0..2 {
                    let model = model();
                    model.disturb(&[], &[Act { at, deed, which }]);
                    let (receipts, failed) = tree.receive(&model);
                    let told = format!("{at} of {log:?}: {:?}: {receipts:?} {failed:?}", model.done());
                    for path in &receipts {
                        assert!(tree.is_there(&model, path), "{told}");
                    }
                    runs += 1;
                }
            }
        }
    }
    println!("{runs} runs");
    assert!(runs > 300);
}
