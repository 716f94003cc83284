//! Native answers read back as JSON.

use std::sync::Arc;

use peregrine_actors::{ServedBy, Timing};
use peregrine_shaders::Backend;
use serde_json::{Value, json};

use super::*;
use crate::gateway::v1::parse::forecast_body;
use crate::levels::own_levels;
use crate::testing::point_spec;

#[test]
fn intervals_come_by_level_and_the_horizon_is_cut() {
    let answer = print(&[80.0], 1);
    let one = &answer["forecasts"][0];
    assert_eq!((&one["id"], &one["prediction_id"]), (&json!("A\"1"), &json!("1f-a")));
    assert_eq!(one["median"], json!([1.0]));
    assert_eq!(one["intervals"], json!([{"level": 80, "lo": [0.5], "hi": [1.5]}]));
    assert_eq!((&one["backend"], &one["degraded"]), (&json!("cpu"), &json!(true)));
    assert_eq!(one["timing_ms"], json!({"queue": 1.0, "compute": 2.0, "transfer": 3.0, "total": 6.0}));
    assert_eq!((&answer["model"], &answer["model_version"]), (&json!("m"), &json!("3")));
}

#[test]
fn quantiles_that_cross_are_said_to_within_the_steps_that_are_given() {
    let of = |values: [f32; 10], horizon| {
        print_values(&[80.0], horizon, &values)["forecasts"][0]["crossed"].clone()
    };
    let fine = [1.0, 0.25, 0.5, 1.5, 1.75, 2.0, 1.25, 1.5, 2.5, 2.75];
    assert_eq!(of(fine, 2), Value::Null);
    let mut crosses = fine;
    crosses[8] = 1.9; // the upper bound of 80 % below the median of the second step
    assert_eq!((of(crosses, 2), of(crosses, 1)), (json!(true), Value::Null));
}

#[test]
fn quantiles_of_no_interval_are_given_themselves() {
    let of = |levels: &[f64]| {
        let columns: Vec<String> = levels.iter().map(f64::to_string).collect();
        let mut spec = spec();
        (spec.head, spec.columns) = (Head::Quantiles(levels.to_vec()), columns);
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        print_of(spec, &[80.0], 1, &values[..2 * levels.len()])["forecasts"][0].clone()
    };
    // All on one side of the median.
    let value_at_risk = of(&[0.05, 0.01]);
    assert_eq!(value_at_risk["quantiles"], json!({"0.05": [1.0], "0.01": [2.0]}));
    assert_eq!((value_at_risk.get("median"), &value_at_risk["intervals"]), (None, &json!([])));
    let lopsided = of(&[0.1, 0.3, 0.9]);
    assert_eq!(lopsided["quantiles"], json!({"0.3": [2.0]}));
    assert_eq!(lopsided["intervals"], json!([{"level": 80, "lo": [1.0], "hi": [3.0]}]));
    assert_eq!(print(&[80.0], 1)["forecasts"][0].get("quantiles"), None);
}

#[test]
fn a_model_offers_the_levels_of_its_columns() {
    assert_eq!(own_levels(&spec()), [80.0, 95.0]);
    assert_eq!(no_level(&spec(), 90.0).to_string(), "the model gives no 90 % interval: it gives 80, 95");
    assert_eq!(
        no_level(&point_spec(3, 2), 90.0).to_string(),
        "the model gives no 90 % interval: it gives none"
    );
}

fn print(levels: &[f64], horizon: usize) -> Value {
    print_values(levels, horizon, &[1.0, 0.25, 0.5, 1.5, 1.75, 2.0, 1.25, 1.5, 2.5, 2.75])
}

fn print_values(levels: &[f64], horizon: usize, values: &[f32]) -> Value {
    print_of(spec(), levels, horizon, values)
}

fn print_of(spec: ModelSpec, levels: &[f64], horizon: usize, values: &[f32]) -> Value {
    let text = br#"{"series":[{"id":"A\"1","symbol":"x"}]}"#;
    let body = forecast_body(text).unwrap();
    let forecast = Forecast {
        spec: Arc::new(spec),
        version: 3,
        values: values.to_vec(),
        backend: Backend::Cpu,
        served_by: ServedBy::Here,
        degraded: true,
        timing: Timing { queue: Duration::from_millis(1), compute: Duration::from_millis(2), batch_rows: 1 },
    };
    let printed = answer(&Answer {
        forecast: &forecast,
        series: &body.series,
        horizon,
        levels,
        total: Duration::from_millis(6),
        region: "local",
        ids: PredictionIds { run: 31, first: 10 },
    });
    serde_json::from_slice(&printed).unwrap()
}

fn spec() -> ModelSpec {
    ModelSpec {
        head: Head::Quantiles(vec![0.5, 0.025, 0.1, 0.9, 0.975]),
        columns: ["median", "lo-95", "lo-80", "hi-80", "hi-95"].map(str::to_owned).to_vec(),
        ..point_spec(3, 2)
    }
}
