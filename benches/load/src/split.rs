//! Where the time of a request went, as far as the server tells. Pure.
//!
//! A native answer carries its own split; for the other routes the server's counters are read before and after, as
//! `perf_analyzer` does. What the client measured beyond that is the network, the sockets and the parsing of HTTP.

use std::time::Duration;

use serde_json::Value;

use crate::recorder::Spread;

/// One request within the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hops {
    /// Waiting for a batch and a device.
    pub queue: Duration,
    /// On the device.
    pub compute: Duration,
    /// Reading the body and printing the answer.
    pub transfer: Duration,
}

impl Hops {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.queue + self.compute + self.transfer
    }
}

/// What sampled answers said.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// In the queue.
    pub queue: Spread,
    /// On the device.
    pub compute: Spread,
    /// Reading and printing.
    pub transfer: Spread,
    /// What is left of the latency; in an open loop the wait for a free connection is in it.
    pub rest: Spread,
}

impl Samples {
    /// Counts an answer that took `took` at the client.
    pub fn add(&mut self, hops: Hops, took: Duration) {
        self.queue.add(hops.queue);
        self.compute.add(hops.compute);
        self.transfer.add(hops.transfer);
        self.rest.add(took.saturating_sub(hops.total()));
    }

    /// Counts all of another.
    pub fn merge(&mut self, other: &Self) {
        self.queue.merge(&other.queue);
        self.compute.merge(&other.compute);
        self.transfer.merge(&other.transfer);
        self.rest.merge(&other.rest);
    }
}

/// The `timing_ms` of a native answer's first series.
#[must_use]
pub fn of_native(answer: &Value) -> Option<Hops> {
    let timing = answer["forecasts"][0].get("timing_ms")?;
    let millis = |name: &str| {
        let number = timing[name].as_f64().filter(|number| (0.0..1e9).contains(number))?;
        Some(Duration::from_secs_f64(number / 1e3))
    };
    Some(Hops { queue: millis("queue")?, compute: millis("compute")?, transfer: millis("transfer")? })
}

/// A model's counters, which only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    requests: u64,
    rows: u64,
    executions: u64,
    queue_ns: u64,
    compute_ns: u64,
    transfer_ns: u64,
}

/// What happened between two readings of the counters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Between {
    /// Requests answered, whoever asked.
    pub requests: u64,
    /// Windows in a batch, on average.
    pub rows_per_batch: f64,
    /// Averages of one request.
    pub mean: Hops,
}

impl Counters {
    /// Reads the answer of `GET /v2/models/M/stats`, all versions together.
    #[must_use]
    pub fn of(statistics: &Value) -> Option<Self> {
        let models = statistics["model_stats"].as_array()?;
        let mut sum = Self::default();
        for model in models {
            let of = &model["inference_stats"];
            let ns = |name: &str| of[name]["ns"].as_u64();
            sum.requests = sum.requests.checked_add(of["success"]["count"].as_u64()?)?;
            sum.rows = sum.rows.checked_add(model["inference_count"].as_u64()?)?;
            sum.executions = sum.executions.checked_add(model["execution_count"].as_u64()?)?;
            sum.queue_ns = sum.queue_ns.checked_add(ns("queue")?)?;
            sum.compute_ns = sum.compute_ns.checked_add(ns("compute_infer")?)?;
            let transfer = ns("compute_input")?.checked_add(ns("compute_output")?)?;
            sum.transfer_ns = sum.transfer_ns.checked_add(transfer)?;
        }
        Some(sum)
    }

    /// What came since `before`; `None` where nothing did, or the counters began anew.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<Between> {
        let requests = self.requests.checked_sub(before.requests).filter(|&count| count > 0)?;
        let mean = |now: u64, then: u64| Some(Duration::from_nanos(now.checked_sub(then)? / requests));
        let executions = self.executions.checked_sub(before.executions)?;
        Some(Between {
            requests,
            rows_per_batch: self.rows.checked_sub(before.rows)? as f64 / executions.max(1) as f64,
            mean: Hops {
                queue: mean(self.queue_ns, before.queue_ns)?,
                compute: mean(self.compute_ns, before.compute_ns)?,
                transfer: mean(self.transfer_ns, before.transfer_ns)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MICROS: fn(u64) -> Duration = Duration::from_micros;

    #[test]
    fn a_native_answer_says_where_its_time_went() {
        let timing = json!({"queue": 0.25, "compute": 1.5, "transfer": 0.125, "total": 1.875});
        let answer = json!({"forecasts": [{"timing_ms": timing}]});
        let want = Hops { queue: MICROS(250), compute: MICROS(1500), transfer: MICROS(125) };
        assert_eq!(of_native(&answer), Some(want));
        assert_eq!(want.total(), MICROS(1875));
        for bad in [json!(-1.0), json!("1"), json!(1e300), Value::Null] {
            let timing = json!({"queue": bad, "compute": 1.5, "transfer": 0.125});
            assert_eq!(of_native(&json!({"forecasts": [{"timing_ms": timing}]})), None);
        }
    }

    #[test]
    fn what_is_left_is_the_network_and_http() {
        let mut samples = Samples::default();
        samples.add(Hops { queue: MICROS(10), compute: MICROS(20), transfer: MICROS(30) }, MICROS(100));
        // Clocks of two machines may say less than nothing.
        samples.add(Hops { compute: MICROS(20), ..Hops::default() }, MICROS(10));
        assert_eq!((samples.rest.longest(), samples.rest.at(0.5)), (MICROS(40), Duration::ZERO));
    }

    #[test]
    fn counters_give_means() {
        let before = Counters::of(&statistics(10, 40, 5, 1_000)).unwrap();
        let after = Counters::of(&statistics(20, 80, 9, 21_000)).unwrap();
        let hop = Duration::from_nanos(2_000);
        let want = Between {
            requests: 10,
            rows_per_batch: 10.0,
            mean: Hops { queue: hop, compute: hop, transfer: 2 * hop },
        };
        assert_eq!(after.since(&before), Some(want));
        assert_eq!((before.since(&before), before.since(&after)), (None, None));
        assert_eq!(Counters::of(&json!({"model_stats": [{}]})), None);
    }

    fn statistics(requests: u64, rows: u64, executions: u64, ns: u64) -> Value {
        let tally = json!({"count": requests, "ns": ns});
        json!({"model_stats": [{
            "inference_count": rows, "execution_count": executions,
            "inference_stats": {"success": tally, "queue": tally, "compute_input": tally, "compute_infer": tally, "compute_output": tally},
        }]})
    }
}
