//! The line that says how a transfer went: whole where programs read, as short as the terminal is narrow for people.

use wsferry::transfer::Summary;

use super::line::width;
use super::words;

/// Something that is said behind the beginning of the line.
struct Part {
    text: String,
    /// Where there is little room it is left out.
    gives_way: bool,
}

/// The last line of a transfer, its first word apart: of one that was sent, or of one that was received. With a number of
/// columns it is short, for people, and if it can fits into them.
pub fn line(sent: bool, summary: &Summary, columns: Option<usize>) -> (&'static str, String) {
    let Summary { name, digest, elapsed, progress, complete, discarded, .. } = summary;
    let seconds = format!("{:.2} s", elapsed.as_secs_f64());
    let (held, resent) = (progress.held, words::size(progress.resent));
    let size = words::size(summary.size());
    let mut parts = Vec::new();
    let mut add = |gives_way, text| parts.push(Part { text, gives_way });
    let is_repaired =
        held > 0 && held >= summary.size() && (progress.resent > 0 || progress.repaired_blocks > 0);
    let (done, beginning) = if *complete {
        let same = if digest.is_some() { "content" } else { "size and time, which was not compared" };
        ("", format!("{name}: {size}, already there with the same {same}, {seconds}"))
    } else if is_repaired {
        match progress.repaired_blocks {
            0 => {}
            1 => add(false, "1 block".to_owned()),
            blocks => add(false, format!("{blocks} blocks")),
        }
        ("repaired", format!(" {name}: {resent} of {size} sent in {seconds}"))
    } else {
        let new = match held {
            0 => size,
            _ => format!("{} of {size}", words::size(summary.new_bytes())),
        };
        // What had no new bytes has none.
        let rate = match summary.rate() as u64 {
            0 => String::new(),
            rate => format!(" ({})", words::rate(rate as f64)),
        };
        if held > 0 {
            add(true, format!("resumed at {}", words::size(held)));
        }
        if sent && progress.resent > 0 {
            add(false, format!("{resent} sent twice"));
        }
        for (count, what) in
            [(progress.naks.into(), "damaged chunk"), (progress.repaired_blocks, "repaired block")]
        {
            match count {
                0 => {}
                1 => add(false, format!("1 {what}")),
                count => add(false, format!("{count} {what}s")),
            }
        }
        let removed = if !sent && *discarded { ", checked and removed" } else { "" };
        (if sent { "sent" } else { "received" }, format!("{removed} {name}: {new} in {seconds}{rate}"))
    };
    if let Some(digest) = digest {
        let short = columns.is_some();
        add(
            short,
            if short { format!("blake3 {:.12}…", digest.to_string()) } else { format!("blake3 {digest}") },
        );
    }
    let warnings: String = summary.warnings.iter().map(|warning| format!("; {warning}")).collect();
    let joined = |parts: &[Part]| {
        let parts: String = parts.iter().map(|part| format!(", {}", part.text)).collect();
        format!("{beginning}{parts}{warnings}")
    };
    while let Some(columns) = columns
        && width(done) + width(&joined(&parts)) > columns
        && let Some(last) = parts.iter().rposition(|part| part.gives_way)
    {
        parts.remove(last);
    }
    (done, joined(&parts))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wsferry::protocol::{OfferKind, Progress};

    use super::*;

    fn summary(held: u64, resent: u64, repaired_blocks: u64) -> Summary {
        let all = 600_000_000;
        let progress = Progress {
            held,
            resent,
            repaired_blocks,
            acknowledged: all,
            total: Some(all),
            ..Progress::default()
        };
        let digest = Some(blake3::hash(b"").into());
        let elapsed = Duration::from_millis(11_180);
        Summary {
            name: "big.bin".to_owned(),
            kind: OfferKind::File,
            peer: String::new(),
            digest,
            elapsed,
            progress,
            complete: false,
            discarded: false,
            warnings: Vec::new(),
            wire_bytes: 0,
        }
    }

    fn lines(summary: &Summary) -> [String; 3] {
        [None, Some(100), Some(80)].map(|columns| {
            let (done, rest) = line(true, summary, columns);
            format!("{done}{rest}")
        })
    }

    #[test]
    fn a_line_is_whole_for_programs_and_fits_a_terminal_as_far_as_it_can() {
        assert_eq!(
            lines(&summary(181_000_000, 197_000, 0)),
            [
                "sent big.bin: 419 MB of 600 MB in 11.18 s (37.5 MB/s), resumed at 181 MB, 197 kB sent twice, blake3 \
                 af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
                "sent big.bin: 419 MB of 600 MB in 11.18 s (37.5 MB/s), resumed at 181 MB, 197 kB sent twice",
                "sent big.bin: 419 MB of 600 MB in 11.18 s (37.5 MB/s), 197 kB sent twice",
            ]
        );
        let [_, wide, narrow] = lines(&summary(0, 0, 0));
        assert_eq!(wide, "sent big.bin: 600 MB in 11.18 s (53.7 MB/s), blake3 af1349b9f5f9…");
        assert_eq!(narrow, wide);
    }

    #[test]
    fn what_was_there_and_differed_in_places_is_repaired_and_was_not_resumed() {
        let [_, wide, _] = lines(&summary(600_000_000, 3_000_000, 1));
        assert_eq!(
            wide,
            "repaired big.bin: 3.00 MB of 600 MB sent in 11.18 s, 1 block, blake3 af1349b9f5f9…"
        );
    }
}
