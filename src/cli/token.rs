//! The token: from a flag, wherever that is set, or from a file.

use std::path::PathBuf;

use clap::Parser;
use wsferry::transport::dial::Secret;

use super::headings;

#[derive(Debug, Parser)]
pub struct TokenArgs {
    /// Secret that senders have to know, and whoever reads /metrics; on the command line others on this machine can
    /// read it, in the variable WSFERRY_TOKEN they cannot
    #[arg(long, help_heading = headings::LISTENING, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<Secret>,

    /// File that holds it, and nothing else but an end of line
    #[arg(long, help_heading = headings::LISTENING, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// The token, if there is one.
    pub fn token(&self) -> Result<Option<String>, String> {
        if let Some(token) = &self.token {
            return Ok(Some(token.reveal().to_owned()));
        }
        if let Some(path) = &self.token_file {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            return Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()));
        }
        Ok(None)
    }
}
