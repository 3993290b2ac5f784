//! `wsferry send --plain`.

use wsferry::protocol::ChunkSize;
use wsferry::transfer::plain::{PlainSendOptions, file_name, send_plain_to};
use wsferry::transport::Dialer;

use super::advice;
use super::args::SendArgs;
use super::exit::Exit;
use super::output::Output;
use super::progress::View;

/// What a sender says when it was stopped.
pub const STOPPED: &str = "stopped; the same command begins anew";

/// What cannot be sent so.
pub fn check(args: &SendArgs) -> Result<(), String> {
    if let Some(directory) = args.files().iter().find(|file| file.is_dir()) {
        return Err(format!(
            "{} is a directory, and --plain sends files, each as one message; without --plain it is sent whole",
            directory.display()
        ));
    }
    // One with an ending is meant as a file's: a path without one may as well be where a server takes files.
    let url = args.url();
    let target =
        url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    match file_name(target) {
        Ok(Some(name)) if args.files().len() > 1 && name.as_str().trim_matches('.').contains('.') => {
            Err(format!(
                "{name} is one name, which the URL gives, and there are {} files: with --plain, send them one at a time, \
                 or leave the name out",
                args.files().len()
            ))
        }
        _ => Ok(()),
    }
}

/// Sends each file as one message on a connection of its own.
pub async fn send_all(args: &SendArgs, dialer: &Dialer, chunk: Option<ChunkSize>, output: &Output) -> Exit {
    let options = PlainSendOptions {
        chunk,
        one_frame: args.one_frame,
        echo: !args.no_echo,
        stall: args.stall_timeout.into(),
        ..PlainSendOptions::default()
    };
    let mut worst = Exit::Done;
    for (number, file) in (1..).zip(args.files()) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut view = View::new(output.clone(), number, name);
        let sent = send_plain_to(dialer, file, &options, &mut |event| view.show(&event)).await;
        view.clear();
        match sent {
            Ok(summary) => {
                output.finished(number, &summary);
                output.outcome(true, &summary);
            }
            Err(error) => {
                let exit = Exit::from(error.kind());
                let again = if exit == Exit::Interrupted { "; the same command begins anew" } else { "" };
                let advice = format!("{}{again}", advice::of_plain(&error));
                output.failed(Some(number), Some(view.name()), &error, &advice, exit);
                worst = if worst == Exit::Done { exit } else { worst };
            }
        }
    }
    worst
}
