//! How verbs answer: JSON, a table or lines on stdout, and what they say beside it on stderr.
//!
//! Whoever reads an answer may have seen enough of it, e.g. `| head`: what the answer comes to is told by the exit code all
//! the same. Whoever reads stderr may be gone: that ends nothing.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Pretty JSON and a newline on stdout.
pub(super) fn print_json(value: &serde_json::Value) -> io::Result<()> {
    print_text(&format!("{value:#}\n"))
}

/// Columns padded to their widest cell, on stdout.
pub(super) fn print_table(rows: &[Vec<String>]) -> io::Result<()> {
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let mut text = String::new();
    for row in rows {
        let padded = |(at, cell): (usize, &String)| format!("{cell:<width$}", width = width(at).unwrap_or(0));
        let cells: Vec<String> = row.iter().enumerate().map(padded).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    print_text(&text)
}

/// A line on stdout.
pub(super) fn print_line(line: impl Display) -> io::Result<()> {
    print_text(&format!("{line}\n"))
}

/// As it is, on stdout.
pub(super) fn print_text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// A line on stderr.
pub(super) fn say(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
