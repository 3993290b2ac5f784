//! `--stdio`: the protocol over this process's standard input and output, which whoever started it holds.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use wsferry::runtime::Stream;
use wsferry::transport::{Connection, PipeRole, TransportError, pipe_handshake};

/// Takes them away from everything else: what is printed by mistake goes to standard error.
pub fn stream() -> Result<Stream, String> {
    if io::stdin().is_terminal() || io::stdout().is_terminal() {
        return Err("--stdio is for what --via starts at the other end: here somebody would have to type frames, such as \
                    wsferry send --via 'ssh HOST wsferry receive --stdio DIR' FILE"
            .to_owned());
    }
    let failed = |error: io::Error| format!("standard input and output cannot be used: {error}");
    let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let output = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
    rustix::stdio::dup2_stdout(io::stderr()).map_err(|error| failed(error.into()))?;
    Stream::pipes(input, output).map_err(|error| {
        format!("standard input and output have to be pipes or sockets, as --via gives them: {error}")
    })
}

/// Begins to speak.
pub async fn connection(stream: Stream) -> Result<Connection<Stream>, TransportError> {
    pipe_handshake(stream, PipeRole::Started, "standard input".to_owned()).await
}
