//! What a refusal of the Machines API means, from its status and its text.
//!
//! The platform has few error codes and many texts, so both are read: the status says the kind, the text what of it.

use peregrine_scaler::Timestamp;

use super::transport::TransportError;
use super::wire::{ErrorBody, State};

/// Longest part of a foreign text that is kept.
const TEXT_CHARS_MAX: usize = 200;

/// Why a call did not do what it was to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No answer, or none that can be read. See there who acts.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The token is missing, wrong or expired: the operator acts.
    #[error("the API does not take the token")]
    Unauthenticated,
    /// The token is for another app or organisation: the operator acts.
    #[error("the API does not allow it to this token")]
    Forbidden,
    /// There is no such app: the operator acts.
    #[error("there is no such app")]
    NoApp,
    /// There is no such machine any more: the caller lists.
    #[error("there is no such machine")]
    NoMachine,
    /// There is no lease on the machine: the caller takes one.
    #[error("there is no lease on the machine")]
    NoLease,
    /// It took too long. A creation may have happened: the caller lists.
    #[error("the API did not get done in time")]
    Timeout,
    /// A machine of that name lives: the caller lists.
    #[error("there is a machine of that name")]
    NameTaken,
    /// Another holds the machine: the caller comes back.
    #[error("another holds the machine")]
    Leased {
        /// Until when, if that was said.
        until: Option<Timestamp>,
    },
    /// The host of the machine has no room: the caller takes another machine.
    #[error("the host has no room")]
    HostFull,
    /// The region has no room: the caller takes another region.
    #[error("the region has no room")]
    NoCapacity,
    /// The machine is changed by somebody at this moment, or has been: the caller lists.
    #[error("the machine has been changed meanwhile")]
    Conflict,
    /// It cannot be done to a machine that does this: the caller lists.
    #[error("the machine's state does not allow it: {0}")]
    WrongState(String),
    /// Too many calls: the caller comes back.
    #[error("too many calls")]
    RateLimited,
    /// It will be refused again: whoever configured it acts.
    #[error("refused with {status}: {text}")]
    Refused {
        /// Of the answer.
        status: u16,
        /// What the platform said.
        text: String,
    },
    /// The platform is broken: the caller comes back. It may have happened.
    #[error("the API failed with {0}")]
    Server(u16),
    /// A success that makes no sense: the caller lists.
    #[error("the answer makes no sense: {0}")]
    Nonsense(&'static str),
}

impl ApiError {
    /// Whether what was asked for may have happened all the same.
    #[must_use]
    pub const fn is_undecided(&self) -> bool {
        match self {
            Self::Transport(error) => error.was_sent(),
            Self::Timeout | Self::Server(_) | Self::Nonsense(_) => true,
            _ => false,
        }
    }

    /// What a status that is no success means.
    #[must_use]
    pub fn of(status: u16, body: &[u8]) -> Self {
        let said: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
        let text = if said.error.is_empty() { &said.message } else { &said.error };
        let has = |part: &str| text.contains(part) || said.code.contains(part);
        match status {
            401 => Self::Unauthenticated,
            403 => Self::Forbidden,
            404 if has("app") => Self::NoApp,
            404 if has("lease") => Self::NoLease,
            404 => Self::NoMachine,
            408 => Self::Timeout,
            409 if has("already_exists") || has("unique machine name") => Self::NameTaken,
            409 if has("could not reserve resource") || has("insufficient") => Self::HostFull,
            409 if has("no capacity") => Self::NoCapacity,
            409 if has("lease") => Self::Leased { until: expiry(&said) },
            409 => Self::Conflict,
            412 if said.status == "volume_placement_capacity" => Self::HostFull,
            412 if has("current state") || has("not stopped") => Self::WrongState(state(text)),
            412 if has("version") => Self::Conflict,
            412 => Self::WrongState(shown(text)),
            422 if said.status == "insufficient_capacity" || has("candidate host") => Self::NoCapacity,
            422 if said.status == "name_taken" => Self::NameTaken,
            429 => Self::RateLimited,
            500.. => Self::Server(status),
            _ => Self::Refused { status, text: shown(text) },
        }
    }
}

fn expiry(said: &ErrorBody) -> Option<Timestamp> {
    let seconds = said.data.as_ref()?.get("expires_at")?.as_i64()?;
    Timestamp::from_second(seconds).ok()
}

