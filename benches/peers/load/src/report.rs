//! One JSON object per run, for `table.py` and for people.

use crate::args::Args;
use crate::body::Encoding;
use crate::drive::Outcome;
use crate::process::Memory;

pub(crate) fn json(args: &Args, outcome: &Outcome) -> String {
    let completed = outcome.latencies_ns.len();
    let per_s = completed as f64 / outcome.span_s;
    let encoding = if args.encoding == Encoding::Json { "json" } else { "binary" };
    let ms = |share: f64| percentile_ms(&outcome.latencies_ns, share);
    let mut fields = vec![
        format!(r#""label":"{}""#, args.label.replace(['"', '\\'], "'")),
        format!(r#""body":"{encoding}:{}""#, args.rows),
        format!(r#""connections":{}"#, args.connections),
        format!(r#""rate":{}"#, args.rate.map_or("null".into(), |rate| rate.to_string())),
        format!(r#""seconds":{:.3}"#, outcome.span_s),
        format!(r#""completed":{completed}"#),
        format!(r#""requests_per_s":{per_s:.1}"#),
        format!(r#""windows_per_s":{:.1}"#, per_s * args.rows as f64),
        format!(r#""p50_ms":{:.4}"#, ms(0.5)),
        format!(r#""p99_ms":{:.4}"#, ms(0.99)),
        format!(r#""p999_ms":{:.4}"#, ms(0.999)),
        format!(r#""max_ms":{:.4}"#, ms(1.0)),
        format!(r#""refused":{}"#, outcome.refused),
        format!(r#""broken":{}"#, outcome.broken),
        format!(r#""checked":{}"#, outcome.checked),
        format!(r#""wrong":{}"#, outcome.wrong),
        format!(r#""worst_error":{:e}"#, outcome.worst_error.min(f32::MAX)),
        format!(r#""starved":{}"#, outcome.starved),
        format!(r#""completions_min":{}"#, outcome.completions_min),
        format!(r#""completions_max":{}"#, outcome.completions_max),
        format!(r#""oldest_waiting_ms":{:.3}"#, outcome.oldest_waiting.as_secs_f64() * 1e3),
        format!(r#""load_cores":{:.3}"#, outcome.own_cpu_s / outcome.span_s),
        format!(r#""load_cpu_us_per_request":{:.2}"#, outcome.own_cpu_s * 1e6 / completed.max(1) as f64),
    ];
    if let Some((cpu_s, memory)) = &outcome.server {
        let others_cpu_s = outcome.machine_cpu_s - cpu_s - outcome.own_cpu_s;
        fields.extend(server(*cpu_s, others_cpu_s, memory, completed, outcome.span_s));
    }
    format!("{{{}}}", fields.join(","))
}

fn server(cpu_s: f64, others_cpu_s: f64, memory: &Memory, completed: usize, span_s: f64) -> [String; 7] {
    [
        format!(r#""server_cpu_us_per_request":{:.2}"#, cpu_s * 1e6 / completed.max(1) as f64),
        format!(r#""server_cores":{:.3}"#, cpu_s / span_s),
        format!(r#""others_cores":{:.3}"#, (others_cpu_s / span_s).max(0.0)),
        format!(r#""server_rss_mib":{:.1}"#, memory.rss_mib),
        format!(r#""server_pss_mib":{:.1}"#, memory.pss_mib),
        format!(r#""server_peak_mib":{:.1}"#, memory.peak_mib),
        format!(r#""server_processes":{}"#, memory.processes),
    ]
}

/// Nearest rank of sorted latencies.
fn percentile_ms(sorted_ns: &[u64], share: f64) -> f64 {
    let rank = (share * sorted_ns.len() as f64).ceil() as usize;
    sorted_ns.get(rank.saturating_sub(1)).map_or(0.0, |&ns| ns as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::percentile_ms;

    #[test]
    fn the_nearest_rank_is_taken() {
        let sorted: Vec<u64> = (1..=100).map(|ms| ms * 1_000_000).collect();
        for (share, want) in [(0.5, 50.0), (0.99, 99.0), (0.999, 100.0), (1.0, 100.0)] {
            assert_eq!(percentile_ms(&sorted, share), want, "{share}");
        }
        assert_eq!(percentile_ms(&[], 0.5), 0.0);
    }
}
