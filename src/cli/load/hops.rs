//! `--breakdown`: one request at a time, hop by hop.

use peregrine_load::breakdown::breakdown;
use peregrine_load::recorder::Spread;
use serde_json::{Map, Value};

use super::report::{described, failures_json, failures_text, millis, print_awake, spread_json, wrong_count};
use super::{CliError, Plan, of_usage};
use crate::cli::{print_json, print_line, print_table};

pub(super) fn run(plan: &Plan) -> Result<(), CliError> {
    // What is learned first, e.g. by a server's allocator, is not how it goes on.
    if !plan.warmup.is_zero() {
        breakdown(&plan.target, &plan.shape, &plan.ask, plan.warmup).map_err(of_usage)?;
    }
    let seen = breakdown(&plan.target, &plan.shape, &plan.ask, plan.window).map_err(of_usage)?;
    let hops: [(&str, &Spread, &str); 8] = [
        ("write", &seen.write, "client: handing the request to the kernel"),
        ("between", &seen.between, "network, both kernels, and HTTP in the server"),
        ("queue", &seen.queue, "server: waiting for a batch and a device"),
        ("compute", &seen.compute, "server: on the device"),
        ("transfer", &seen.transfer, "server: reading the body, printing the answer"),
        ("read", &seen.read, "client: from the first byte to the last"),
        ("parse", &seen.parse, "client: reading the numbers"),
        ("total", &seen.total, "all of it"),
    ];
    let answered = seen.total.count();
    if plan.as_json {
        let mut body = described(plan);
        body["answered"] = answered.into();
        body["untold"] = seen.untold.into();
        body["failures"] = failures_json(&seen.failures);
        let entries = hops.iter().map(|(name, spread, _)| ((*name).to_owned(), spread_json(spread)));
        body["hops_ms"] = Value::Object(entries.collect::<Map<_, _>>());
        print_json(&body)?;
    } else {
        let header = ["hop", "mean ms", "p50", "p99", "max", "where"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        rows.extend(hops.iter().map(|(name, spread, place)| {
            let figures = [spread.mean(), spread.at(0.5), spread.at(0.99), spread.longest()];
            let cell =
                |took| if spread.count() == 0 { "-".to_owned() } else { format!("{:.3}", millis(took)) };
            let mut row = vec![(*name).to_owned()];
            row.extend(figures.map(cell));
            row.push((*place).to_owned());
            row
        }));
        print_table(&rows)?;
        print_line(format_args!(
            "{answered} requests one after the other, {} of them without the server's share, failed: {}",
            seen.untold,
            failures_text(&seen.failures)
        ))?;
        print_awake(plan)?;
    }
    match (answered, wrong_count(&seen.failures)) {
        (0, _) => Err(CliError::Reported("no request was answered".to_owned())),
        (_, 0) => Ok(()),
        (_, wrong) => Err(CliError::Reported(format!("{wrong} answers were wrong"))),
    }
}
