//! `fly-replay`: an answer that asks the platform's proxy to send the request to another Machine instead.
//!
//! The way for bodies that are better moved by the edge than through this node. Pure text. Source: Fly's "Dynamic
//! Request Routing". The gateway still chooses the Machine: the proxy knows nothing of models, queues or deadlines.

use std::time::Duration;

/// Header of the answer that asks for it.
pub const HEADER: &str = "fly-replay";
/// Header by which the next Machine knows that a request was replayed.
pub const SOURCE_HEADER: &str = "fly-replay-src";
/// Header by which a request that was replayed in vain comes back.
pub const FAILED_HEADER: &str = "fly-replay-failed";
/// Header of a caller's request that asks the proxy for Machines of a region, if there are any: see [`prefer_region`].
pub const PREFER_REGION_HEADER: &str = "fly-prefer-region";
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
    /// By one Machine, or any other if it cannot.
    PreferMachine(String),
    /// By any Machine of another application of the same organisation.
    App(String),
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
            Target::PreferMachine(machine) => {
                format!("prefer_instance={}", checked(machine, 64, "machine id")?)
            }
            Target::App(app) => format!("app={}", checked(app, 63, "application")?),
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

/// The value of [`PREFER_REGION_HEADER`], by which a node of ours that calls through the proxy names where it wants to.
///
/// # Errors
/// When `region` is none.
pub fn prefer_region(region: &str) -> Result<&str, ReplayError> {
    checked(region, 16, "region")
}

/// Why a request that was replayed came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// [`Replay::within`] was over.
    Timeout,
    /// It was tried as often as the proxy tries.
    RetriesExhausted,
    /// Nothing serves there.
    NoCandidate,
    /// Something that was not known when this was written.
    Other,
}

impl Reason {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Timeout, Self::RetriesExhausted, Self::NoCandidate, Self::Other];

    /// As the proxy writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::RetriesExhausted => "retries_exhausted",
            Self::NoCandidate => "no_candidate",
            Self::Other => "other",
        }
    }
}

/// A replay that failed. The request must be answered here: the proxy does not replay it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Why.
    pub reason: Reason,
    /// The region it was to go to, if the proxy says one.
    pub region: Option<String>,
    /// What trying took, if the proxy says so.
    pub elapsed: Option<Duration>,
}

impl Failed {
    /// Reads the header's value; fields that are not known are passed over. What is there at all has failed.
    #[must_use]
    pub fn from_header(value: &str) -> Self {
        let mut failed = Self { reason: Reason::Other, region: None, elapsed: None };
        for field in value.split(';') {
            match field.trim().split_once('=') {
                Some(("reason", why)) => {
                    let known = Reason::ALL.into_iter().find(|reason| reason.name() == why);
                    failed.reason = known.unwrap_or(Reason::Other);
                }
                Some(("region", region)) => failed.region = checked(region, 16, "").ok().map(str::to_owned),
                Some(("elapsed_ms", ms)) => failed.elapsed = ms.parse().ok().map(Duration::from_millis),
                _ => {}
            }
        }
        failed
    }
}

pub(crate) fn checked<'a>(
    text: &'a str,
    bytes_max: usize,
    what: &'static str,
) -> Result<&'a str, ReplayError> {
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
        let machine = to(Target::PreferMachine("148e4d2b".to_owned()));
        check(&machine, 0, Ok("prefer_instance=148e4d2b;timeout=800ms;fallback=force_self"));
        check(
            &to(Target::App("peregrine".to_owned())),
            0,
            Ok("app=peregrine;timeout=800ms;fallback=force_self"),
        );
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

    #[test]
    fn a_replay_that_failed_says_why_and_is_failed_whatever_it_says() {
        let failed = |reason, region: Option<&str>, ms: Option<u64>| Failed {
            reason,
            region: region.map(str::to_owned),
            elapsed: ms.map(Duration::from_millis),
        };
        let check = |value: &str, expected| assert_eq!(Failed::from_header(value), expected, "{value}");
        check(
            "instance=148e4d2b;app=peregrine;region=fra;replay_source=x;reason=no_candidate;elapsed_ms=80",
            failed(Reason::NoCandidate, Some("fra"), Some(80)),
        );
        check("reason=timeout; elapsed_ms=-1", failed(Reason::Timeout, None, None));
        check("reason=retries_exhausted;region=a b", failed(Reason::RetriesExhausted, None, None));
        for odd in ["", "reason=new", ";;=;", "elapsed_ms"] {
            check(odd, failed(Reason::Other, None, None));
        }
    }

    #[test]
    fn a_region_is_preferred_by_its_name_alone() {
        assert_eq!(prefer_region("fra"), Ok("fra"));
        let refused = Err(ReplayError::Text("fra\r\nx: y".to_owned(), "region"));
        assert_eq!(prefer_region("fra\r\nx: y"), refused);
    }

    fn to(target: Target) -> Replay {
        Replay { target, within: Duration::from_millis(800), state: None }
    }

    #[track_caller]
    fn check(replay: &Replay, body_bytes: usize, expected: Result<&str, ReplayError>) {
        assert_eq!(replay.to_header(body_bytes), expected.map(str::to_owned));
    }
}
