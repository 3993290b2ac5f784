//! `wsferry bench`: which chunk size, measured with the real program as two processes, over real sockets and files.

mod child;
mod files;
mod page;
mod place;
mod plot;
mod report;
mod run;
mod setting;
mod spread;

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use wsferry::protocol::DEFAULT_WINDOW;
use wsferry::transfer::Shutdown;

use self::files::Files;
use self::place::Place;
use self::report::{LEGEND, Report, Row, per_second, size};
use self::run::Sending;
use self::setting::{Setting, settings};
use super::args::BenchArgs;
use super::event::JsonEvent;
use super::exit::Exit;
use super::output::Output;
use super::progress;
use super::signals::{self, Hangup};

pub fn run(args: BenchArgs, output: &Output) -> Exit {
    let asked = place::named(&args, output).and_then(|place| Ok((place, settings(&args, output)?)));
    let (place, settings) = match asked {
        Ok(asked) => asked,
        Err(usage) => return output.error(&usage, Exit::Usage),
    };
    let (shutdown, signalled) = match signals::watch(Hangup::Stops, None, output) {
        Ok(watch) => watch,
        Err(error) => return output.error(&format_args!("cannot watch for signals: {error}"), Exit::Failed),
    };
    let (report, ended) = match measure(&args, &*place, &settings, shutdown, output) {
        Ok(measured) => measured,
        Err(error) => (Report::default(), Err(error)),
    };
    // What was measured before it was stopped is not lost.
    let is_told = ended.is_ok() || matches!(ended, Err(run::Error::Stopped));
    let told =
        if is_told && !report.rows.is_empty() { tell(&args, &*place, &report, output) } else { Ok(()) };
    match told.and(ended) {
        Ok(()) => Exit::Done,
        Err(run::Error::Stopped) => output.error(&"stopped", signalled.exit()),
        Err(run::Error::Failed { why, exit }) => output.error(&why, exit),
    }
}

/// Runs every setting as often as asked for, in turns: what the machine does meanwhile hits all of them alike. Gives what
/// was measured until it ended, and how it did.
fn measure(
    args: &BenchArgs,
    place: &dyn Place,
    settings: &[Setting],
    mut stop: Shutdown,
    output: &Output,
) -> Result<(Report, Result<(), run::Error>), run::Error> {
    let size = args.size.map_or(place.default_size(), |size| size.as_u64());
    for path in args.svg.iter().chain(&args.html) {
        // Said now and not when all is measured.
        let there = path.exists();
        OpenOptions::new().append(true).create(true).open(path).map_err(cannot_write(path))?;
        if !there {
            let _ = std::fs::remove_file(path);
        }
    }
    let files = Files::make(args.dir.as_deref(), size, place.copies(), &mut stop)?;
    let bar = output.has_bars().then(|| {
        let all = size.saturating_mul(settings.len() as u64).saturating_mul(args.runs.into());
        output
            .bars
            .add(ProgressBar::new(all).with_style(progress::style("{wide_bar} {percent}% {eta} left  {msg}")))
    });
    let mut rows: Vec<Row> = settings.iter().map(|&setting| Row { setting, samples: Vec::new() }).collect();
    let mut floors = Vec::new();
    let mut done = 0;
    let measured = (|| {
        for _ in 0..args.runs {
            if place.has_floor() {
                if let Some(bar) = &bar {
                    bar.set_message("the I/O floor");
                }
                floors.push(size as f64 / run::floor(&files, &mut stop)?.as_secs_f64());
            }
            for row in &mut rows {
                let Setting { chunk, window } = row.setting;
                let message = format!("chunk {}, window {}", report::size(chunk.raw()), report::size(window));
                let mut moved = |bytes| {
                    if let Some(bar) = &bar {
                        bar.set_position(done + bytes);
                    }
                };
                if let Some(bar) = &bar {
                    bar.set_message(message);
                }
                row.samples.push(place.run(Sending {
                    files: &files,
                    setting: row.setting,
                    frame_limit: args.frame_limit,
                    stop: &mut stop,
                    moved: &mut moved,
                })?);
                files.clean();
                done += size;
            }
        }
        Ok(())
    })();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    rows.retain(|row| !row.samples.is_empty());
    Ok((Report { size, runs: args.runs, path: place.path(&files), floors, rows }, measured))
}

fn tell(args: &BenchArgs, place: &dyn Place, report: &Report, output: &Output) -> Result<(), run::Error> {
    output.line(&report.title());
    if let Some(floor) = report.floor() {
        output.event(JsonEvent::Floor {
            bytes_per_second: floor.median,
            slowest: floor.min,
            fastest: floor.max,
        });
        output.line(&format!(
            "the I/O floor, file to TCP to file with nothing else done: {} ({} to {})",
            per_second(floor.median),
            per_second(floor.min),
            per_second(floor.max)
        ));
    }
    report.table().iter().for_each(|line| output.line(line));
    if report.floor().is_some() {
        output.line(LEGEND);
    }
    for row in &report.rows {
        output.event(report.event(row));
    }
    if let Some(row) = report.recommended() {
        let (command, doubt) = (command(args, place, row.setting), report.doubt());
        output.event(JsonEvent::Recommended {
            chunk_size: row.setting.chunk.raw(),
            window: row.setting.window,
            command: command.clone(),
            doubt: doubt.map(str::to_owned),
        });
        output.line(&format!(
            "the smallest chunk within 3% of the fastest is {}:",
            size(row.setting.chunk.raw())
        ));
        output.line(&format!("  {command}"));
        if let Some(doubt) = doubt {
            output.warning("in doubt:", &format!(" {doubt}"));
        }
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, plot::svg(report)).map_err(cannot_write(path))?;
    }
    if let Some(path) = &args.html {
        std::fs::write(path, page::html(report, |row| command(args, place, row.setting)))
            .map_err(cannot_write(path))?;
    }
    let written: Vec<&PathBuf> = args.svg.iter().chain(&args.html).collect();
    for path in written {
        output.notice(&format!("the plot is in {}", path.display()));
    }
    Ok(())
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> run::Error {
    move |error| run::Error::failed(format!("cannot write {}: {error}", path.display()))
}

/// The command line that uses a setting; what says who calls is not in it.
fn command(args: &BenchArgs, place: &dyn Place, setting: Setting) -> String {
    let (url, chunk) = (place.shown_url(), size(setting.chunk.raw()));
    let mut command = format!("wsferry send FILE {url} --chunk-size {chunk}");
    // A profile may have a window of its own.
    let profile = args.dial.profile();
    if args.windows.len() > 1 || setting.window != DEFAULT_WINDOW || profile.is_some() {
        command.push_str(&format!(" --window {}", size(setting.window)));
    }
    if let Some(limit) = args.frame_limit {
        command.push_str(&format!(" --frame-limit {}", size(limit.as_u64())));
    }
    if let Some(profile) = profile {
        command.push_str(&format!(" --profile {profile}"));
    }
    command
}
