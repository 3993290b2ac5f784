//! Loss of power, modelled: a folder that forgets what was not synced, at every operation of a small transfer.

use std::sync::Arc;

use wsferry::protocol::{BlockHashes, CheckedOffer};
use wsferry::storage::{Folder, Inbox, InboxOptions, Sealed, StorageError};

use crate::link::File;
use crate::model::{Lie, Loss, Model};
use crate::support::random;

fn offer(file: &File) -> CheckedOffer {
    file.offer().check().unwrap().unwrap()
}

/// What a receiver was promised by the storage before the power went.
#[derive(Debug, Default)]
struct Promises {
    durable: Vec<u64>,
    sealed: bool,
}

/// Receives `file` as far as the power lasts: whole blocks, a sync behind each second one. A held block that
/// differs is written again, as the check behind a transfer does.
fn receive(model: &Model, file: &File, promises: &mut Promises) -> Result<(), StorageError> {
    let inbox = Inbox::new(Arc::new(model.clone()), InboxOptions::default())?;
    let (target, opened) = inbox.begin(offer(file))?;
    let digest = blake3::hash(&file.bytes).into();
    if !opened.complete {
        let geometry = file.geometry();
        let mut unsynced: Vec<(u64, BlockHashes)> = Vec::new();
        for block in 0..geometry.blocks() {
            let hashes = file.hashes(block);
            let there = Some(hashes) == target.hash_block(block)?;
            if there && opened.held.contains(block) && target.check_block(block)? {
                continue;
            }
            if !(there && opened.unhashed.contains(block)) {
                let (start, end) = (geometry.block_start(block), geometry.block_end(block));
                // Two writes, so that a block can be torn between them.
                let middle = start + (end - start) / 2;
                target.write_at(&file.bytes[start as usize..middle as usize], start)?;
                target.write_at(&file.bytes[middle as usize..end as usize], middle)?;
            }
            unsynced.push((block, hashes));
            if unsynced.len() == 2 {
                target.sync(&unsynced)?;
                promises.durable.extend(unsynced.drain(..).map(|(block, _)| block));
            }
        }
        target.sync(&unsynced)?;
    }
    assert_eq!(target.seal(digest)?, Sealed::Stored(Vec::new()));
    promises.sealed = true;
    Ok(())
}

/// Everything that has to hold after the machine started again.
fn check(model: &Model, file: &File, promises: &Promises) -> Result<(), String> {
    if let Some(content) = model.content(&file.name)
        && content != file.bytes
    {
        return Err("the final name stands for something else".to_owned());
    }
    if model.content(&file.name).is_some() && !model.is_read_only(&file.name) {
        return Err("the final name stands for a file that lacks its permissions".to_owned());
    }
    if promises.sealed && model.content(&file.name).is_none() {
        return Err("a receipt was given and the file is not there".to_owned());
    }
    if model.content(&file.name).is_none() && !promises.durable.is_empty() {
        let inbox = Inbox::new(Arc::new(model.clone()), InboxOptions::default()).unwrap();
        let (target, opened) = inbox.begin(offer(file)).map_err(|error| error.to_string())?;
        for &block in &promises.durable {
            if !opened.held.contains(block) {
                return Err(format!("block {block} was reported durable and is not held"));
            }
            if target.hash_block(block).unwrap() != Some(file.hashes(block)) {
                return Err(format!("block {block} was reported durable and is another"));
            }
        }
    }
    Ok(())
}

/// Loses power at every operation, in several ways; gives the first thing that was wrong afterwards.
fn lose_power_everywhere(lie: Lie) -> Result<u64, String> {
    // A file that nobody may write to: its partial file has to stay one that can be gone on with, and what has the final
    // name has its permissions too.
    let file = File { mode: Some(0o440), ..File::new(random(5 * (3 << 20) - 7, 1)) };
    let whole = Model::new(lie);
    receive(&whole, &file, &mut Promises::default()).unwrap();
    let operations = whole.operations();
    assert!(operations > 25, "{operations}");
    assert_eq!(whole.names(), [file.name.as_str()], "no litter");
    for at in 0..=operations {
        for loss in [Loss::All, Loss::Some(at), Loss::Some(at + 1000)] {
            let model = Model::new(lie);
            model.die_at(Some(at));
            let mut promises = Promises::default();
            let received = receive(&model, &file, &mut promises);
            assert_eq!(received.is_ok(), promises.sealed);
            let restarted = model.restart(loss);
            check(&restarted, &file, &promises)
                .map_err(|what| format!("operation {at}, {loss:?}: {what}"))?;
            // And the power goes once more, early in the second run.
            restarted.die_at(Some(at % 7));
            let _ = receive(&restarted, &file, &mut promises);
            let restarted = restarted.restart(loss);
            check(&restarted, &file, &promises)
                .map_err(|what| format!("operation {at}, twice, {loss:?}: {what}"))?;
            receive(&restarted, &file, &mut promises)
                .map_err(|error| format!("operation {at}, {loss:?}: {error}"))?;
            if restarted.content(&file.name).as_ref() != Some(&file.bytes) {
                return Err(format!("operation {at}, {loss:?}: the file is another"));
            }
        }
    }
    Ok(operations)
}

