//! The token: from the command line, a file or the environment.

use std::path::PathBuf;

use clap::Parser;

/// The variable of the environment that holds it, if no flag does.
const VARIABLE: &str = "WSFERRY_TOKEN";

#[derive(Parser)]
pub struct TokenArgs {
    /// Secret that senders have to know, and whoever reads /metrics; on the command line others on this machine can
    /// read it
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,

    /// File that holds it, and nothing else but an end of line [default: the variable WSFERRY_TOKEN, if it is set]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// The token, if there is one.
    pub fn token(&self) -> Result<Option<String>, String> {
        if let Some(token) = &self.token {
            return Ok(Some(token.clone()));
        }
        if let Some(path) = &self.token_file {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            return Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()));
        }
        match std::env::var(VARIABLE) {
            Ok(token) => Ok(Some(token)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(format!("{VARIABLE} is not UTF-8")),
        }
    }
}

impl std::fmt::Debug for TokenArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenArgs").finish_non_exhaustive()
    }
}
