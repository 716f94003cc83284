//! `fly-replay`: an answer that asks the platform's proxy to send the request to another Machine instead.
//!
//! The way for bodies that are better moved by the edge than through this node. Pure text. Source: Fly's "Dynamic
//! Request Routing". The gateway still chooses the Machine: the proxy knows nothing of models, queues or deadlines.

use std::time::Duration;

/// Header of the answer that asks for it.
pub const HEADER: &str = "fly-replay";
/// Header by which the next Machine knows that a request was replayed.
pub const SOURCE_HEADER: &str = "fly-replay-src";
/// Larger bodies cannot be replayed; the proxy keeps no more.
pub const BODY_BYTES_MAX: usize = 1_000_000;
/// Longest [`Replay::state`].
pub const STATE_BYTES_MAX: usize = 256;

/// Where a request is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By any Machine of a region.
    Region(String),
    /// By one Machine.
    Machine(String),
}

/// A wish to have a request sent elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Where to.
    pub target: Target,
    /// After this the request comes back here. Without it, a target where nothing serves costs the caller eight seconds.
    pub within: Duration,
    /// Told to whoever gets it.
    pub state: Option<String>,
}

/// A request that the proxy would not understand, or not replay. The program acts: it answers in another way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The body is too large to be kept.
    #[error("a body of {0} bytes cannot be replayed, at most {BODY_BYTES_MAX} can")]
    TooLarge(usize),
    /// It has characters that end a field.
    #[error("`{0}` is no {1}")]
    Text(String, &'static str),
    /// The time is no time: under a millisecond.
    #[error("no time is given")]
    NoTime,
}

impl Replay {
    /// The header's value for a request whose body has so many bytes.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn to_header(&self, body_bytes: usize) -> Result<String, ReplayError> {
        if body_bytes > BODY_BYTES_MAX {
            return Err(ReplayError::TooLarge(body_bytes));
        }
        if self.within < Duration::from_millis(1) {
            return Err(ReplayError::NoTime);
        }
        let target = match &self.target {
            Target::Region(region) => format!("region={}", checked(region, 16, "region")?),
            Target::Machine(machine) => format!("instance={}", checked(machine, 64, "machine id")?),
        };
        let state = match &self.state {
            Some(state) => format!(";state={}", checked(state, STATE_BYTES_MAX, "state")?),
            None => String::new(),
        };
        // The unit is not optional: a bare number is read as something else.
        Ok(format!("{target};timeout={}ms;fallback=force_self{state}", self.within.as_millis()))
    }
}

/// Where a replayed request came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The Machine that asked for the replay.
    pub machine: String,
    /// Its region.
    pub region: String,
    /// What it said.
    pub state: Option<String>,
}

impl Source {
    /// Reads the header's value; fields that are not known are passed over. Nothing if no Machine is named.
    #[must_use]
    pub fn from_header(value: &str) -> Option<Self> {
        let mut source = Self::default();
        for field in value.split(';') {
            match field.trim().split_once('=') {
                Some(("instance", machine)) => source.machine = checked(machine, 64, "").ok()?.to_owned(),
                Some(("region", region)) => source.region = checked(region, 16, "").ok()?.to_owned(),
                Some(("state", state)) => source.state = Some(state.chars().take(STATE_BYTES_MAX).collect()),
                _ => {}
            }
        }
        (!source.machine.is_empty()).then_some(source)
    }
}

fn checked<'a>(text: &'a str, bytes_max: usize, what: &'static str) -> Result<&'a str, ReplayError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/');
    if (1..=bytes_max).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text)
    } else {
        Err(ReplayError::Text(text.chars().take(64).collect(), what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_names_its_target_a_time_with_a_unit_and_the_way_back() {
        let region = Replay { state: Some("model/a".to_owned()), ..to(Target::Region("iad".to_owned())) };
        check(&region, 10, Ok("region=iad;timeout=800ms;fallback=force_self;state=model/a"));
        let machine = to(Target::Machine("148e4d2b".to_owned()));
        check(&machine, BODY_BYTES_MAX, Ok("instance=148e4d2b;timeout=800ms;fallback=force_self"));
    }

    #[test]
    fn what_the_proxy_would_not_do_is_refused() {
        let machine = to(Target::Machine("148e4d2b".to_owned()));
        check(&machine, BODY_BYTES_MAX + 1, Err(ReplayError::TooLarge(BODY_BYTES_MAX + 1)));
        check(&Replay { within: Duration::from_micros(999), ..machine }, 1, Err(ReplayError::NoTime));
        for region in ["", "iad;app=other", "iad\r\nx: y", "any,iad", "a region whose name is long"] {
            let text = ReplayError::Text(region.to_owned(), "region");
            check(&to(Target::Region(region.to_owned())), 1, Err(text));
        }
    }

    #[test]
    fn a_replayed_request_says_where_it_came_from() {
        let source =
            Source::from_header("instance=148e4d2b;region=fra;t=1795842381341000;state=model/a;new=1");
        let expected =
            Source { machine: "148e4d2b".into(), region: "fra".into(), state: Some("model/a".into()) };
        assert_eq!(source, Some(expected));
        for odd in ["", "region=fra", "instance=;region=fra", "instance=a b"] {
            assert_eq!(Source::from_header(odd), None, "{odd}");
        }
    }

    fn to(target: Target) -> Replay {
        Replay { target, within: Duration::from_millis(800), state: None }
    }

    #[track_caller]
    fn check(replay: &Replay, body_bytes: usize, expected: Result<&str, ReplayError>) {
        assert_eq!(replay.to_header(body_bytes), expected.map(str::to_owned));
    }
}
