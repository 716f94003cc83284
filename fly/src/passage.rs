//! How a request came through the platform's proxy, and whether another Machine should answer it instead.
//!
//! Values in, a decision out. Headers are written by whoever sends them: what they say here can only keep a request
//! from being replayed, or shorten the time that its own sender has. Where it would go is never taken from them.

use std::time::Duration;

use crate::Identity;
use crate::replay::{BODY_BYTES_MAX, FAILED_HEADER, Failed, Replay, SOURCE_HEADER, Source, Target, checked};

/// Header that the proxy gives each request that comes through it.
pub const REQUEST_ID_HEADER: &str = "fly-request-id";
/// How long the proxy may try to reach a Machine, at most. One that serves is reached in far less.
const WITHIN_MAX: Duration = Duration::from_secs(2);
/// With less there would be no time left to answer here what comes back.
const WITHIN_MIN: Duration = Duration::from_millis(50);
/// Before the time that is left, in what the next Machine is told. Time left and no time of day: clocks differ.
const LEFT: &str = "left-ms:";

/// The Machine that a node runs on, as it tells the other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMachine {
    /// The application it is part of.
    pub app: String,
    /// `FLY_MACHINE_ID`.
    pub id: String,
    /// The proxy brings callers to it.
    pub is_public: bool,
}

impl HostMachine {
    /// The Machine of `identity`.
    #[must_use]
    pub fn new(identity: &Identity, is_public: bool) -> Self {
        Self { app: identity.app.clone(), id: identity.machine.clone(), is_public }
    }

    /// Whether the proxy brings it those who call the application of `here`: it finds no Machine of another one.
    #[must_use]
    pub fn takes_callers_of(&self, here: &Identity) -> bool {
        self.is_public && self.app == here.app
    }

    /// `app=peregrine id=148e4d2b public`
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("app={} id={}{}", self.app, self.id, if self.is_public { " public" } else { "" })
    }

    /// Reads what another node wrote, perhaps a newer one: words that are not known are passed over. Nothing if it
    /// does not name a Machine, or names one as the platform would not.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut machine = Self { app: String::new(), id: String::new(), is_public: false };
        for word in text.split(' ') {
            match word.split_once('=') {
                Some(("app", app)) => machine.app = checked(app, 63, "application").ok()?.to_owned(),
                Some(("id", id)) => machine.id = checked(id, 64, "machine id").ok()?.to_owned(),
                None if word == "public" => machine.is_public = true,
                _ => {}
            }
        }
        (!machine.app.is_empty() && !machine.id.is_empty()).then_some(machine)
    }
}

/// How a request came here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Past the proxy: whoever sent it would get an answer that asks for a replay as it is, with nothing in it.
    Direct,
    /// Through the proxy.
    Proxied,
    /// Another Machine has sent it here.
    Replayed {
        /// Of its deadline, as that one says.
        left: Option<Duration>,
    },
    /// This one has sent it elsewhere, in vain.
    Returned(Failed),
}

impl Passage {
    /// By the headers of a request: the value of one by its name, empty if it is no text.
    #[must_use]
    pub fn of<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Self {
        if let Some(failed) = header(FAILED_HEADER) {
            return Self::Returned(Failed::from_header(failed));
        }
        if let Some(source) = header(SOURCE_HEADER) {
            let state = Source::from_header(source).and_then(|source| source.state);
            let left = state.as_deref().and_then(|state| state.strip_prefix(LEFT)?.parse().ok());
            return Self::Replayed { left: left.map(Duration::from_millis) };
        }
        if header(REQUEST_ID_HEADER).is_some() { Self::Proxied } else { Self::Direct }
    }

    /// What is left of the time that a request asks for: some of it may have passed on its way. Never more.
    #[must_use]
    pub fn left_of(&self, wished: Duration) -> Duration {
        match self {
            Self::Replayed { left: Some(left) } => wished.min(*left),
            Self::Returned(Failed { elapsed: Some(elapsed), .. }) => wished.saturating_sub(*elapsed),
            Self::Direct | Self::Proxied | Self::Replayed { left: None } | Self::Returned(_) => wished,
        }
    }
}

