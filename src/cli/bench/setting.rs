//! What is measured: which chunk sizes, which windows.

use bytesize::ByteSize;
use wsferry::protocol::{ChunkSize, MAX_FRAME, MIN_FRAME_LIMIT};

use crate::cli::args::BenchArgs;
use crate::cli::output::Output;

/// What is measured: one line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub chunk: ChunkSize,
    pub window: u64,
}

/// Turns flags into settings, or says which of them makes no sense.
pub fn settings(args: &BenchArgs, output: &Output) -> Result<Vec<Setting>, String> {
    let frame_limit = args.frame_limit.map_or(MAX_FRAME as u64, |limit| limit.as_u64().min(MAX_FRAME as u64));
    let largest =
        ChunkSize::for_frame_limit(frame_limit as usize).filter(|_| frame_limit >= MIN_FRAME_LIMIT as u64);
    let largest = largest.ok_or_else(|| {
        format!("--frame-limit is {frame_limit}; at least {MIN_FRAME_LIMIT} characters are needed")
    })?;
    if args.runs == 0 || args.size.is_some_and(|size| size.as_u64() == 0) {
        return Err("--runs and --size are at least 1".to_owned());
    }
    if args.svg.is_some() && args.svg == args.html {
        return Err("--svg and --html name the same file".to_owned());
    }
    let mut chunks = Vec::new();
    for &ByteSize(wanted) in &args.chunk_sizes {
        let chunk = ChunkSize::at_most(wanted);
        let chunk =
            chunk.ok_or_else(|| format!("--chunk-sizes has {wanted}; at least 3 bytes are needed"))?;
        let chunk = chunk.min(largest);
        let limited = chunk == largest && args.frame_limit.is_some();
        output.lowered(wanted, chunk, if limited { "what the frame limit allows" } else { "a whole block" });
        chunks.push(chunk);
    }
    let mut settings = Vec::new();
    for &ByteSize(window) in &args.windows {
        if window == 0 {
            return Err("--windows has a 0; at least 1 byte is needed".to_owned());
        }
        let allowed = wsferry::transfer::ReceiveOptions::default().window;
        if window > allowed {
            output.notice(&format!("window {window} lowered to {allowed}, the most that a receiver allows"));
        }
        let window = window.min(allowed);
        for &chunk in &chunks {
            let setting = Setting { chunk, window };
            if !settings.contains(&setting) {
                settings.push(setting);
            }
        }
    }
    Ok(settings)
}
