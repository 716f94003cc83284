//! How verbs answer: JSON or a table on stdout.

use std::io::{self, Write};

/// Pretty JSON and a newline on stdout.
pub(super) fn print_json(value: &serde_json::Value) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{value:#}")
}

/// Columns padded to their widest cell, on stdout.
pub(super) fn print_table(rows: &[Vec<String>]) -> io::Result<()> {
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let mut out = io::stdout().lock();
    for row in rows {
        let padded = |(at, cell): (usize, &String)| format!("{cell:<width$}", width = width(at).unwrap_or(0));
        let cells: Vec<String> = row.iter().enumerate().map(padded).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}
