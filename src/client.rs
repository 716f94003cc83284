//! Asks a running node, and says in words why there is no answer. Knows no verb.

use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::Response;
use ureq::{Body, RequestBuilder};

use crate::certificates::explained;

/// Where the key of whoever asks may be instead of the command line, which others on the machine can read. It is no
/// configuration of a node.
pub(crate) const KEY_VARIABLE: &str = "PEREGRINE_API_KEY";
/// Larger ones are no answers of a node.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Of a refusal; more is no sentence.
const SENTENCE_CHARS_MAX: usize = 400;

/// What the environment says to show.
pub(crate) fn key_of_environment() -> Option<String> {
    std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty())
}

/// A node, and what it is shown.
pub(crate) struct Node {
    url: String,
    authorization: Option<String>,
    agent: ureq::Agent,
}

/// A node did not answer as it was asked to; whoever named it or the key acts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody answers there.
    #[error("{url}: {}", explained(source.as_ref()))]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The node says no; its sentence says who acts.
    #[error("{url}: {why}")]
    Refused {
        /// What was asked.
        url: String,
        /// Its sentence.
        why: String,
    },
    /// It is no node of this product that answers.
    #[error("{url}: no answer of a node: {source}")]
    Unusable {
        /// What was asked.
        url: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl Node {
    pub(crate) fn new(url: &str, authorization: Option<String>, agent: ureq::Agent) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), authorization, agent }
    }

    /// What it answers to a question.
    ///
    /// # Errors
    /// See [`AskError`].
    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: Option<(&str, &str)>,
    ) -> Result<T, AskError> {
        let url = format!("{}{path}", self.url);
        let asked = self.shown(self.agent.get(&url)).query_pairs(query);
        let text = read(&url, asked.call())?;
        serde_json::from_str(&text).map_err(|source| AskError::Unusable { url, source })
    }

    /// Has it do something.
    ///
    /// # Errors
    /// See [`AskError`].
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<(), AskError> {
        let url = format!("{}{path}", self.url);
        let told = self.shown(self.agent.post(&url)).header("content-type", "application/json");
        read(&url, told.send(body.to_string().as_bytes())).map(drop)
    }

    fn shown<Any>(&self, asked: RequestBuilder<Any>) -> RequestBuilder<Any> {
        match &self.authorization {
            Some(authorization) => asked.header("authorization", authorization),
            None => asked,
        }
    }
}

/// The text of an answer that is no refusal.
fn read(url: &str, answered: Result<Response<Body>, ureq::Error>) -> Result<String, AskError> {
    let unreachable = |source| AskError::Unreachable { url: url.to_owned(), source: Box::new(source) };
    let mut answer = answered.map_err(unreachable)?;
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX);
    let text = body.read_to_string().map_err(unreachable)?;
    if answer.status().is_success() { Ok(text) } else { Err(refused(url, answer.status().as_u16(), &text)) }
}

/// The sentence of a refusal, whatever form it has.
fn refused(url: &str, status: u16, text: &str) -> AskError {
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    let sentence = body["detail"].as_str().or_else(|| body["error"].as_str()).unwrap_or(text);
    let mut why = format!("{status}: {}", visible(sentence, SENTENCE_CHARS_MAX));
    if matches!(status, 401 | 403) {
        why.push_str(&format!("; show a key that may with --key or {KEY_VARIABLE}"));
    }
    AskError::Refused { url: url.to_owned(), why }
}

/// Text of another machine that can be shown: no control characters, nothing that turns the direction of text or hides,
/// not too long.
pub(crate) fn visible(text: &str, chars_max: usize) -> String {
    let shown = text.chars().take(chars_max).map(|one| match one {
        one if one.is_control() => '\u{fffd}',
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => '\u{fffd}',
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => {
            '\u{fffd}'
        }
        one => one,
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_sentence() {
        let said = |text| refused("u", 503, text).to_string();
        assert_eq!(said(r#"{"title":"x","detail":"no scaler acts"}"#), "u: 503: no scaler acts");
        assert_eq!(said(r#"{"error":"no such model"}"#), "u: 503: no such model");
        assert_eq!(said("<html>"), "u: 503: <html>");
        let keyless = refused("u", 401, r#"{"detail":"this needs an API key"}"#).to_string();
        assert_eq!(
            keyless,
            "u: 401: this needs an API key; show a key that may with --key or PEREGRINE_API_KEY"
        );
        assert_eq!(said("\u{1b}[2J"), "u: 503: \u{fffd}[2J", "no terminal is steered by it");
        assert_eq!(said(&"x".repeat(1 << 20)).len(), "u: 503: ".len() + SENTENCE_CHARS_MAX);
    }
}