/// Why a request is not replayed: the node that has it answers, through the cluster if need be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// Nothing is.
    Off,
    /// It did not come through the proxy.
    Direct,
    /// It was replayed already. Once is enough: who has it now knows the cluster as well.
    Travelled,
    /// To move its body between nodes costs less than another way through the proxy.
    Small,
    /// The proxy keeps no such body.
    TooLarge,
    /// Too little time is left for a replay that may fail.
    NoTime,
    /// It is answered here, or by a node that the proxy does not reach.
    NoMachine,
}

/// Whether a request that came by `passage` with a body of so many bytes, as sent, may be replayed at all: bodies from
/// `from` on are, `None` means none.
///
/// # Errors
/// Why not.
pub fn may_travel(passage: &Passage, body_bytes: usize, from: Option<usize>) -> Result<(), Stays> {
    let from = from.ok_or(Stays::Off)?;
    match passage {
        Passage::Direct => Err(Stays::Direct),
        Passage::Replayed { .. } | Passage::Returned(_) => Err(Stays::Travelled),
        Passage::Proxied if body_bytes < from => Err(Stays::Small),
        Passage::Proxied if body_bytes > BODY_BYTES_MAX => Err(Stays::TooLarge),
        Passage::Proxied => Ok(()),
    }
}

/// The replay of a request that the Machine `here` has, with so much left until its deadline, and that a node on
/// `machine` would answer: `None`, if this one does or the other's Machine is not known.
///
/// # Errors
/// Why there is none.
pub fn replay(here: &Identity, left: Duration, machine: Option<HostMachine>) -> Result<Replay, Stays> {
    // Nobody asks the proxy for itself.
    let is_another = |machine: &HostMachine| machine.takes_callers_of(here) && machine.id != here.machine;
    let machine = machine.filter(is_another).ok_or(Stays::NoMachine)?;
    // Half of the time is kept for the answer to what comes back.
    let within = (left / 2).min(WITHIN_MAX);
    if within < WITHIN_MIN {
        return Err(Stays::NoTime);
    }
    let state = format!("{LEFT}{}", left.as_millis());
    Ok(Replay { target: Target::Machine(machine.id), within, state: Some(state) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    #[test]
    fn a_request_goes_to_the_machine_that_would_answer_it_and_comes_back_in_time() {
        let to = |timeout_ms: u64, left_ms: u64| {
            let way = format!("timeout={timeout_ms}ms;fallback=force_self");
            Ok(format!("instance=148e4d2b;{way};state=left-ms:{left_ms}"))
        };
        for (left_ms, expected) in [
            (3_000, to(1_500, 3_000)),
            (60_000, to(2_000, 60_000)),
            (100, to(50, 100)),
            (99, Err(Stays::NoTime)),
            (0, Err(Stays::NoTime)),
        ] {
            check_replay(left_ms, Some(machine()), expected);
        }
    }

    #[test]
    fn only_machines_of_this_application_that_the_proxy_reaches_are_targets() {
        for odd in [
            None,
            Some(HostMachine { is_public: false, ..machine() }),
            Some(HostMachine { app: "another".to_owned(), ..machine() }),
            Some(HostMachine { id: "here".to_owned(), ..machine() }),
        ] {
            check_replay(3_000, odd, Err(Stays::NoMachine));
        }
    }

    #[test]
    fn what_the_proxy_would_not_do_better_or_has_done_stays() {
        use Passage::{Direct, Proxied, Replayed, Returned};
        let returned = || Returned(Failed::from_header("reason=no_candidate"));
        for (passage, body_bytes, from, expected) in [
            (Proxied, 300 * KIB, Some(256 * KIB), Ok(())),
            (Proxied, 256 * KIB, Some(256 * KIB), Ok(())),
            (Proxied, BODY_BYTES_MAX, Some(BODY_BYTES_MAX), Ok(())),
            (Proxied, 0, Some(0), Ok(())),
            (Proxied, 300 * KIB, None, Err(Stays::Off)),
            (Direct, 300 * KIB, None, Err(Stays::Off)),
            (Direct, 300 * KIB, Some(256 * KIB), Err(Stays::Direct)),
            (Direct, BODY_BYTES_MAX + 1, Some(256 * KIB), Err(Stays::Direct)),
            (Replayed { left: None }, 300 * KIB, Some(256 * KIB), Err(Stays::Travelled)),
            (returned(), 300 * KIB, Some(256 * KIB), Err(Stays::Travelled)),
            (Proxied, 256 * KIB - 1, Some(256 * KIB), Err(Stays::Small)),
            (Proxied, 0, Some(256 * KIB), Err(Stays::Small)),
            (Proxied, BODY_BYTES_MAX + 1, Some(256 * KIB), Err(Stays::TooLarge)),
        ] {
            let verdict = may_travel(&passage, body_bytes, from);
            assert_eq!(verdict, expected, "{passage:?}, {body_bytes} bytes, from {from:?}");
        }
    }

    #[test]
    fn how_a_request_came_is_read_from_its_headers_whatever_they_say() {
        let (id, source) = ((REQUEST_ID_HEADER, "01K-fra"), "instance=148e4d2b;region=fra;t=1;state=");
        assert_eq!(of(&[]), Passage::Direct);
        assert_eq!(of(&[("fly-region", "fra")]), Passage::Direct);
        assert_eq!(of(&[id]), Passage::Proxied);
        let left = |ms: Option<u64>| Passage::Replayed { left: ms.map(Duration::from_millis) };
        for (state, ms) in [
            ("left-ms:250", Some(250)),
            ("left-ms:0", Some(0)),
            ("left-ms:-1", None),
            ("left-ms:99999999999999999999", None),
            ("left-ms:", None),
            ("another", None),
            ("", None),
        ] {
            let text = format!("{source}{state}");
            assert_eq!(of(&[id, (SOURCE_HEADER, &text)]), left(ms), "{state}");
        }
        for odd in ["", ";;", "instance=", "state=left-ms:1"] {
            assert_eq!(of(&[id, (SOURCE_HEADER, odd)]), left(None), "{odd}");
        }
        for failed in ["reason=timeout;elapsed_ms=80", ""] {
            let passage = of(&[id, (SOURCE_HEADER, source), (FAILED_HEADER, failed)]);
            assert_eq!(passage, Passage::Returned(Failed::from_header(failed)));
        }
    }

    #[test]
    fn a_way_costs_time_and_gives_none() {
        let second = Duration::from_secs(1);
        let failed = |text| Passage::Returned(Failed::from_header(text));
        for (passage, ms) in [
            (Passage::Direct, 1000),
            (Passage::Proxied, 1000),
            (Passage::Replayed { left: None }, 1000),
            (Passage::Replayed { left: Some(Duration::from_millis(300)) }, 300),
            (Passage::Replayed { left: Some(Duration::from_secs(300)) }, 1000),
            (failed("reason=timeout;elapsed_ms=400"), 600),
            (failed("reason=timeout;elapsed_ms=4000"), 0),
            (failed("reason=timeout"), 1000),
        ] {
            assert_eq!(passage.left_of(second), Duration::from_millis(ms), "{passage:?}");
        }
    }

    #[test]
    fn a_machine_is_read_as_it_was_written_and_only_as_the_platform_writes_it() {
        for is_public in [true, false] {
            let machine = HostMachine { is_public, ..machine() };
            assert_eq!(HostMachine::from_text(&machine.to_text()), Some(machine));
        }
        let newer = "app=peregrine zone=b id=148e4d2b public spot";
        assert_eq!(HostMachine::from_text(newer), Some(machine()));
        for odd in ["", "public", "id=148e4d2b", "app=peregrine", "app=peregrine id=", "app=a;b id=1"] {
            assert_eq!(HostMachine::from_text(odd), None, "{odd}");
        }
        assert_eq!(HostMachine::from_text("app=a id=1\r\nx:"), None);
    }

    fn of(headers: &[(&str, &str)]) -> Passage {
        Passage::of(|name| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value))
    }

    fn machine() -> HostMachine {
        HostMachine { app: "peregrine".to_owned(), id: "148e4d2b".to_owned(), is_public: true }
    }

    #[track_caller]
    fn check_replay(left_ms: u64, machine: Option<HostMachine>, expected: Result<String, Stays>) {
        let environment = [("FLY_APP_NAME", "peregrine"), ("FLY_MACHINE_ID", "here"), ("FLY_REGION", "fra")];
        let get = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let here = Identity::read(get).unwrap().unwrap();
        let replay = replay(&here, Duration::from_millis(left_ms), machine);
        assert_eq!(replay.map(|replay| replay.to_header(1).unwrap()), expected);
    }
}
