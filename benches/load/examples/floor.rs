//! The least that the generator can measure, and what it costs: a thread that answers with prepared bytes at once.
//!
//!     cargo run --release -p peregrine_load --example floor

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use peregrine_load::LoadError;
use peregrine_load::request::{Ask, Kind};
use peregrine_load::session::{Level, Session};
use peregrine_load::shape::{Shape, Tensor};
use peregrine_load::target::{Target, Trust};

const WINDOW: Duration = Duration::from_secs(2);

fn main() -> Result<(), LoadError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || serve(socket));
        }
    });
    let target = Target::new(&url, &Trust::Usual, None, Duration::from_secs(5))?;
    let tensor = |name: &str, dims: &[usize]| Tensor { name: name.to_owned(), dims: dims.to_vec() };
    let shape = Shape {
        model: "m".to_owned(),
        inputs: vec![tensor("y", &[168])],
        output: tensor("forecast", &[24, 1]),
    };
    println!("load           requests/s   p50 us   p99 us  p99.9 us  own us each  failed");
    for (kind, connections, rate) in [
        (Kind::Json, 1, None),
        (Kind::Binary, 1, None),
        (Kind::Binary, 16, None),
        (Kind::Binary, 16, Some(1000.0)),
        (Kind::Binary, 16, Some(10_000.0)),
    ] {
        let ask = Ask { kind, rows: 1, deadline: None, seed: 1, symbols: Vec::new() };
        let mut session = Session::open(&target, &shape, &ask, Level { connections, rate }, 1)?;
        session.window(WINDOW / 4)?;
        let window = session.window(WINDOW)?;
        let micros = |share: f64| window.latency.at(share).as_secs_f64() * 1e6;
        println!(
            "{:6} {:>7} {:>10.0} {:>8.1} {:>8.1} {:>9.1} {:>12.2} {:>7}",
            kind.name(),
            rate.map_or_else(|| format!("{connections} conn"), |rate| format!("{rate}/s")),
            window.rate(),
            micros(0.5),
            micros(0.99),
            micros(0.999),
            window.own_cpu.as_secs_f64() * 1e6 / window.answered().max(1) as f64,
            window.failed_count(),
        );
    }
    Ok(())
}

/// Requests here end with their tensor, so that their length is known from the first one's header.
fn serve(mut socket: TcpStream) {
    let json = format!(
        r#"{{"outputs":[{{"name":"forecast","datatype":"FP32","shape":[1,24,1],"data":[{}]}}]}}"#,
        vec!["1.5"; 24].join(",")
    );
    let head = r#"{"outputs":[{"name":"forecast","datatype":"FP32","shape":[1,24,1],"parameters":{"binary_data_size":96}}]}"#;
    let plain = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{json}", json.len()).into_bytes();
    let mut raw = format!(
        "HTTP/1.1 200 OK\r\nInference-Header-Content-Length: {}\r\nContent-Length: {}\r\n\r\n{head}",
        head.len(),
        head.len() + 96
    )
    .into_bytes();
    raw.extend([1.5_f32; 24].iter().flat_map(|value| value.to_le_bytes()));
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = text
            .split("\r\nContent-Length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        if bytes.len() < end + 4 + length.unwrap_or(0) {
            continue;
        }
        let answer = if text.contains("octet-stream") { &raw } else { &plain };
        if socket.write_all(answer).is_err() {
            return;
        }
        bytes.clear();
    }
}
