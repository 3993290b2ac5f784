//! The token that this side demands: from a flag, wherever that is set, or from a file.

use std::path::Path;

use wsferry::transport::dial::Secret;

/// The token, if there is one.
pub fn demanded(token: Option<&Secret>, file: Option<&Path>) -> Result<Option<String>, String> {
    if let Some(token) = token {
        return Ok(Some(token.reveal().to_owned()));
    }
    if let Some(path) = file {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        return Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()));
    }
    Ok(None)
}
