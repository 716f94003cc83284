//! Questions beside the load: one request on a connection of its own, waiting for the answer.

use std::time::Instant;

use serde_json::Value;

use crate::LoadError;
use crate::connection::Connection;
use crate::http;
use crate::target::Target;

/// Longest part of a refusal that is shown, in characters.
const DETAIL_LEN_MAX: usize = 200;
/// Statuses of requests of which none would be answered: nobody may ask it, the caller may not, it is too large.
const HOPELESS: [u16; 3] = [401, 403, 413];

/// The JSON that `GET path` answers.
///
/// # Errors
/// [`LoadError::Refused`] with any status but 200, and whatever keeps an answer from coming within the target's timeout.
pub fn get(target: &Target, path: &str) -> Result<Value, LoadError> {
    let request = format!("GET {path} HTTP/1.1\r\n{}Connection: close\r\n\r\n", target.fields());
    let (status, body) = exchange(target, request.as_bytes())?;
    if status != 200 {
        return Err(LoadError::Refused { path: path.to_owned(), status, detail: why(&body) });
    }
    let unusable = |_| LoadError::Unusable { path: path.to_owned(), detail: "the answer is no JSON" };
    serde_json::from_slice(&body).map_err(unusable)
}

/// Sends one request of a load, of which all show the same key and are as large.
///
/// # Errors
/// [`LoadError::Refused`] if the key may not or it is too large for the server, which would say so of each, and whatever
/// keeps an answer from coming; what else an answer says is counted like any failure of the load.
pub fn try_one(target: &Target, request: &[u8]) -> Result<(), LoadError> {
    let (status, body) = exchange(target, request)?;
    if !HOPELESS.contains(&status) {
        return Ok(());
    }
    let line = request.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let path = String::from_utf8_lossy(line).split(' ').nth(1).unwrap_or_default().to_owned();
    Err(LoadError::Refused { path, status, detail: why(&body) })
}

/// Status and body of the answer.
fn exchange(target: &Target, request: &[u8]) -> Result<(u16, Vec<u8>), LoadError> {
    let mut connection = Connection::open(target)?;
    let until = Instant::now() + target.timeout;
    // Whoever is told too much may answer before all of it is written, and close.
    let written = connection.write_all(request);
    let mut bytes = Vec::new();
    loop {
        if let Some(head) = http::head(&bytes)?
            && let Some(body) = http::body(&head, &bytes)?
        {
            return Ok((head.status, body.into_owned()));
        }
        if Instant::now() > until {
            return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
        }
        if let Err(error) = connection.read_more(&mut bytes) {
            written?;
            return Err(error.into());
        }
    }
}

/// The sentence of a refusal where it has one, else its beginning.
pub(crate) fn why(body: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let sentence = parsed["detail"].as_str().or_else(|| parsed["error"].as_str());
    let text = sentence.map_or_else(|| String::from_utf8_lossy(body), Into::into);
    text.chars().take(DETAIL_LEN_MAX).collect()
}
