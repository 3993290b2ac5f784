//! Standard input and output instead of a URL.

use clap::Parser;

use crate::cli::headings;
use crate::cli::settings::Sources;

/// What takes the place of a URL: a program, or the one that started this.
#[derive(Debug, Parser)]
pub struct PipeArgs {
    /// Start COMMAND with sh, such as 'ssh HOST wsferry receive --stdio DIR', and speak over its standard input and output,
    /// instead of dialling a URL; after a cut it is started again
    #[arg(long, help_heading = headings::CONNECTION, value_name = "COMMAND", conflicts_with_all = ["stdio", "listen"])]
    pub via: Option<String>,

    /// Speak over standard input and output: what --via starts at the other end
    #[arg(long, help_heading = headings::CONNECTION, conflicts_with_all = ["listen", "json"])]
    pub stdio: bool,
}

impl PipeArgs {
    pub fn is_given(&self) -> bool {
        self.via.is_some() || self.stdio
    }

    /// How the other side is reached is said on the command line alone: what is set for all runs says nothing.
    pub fn keep_given(&mut self, sources: &Sources) {
        self.via.take_if(|_| !sources.is_given("via"));
        self.stdio &= sources.is_given("stdio");
    }

    /// The flag that was given.
    pub fn given(&self) -> &'static str {
        if self.stdio { "--stdio" } else { "--via" }
    }
}

/// Whether it is meant as a URL.
pub fn is_url(text: &str) -> bool {
    text.contains("://") || text.starts_with("unix:")
}
