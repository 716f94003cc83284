//! Alternates the peers, two fresh processes a round, and prints one table.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::Outcome;
use crate::measure::Figures;

/// What the others are held against.
const FLOOR: &str = "tcp";

/// Round by round, the order turned each time so that a slow drift of the machine favours nobody.
pub(crate) fn remote(rounds: u32, seconds: u32, peers: &[&str]) -> Outcome<()> {
    let mut runs: Vec<(&str, Vec<Figures>)> = peers.iter().map(|&peer| (peer, Vec::new())).collect();
    for round in 0..rounds as usize {
        for step in 0..peers.len() {
            let (peer, figures) = &mut runs[(round + step) % peers.len()];
            match measured(peer, seconds) {
                Ok(measured) => figures.push(measured),
                // Some peers lose their connection under load: that is a finding, not the end of the others.
                Err(error) => eprintln!("{peer}, round {}: {error}", round + 1),
            }
        }
    }
    print(&runs);
    Ok(())
}

fn measured(peer: &str, seconds: u32) -> Outcome<Figures> {
    let mut server = Ended(start(&["server", peer])?);
    let line = first_line(&mut server.0)?;
    let address = line.strip_prefix("ready ").ok_or("the server does not get ready")?.trim().to_owned();
    let pid = server.0.id().to_string();
    let mut client = Ended(start(&["client", peer, &address, &pid, &seconds.to_string()])?);
    let line = first_line(&mut client.0)?;
    Ok(serde_json::from_str(&line).map_err(|_| "the client has no figures")?)
}

fn start(arguments: &[&str]) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
}

fn first_line(child: &mut Child) -> Outcome<String> {
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    Ok(line)
}

/// A process that does not outlive its round.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

type Reading = fn(&Figures) -> f64;

fn print(runs: &[(&str, Vec<Figures>)]) {
    println!("medians; in parentheses the median over rounds of the ratio to {FLOOR}\n");
    println!(
        "| peer | rounds | ask p50 µs | p99 | asks/s at 64 | µs processor | tells/s | µs processor | MB/s of 1 MiB \
         | ms processor | client MiB | server MiB | MiB of both, half-way → end of blocks |"
    );
    println!("{}|", "|---".repeat(13));
    let floor = runs.iter().find(|(peer, _)| *peer == FLOOR).map(|(_, figures)| figures.as_slice());
    for (peer, figures) in runs {
        let cell = |read: Reading, digits: usize| {
            let value = middle(figures.iter().map(read).collect());
            if value == 0.0 { "–".to_owned() } else { format!("{value:.digits$}") }
        };
        let held = |read: Reading, digits: usize| {
            let value = cell(read, digits);
            match floor {
                Some(floor) if *peer != FLOOR && value != "–" => {
                    let ratios = figures.iter().zip(floor).map(|(ours, floor)| read(ours) / read(floor));
                    format!("{value} ({:.2})", middle(ratios.collect()))
                }
                _ => value,
            }
        };
        let cells = [
            figures.len().to_string(),
            held(|run| run.ask_p50_us, 1),
            held(|run| run.ask_p99_us, 0),
            held(|run| run.asks_per_s, 0),
            cell(|run| run.ask_cpu_us, 1),
            held(|run| run.tells_per_s, 0),
            cell(|run| run.tell_cpu_us, 2),
            held(|run| run.block_mb_per_s, 0),
            cell(|run| run.block_cpu_ms, 2),
            cell(|run| run.client_mib, 0),
            cell(|run| run.server_mib, 0),
            format!("{} → {}", cell(|run| run.blocks_half_mib, 0), cell(|run| run.blocks_end_mib, 0)),
        ];
        println!("| {peer} | {} |", cells.join(" | "));
    }
}

/// Median; zero of nothing.
pub(crate) fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
