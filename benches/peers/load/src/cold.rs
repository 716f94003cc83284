//! How long a server takes from its start to its first right answer: what a cold start costs a caller.
//!
//! Asks again and again until then, on one connection at a time; a refused connection costs the starting server nothing
//! and a millisecond of sleep here.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use crate::args::Args;
use crate::body::Body;
use crate::response::{TOLERANCE, head, worst_error};

const WAIT_MAX: Duration = Duration::from_secs(120);
const ANSWER_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(1);

/// Waits for the first right answer and says when it came, as one JSON object. `started_at` is in seconds since 1970.
pub(crate) fn wait(args: &Args, body: &Body, started_at: f64) -> io::Result<String> {
    let give_up = Instant::now() + WAIT_MAX;
    let mut last = io::Error::from(ErrorKind::TimedOut);
    while Instant::now() < give_up {
        match ask(args.address, body, args.horizon) {
            Ok(()) => {
                let now =
                    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
                let cold_s = now.as_secs_f64() - started_at;
                let label = args.label.replace(['"', '\\'], "'");
                return Ok(format!(r#"{{"label":"{label}","cold_start_s":{cold_s:.4}}}"#));
            }
            Err(error) => last = error,
        }
        std::thread::sleep(PAUSE);
    }
    Err(io::Error::other(format!("no right answer within {} s, the last try: {last}", WAIT_MAX.as_secs())))
}

fn ask(address: SocketAddr, body: &Body, horizon: usize) -> io::Result<()> {
    let mut socket = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    socket.write_all(&body.request)?;
    let (mut bytes, mut scratch) = (Vec::new(), [0; 1 << 14]);
    loop {
        match socket.read(&mut scratch)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&scratch[..count]),
        }
        let Some(head) = head(&bytes).map_err(io::Error::other)? else {
            continue;
        };
        if bytes.len() < head.answer_len() {
            continue;
        }
        if head.status != 200 {
            return Err(io::Error::other(format!("status {}", head.status)));
        }
        let answer = &bytes[head.head_len..head.answer_len()];
        return match worst_error(&head, answer, &body.expected, horizon) {
            Some(error) if error <= TOLERANCE => Ok(()),
            error => Err(io::Error::other(format!("a wrong answer: {error:?}"))),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::ask;
    use crate::body::Body;

    #[test]
    fn a_right_answer_is_one() {
        assert!(check("HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"data\":[1,2]}").is_ok());
    }

    #[test]
    fn a_wrong_number_is_none() {
        assert!(check("HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"data\":[1,3]}").is_err());
    }

    #[test]
    fn a_refusal_is_none() {
        assert!(check("HTTP/1.1 503 Busy\r\ncontent-length: 14\r\n\r\n{\"data\":[1,2]}").is_err());
    }

    #[test]
    fn an_answer_that_breaks_off_is_none() {
        assert!(check("HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"data\"").is_err());
    }

    /// What is made of `answer` where 1 and 2 are wanted.
    fn check(answer: &'static str) -> std::io::Result<()> {
        use std::io::{Read, Write};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 4];
            socket.read_exact(&mut request).unwrap();
            socket.write_all(answer.as_bytes()).unwrap();
        });
        let body = Body { request: b"POST".to_vec(), expected: vec![1.0, 2.0] };
        let result = ask(address, &body, 2);
        server.join().unwrap();
        result
    }
}
