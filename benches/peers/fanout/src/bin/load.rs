//! Many subscribers in one thread and one epoll: how much arrives, how late, and what it costs the server.
//!
//! `load GO PORT PID SUBSCRIBERS RATE SECONDS [STOPPED]`: makes the file GO when all have subscribed; the last so many
//! stop reading.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use fanout::now;
use hdrhistogram::Histogram;

const SUBSCRIBE: &[u8] = br#"{"op":"subscribe","id":1,"model":"nhits-vol-quantile","series":["s"]}"#;
/// What comes later than this after it was made does not count as delivered.
const IN_TIME_NS: u64 = 1_000_000_000;

struct Reader {
    stream: TcpStream,
    rest: Vec<u8>,
}

#[derive(Default)]
struct Seen {
    messages: u64,
    bytes: u64,
    in_time: u64,
    first: u64,
    last: u64,
}

fn main() {
    let args: Vec<u64> = std::env::args().skip(2).map(|text| text.parse().expect("numbers")).collect();
    let [port, pid, subscribers, rate, seconds] = args[..5] else {
        panic!("PORT PID SUBSCRIBERS RATE SECONDS")
    };
    let stopped = args.get(5).copied().unwrap_or(0);
    let idle_mib = status(pid, "VmRSS:");
    let mut readers: Vec<Reader> = (0..subscribers).map(|_| open(port)).collect();
    // SAFETY: plain system calls on descriptors that live as long as `readers`.
    let epoll = unsafe { libc::epoll_create1(0) };
    for (at, reader) in readers.iter().enumerate().take((subscribers - stopped) as usize) {
        reader.stream.set_nonblocking(true).expect("non-blocking");
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: at as u64 };
        // SAFETY: as above.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, reader.stream.as_raw_fd(), &mut event) };
    }
    let mut latency = Histogram::<u64>::new_with_bounds(1_000, 60_000_000_000, 3).expect("bounds");
    let per_connection = (status(pid, "VmRSS:") - idle_mib) * 1024.0 / subscribers as f64;
    std::fs::write(std::env::args().nth(1).expect("a file"), "").expect("a file");
    let settle = Instant::now() + Duration::from_secs(2);
    let mut buffer = vec![0; 1 << 18];
    let mut seen = Seen::default();
    let (mut from, mut to) = (u64::MAX, u64::MAX);
    let (mut cpu, mut peak_mib) = (0.0, 0.0_f64);
    let mut measuring = None;
    let mut next_look = Instant::now();
    loop {
        let clock = Instant::now();
        match measuring {
            None if clock > settle => {
                (from, to) = (now(), now() + seconds * 1_000_000_000);
                cpu = cpu_s(pid);
                measuring = Some(clock);
            }
            Some(start) if clock - start > Duration::from_secs(seconds + 2) => break,
            Some(_) if clock > next_look => {
                peak_mib = peak_mib.max(status(pid, "VmRSS:"));
                next_look = clock + Duration::from_millis(200);
            }
            _ => {}
        }
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 1024];
        // SAFETY: the array is as long as is said.
        let count = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 1024, 50) };
        for event in &events[..usize::try_from(count).unwrap_or(0)] {
            let reader = &mut readers[event.u64 as usize];
            loop {
                match reader.stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(len) => {
                        let at = now();
                        read(&mut reader.rest, &buffer[..len], |made, seq, bytes| {
                            if !(from..to).contains(&made) {
                                return;
                            }
                            seen.first = if seen.first == 0 { seq } else { seen.first.min(seq) };
                            seen.last = seen.last.max(seq);
                            seen.messages += 1;
                            seen.bytes += bytes;
                            let late = at.saturating_sub(made);
                            seen.in_time += u64::from(late <= IN_TIME_NS);
                            latency.saturating_record(late.max(1_000));
                        });
                        if len < buffer.len() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => break,
                }
            }
        }
    }
    // The processor time holds the two seconds after the measured span as well.
    let cpu = (cpu_s(pid) - cpu) / (seconds + 2) as f64;
    let wanted = (seen.last + 1 - seen.first) * (subscribers - stopped);
    let ms = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1e6;
    println!(
        "{subscribers}x{rate} published {}/s delivered {:.0}/s of {} B, share {:.5}, in time {:.5}, p50 {:.2} p99 {:.2} max {:.0} ms, server {cpu:.2} cores {peak_mib:.0} MiB (before {idle_mib:.0}, {per_connection:.1} KiB an idle connection)",
        (seen.last + 1 - seen.first) / seconds,
        seen.messages as f64 / seconds as f64,
        seen.bytes / seen.messages.max(1),
        seen.messages as f64 / wanted as f64,
        seen.in_time as f64 / wanted as f64,
        ms(0.5),
        ms(0.99),
        latency.max() as f64 / 1e6,
    );
}

fn open(port: u64) -> Reader {
    let mut stream = TcpStream::connect(("127.0.0.1", port as u16)).expect("a server");
    stream.set_nodelay(true).expect("no delay");
    stream
        .write_all(
            b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .expect("a handshake");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    let mut frame = vec![0x81, 0x80 | SUBSCRIBE.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(SUBSCRIBE);
    stream.write_all(&frame).expect("a subscription");
    Reader { stream, rest: Vec::new() }
}

/// Takes frames apart: when each was made, its number and its size.
fn read(rest: &mut Vec<u8>, bytes: &[u8], mut each: impl FnMut(u64, u64, u64)) {
    let joined;
    let mut left = if rest.is_empty() {
        bytes
    } else {
        rest.extend_from_slice(bytes);
        joined = std::mem::take(rest);
        &joined[..]
    };
    let mut places = (0, 0);
    loop {
        let (head, len) = match left {
            [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            [_, 126, ..] | [_] | [] => break,
            [_, len, ..] => (2, usize::from(*len)),
        };
        let Some(payload) = left.get(head..head + len) else { break };
        let made = number(payload, b"\"made_at\":", &mut places.0);
        if let (Some(made), Some(seq)) = (made, number(payload, b"\"seq\":", &mut places.1)) {
            each(made, seq, (head + len) as u64);
        }
        left = &left[head + len..];
    }
    *rest = left.to_vec();
}

/// The digits behind a key, which mostly stands where it stood last; a fraction of up to six digits counts as digits.
fn number(text: &[u8], key: &[u8], last: &mut usize) -> Option<u64> {
    if text.get(*last..*last + key.len()) != Some(key) {
        *last = text.windows(key.len()).position(|window| window == key)?;
    }
    let at = *last + key.len();
    let (mut value, mut fraction) = (0, None);
    for &byte in &text[at..] {
        match byte {
            b'0'..=b'9' => {
                value = value * 10 + u64::from(byte - b'0');
                fraction = fraction.map(|digits: u32| digits + 1);
            }
            b'.' => fraction = Some(0),
            _ => break,
        }
    }
    let scale = if key.starts_with(b"\"made") { 6 - fraction.unwrap_or(0).min(6) } else { 0 };
    Some(value * 10_u64.pow(scale))
}

fn status(pid: u64, key: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn cpu_s(pid: u64) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
