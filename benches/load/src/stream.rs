//! Ticks in, predictions out: the messages of a stream, and how a connection becomes one that answers ticks.

use std::time::{Duration, Instant, SystemTime};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::LoadError;
use crate::connection::Connection;
use crate::recorder::Failure;
use crate::shape::Shape;
use crate::split::Hops;
use crate::target::Target;
use crate::websocket::{self, Frame};
use crate::{answer, control, http};

const PATH: &str = "/v1/stream";
const PROTOCOL: &str = "peregrine.v1.json";
/// Ticks of one message while a window is filled.
const FILL_LEN: usize = 512;
/// How long the first prediction may take before another tick asks for it: subscriptions spread after they are answered.
const NUDGE_AFTER: Duration = Duration::from_millis(500);

/// What a message of the server means to a tick that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A prediction; the time of its last tick, in microseconds since 1970.
    Prediction(i64),
    /// The ticks of this id were taken, or not.
    Ticked { id: u64, refused: bool },
    /// Predictions of this series are not coming.
    Gap,
    /// The subscription stands.
    Subscribed,
    /// The stream is over, or never was.
    Ended,
    /// Nothing.
    Other,
}

/// Reads as little as it can: a prediction for its time, others whole.
pub(crate) fn message(text: &[u8]) -> Result<Message, Failure> {
    if text.starts_with(b"{\"op\":\"prediction\"") {
        return time(text).map(Message::Prediction).ok_or(Failure::Malformed);
    }
    let read: Value = serde_json::from_slice(text).map_err(|_| Failure::Malformed)?;
    Ok(match read["op"].as_str() {
        Some("prediction") => Message::Prediction(time(text).ok_or(Failure::Malformed)?),
        Some("ticked") => {
            let results = read["results"].as_array().ok_or(Failure::Malformed)?;
            let refused = results.is_empty() || results.iter().any(|result| result.get("error").is_some());
            Message::Ticked { id: read["id"].as_u64().ok_or(Failure::Malformed)?, refused }
        }
        Some("gap") => Message::Gap,
        Some("subscribed") => Message::Subscribed,
        Some("error" | "goodbye") => Message::Ended,
        _ => Message::Other,
    })
}

/// `"ts":1700000000000.123` as microseconds: digits, for a double holds them only just.
fn time(text: &[u8]) -> Option<i64> {
    const KEY: &[u8] = b"\"ts\":";
    let at = text.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let rest = &text[at..];
    let end = rest.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
    let number = std::str::from_utf8(&rest[..end]).ok()?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let micros: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(1000)?.checked_add(micros)
}

/// A whole prediction: its numbers, and what it says of its time between the tick's arrival and its making.
pub(crate) fn check(text: &[u8], shape: &Shape) -> Result<Option<Hops>, Failure> {
    let read: Value = serde_json::from_slice(text).map_err(|_| Failure::Malformed)?;
    answer::path(read.get("median").or(read.get("mean")), shape.horizon())?;
    let millis = |name: &str| read[name].as_f64().filter(|millis| millis.is_finite());
    let took =
        millis("accepted_at").zip(millis("made_at")).map(|(accepted, made)| (made - accepted).max(0.0));
    let took = took.filter(|took| *took < 1e9).map(|took| Duration::from_secs_f64(took / 1e3));
    Ok(took.map(|compute| Hops { compute, ..Hops::default() }))
}

/// The feed of one series: values that walk, at times that only rise.
pub(crate) struct Feed {
    series: String,
    level: f32,
    last: i64,
    id: u64,
    random: SmallRng,
}

impl Feed {
    pub(crate) fn new(number: usize, seed: u64) -> Self {
        let random = SmallRng::seed_from_u64(seed.wrapping_add(number as u64));
        Self { series: format!("peregrine-bench/{number}"), level: -2.0, last: 0, id: 0, random }
    }

