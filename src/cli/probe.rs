//! `wsferry probe`: what a path carries, and which flags follow from it.

use std::time::Duration;

use futures::future::{Either, select};
use indicatif::ProgressBar;
use wsferry::protocol::MAX_FRAME;
use wsferry::runtime;
use wsferry::transfer::probe::{self, CutLimit, PathReport, ProbeOptions, ProbeStep, Refusal, Watched};
use wsferry::transport::dial::{Route, TlsRoute};

use super::advice;
use super::args::{self, ProbeArgs};
use super::event::{End, JsonEvent, Limit, Lived, Probed, ProbedCut, ProbedTls};
use super::exit::Exit;
use super::output::{Mode, Output};
use super::profile;
use super::progress;
use super::signals::{self, Hangup};
use super::words;

pub fn run(args: &ProbeArgs, output: &Output) -> Exit {
    if args.profiles {
        profile::list(output);
        return Exit::Done;
    }
    let dialer = match args.dial.dialer(args.url.as_deref().unwrap_or_default(), output) {
        Ok(dialer) => dialer,
        Err(usage) => return output.error(&usage, Exit::Usage),
    };
    let (shutdown, signalled) = match signals::watch(Hangup::IsIgnored, None, output) {
        Ok(watch) => watch,
        Err(error) => return output.error(&format_args!("cannot watch for signals: {error}"), Exit::Failed),
    };
    let options = ProbeOptions { patience: args.patience.into(), watch: args.watch.into() };
    let bar = bar(output);
    let probing =
        std::pin::pin!(async { probe::probe(&dialer, options, &mut |step| show(&bar, step)).await });
    let probed = runtime::block_on(select(probing, shutdown));
    bar.finish_and_clear();
    match probed {
        Either::Left((Ok(report), _)) => {
            output.event(event(dialer.endpoint().to_string(), &report));
            for line in lines(&report) {
                output.line(&line);
            }
            if report.largest_frame == 0 { Exit::Failed } else { Exit::Done }
        }
        Either::Left((Err(error), _)) => {
            output.failed(None, None, &error, advice::of(&error), Exit::from(error.kind()))
        }
        Either::Right(_) => output.error(&"stopped", signalled.exit()),
    }
}

fn bar(output: &Output) -> ProgressBar {
    let bar = if output.mode == Mode::Human {
        output.bars.add(ProgressBar::no_length())
    } else {
        ProgressBar::hidden()
    };
    bar.set_style(progress::style("{spinner} {msg}"));
    bar
}

fn show(bar: &ProgressBar, step: ProbeStep) {
    bar.set_message(match step {
        ProbeStep::Connecting => "connecting".to_owned(),
        ProbeStep::Binary => "whether binary messages pass".to_owned(),
        ProbeStep::RoundTrip => "round trip".to_owned(),
        ProbeStep::Frame(frame) => format!("a frame of {frame} characters"),
        ProbeStep::Rate => "rate".to_owned(),
        ProbeStep::Watching(left) => format!("watching connections, {} s left", left.as_secs()),
    });
    bar.tick();
}

/// The flags that save a sender from finding out by itself.
fn flags(report: &PathReport) -> Vec<String> {
    let limited = report.refused.is_some() && report.largest_frame < MAX_FRAME;
    limited.then(|| format!("--frame-limit {}", report.largest_frame)).into_iter().collect()
}

