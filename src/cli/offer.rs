//! `wsferry send --listen` and `--stdio`: the receiver reaches this side.

use std::sync::Arc;

use wsferry::runtime;
use wsferry::transfer::{self, Error, OfferOptions, SendOptions};
use wsferry::transport::Origins;

use super::advice::Does;
use super::args::SendArgs;
use super::desk::Desk;
use super::event::Concerns;
use super::exit::Exit;
use super::guests::{self, Kind};
use super::house::House;
use super::limits;
use super::listen::Purpose;
use super::output::Output;
use super::signals::{self, Hangup};
use super::stdio;
use super::tree;

/// Listens, and sends to who dials; until a signal or, with `--once`, until the first receiver has everything.
pub fn run(args: SendArgs, options: SendOptions, output: &Output) -> Exit {
    // Nobody is there to be told later.
    for file in args.files() {
        if let Err(error) = file.symlink_metadata() {
            return output.error(&format_args!("cannot read {}: {error}", file.display()), Exit::Failed);
        }
    }
    let exposed = "read what is sent";
    let house = match House::open(&args.listen, &args.dial, (Origins::default(), false), exposed, output) {
        Ok(house) => house,
        Err(exit) => return exit,
    };
    let url = args.listen.url(house.listener.address());
    let files: Vec<_> = args.files().iter().map(|file| file.display().to_string()).collect();
    let purpose = Purpose {
        does: format!("sending {}", files.join(", ")),
        is_told_here: true,
        other: ["receive", "", " DIR"],
    };
    args.listen.tell(&house, &purpose, Concerns::Files(files), output);

    let desk = Arc::new(guests::Desk::new(output.clone(), Does::Offer, None));
    let watching = desk.clone();
    let observer = Arc::new(move |connection, transfer, event| watching.show((connection, transfer), &event));
    let House { listener, gate, tls, drain, shutdown, signalled } = house;
    let (once, limits) = (args.once, args.listen.limits());
    let options = OfferOptions { send: options, once, gate, tls, limits, drain };
    // What the patterns say was looked at before.
    let items = move || tree::scan(&args).into_iter().flatten();
    let served = runtime::block_on(transfer::serve_files(&listener, items, options, shutdown, observer));
    desk.tell_count(Kind::Unserved);
    match served {
        Ok(Some(served)) => served.map_or_else(Exit::from, |()| Exit::Done),
        Ok(None) => signalled.exit(),
        Err(error) => {
            output.error(&format_args!("cannot accept connections on {url}: {error}"), Exit::Failed)
        }
    }
}

/// Sends over the pipes of whoever started this.
pub fn over_stdio(args: &SendArgs, options: &SendOptions, output: &Output) -> Exit {
    let items = match tree::scan(args) {
        Ok(items) => items,
        Err(usage) => return output.error(&usage, Exit::Usage),
    };
    let stream = match stdio::stream() {
        Ok(stream) => stream,
        Err(error) => return output.error(&error, Exit::Usage),
    };
    let (shutdown, signalled) = match signals::watch(Hangup::IsIgnored, None, output) {
        Ok(watch) => watch,
        Err(error) => return output.error(&format_args!("cannot watch for signals: {error}"), Exit::Failed),
    };
    limits::raise_descriptors();
    let mut desk = Desk::new(args, output);
    let sent = runtime::block_on(async {
        let mut connection = stdio::connection(stream).await?;
        let mut watch = |file, event| desk.show(file, &event);
        transfer::send_over(&mut connection, items, options, shutdown, &mut watch).await
    });
    match sent {
        Ok(_) => {}
        Err(Error::Stopped) => return output.error(&signals::STOPPED, signalled.exit()),
        Err(error) => desk.cut(&error),
    }
    desk.close()
}
