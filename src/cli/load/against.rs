//! Two servers in turns: A B B A, equal load, and the ratios of neighbouring windows.

use peregrine_load::compare::{Ratio, Side, ratio, turns};
use peregrine_load::recorder::Window;
use peregrine_load::session::Session;
use peregrine_load::target::Target;
use serde_json::{Value, json};

use super::measure::{Failures, name, note};
use super::report::{
    CsvRow, Told, at_limit, csv_rows, described, failures_json, failures_text, millis, outcome, print_awake,
    window_json,
};
use super::{CliError, Plan, bar, of_key};
use crate::cli::{print_json, print_line, print_table};

/// One of the two: its windows in order, and all that failed.
struct Part<'a> {
    target: &'a Target,
    session: Session,
    windows: Vec<Window>,
    failures: Failures,
}

/// What is compared, of one window.
type Of = fn(&Window) -> f64;
const FIGURES: [(&str, Of); 3] = [
    ("requests_per_s", Window::rate),
    ("p50_ms", |window| millis(window.latency.at(0.5))),
    ("p99_ms", |window| millis(window.latency.at(0.99))),
];

pub(super) fn run(plan: &Plan, against: &Target) -> Result<(), CliError> {
    let level = plan.levels[0];
    let bar = bar(2 * plan.windows_max);
    let open = |target| -> Result<Part<'_>, CliError> {
        let session = Session::open(target, &plan.shape, &plan.ask, level, plan.threads).map_err(of_key)?;
        Ok(Part { target, session, windows: Vec::new(), failures: Failures::new() })
    };
    let mut parts = [open(&plan.target)?, open(against)?];
    if !plan.warmup.is_zero() {
        for part in &mut parts {
            note(&mut part.failures, &part.session.window(plan.warmup)?);
            note(&mut part.failures, &part.session.drain()?);
        }
    }
    for side in turns(plan.windows_max) {
        let part = &mut parts[usize::from(side == Side::B)];
        let mut window = part.session.window(plan.window)?;
        // Nothing of one server is under way while the other is measured, and what was sent counts to its end. The rate
        // is of what was answered within the window.
        let rest = part.session.drain()?;
        note(&mut part.failures, &window);
        note(&mut part.failures, &rest);
        let within = window.answered();
        let span = window.span;
        window.then(&rest);
        // The tail has latencies that count and time that does not.
        window.span = span.mul_f64(window.answered() as f64 / within.max(1) as f64);
        part.windows.push(window);
        bar.inc(1);
        bar.set_message(format!("{} against {}", plan.target.url(), against.url()));
    }
    bar.finish_and_clear();
    print(plan, &parts)
}

fn print(plan: &Plan, parts: &[Part<'_>; 2]) -> Result<(), CliError> {
    let [a, b] = parts;
    let ratios = FIGURES.map(|(name, of)| {
        let pairs: Vec<(f64, f64)> = a.windows.iter().map(of).zip(b.windows.iter().map(of)).collect();
        (name, ratio(&pairs))
    });
    let whole = |part: &Part<'_>| {
        let mut whole = Window::default();
        part.windows.iter().for_each(|window| whole.then(window));
        whole
    };
    let (whole_a, whole_b) = (whole(a), whole(b));
    // Neither of nothing, which `then` would keep at zero.
    let starved =
        |part: &Part<'_>| part.windows.iter().map(|window| window.starved).min().unwrap_or_default();
    let label = name(plan.levels[0]);
    let rows = parts.iter().flat_map(|part| {
        let url = part.target.url();
        let label = label.clone();
        part.windows.iter().enumerate().map(move |(at, window)| CsvRow {
            load: label.clone(),
            at,
            url: url.clone(),
            window,
            told: Told::default(),
        })
    });
    csv_rows(plan, rows)?;
    let mut verdict = verdict(&ratios);
    if at_limit(&whole_a) || at_limit(&whole_b) {
        verdict.push_str("; the generator was at its limit, or held up");
    }
    if plan.as_json {
        let mut body = described(plan);
        body["against"] = b.target.url().into();
        body["pairs"] = plan.windows_max.into();
        for (name, part, window) in [("a", a, &whole_a), ("b", b, &whole_b)] {
            body[name] = window_json(plan, window);
            body[name]["url"] = part.target.url().into();
            body[name]["starved"] = starved(part).into();
            body[name]["failures"] = failures_json(&part.failures);
        }
        body["ratios"] =
            ratios.iter().map(|(name, ratio)| ((*name).to_owned(), ratio_json(*ratio))).collect();
        body["verdict"] = verdict.into();
        print_json(&body)?;
    } else {
        print_table(&table(plan, parts, [&whole_a, &whole_b], &ratios))?;
        print_line(verdict)?;
        print_awake(plan)?;
    }
    for (window, part) in [(&whole_a, a), (&whole_b, b)] {
        outcome([(window, &part.failures)].into_iter())?;
    }
    Ok(())
}

fn ratio_json(ratio: Option<Ratio>) -> Value {
    ratio.map_or(Value::Null, |ratio| json!({ "b_to_a": ratio.middle, "low": ratio.low, "high": ratio.high }))
}

fn table(
    plan: &Plan,
    parts: &[Part<'_>; 2],
    whole: [&Window; 2],
    ratios: &[(&str, Option<Ratio>)],
) -> Vec<Vec<String>> {
    let header = ["", "url", "load", "requests/s", "p50 ms", "p99 ms", "max ms", "failed"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for ((side, part), window) in ["A", "B"].into_iter().zip(parts).zip(whole) {
        let told = |took| if window.answered() > 0 { format!("{:.3}", millis(took)) } else { "-".to_owned() };
        rows.push(vec![
            side.to_owned(),
            part.target.url(),
            name(plan.levels[0]),
            format!("{:.1}", window.rate()),
            told(window.latency.at(0.5)),
            told(window.latency.at(0.99)),
            told(window.latency.longest()),
            failures_text(&part.failures),
        ]);
    }
    let text = |ratio: &Option<Ratio>| match ratio {
        Some(ratio) => format!("{:.3} ({:.3} to {:.3})", ratio.middle, ratio.low, ratio.high),
        None => "-".to_owned(),
    };
    let mut last = vec!["B/A".to_owned(), "with 95 % intervals".to_owned(), String::new()];
    last.extend(ratios.iter().map(|(_, ratio)| text(ratio)));
    rows.push(last);
    rows
}

/// One line: what is beyond chance.
fn verdict(ratios: &[(&str, Option<Ratio>)]) -> String {
    let told: Vec<String> = ratios
        .iter()
        .filter_map(|(name, ratio)| Some((name, ratio.as_ref().filter(|ratio| ratio.differs())?)))
        .map(|(name, ratio)| {
            format!("{:.3} times A's {}", ratio.middle, name.replace("_ms", "").replace("_per_s", "/s"))
        })
        .collect();
    match (told.is_empty(), ratios.iter().all(|(_, ratio)| ratio.is_some())) {
        (false, _) => format!("B has {}", told.join(", ")),
        (true, true) => "no difference beyond chance".to_owned(),
        (true, false) => "too few windows with answers to compare".to_owned(),
    }
}