fn lines(report: &PathReport) -> Vec<String> {
    let Route { proxy, tls, server, via } = &report.route;
    let mut lines = vec![
        format!(
            "receiver       {}",
            if report.program.is_empty() { "of another program" } else { &report.program }
        ),
        format!("proxy          {}", proxy.as_deref().unwrap_or("none")),
        match tls {
            None => "TLS            none".to_owned(),
            Some(TlsRoute { version, cipher, alpn }) => {
                let alpn = alpn.as_ref().map(|alpn| format!(", {alpn} by ALPN")).unwrap_or_default();
                format!("TLS            {version}, {cipher}{alpn}")
            }
        },
    ];
    lines.extend(server.as_ref().map(|server| format!("answered by    {server}")));
    lines.extend(via.as_ref().map(|via| format!("via            {via}")));
    lines.extend([
        "text           passes".to_owned(),
        format!("binary         {}", if report.binary { "passes" } else { "does not pass" }),
        match report.refused {
            None => format!("largest frame  {} characters pass, the most there is", report.largest_frame),
            Some((frame, why)) if report.largest_frame == 0 => {
                format!("largest frame  not even {frame} characters pass, the least there is: {}", said(why))
            }
            Some((frame, why)) => {
                format!(
                    "largest frame  {} characters pass, {frame} do not: {}",
                    report.largest_frame,
                    said(why)
                )
            }
        },
        format!("round trip     {:.1} ms", report.round_trip.as_secs_f64() * 1e3),
        match report.bytes_per_second {
            Some(rate) => format!("rate           {} towards the receiver", words::rate(rate)),
            None => "rate           connections do not live long enough to tell".to_owned(),
        },
    ]);
    lines.extend(report.cut.map(|cut| {
        let (carried, seconds) = (words::size(cut.characters), cut.lived.as_secs_f64());
        let what = match cut.limit {
            CutLimit::Characters => format!("carries {carried} of frames"),
            CutLimit::Age => format!("lives for {seconds:.1} s"),
            CutLimit::Unclear => format!("carries {carried} of frames in {seconds:.1} s"),
        };
        format!("a connection   {what}, and is cut: {}", said(cut.ended))
    }));
    let watched = |what: &str, watched: Watched| {
        let seconds = watched.lived.as_secs_f64();
        match watched.ended {
            None => format!("{what} lives for {seconds:.0} s and more"),
            Some(why) => format!("{what} lives for {seconds:.1} s: {}", said(why)),
        }
    };
    lines.extend(report.in_use.map(|seen| watched("a connection in use", seen)));
    lines.extend(report.idle.map(|seen| watched("one that is idle", seen)));
    lines.push(match flags(report).join(" ") {
        none if none.is_empty() => "flags to use   none is needed".to_owned(),
        flags => format!("flags to use   {flags}"),
    });
    lines
}

/// What became of a frame, or of a connection, in words.
pub fn said(why: Refusal) -> String {
    match why {
        Refusal::Closed(code) => format!("closed with code {code}"),
        Refusal::Lost => "cut without a word".to_owned(),
        Refusal::Stalled => "nothing comes any more".to_owned(),
        Refusal::Damaged => "something else arrives".to_owned(),
    }
}

fn event(url: String, report: &PathReport) -> JsonEvent {
    let lived = |seen: Watched| Lived { seconds: seen.lived.as_secs_f64(), ended: seen.ended.map(End::from) };
    let Route { proxy, tls, server, via } = report.route.clone();
    JsonEvent::Probed(Box::new(Probed {
        url,
        program: report.program.clone(),
        proxy,
        tls: tls.map(|TlsRoute { version, cipher, alpn }| ProbedTls { version, cipher, alpn }),
        server,
        via,
        text: true,
        binary: report.binary,
        largest_frame: report.largest_frame,
        refused_frame: report.refused.map(|(frame, _)| frame),
        refused: report.refused.map(|(_, why)| why.into()),
        round_trip_seconds: report.round_trip.as_secs_f64(),
        bytes_per_second: report.bytes_per_second,
        cut: report.cut.map(|cut| ProbedCut {
            characters: cut.characters,
            seconds: cut.lived.as_secs_f64(),
            ended: cut.ended.into(),
            limit: match cut.limit {
                CutLimit::Characters => Limit::Characters,
                CutLimit::Age => Limit::Age,
                CutLimit::Unclear => Limit::Unclear,
            },
        }),
        in_use: report.in_use.map(lived),
        idle: report.idle.map(lived),
        flags: flags(report),
    }))
}

impl From<Refusal> for End {
    fn from(why: Refusal) -> Self {
        match why {
            Refusal::Closed(code) => Self::Closed { code },
            Refusal::Lost => Self::Lost,
            Refusal::Stalled => Self::Stalled,
            Refusal::Damaged => Self::Damaged,
        }
    }
}

/// At most a day.
pub fn watch(text: &str) -> Result<humantime::Duration, String> {
    let watch = args::duration(text)?;
    let most = Duration::from_secs(24 * 60 * 60);
    if *watch <= most { Ok(watch) } else { Err("expected at most 1day".to_owned()) }
}