/// The state that a text names between quotes, if it names one.
fn state(text: &str) -> String {
    let quoted = text.split('\'').nth(1).filter(|word| State::from_word(word) != State::Unheard);
    quoted.map_or_else(|| shown(text), str::to_owned)
}

/// Foreign text as it may be shown: short, on one line.
fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(TEXT_CHARS_MAX).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, expected: ApiError) {
        assert_eq!(ApiError::of(status, body.as_bytes()), expected);
    }

    #[test]
    fn every_known_error_has_a_meaning() {
        // The rows of `errors_known`, in their order.
        check(400, r#"{"error":"EOF"}"#, ApiError::Refused { status: 400, text: "EOF".into() });
        let gpu = ApiError::Refused { status: 400, text: "GPU machines are gone".into() };
        check(400, r#"{"error":"GPU machines are gone"}"#, gpu);
        check(403, r#"{"error":"unauthorized"}"#, ApiError::Forbidden);
        check(404, r#"{"error":"machine not found"}"#, ApiError::NoMachine);
        check(404, r#"{"error":"app not found"}"#, ApiError::NoApp);
        check(404, r#"{"error":"lease not found"}"#, ApiError::NoLease);
        check(408, "", ApiError::Timeout);
        let taken = r#"{"error":"already_exists: unique machine name violation, machine ID a already exists with name \"n\""}"#;
        check(409, taken, ApiError::NameTaken);
        for what in ["CPUs", "memory"] {
            let full = format!(
                r#"{{"error":"aborted: could not reserve resource for machine: insufficient {what} available to fulfill request on the current host"}}"#
            );
            check(409, &full, ApiError::HostFull);
        }
        check(409, r#"{"error":"aborted: no capacity"}"#, ApiError::NoCapacity);
        let concurrent = r#"{"error":"aborted: machine update failed due to concurrent update"}"#;
        check(409, concurrent, ApiError::Conflict);
        let state = r#"{"error":"unable to start machine from current state: 'created'"}"#;
        check(412, state, ApiError::WrongState("created".into()));
        let volume = r#"{"status":"volume_placement_capacity","error":"insufficient resources to create new machine with existing volume 'v'"}"#;
        check(412, volume, ApiError::HostFull);
        check(412, r#"{"error":"current_version not met"}"#, ApiError::Conflict);
        let candidate = r#"{"status":"insufficient_capacity","error":"could not find a candidate host"}"#;
        check(422, candidate, ApiError::NoCapacity);
        let name = r#"{"status":"name_taken","error":"Name has already been taken"}"#;
        check(422, name, ApiError::NameTaken);
        check(429, r#"{"error":"rate limit exceeded"}"#, ApiError::RateLimited);
        check(500, "oops", ApiError::Server(500));
        check(503, r#"{"error":"no capacity"}"#, ApiError::Server(503));
    }

    #[test]
    fn a_held_lease_says_until_when() {
        let body = r#"{"status":"error","code":"lease_currently_held","message":"held","data":{"owner":"o","expires_at":1800000000}}"#;
        check(409, body, ApiError::Leased { until: Timestamp::from_second(1_800_000_000).ok() });
        for odd in ["null", "\"soon\"", "1e300", "9223372036854775807"] {
            let body = format!(r#"{{"code":"lease_currently_held","data":{{"expires_at":{odd}}}}}"#);
            check(409, &body, ApiError::Leased { until: None });
        }
    }

    #[test]
    fn foreign_texts_are_cut_and_kept_on_one_line() {
        let text = format!("a\\nb\\u001b{}", "x".repeat(1000));
        let body = format!(r#"{{"error":"{text}"}}"#);
        let ApiError::Refused { text, .. } = ApiError::of(418, body.as_bytes()) else { panic!("{body}") };
        assert!(text.starts_with("a b ") && text.chars().count() == TEXT_CHARS_MAX, "{text}");
        check(400, "<html>", ApiError::Refused { status: 400, text: String::new() });
        let quoted = ApiError::WrongState("current state: 'levitating'".into());
        check(412, r#"{"error":"current state: 'levitating'"}"#, quoted);
    }

    #[test]
    fn only_what_was_sent_may_have_happened() {
        assert!(ApiError::Timeout.is_undecided() && ApiError::Server(502).is_undecided());
        assert!(ApiError::Transport(TransportError::Lost("")).is_undecided());
        assert!(!ApiError::Transport(TransportError::NotSent("")).is_undecided());
        assert!(!ApiError::RateLimited.is_undecided() && !ApiError::NoCapacity.is_undecided());
    }
}