    /// Appends the frame of one message of `count` ticks; gives its id and the time of its last tick.
    pub(crate) fn ticks(&mut self, out: &mut Vec<u8>, count: usize) -> (u64, i64) {
        self.id += 1;
        let ticks: Vec<String> = (0..count).map(|_| self.tick()).collect();
        let text = format!(r#"{{"op":"tick","id":{},"ticks":[{}]}}"#, self.id, ticks.join(","));
        self.text(out, &text);
        (self.id, self.last)
    }

    fn tick(&mut self) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last = i64::try_from(now.as_micros()).unwrap_or(i64::MAX / 2).max(self.last + 1);
        self.level = 0.95 * self.level - 0.1 + self.random.random_range(-0.5..0.5);
        let (millis, micros) = (self.last / 1000, self.last % 1000);
        format!(r#"{{"series":"{}","ts":{millis}.{micros:03},"value":{}}}"#, self.series, self.level)
    }

    fn text(&mut self, out: &mut Vec<u8>, text: &str) {
        websocket::masked(out, websocket::TEXT, text.as_bytes(), self.random.random());
    }

    /// Opens a stream, fills the window of its series, and waits for the first prediction. Still blocking; gives what
    /// came after that.
    pub(crate) fn open(
        &mut self,
        target: &Target,
        shape: &Shape,
    ) -> Result<(Connection, Vec<u8>), LoadError> {
        let mut connection = Connection::open(target)?;
        let mut inbox = self.shake(&mut connection, target)?;
        let mut out = Vec::new();
        let model = Value::from(shape.model.as_str());
        let series = self.series.clone();
        self.text(&mut out, &format!(r#"{{"op":"subscribe","id":1,"model":{model},"series":["{series}"]}}"#));
        let mut open = std::collections::BTreeSet::new();
        let mut left = shape.window();
        while left > 0 {
            let count = left.min(FILL_LEN);
            open.insert(self.ticks(&mut out, count).0);
            left -= count;
        }
        connection.write_all(&out)?;
        let until = Instant::now() + target.timeout;
        let (mut subscribed, mut predicted, mut nudge) = (false, false, Instant::now() + NUDGE_AFTER);
        connection.wait_at_most(NUDGE_AFTER)?;
        loop {
            while let Some(Frame { first, payload, len }) = frame(&inbox)? {
                let seen = if first == websocket::TEXT { message(payload) } else { Ok(Message::Other) };
                match seen {
                    Ok(Message::Prediction(at)) => predicted |= at == self.last,
                    Ok(Message::Subscribed) => subscribed = true,
                    Ok(Message::Ticked { id, refused: false }) => {
                        open.remove(&id);
                    }
                    Ok(Message::Ended | Message::Ticked { .. }) | Err(_) => {
                        let text: String = String::from_utf8_lossy(payload).chars().take(200).collect();
                        return Err(LoadError::Stream(text));
                    }
                    Ok(_) => {}
                }
                inbox.drain(..len);
            }
            if subscribed && predicted && open.is_empty() {
                return Ok((connection, inbox));
            }
            let now = Instant::now();
            if now > until {
                return Err(LoadError::Stream(format!(
                    "no prediction of {} within {:?}",
                    self.series, target.timeout
                )));
            }
            if now > nudge {
                out.clear();
                open.insert(self.ticks(&mut out, 1).0);
                connection.write_all(&out)?;
                nudge = now + NUDGE_AFTER;
            }
            match connection.read_more(&mut inbox) {
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {}
                other => other?,
            }
        }
    }

    /// The handshake; gives what came behind its answer.
    fn shake(&mut self, connection: &mut Connection, target: &Target) -> Result<Vec<u8>, LoadError> {
        let (request, accept) = websocket::handshake(target, PATH, PROTOCOL, self.random.random());
        connection.write_all(&request)?;
        let mut inbox = Vec::new();
        let head = loop {
            connection.read_more(&mut inbox)?;
            if let Some(head) = http::head(&inbox)? {
                break head;
            }
        };
        if matches!(head.status, 401 | 403) {
            while http::body(&head, &inbox)?.is_none() {
                connection.read_more(&mut inbox)?;
            }
            let detail = http::body(&head, &inbox)?.map_or_else(String::new, |body| control::why(&body));
            return Err(LoadError::Refused { path: PATH.to_owned(), status: head.status, detail });
        }
        if head.status != 101 || head.accept.as_deref() != Some(&accept) {
            return Err(LoadError::Stream(format!("the handshake was answered {}", head.status)));
        }
        inbox.drain(..head.head_len);
        Ok(inbox)
    }
}

fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, LoadError> {
    websocket::frame(bytes).map_err(|error| LoadError::Stream(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        check_message(
            r#"{"op":"prediction","series":"a","ts":1700000000000.123,"x":1}"#,
            Ok(Message::Prediction(1_700_000_000_000_123)),
        );
        check_message(
            r#"{"op":"prediction","ts":1700000000000.1,"x":1}"#,
            Ok(Message::Prediction(1_700_000_000_000_100)),
        );
        check_message(r#"{"op":"prediction","ts":17,"x":1}"#, Ok(Message::Prediction(17_000)));
        check_message(r#"{"op":"prediction","ts":-1}"#, Err(Failure::Malformed));
        check_message(r#"{"op":"prediction"}"#, Err(Failure::Malformed));
        check_message(r#"{"op":"prediction","ts":99999999999999999999}"#, Err(Failure::Malformed));
        let ticked = |refused| Ok(Message::Ticked { id: 4, refused });
        check_message(r#"{"op":"ticked","id":4,"results":[{"effect":"advanced","seq":1}]}"#, ticked(false));
        check_message(r#"{"op":"ticked","id":4,"results":[{"seq":1},{"error":"overloaded"}]}"#, ticked(true));
        check_message(r#"{"op":"ticked","id":4,"results":[]}"#, ticked(true));
        check_message(r#"{"op":"gap","from":1,"to":2}"#, Ok(Message::Gap));
        check_message(r#"{"op":"goodbye"}"#, Ok(Message::Ended));
        check_message(r#"{"op":"heartbeat","at":1}"#, Ok(Message::Other));
        check_message("{", Err(Failure::Malformed));
    }

    #[test]
    fn times_rise_and_say_what_they_are() {
        let mut feed = Feed::new(3, 1);
        let mut last = 0;
        for _ in 0..10_000 {
            let text = feed.tick();
            let at = time(text.as_bytes()).unwrap();
            assert!(at > last && at == feed.last, "{text}");
            last = at;
        }
    }

    #[track_caller]
    fn check_message(text: &str, want: Result<Message, Failure>) {
        assert_eq!(message(text.as_bytes()), want, "{text}");
    }
}
