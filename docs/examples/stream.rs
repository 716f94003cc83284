//! Follows predictions over a websocket; a connection that ends is opened again, and nothing is missed or told twice.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::Message;

/// The number that comes next, by series.
type Next = BTreeMap<String, u64>;

fn main() -> Result<(), Box<dyn Error>> {
    let node = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let (mut next, mut left) = (Next::new(), 20);
    for attempt in 0_u32..5 {
        match follow(&node, &mut next, &mut left) {
            Ok(()) if left == 0 => return Ok(()),
            ended => eprintln!("attempt {attempt}: {ended:?}, coming back"),
        }
        std::thread::sleep(Duration::from_millis(100 << attempt));
    }
    Err("the node does not come back".into())
}

/// Prints predictions until `left` have come or the connection ends.
fn follow(node: &str, next: &mut Next, left: &mut usize) -> Result<(), Box<dyn Error>> {
    let stream = TcpStream::connect(node)?;
    // A node says something every 10 s; one that does not is gone.
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let (mut socket, _) = tungstenite::client(format!("ws://{node}/v1/stream"), stream)?;
    let mut wish =
        json!({ "op": "subscribe", "id": 1, "model": "nhits-vol-quantile", "series": ["*"], "levels": [80] });
    if next.is_empty() {
        wish["snapshot"] = true.into();
    } else {
        wish["from"] = json!(next);
    }
    socket.send(Message::text(wish.to_string()))?;
    let mut is_accepted = false;
    while *left > 0 {
        let Message::Text(text) = socket.read()? else { continue };
        let message: Value = serde_json::from_str(&text)?;
        match message["op"].as_str() {
            Some("snapshot" | "prediction") => {
                let (series, seq) = place(&message, "seq")?;
                println!("{series} #{seq}: {} by {}", message["median"][0], message["backend"]);
                next.insert(series, seq + 1);
                *left -= 1;
            }
            Some("gap") => {
                let (series, last) = place(&message, "to")?;
                println!("{series}: up to #{last} will not come: {}", message["reason"]);
                next.insert(series, last + 1);
            }
            Some("subscribed") => is_accepted = true,
            Some("error") if is_accepted => eprintln!("notice: {}", message["detail"]),
            Some("error") => return Err(message["detail"].to_string().into()),
            Some("goodbye") => return Ok(()),
            _ => {} // heartbeat
        }
    }
    Ok(socket.close(None)?)
}

/// Which series, and the number that a member holds.
fn place(message: &Value, member: &str) -> Result<(String, u64), Box<dyn Error>> {
    let series = message["series"].as_str().ok_or("no series")?;
    Ok((series.to_owned(), message[member].as_u64().ok_or("no number")?))
}
