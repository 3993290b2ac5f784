//! Every error of the library, as a user reads it and with what to do about it, in a text that is compared.
//!
//! `SNAPSHOTS=overwrite cargo test --bin wsferry` writes it anew. What has to stand in it follows from the list of what
//! is public, `tests/public-api.txt`, and no list of this file: a variant that is new there is missing here.

mod public;
mod samples;
mod samples_of_transport;

use std::collections::BTreeSet;
use std::fmt::{Debug, Display, Write};

use snapbox::{Assert, Data};
use wsferry::transfer::Error;

use super::advice::{self, Does};
use super::exit::Exit;
use super::probe;

/// Enums that are printed and tell of no failure.
const NO_ERRORS: [&str; 2] = ["transport::Remote", "transport::dial::Place"];
/// Enums without words of their own that decide what is said, and the exit code.
const DECIDING: [&str; 4] = [
    "protocol::Code",
    "transfer::ErrorKind",
    "transfer::probe::Refusal",
    "transport::dial::CertificateFaultKind",
];

/// What is offered in all samples.
const NAME: &str = "photo.jpg";

/// The text, and the variants that stand in it.
#[derive(Default)]
struct Page {
    text: String,
    variants: BTreeSet<String>,
}

impl Page {
    /// Notes the variant that a value of this enum is.
    fn note(&mut self, path: &str, value: &impl Debug) {
        let shown = format!("{value:?}");
        let end = shown.find(|c: char| !c.is_alphanumeric()).unwrap_or(shown.len());
        self.variants.insert(format!("{path}::{}", &shown[..end]));
    }

    /// The same for all values, which are given back.
    fn noted<T: Debug>(&mut self, path: &str, values: Vec<T>) -> Vec<T> {
        values.iter().for_each(|value| self.note(path, value));
        values
    }

    fn heading(&mut self, what: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        writeln!(self.text, "{gap}# {what}").expect("a String takes everything");
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Words that stand in other errors, or behind the name of a file.
    fn words<T: Debug + Display>(&mut self, path: &str, values: Vec<T>) {
        let values = self.noted(path, values);
        self.plain_words(path, &values);
    }

    /// The same of what has no variants.
    fn plain_words<T: Display>(&mut self, heading: &str, values: &[T]) {
        self.heading(heading);
        values.iter().for_each(|value| self.line(&value.to_string()));
    }

    /// Errors that end a transfer, as those tell of them who may meet them.
    fn errors(&mut self, heading: &str, sides: &[Does], errors: Vec<Error>) {
        self.heading(heading);
        for error in errors {
            self.note("transfer::Error", &error);
            self.note("transfer::ErrorKind", &error.kind());
            let exit = Exit::from(error.kind()).code();
            // Of one message nothing is kept.
            let goes_on = !heading.contains("--plain");
            let mut told: Vec<(String, Vec<&str>)> = Vec::new();
            for &side in sides {
                let line =
                    format!("wsferry: {error}{}", advice::of_transfer(&error, side, Some(NAME), goes_on));
                match told.iter_mut().find(|(other, _)| *other == line) {
                    Some((_, sides)) => sides.push(command(side)),
                    None => told.push((line, vec![command(side)])),
                }
            }
            for (line, sides) in told {
                self.line(&format!("{line}\n    exit code {exit} of {}", sides.join(", ")));
            }
        }
    }
}

/// What a side is called here.
fn command(does: Does) -> &'static str {
    match does {
        Does::Send => "send",
        Does::Receive => "receive",
        Does::Offer => "send --listen",
        Does::Fetch => "receive URL",
    }
}

