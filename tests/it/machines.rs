//! The two machines, over a fake link and by hand. Here is what drives one by hand.

mod blocks;
mod crossing;
mod faults;
mod time;

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wsferry::protocol::chunk::Header;
use wsferry::protocol::{Accept, Action, BLOCK, BlockDigest, Done, Due, Link, Message, Opened, chunk};

use crate::link::{File, Options};

const B: usize = BLOCK as usize;

/// A file with holes in the place of these blocks.
pub fn sparse(bytes: Vec<u8>, holes: &[u64]) -> File {
    let mut file = File::new(bytes);
    let geometry = file.geometry();
    for &block in holes.iter().filter(|&&block| block < geometry.blocks()) {
        file.bytes[geometry.block_start(block) as usize..geometry.block_end(block) as usize].fill(0);
        file.zeros.insert(block);
    }
    file
}

/// Hands a message to a machine; gives what it says to that.
pub fn say(link: &mut Link, message: &Message, now: Instant) -> Vec<Message> {
    link.handle_frame(message.to_frame().as_bytes(), &mut Vec::new(), now).unwrap();
    std::iter::from_fn(|| link.poll_message(now)).collect()
}

/// A receiver that heard `hello`, and whose own was taken.
pub fn greeted(options: &Options, now: Instant) -> Link {
    let mut receiver = options.link(true, now);
    let said = say(&mut receiver, &Message::Hello(options.hello(true)), now);
    assert!(matches!(said[..], [Message::Hello(_)]), "{said:?}");
    receiver
}

/// A receiver that holds the first `held` blocks of a file, transfer 0, and all that it said so far taken.
fn accepted(file: &File, held: u64, now: Instant) -> Link {
    let mut receiver = greeted(&Options::default(), now);
    assert_eq!(say(&mut receiver, &Message::Offer(file.offer()), now), []);
    assert!(matches!(receiver.poll_action(now), Some(Action::Open { transfer: 0, .. })));
    let held_blocks = std::iter::once(0..held).collect();
    let opened = Opened { held: held_blocks, received: held * BLOCK, ..Opened::default() };
    receiver.done(0, Done::Opened(opened), now);
    assert!(matches!(receiver.poll_message(now), Some(Message::Accept(_))));
    receiver
}

/// The frame of a chunk.
pub fn frame(transfer: u32, sequence: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; chunk::frame_len(bytes.len())];
    chunk::encode(Header { transfer, sequence, offset }, bytes, &mut frame);
    frame
}

/// Hands a chunk of transfer 0 to the receiver, damaged or not.
fn chunk(receiver: &mut Link, sequence: u64, offset: u64, bytes: &[u8], damaged: bool, now: Instant) {
    let mut frame = frame(0, sequence, offset, bytes);
    if damaged {
        frame[chunk::HEADER_LEN - 2] ^= 1;
    }
    receiver.handle_frame(&frame, &mut Vec::new(), now).unwrap();
}

fn finish(file: &File) -> Message {
    Message::Finish { transfer: 0, digest: file.digest() }
}

fn repair(blocks: &[(u64, u64)]) -> Message {
    Message::Repair { transfer: 0, blocks: blocks.to_vec() }
}

fn check(first: u64, count: u64) -> Message {
    Message::Check { transfer: 0, first, count, tree: true }
}

fn check_block(block: u64) -> Action {
    Action::CheckBlock { transfer: 0, block }
}

fn sync(file: &File, blocks: &[u64]) -> Action {
    Action::Sync { transfer: 0, blocks: blocks.iter().map(|&block| (block, file.hashes(block))).collect() }
}

/// A sender that offered a file as transfer 0 to a receiver with these features; all that it said was taken.
pub fn offered(file: &File, options: &Options, features: bool, now: Instant) -> Link {
    let mut sender = options.link(true, now);
    assert_eq!(sender.offer(file.offer(), file.sending(options.chunk)), Ok(0));
    let said = say(&mut sender, &Message::Hello(options.hello(features)), now);
    assert!(matches!(said[..], [Message::Hello(_), Message::Offer(_)]), "{said:?}");
    sender
}

pub fn accept(held: &[(u64, u64)]) -> Accept {
    let received = held.last().map_or(0, |(first, count)| (first + count) * BLOCK);
    Accept { transfer: 0, held: held.to_vec(), begun: Vec::new(), received, complete: false, discard: false }
}

pub fn digests(first: u64, digest: BlockDigest) -> Message {
    Message::Digests { transfer: 0, first, digests: STANDARD.encode(digest.0) }
}

/// The hashes of a block, to a sender that asked for them.
pub fn hashed(sender: &mut Link, file: &File, block: u64, now: Instant) {
    let hashes = file.hashes(block);
    let digest = hashes.digest();
    sender.done(0, Done::HashedSource(block, hashes, digest), now);
}

/// Hands a message to a sender; gives what it wants done, and says.
pub fn hear(sender: &mut Link, message: Message, now: Instant) -> (Option<Action>, Option<Message>) {
    sender.handle_frame(message.to_frame().as_bytes(), &mut Vec::new(), now).unwrap();
    (sender.poll_action(now), sender.poll_message(now))
}

/// Puts the next chunk into a frame, if one is due.
pub fn next_frame(sender: &mut Link, file: &File, now: Instant) -> Option<Vec<u8>> {
    let Due { offset, len, .. } = sender.next_chunk()?;
    let mut frame = vec![0; chunk::frame_len(len)];
    sender.encode_chunk(&file.bytes[offset as usize..][..len], &mut frame, now);
    Some(frame)
}