#[test]
fn power_lost_at_any_operation_leaves_the_exact_file_or_a_clean_restart() {
    let operations = lose_power_everywhere(Lie::No).unwrap();
    println!("power was lost at each of {operations} operations, in three ways, twice");
}

#[test]
fn the_model_catches_a_journal_that_is_durable_before_its_data_and_a_directory_that_is_not_synced() {
    let caught = lose_power_everywhere(Lie::DataSync).unwrap_err();
    assert!(caught.contains("was reported durable") || caught.contains("something else"), "{caught}");
    let caught = lose_power_everywhere(Lie::DirSync).unwrap_err();
    assert!(caught.contains("not held") || caught.contains("is not there"), "{caught}");
}

#[test]
fn what_a_failed_sync_lost_is_sent_again_and_not_believed() {
    let file = File::new(random(5 * (3 << 20) - 7, 2));
    let whole = Model::new(Lie::No);
    receive(&whole, &file, &mut Promises::default()).unwrap();
    assert!(whole.syncs() >= 7, "three syncs of data, three of the journal, the last one");
    let mut failed = 0;
    for sync in 0..whole.syncs() {
        let model = Model::new(Lie::No);
        model.fail_sync_at(sync);
        let mut promises = Promises::default();
        // A journal is begun anew, data is sent again.
        if let Err(error) = receive(&model, &file, &mut promises) {
            assert!(error.to_string().contains("input/output error"), "sync {sync}: {error}");
            failed += 1;
        }
        // The same machine goes on, where all that was lost reads well; then the power goes.
        receive(&model, &file, &mut promises).unwrap_or_else(|error| panic!("sync {sync}: {error}"));
        let left = model.restart(Loss::All);
        assert!(left.content(&file.name).as_ref() == Some(&file.bytes), "sync {sync}");
    }
    assert!(failed >= 3, "{failed}");
}

#[test]
fn a_receipt_for_a_file_that_was_there_is_given_once_it_is_durable() {
    let file = File::new(random(1_000_000, 3));
    let model = Model::new(Lie::No);
    model.put(&file.name, &file.bytes);
    assert!(model.restart(Loss::All).content(&file.name).as_ref() != Some(&file.bytes), "not durable yet");
    let inbox = Inbox::new(Arc::new(model.clone()), InboxOptions::default()).unwrap();
    let (target, opened) = inbox.begin(offer(&file)).unwrap();
    assert!(opened.complete);
    target.seal(blake3::hash(&file.bytes).into()).unwrap();
    assert!(model.restart(Loss::All).content(&file.name).as_ref() == Some(&file.bytes));
}

#[test]
fn a_file_that_was_there_and_could_not_be_synced_is_not_believed_until_the_disk_itself_says_so() {
    let file = File::new(random(1_000_000, 4));
    let digest = blake3::hash(&file.bytes).into();
    for overwrite in [false, true] {
        let model = Model::new(Lie::No);
        // Of the past month, so that its time is the offer's.
        model.put(&file.name, &file.bytes);
        model.open(&file.name, true).unwrap().set_mtime(file.mtime, 5).unwrap();
        let options = InboxOptions { overwrite, ..InboxOptions::default() };
        let inbox = Inbox::new(Arc::new(model.clone()), options).unwrap();
        let (target, opened) = inbox.begin(offer(&file)).unwrap();
        assert!(opened.complete);
        model.fail_sync_at(model.syncs());
        let error = target.seal(digest).unwrap_err();
        assert!(error.to_string().contains("cannot sync"), "{error}");
        drop(target);
        // What was lost still reads well, and the next sync says that all is well.
        let (target, opened) = inbox.begin(offer(&file)).unwrap();
        assert!(opened.complete);
        match target.seal(digest) {
            Ok(Sealed::Differs(opened)) => assert!(overwrite && opened.held.is_empty()),
            Err(StorageError::Exists { .. }) => assert!(!overwrite),
            sealed => panic!("{sealed:?}"),
        }
    }
}
