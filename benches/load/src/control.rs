//! Questions beside the load: one request on a connection of its own, waiting for the answer.

use std::time::Instant;

use serde_json::Value;

use crate::LoadError;
use crate::connection::Connection;
use crate::http;
use crate::target::Target;

/// Longest part of a refusal that is shown, in characters.
const DETAIL_LEN_MAX: usize = 200;

/// The JSON that `GET path` answers.
///
/// # Errors
/// [`LoadError::Refused`] with any status but 200, and whatever keeps an answer from coming within the target's timeout.
pub fn get(target: &Target, path: &str) -> Result<Value, LoadError> {
    let mut connection = Connection::open(target)?;
    let until = Instant::now() + target.timeout;
    let request = format!("GET {path} HTTP/1.1\r\n{}Connection: close\r\n\r\n", target.fields());
    connection.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    loop {
        if let Some(head) = http::head(&bytes)?
            && let Some(body) = http::body(&head, &bytes)?
        {
            if head.status != 200 {
                let detail = String::from_utf8_lossy(&body).chars().take(DETAIL_LEN_MAX).collect();
                return Err(LoadError::Refused { path: path.to_owned(), status: head.status, detail });
            }
            let unusable = |_| LoadError::Unusable { path: path.to_owned(), detail: "the answer is no JSON" };
            return serde_json::from_slice(&body).map_err(unusable);
        }
        if Instant::now() > until {
            return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
        }
        connection.read_more(&mut bytes)?;
    }
}
