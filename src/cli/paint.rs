//! Colour, where there is somebody to see it: never what tells something alone.

use std::fmt::Display;

use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Effects, Style};

/// What went wrong.
const BAD: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
/// What may go wrong.
const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
/// What went well, and the part that is done.
const GOOD: Style = AnsiColor::Green.on_default();
/// What is still to come.
const FAINT: Style = Style::new().effects(Effects::DIMMED);

/// Whether one stream is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(bool);

impl Paint {
    /// As asked for; else on a terminal that has colours, unless `NO_COLOR` or `CLICOLOR=0` is set, and anywhere if
    /// `CLICOLOR_FORCE` is.
    pub fn new(choice: ColorChoice, is_terminal: bool) -> Self {
        Self(match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                !anstyle_query::no_color()
                    && (anstyle_query::clicolor_force()
                        || (is_terminal
                            && anstyle_query::clicolor() != Some(false)
                            && anstyle_query::term_supports_color()))
            }
        })
    }

    pub fn bad(self, text: impl Display) -> String {
        self.with(BAD, text)
    }

    pub fn doubtful(self, text: impl Display) -> String {
        self.with(DOUBTFUL, text)
    }

    pub fn good(self, text: impl Display) -> String {
        self.with(GOOD, text)
    }

    pub fn faint(self, text: impl Display) -> String {
        self.with(FAINT, text)
    }

    fn with(self, style: Style, text: impl Display) -> String {
        if self.0 { format!("{style}{text}{style:#}") } else { text.to_string() }
    }
}
