//! What cannot be read twice: the machine is told what has come of it, and the stream what is not needed any more.

use std::task::Context;

use super::Files;
use crate::protocol::Link;
use crate::transfer::run::Transfer;

impl Files<'_> {
    /// Tells the machine what has come of streams, and lets go of what it is done with. Whether anything has come.
    pub(super) fn follow_streams(&mut self, link: &mut Link, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        let mut failed = Vec::new();
        self.streams.retain_mut(|(number, told)| {
            let Some(stream) = self.open.get(number).and_then(Transfer::stream) else { return false };
            stream.let_go_below(link.done_below(*number));
            let acknowledged = link.progress(*number).unwrap_or_default().acknowledged;
            if acknowledged + 3 > told.bytes {
                // It is not the path that keeps it waiting.
                self.run.note_move();
                moved |= acknowledged > 0 && !std::mem::replace(&mut self.carried, true);
            }
            if told.is_all {
                return true;
            }
            match stream.poll_come(cx) {
                Ok(come) if come == *told => {}
                Ok(come) => {
                    link.grown(*number, come.bytes);
                    if come.is_all {
                        link.ended(*number, come.bytes);
                    }
                    (*told, moved) = (come, true);
                }
                Err(error) => failed.push((*number, error)),
            }
            true
        });
        for (number, error) in failed {
            self.failed(number, error.into(), link);
            moved = true;
        }
        moved
    }
}
