//! What a stream says, as frames. Every message is a map whose `op` says which it is.

use bytes::Bytes;
use peregrine_actors::series::{Effect, SeriesName, TickError, Timestamp};
use peregrine_actors::stream::{Encoding, Form, Gap, Item, Prediction, Render};
use peregrine_shaders::{Head, head};

use super::ops::Id;
use super::writer::Writer;
use super::ws::{Opcode, frame};
use crate::levels::own_levels;

/// Most series whose next numbers are listed; of more, predictions themselves tell.
const NEXT_MAX: usize = 1024;

/// Renders for the hub.
pub(crate) struct Frames;

impl Render for Frames {
    fn render(&self, form: Form, item: Item<'_>) -> Bytes {
        match item {
            Item::Prediction(one) => prediction(form, "prediction", one),
            Item::Snapshot(one) => prediction(form, "snapshot", one),
            Item::Gap(one) => gap(form.encoding, one),
        }
    }
}

/// What an accepted subscription is told.
#[derive(Clone, Copy)]
pub(super) struct Subscribed<'a> {
    pub(super) id: Option<&'a Id>,
    pub(super) channel: u64,
    pub(super) model: &'a str,
    /// Events of each series that can be resumed.
    pub(super) retention: usize,
    pub(super) next: &'a [(SeriesName, u64)],
    /// Of series that were named: observations until the first prediction.
    pub(super) missing: &'a [(SeriesName, usize)],
}

pub(super) fn subscribed(encoding: Encoding, told: &Subscribed<'_>) -> Bytes {
    let listed = told.next.len() <= NEXT_MAX;
    let (named, lacking) = (told.id.is_some(), !told.missing.is_empty());
    let members = 4 + [named, listed, lacking].map(usize::from).iter().sum::<usize>();
    message(encoding, "subscribed", members, |out| {
        optional(out, told.id);
        out.key("channel").number(told.channel);
        out.key("model").text(told.model);
        out.key("retention").number(told.retention as u64);
        out.key("matched").number(told.next.len() as u64);
        if listed {
            out.key("next").map(told.next.len(), |out| {
                for (series, next) in told.next {
                    out.key(series.as_str()).number(*next);
                }
            });
        }
        if lacking {
            out.key("missing").map(told.missing.len(), |out| {
                for (series, missing) in told.missing {
                    out.key(series.as_str()).number(*missing as u64);
                }
            });
        }
    })
}

pub(super) fn unsubscribed(encoding: Encoding, id: Option<&Id>) -> Bytes {
    message(encoding, "unsubscribed", usize::from(id.is_some()), |out| optional(out, id))
}

pub(super) fn pong(encoding: Encoding, id: Option<&Id>) -> Bytes {
    message(encoding, "pong", usize::from(id.is_some()), |out| optional(out, id))
}

pub(super) fn error(encoding: Encoding, id: Option<&Id>, code: &str, detail: &str) -> Bytes {
    message(encoding, "error", 2 + usize::from(id.is_some()), |out| {
        optional(out, id);
        out.key("code").text(code);
        out.key("detail").text(detail);
    })
}

pub(super) fn heartbeat(encoding: Encoding, at: Timestamp) -> Bytes {
    message(encoding, "heartbeat", 1, |out| out.key("at").millis(at))
}

pub(super) fn goodbye(encoding: Encoding, reconnect_after_ms: u64, why: &str) -> Bytes {
    message(encoding, "goodbye", 2, |out| {
        out.key("reconnect_after_ms").number(reconnect_after_ms);
        out.key("why").text(why);
    })
}

pub(super) fn ticked(encoding: Encoding, id: Option<&Id>, results: &[Result<Effect, TickError>]) -> Bytes {
    message(encoding, "ticked", 1 + usize::from(id.is_some()), |out| {
        optional(out, id);
        out.key("results").list(results.len(), |out| {
            for result in results {
                tick_result(out, result);
            }
        });
    })
}

fn tick_result(out: &mut Writer, result: &Result<Effect, TickError>) {
    match result {
        Ok(effect) => out.map(2, |out| {
            out.key("effect").text(effect.name());
            out.key("seq").number(effect.seq());
        }),
        Err(error) => tick_error(out, error),
    }
}

fn tick_error(out: &mut Writer, error: &TickError) {
    let retry = error.retry_after_ms();
    out.map(2 + usize::from(retry.is_some()), |out| {
        out.key("error").text(error.code());
        out.key("detail").text(&error.to_string());
        if let Some(retry) = retry {
            out.key("retry_after_ms").number(u64::from(retry));
        }
    });
}