fn page() -> Page {
    const SENDING: [Does; 2] = [Does::Send, Does::Offer];
    const RECEIVING: [Does; 2] = [Does::Receive, Does::Fetch];
    const DIALLING: [Does; 2] = [Does::Send, Does::Fetch];
    const LISTENING: [Does; 2] = [Does::Receive, Does::Offer];
    const ALL: [Does; 4] = [Does::Send, Does::Receive, Does::Offer, Does::Fetch];

    let mut page = Page::default();
    let names = page.noted("protocol::NameError", samples::names());
    let sources = page.noted("storage::SourceError", samples::sources(names));
    page.errors("storage::SourceError", &SENDING, sources.into_iter().map(Error::from).collect());
    let obstacles = page.noted("storage::Obstacle", samples::obstacles());
    let stored = page.noted("storage::StorageError", samples::storage(obstacles));
    page.errors("storage::StorageError", &RECEIVING, stored.into_iter().map(Error::from).collect());

    let kinds =
        page.noted("transport::dial::CertificateFaultKind", samples_of_transport::certificate_kinds());
    let faults = page.noted("transport::dial::TlsFault", samples_of_transport::tls_faults(&kinds));
    let proxied = page.noted("transport::dial::ProxyFault", samples_of_transport::proxy_faults());
    let refusals = page.noted("transport::Refusal", samples_of_transport::refusals());
    for (heading, sides, errors) in [
        ("transport::TransportError where this side dials", &DIALLING[..], samples_of_transport::dialling()),
        ("transport::TransportError of TLS", &DIALLING, samples_of_transport::tls(faults)),
        ("transport::TransportError of a proxy", &DIALLING, samples_of_transport::proxies(proxied)),
        (
            "transport::TransportError where this side listens",
            &LISTENING,
            samples_of_transport::listening(refusals),
        ),
        ("transport::TransportError of a connection", &ALL, samples_of_transport::connected()),
        ("transport::TransportError of a close", &[Does::Send], samples_of_transport::closed()),
    ] {
        let errors = page.noted("transport::TransportError", errors);
        page.errors(heading, sides, errors.into_iter().map(Error::from).collect());
    }

    let violations = page.noted("protocol::Violation", samples::violations());
    page.errors("protocol::Violation", &ALL, violations.into_iter().map(samples::violated).collect());
    let codes = page.noted("protocol::Code", samples::codes());
    page.errors("transfer::Error of what a receiver refuses", &SENDING, samples::refused(&codes));
    page.errors("transfer::Error of what this side refuses", &RECEIVING, samples::declined(&codes));
    page.errors("transfer::Error of what the peer ends", &ALL, samples::ended(&codes));
    let not_offered = page.noted("protocol::NotOffered", samples::not_offered());
    page.errors("protocol::NotOffered", &SENDING, samples::unoffered(&not_offered));
    page.errors("transfer::Error of a connection", &ALL, samples::connection());
    page.errors("transfer::Error of all connections", &DIALLING, samples::connections());
    page.errors("transfer::Error where this side receives", &RECEIVING, samples::receiving());
    let texts = page.noted("protocol::codec::BadText", samples::texts());
    page.errors("transfer::Error of receive --plain", &[Does::Receive], samples::plain_receiving(texts));
    page.errors("transfer::Error of send --plain", &[Does::Send], samples::plain_sending());

    page.words("storage::Special", samples::specials());
    let skips = page.noted("storage::SkipReason", samples::skips());
    page.plain_words("storage::Skipped", &skips.into_iter().map(samples::skipped).collect::<Vec<_>>());
    page.words("storage::Warning", samples::warnings());
    page.plain_words("storage::FilterError", &samples::filters());
    page.words("transport::TlsError", samples_of_transport::tls_errors());
    page.words("protocol::chunk::ChunkError", samples::chunks());
    page.heading("transfer::probe::Refusal");
    for refusal in page.noted("transfer::probe::Refusal", samples::probed()) {
        page.line(&probe::said(refusal));
    }
    page
}

#[test]
fn every_error_is_as_it_was_read_last() {
    let snapshot = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/errors/errors.txt");
    let assert = Assert::new().action_env("SNAPSHOTS");
    assert.eq(page().text, Data::read_from(snapshot.as_ref(), None).raw());
}

#[test]
fn no_variant_of_a_public_error_is_missing() {
    let page = page();
    let public = public::enums();
    let errors = public
        .iter()
        .filter(|one| DECIDING.contains(&&*one.path) || (one.is_printed && !NO_ERRORS.contains(&&*one.path)));
    let expected: BTreeSet<String> = errors
        .flat_map(|one| one.variants.iter().map(|variant| format!("{}::{variant}", one.path)))
        .collect();
    assert!(expected.len() > 120, "the list of what is public is read: {expected:?}");
    let missing: Vec<_> = expected.difference(&page.variants).collect();
    assert!(missing.is_empty(), "these stand in no sample: {missing:#?}");
    let strange: Vec<_> = page.variants.difference(&expected).collect();
    assert!(strange.is_empty(), "these are not public: {strange:#?}");
}

#[test]
fn every_error_is_one_line_of_plain_words_and_the_library_names_no_flag() {
    for line in page().text.lines().filter(|line| !line.starts_with(['#', ' '])) {
        for bad in ["  ", "?;", ": :", ";;", "; ;", ": ;", "Some(", "None", "Err(", "Os {", " { ", "()"] {
            assert!(!line.contains(bad), "{bad:?} in: {line}");
        }
        let words: Vec<&str> =
            line.split_whitespace().map(|word| word.trim_end_matches([',', ';', ':', '.'])).collect();
        let doubled =
            words.windows(2).find(|pair| pair[0] == pair[1] && pair[0].chars().any(char::is_alphabetic));
        assert_eq!(doubled, None, "{line}");
        assert!(!line.ends_with(['.', ':', ';', ' ']), "{line}");
    }
    let mut library = Page::default();
    for errors in
        [samples::connection(), samples::connections(), samples::receiving(), samples::plain_sending()]
    {
        errors.iter().for_each(|error| library.line(&error.to_string()));
    }
    let sources = samples::sources(samples::names());
    sources.iter().for_each(|error| library.line(&error.to_string()));
    samples::storage(samples::obstacles()).iter().for_each(|error| library.line(&error.to_string()));
    samples_of_transport::all().iter().for_each(|error| library.line(&error.to_string()));
    let flags: Vec<_> = library.text.lines().filter(|line| line.contains(" --")).collect();
    assert_eq!(flags, [""; 0]);
}
