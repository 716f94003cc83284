//! What the peers' servers share: the message, and when it is said.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// A message of the size and form of peregrine's.
pub fn message(seq: u64) -> String {
    let now = now();
    format!(
        r#"{{"op":"prediction","model":"nhits-vol-quantile","series":"s","seq":{seq},"epoch":1,"ts":0,"accepted_at":0,"made_at":{}.{:06},"horizon":1,"mean":[0.5],"intervals":[],"model_version":"1","backend":"cpu","degraded":false}}"#,
        now / 1_000_000,
        now % 1_000_000
    )
}

/// Until the file of the command line is there: all have subscribed.
pub async fn go() {
    let file = std::env::args().nth(2).expect("name a file");
    while !std::path::Path::new(&file).exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// The rate of the command line, in messages a second.
pub fn rate() -> f64 {
    std::env::args().nth(1).and_then(|text| text.parse().ok()).expect("say a rate")
}
