//! The terminal that bars are drawn on. It never fails: bars on a terminal that is gone are no reason to stop.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::TermLike;
use rustix::termios::tcgetwinsize;

use super::writer::{Stream, Weight, Writer};

/// Columns and rows where the terminal does not tell.
const SIZE: (u16, u16) = (80, 24);

/// Standard error as a terminal.
#[derive(Debug)]
pub struct Screen {
    writer: Writer,
    /// What is drawn until it is flushed.
    frame: Mutex<String>,
}

impl Screen {
    pub fn new(writer: Writer) -> Self {
        Self { writer, frame: Mutex::default() }
    }

    fn frame(&self) -> MutexGuard<'_, String> {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, text: &str) -> io::Result<()> {
        self.frame().push_str(text);
        Ok(())
    }

    /// Moves the cursor, as ECMA-48 has it; by nothing would be by one.
    fn step(&self, count: usize, direction: char) -> io::Result<()> {
        if count == 0 { Ok(()) } else { self.draw(&format!("\x1b[{count}{direction}")) }
    }

    /// Columns, now: a window may have changed since.
    pub fn columns() -> usize {
        Self::size().0.into()
    }

    /// Rows, now.
    pub fn rows() -> usize {
        Self::size().1.into()
    }

    fn size() -> (u16, u16) {
        let size = tcgetwinsize(io::stderr()).map_or(SIZE, |size| (size.ws_col, size.ws_row));
        if size.0 == 0 || size.1 == 0 { SIZE } else { size }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        Self::size().0
    }

    fn height(&self) -> u16 {
        Self::size().1
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.step(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.step(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.step(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.step(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.draw(s)?;
        self.draw("\n")
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        // Spaces alone fill the last line up to its end. They would wrap where the terminal takes a name for wider
        // than it is, and would be wrapped anew where a window becomes narrower.
        if s.bytes().all(|byte| byte == b' ') { Ok(()) } else { self.draw(s) }
    }

    fn clear_line(&self) -> io::Result<()> {
        self.draw("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let frame = std::mem::take(&mut *self.frame());
        if !frame.is_empty() {
            self.writer.write(Stream::Err, frame, Weight::Passing);
        }
        Ok(())
    }
}
