//! Where others knock: a listener, who may come in, and the signals that end it.

use wsferry::runtime;
use wsferry::transfer::{ListenAddress, Listener, Shutdown};
use wsferry::transport::{Gate, Origins, Tls};

use super::advice;
use super::dial::DialArgs;
use super::event::JsonEvent;
use super::exit::Exit;
use super::limits;
use super::listen::ListenArgs;
use super::output::Output;
use super::signals::{self, Hangup, Signalled};

/// Where a receiver listens that is not told.
const USUAL: &str = "127.0.0.1:9000";

/// A listener that nobody was let in by yet.
pub struct House {
    pub listener: Listener,
    pub gate: Gate,
    pub tls: Option<Tls>,
    /// Given on SIGHUP.
    pub drain: Option<Shutdown>,
    pub shutdown: Shutdown,
    pub signalled: Signalled,
}

impl House {
    /// Starts to listen; `exposed` says what whoever comes in could do. What goes wrong is told.
    pub fn open(
        listen: &ListenArgs,
        dial: &DialArgs,
        (origins, takes_plain): (Origins, bool),
        exposed: &str,
        output: &Output,
    ) -> Result<Self, Exit> {
        let written = listen.address().unwrap_or(USUAL);
        let address: ListenAddress = written
            .parse()
            .map_err(|error| output.error(&format_args!("--listen is {written}; {error}"), Exit::Usage))?;
        let gate =
            listen.gate(dial, origins, takes_plain).map_err(|error| output.error(&error, Exit::Usage))?;
        let tls = listen.tls().map_err(|error| output.error(&error, Exit::Failed))?;
        let (hang_up, drain) = Shutdown::new();
        let hangup = match tls.clone() {
            Some(tls) => reload(listen.clone(), tls, output.clone()),
            None => Hangup::Tells(hang_up),
        };
        // Without its handle, it would be told at once.
        let drain = tls.is_none().then_some(drain);
        let (shutdown, signalled) = signals::watch(hangup, None, output).map_err(|error| {
            output.error(&format_args!("cannot watch for signals: {error}"), Exit::Failed)
        })?;
        limits::raise_descriptors();
        let listener = runtime::block_on(address.bind()).map_err(|error| {
            let what = format!("cannot listen on {written}: {error}");
            let advice = match address {
                ListenAddress::Tcp(..) => advice::of_listening(&error),
                // It has no port to be another.
                ListenAddress::Unix(_) => "",
            };
            output.failed(None, None, &what, advice, Exit::Failed)
        })?;
        if !listener.is_local() && gate.token.is_none() && !listen.open {
            let what = format!(
                "--listen {written} lets other machines connect, and whoever does could {exposed}: \
                 demand a token (--token-file FILE), or say --open"
            );
            return Err(output.error(&what, Exit::Usage));
        }
        Ok(Self { listener, gate, tls, drain, shutdown, signalled })
    }
}

/// Reads certificate and key again; those that make no sense change nothing.
fn reload(listen: ListenArgs, tls: Tls, output: Output) -> Hangup {
    Hangup::Does(Box::new(move || match listen.renew(&tls) {
        Ok(()) => {
            let what = "the certificate was read again";
            output.event(JsonEvent::notice(what));
            output.notice(what);
        }
        Err(error) => output.trouble(&format!("{error}; the certificate from before is kept")),
    }))
}
