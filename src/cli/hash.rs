//! `wsferry hash`: the BLAKE3 digest of files, as `b3sum` prints it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Parser;

use super::args::OutputArgs;
use super::bar::Bar;
use super::event::JsonEvent;
use super::exit::Exit;
use super::output::Output;

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// Print the BLAKE3 digest of files, as b3sum does: what `send` and `receive` print of them.
#[derive(Debug, Parser)]
pub struct HashArgs {
    /// Files to read; - is standard input, and so is no file at all
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Print one JSON object a line on standard output, and nothing else there
    #[arg(long, short)]
    json: bool,
}

impl HashArgs {
    /// What is printed is the digest: there is nothing to be quiet about.
    pub fn output(&self) -> OutputArgs {
        OutputArgs { json: self.json, ..OutputArgs::default() }
    }
}

pub fn run(args: &HashArgs, output: &Output) -> Exit {
    let input = [PathBuf::from("-")];
    let files = if args.files.is_empty() { &input[..] } else { &args.files };
    let mut exit = Exit::Done;
    for file in files {
        let (digest, size) = match digest(file, output) {
            Ok(found) => found,
            Err(error) => {
                exit = output.error(&format_args!("cannot read {}: {error}", file.display()), Exit::Failed);
                continue;
            }
        };
        let name = file.to_string_lossy();
        output.event(JsonEvent::Digest { name: name.to_string(), size, blake3: digest.to_string() });
        output.line(&line(&digest, &name));
    }
    exit
}

/// As `b3sum` prints it, whose `--check` reads it: of a name that does not fit a line, what does not is escaped, and a
/// backslash at the beginning says so.
fn line(digest: &blake3::Hash, name: &str) -> String {
    let escaped = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
    let mark = if escaped == name { "" } else { "\\" };
    format!("{mark}{digest}  {escaped}")
}

/// The digest of a file's bytes, and how many there are.
fn digest(file: &Path, output: &Output) -> io::Result<(blake3::Hash, u64)> {
    let is_input = file.as_os_str() == "-";
    let (mut reader, size): (Box<dyn Read>, _) = if is_input {
        (Box::new(io::stdin().lock()), None)
    } else {
        let file = File::open(file)?;
        let metadata = file.metadata()?;
        let size = metadata.is_file().then_some(metadata.len());
        (Box::new(file), size)
    };
    let bar = Bar::new(output);
    bar.start(&file.to_string_lossy(), size);
    let hashed = read_all(&mut *reader, |done| bar.advance(done, None));
    drop(bar);
    hashed
}

fn read_all(reader: &mut dyn Read, mut told: impl FnMut(u64)) -> io::Result<(blake3::Hash, u64)> {
    let (mut hasher, mut piece, mut done) = (blake3::Hasher::new(), vec![0; PIECE], 0);
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return Ok((hasher.finalize(), done)),
            Ok(read) => {
                hasher.update(&piece[..read]);
                done += read as u64;
                told(done);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
