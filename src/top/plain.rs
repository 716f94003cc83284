//! One view as plain text: for a pipe, a log, or a terminal that is none.

use std::io::{self, Write};

use super::draw::sparks;
use super::panels::{Panel, alerts};
use super::table::{GAP, padded};
use super::words::{clean, lasting, maybe, part, percent};
use crate::overview::Overview;

/// Columns of a line.
const WIDTH: usize = 110;

/// Everything that there is to say, panel after panel.
///
/// # Errors
/// When `out` takes no more.
pub(super) fn write(out: &mut impl Write, seen: &Overview) -> io::Result<()> {
    let (node, requests, system) = (&seen.node, &seen.requests, &seen.system);
    let ready = if node.ready { "ready" } else { "not ready" };
    writeln!(
        out,
        "{}  {}  {ready}  up {}  {}",
        clean(&node.name),
        clean(&node.region),
        lasting(node.uptime_seconds),
        clean(&node.version)
    )?;
    for reason in node.reasons.iter().take(16) {
        writeln!(out, "  {}", clean(reason))?;
    }
    writeln!(
        out,
        "{} requests/s  {} errors/s  {} in flight  ms: p50 {}  p95 {}  p99 {}  p99.9 {}",
        maybe(requests.rate),
        maybe(requests.error_rate),
        requests.in_flight,
        maybe(requests.p50_ms),
        maybe(requests.p95_ms),
        maybe(requests.p99_ms),
        maybe(requests.p999_ms),
    )?;
    writeln!(
        out,
        "cpu {}  memory {}  process {} of a core",
        percent(system.cpu_share),
        part(system.memory_used_bytes, system.memory_total_bytes),
        percent(system.process_cpu_share),
    )?;
    if let Some(history) = &seen.history {
        writeln!(out, "{}", sparks(history, WIDTH).to_string().trim_end())?;
    }
    for (_, alert) in alerts(seen) {
        writeln!(out, "! {alert}")?;
    }
    for panel in Panel::ALL {
        let table = panel.table(seen);
        if table.rows.is_empty() {
            continue;
        }
        writeln!(out, "\n{}", panel.title().to_uppercase())?;
        let columns = table.fit(WIDTH, None);
        let line = |cells: Vec<String>| cells.join(&" ".repeat(GAP)).trim_end().to_owned();
        let head = columns.iter().map(|(at, width)| {
            let column = table.columns[*at];
            padded(column.title, *width, column.is_number)
        });
        writeln!(out, "{}", line(head.collect()))?;
        for row in &table.rows {
            let cells = columns.iter().map(|(at, width)| {
                let indent = row.indent(*at).min(*width);
                " ".repeat(indent)
                    + &padded(&row.cells[*at].text, width - indent, table.columns[*at].is_number)
            });
            writeln!(out, "{}", line(cells.collect()))?;
        }
    }
    if seen.cut {
        writeln!(out, "\nlists were shortened: there is more than an overview can hold")?;
    }
    Ok(())
}

/// JSON that can be read by a program and shown by a terminal: what would steer one is escaped, which says the same.
pub(super) fn json(seen: &Overview) -> String {
    let text = serde_json::to_string_pretty(seen).unwrap_or_default();
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        if one == '\n' || clean(one.encode_utf8(&mut [0; 4])).starts_with(one) {
            out.push(one);
        } else {
            one.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_the_same_without_steering_a_terminal() {
        let mut seen = Overview::default();
        seen.node.name = "a\u{9b}31m\u{1b}[2J\u{202e}\u{e0041}\"ö".to_owned();
        let text = json(&seen);
        assert_eq!(serde_json::from_str::<Overview>(&text).unwrap(), seen);
        assert!(text.chars().all(|one| one == '\n' || !one.is_control()), "{text}");
        assert!(text.contains("\\u009b31m") && text.contains('ö') && !text.contains('\u{202e}'), "{text}");
    }
}