fn prediction(form: Form, op: &str, one: &Prediction) -> Bytes {
    let spec = &*one.spec;
    let levels: Vec<f64> = match &form.levels {
        Some(levels) => levels.percent().collect(),
        None => own_levels(spec),
    };
    let intervals: Vec<_> = levels
        .iter()
        .filter_map(|&level| head::bounds(spec, &one.values, level).map(|(low, high)| (level, low, high)))
        .collect();
    let crossed = head::crosses(&spec.head, &one.values);
    let medians = head::median(spec, &one.values);
    let lone: Vec<(f64, usize)> = head::lone_quantiles(&spec.head).collect();
    let optional = [one.accepted_at.is_some(), medians.is_some(), !lone.is_empty(), crossed];
    let members = 11 + optional.map(usize::from).iter().sum::<usize>();
    message(form.encoding, op, members, |out| {
        out.key("model").text(&one.stream.model);
        out.key("series").text(one.stream.series.as_str());
        out.key("seq").number(one.seq);
        out.key("epoch").number(one.epoch);
        out.key("ts").millis(one.last);
        if let Some(accepted_at) = one.accepted_at {
            out.key("accepted_at").millis(accepted_at);
        }
        out.key("made_at").millis(one.made_at);
        out.key("horizon").number(spec.horizon as u64);
        if let Some(medians) = &medians {
            out.key(match spec.head {
                Head::Quantiles(_) => "median",
                Head::Point | Head::StudentT | Head::Normal => "mean",
            });
            out.floats(medians);
        }
        out.key("intervals").list(intervals.len(), |out| {
            for (level, low, high) in &intervals {
                out.map(3, |out| {
                    out.key("level").fraction(*level);
                    out.key("lo").floats(low);
                    out.key("hi").floats(high);
                });
            }
        });
        if !lone.is_empty() {
            out.key("quantiles").map(lone.len(), |out| {
                for &(level, column) in &lone {
                    out.key(&level.to_string()).floats(&head::column(spec, &one.values, column));
                }
            });
        }
        out.key("model_version").text(&one.version.to_string());
        out.key("backend").text(&one.backend);
        out.key("degraded").flag(one.degraded);
        if crossed {
            out.key("crossed").flag(true);
        }
    })
}

fn gap(encoding: Encoding, gap: &Gap) -> Bytes {
    message(encoding, "gap", 5, |out| {
        out.key("model").text(&gap.stream.model);
        out.key("series").text(gap.stream.series.as_str());
        out.key("from").number(gap.from);
        out.key("to").number(gap.to);
        out.key("reason").text(gap.reason.name());
    })
}

/// A map of `op` and `members` more.
fn message(encoding: Encoding, op: &str, members: usize, write: impl FnOnce(&mut Writer)) -> Bytes {
    let mut out = Writer::new(encoding);
    out.map(1 + members, |out| {
        out.key("op").text(op);
        write(out);
    });
    let opcode = match encoding {
        Encoding::Json => Opcode::Text,
        Encoding::MessagePack => Opcode::Binary,
    };
    frame(opcode, &out.finish())
}

fn optional(out: &mut Writer, id: Option<&Id>) {
    let Some(id) = id else { return };
    out.key("id");
    match id {
        Id::Number(number) => out.number(*number),
        Id::Negative(number) => out.negative(*number),
        Id::Text(text) => out.text(text),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use peregrine_actors::stream::{GapReason, Levels, StreamId};
    use serde_json::{Value, json};

    use super::super::message_pack::to_json;
    use super::*;
    use crate::testing::{point_spec, series_spec};

    #[test]
    fn both_encodings_say_the_same() {
        let mut spec = point_spec(4, 2);
        check(&one(spec.clone()), None, &json!({"mean": [0.5, 1.5], "intervals": []}));
        spec = series_spec(4, 2, 1, &["lo", "median", "hi"]);
        spec.head = Head::Quantiles(vec![0.1, 0.5, 0.9]);
        let intervals = json!([{"level": 80.0, "lo": [0.5, 3.5], "hi": [2.5, 5.5]}]);
        let mut made = one(spec);
        let want = json!({"median": [1.5, 4.5], "intervals": intervals, "crossed": null});
        check(&made, Some(&[80.0]), &want);
        made.values[0] = 1.6;
        check(&made, Some(&[80.0]), &json!({"median": [1.5, 4.5], "crossed": true, "quantiles": null}));
        spec = series_spec(4, 2, 1, &["0.6", "0.9"]);
        spec.head = Head::Quantiles(vec![0.6, 0.9]);
        let quantiles = json!({"0.6": [0.5, 2.5], "0.9": [1.5, 3.5]});
        check(&one(spec), None, &json!({"median": null, "intervals": [], "quantiles": quantiles}));
    }

    #[test]
    fn every_message_is_whole_in_both_encodings() {
        let name = |text: &str| SeriesName::new(text).unwrap();
        let next = [(name("a\"b"), 3), (name("c"), 1 << 40)];
        let results = [
            Ok(Effect::Advanced { seq: 200 }),
            Err(TickError::Overloaded { retry_after_ms: 70_000 }),
            Err(TickError::Invalid("x".repeat(300))),
        ];
        let stream = StreamId { model: "m".into(), series: name("a") };
        let lost = Gap { stream, from: 1, to: 2, reason: GapReason::Lost };
        let ids = [Id::Number(7), Id::Negative(-3), Id::Negative(i64::MIN), Id::Text("a\"é".into())];
        for id in std::iter::once(None).chain(ids.iter().map(Some)) {
            let told = Subscribed { id, channel: 1, model: "m", retention: 64, next: &next, missing: &[] };
            assert_eq!(same(|encoding| subscribed(encoding, &told)).get("missing"), None);
            let told = Subscribed { missing: &[(name("b"), 167)], ..told };
            assert_eq!(same(|encoding| subscribed(encoding, &told))["missing"], json!({"b": 167}));
            // None is not the same as too many to be listed.
            let none = Subscribed { next: &[], ..told };
            assert_eq!(same(|encoding| subscribed(encoding, &none))["next"], json!({}));
            let many = vec![(name("a"), 1); NEXT_MAX + 1];
            let many = same(|encoding| subscribed(encoding, &Subscribed { next: &many, ..told }));
            assert_eq!((many.get("next"), &many["matched"]), (None, &json!(NEXT_MAX + 1)));
            same(|encoding| error(encoding, id, "code", "detail"));
            same(|encoding| pong(encoding, id));
            same(|encoding| unsubscribed(encoding, id));
            same(|encoding| ticked(encoding, id, &results));
        }
        let echoed = |id: &Id| same(|encoding| pong(encoding, Some(id)))["id"].clone();
        assert_eq!(ids.each_ref().map(echoed), [json!(7), json!(-3), json!(i64::MIN), json!("a\"é")]);
        same(|encoding| heartbeat(encoding, Timestamp(1_500_000)));
        same(|encoding| goodbye(encoding, 1000, "drain"));
        same(|encoding| gap(encoding, &lost));
    }

    #[test]
    fn times_are_exact_in_json() {
        for (nanos, want) in [
            (0, "0"),
            (1_700_000_000_000_123_456, "1700000000000.123456"),
            (1_000_000_500, "1000.0005"),
            (-1_500_000, "-1.5"),
        ] {
            let text = payload(&heartbeat(Encoding::Json, Timestamp(nanos)));
            assert_eq!(String::from_utf8(text).unwrap(), format!(r#"{{"op":"heartbeat","at":{want}}}"#));
        }
    }

    fn one(spec: peregrine_shaders::ModelSpec) -> Prediction {
        let values = (0..spec.answer_len()).map(|at| at as f32 + 0.5).collect();
        Prediction {
            stream: StreamId { model: "m".into(), series: SeriesName::new("a").unwrap() },
            seq: 5,
            epoch: 1,
            position: 9,
            last: Timestamp(1_000_000),
            accepted_at: Some(Timestamp(1_500_000)),
            made_at: Timestamp(2_000_000),
            spec: Arc::new(spec),
            version: 3,
            values,
            backend: "cpu".into(),
            degraded: false,
        }
    }

    #[track_caller]
    fn check(prediction: &Prediction, levels: Option<&[f64]>, want: &Value) {
        let levels = levels.map(|levels| Levels::new(levels).unwrap());
        let said = same(|encoding| Frames.render(Form { encoding, levels }, Item::Prediction(prediction)));
        assert_eq!((&said["op"], &said["seq"], &said["ts"]), (&json!("prediction"), &json!(5), &json!(1)));
        for (key, value) in want.as_object().unwrap() {
            assert_eq!(numbers(said[key].clone()), numbers(value.clone()), "{said}");
        }
    }

    #[track_caller]
    fn same(render: impl Fn(Encoding) -> Bytes) -> Value {
        let json: Value = serde_json::from_slice(&payload(&render(Encoding::Json))).unwrap();
        let packed = to_json(&payload(&render(Encoding::MessagePack))).unwrap();
        let packed: Value = serde_json::from_slice(&packed).unwrap();
        assert_eq!(numbers(json.clone()), numbers(packed));
        json
    }

    /// `1.0` and `1` are one number.
    fn numbers(value: Value) -> Value {
        match value {
            Value::Number(number) => json!(number.as_f64()),
            Value::Array(values) => values.into_iter().map(numbers).collect(),
            Value::Object(map) => map.into_iter().map(|(key, value)| (key, numbers(value))).collect(),
            other => other,
        }
    }

    fn payload(frame: &Bytes) -> Vec<u8> {
        let head_len = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        frame[head_len..].to_vec()
    }

    #[test]
    fn when_a_tick_was_accepted_is_left_out_where_nobody_knows() {
        let of = |accepted_at| Prediction { accepted_at, ..one(crate::testing::point_spec(3, 2)) };
        check(&of(Some(Timestamp(1_500_000))), None, &json!({ "accepted_at": 1.5, "made_at": 2 }));
        check(&of(None), None, &json!({ "accepted_at": null, "made_at": 2 }));
    }
}
