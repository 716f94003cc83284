//! What servers send, and what hostile ones could.

use super::*;

#[test]
fn an_answer_of_known_length_is_read_at_its_last_byte() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nInference-Header-Content-Length: 3\r\n\r\nhello";
    for cut in 0..answer.len() {
        check(&answer[..cut], Ok(None));
    }
    check(answer, Ok(Some(b"hello")));
    let head = head(answer).unwrap().unwrap();
    assert_eq!((head.status, head.json_len, head.closes), (200, Some(3), false));
}

#[test]
fn chunks_are_joined_at_the_last_byte() {
    let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n, chunked!\r\n0\r\n\r\n";
    for cut in 0..answer.len() {
        check(&answer[..cut], Ok(None));
    }
    check(answer, Ok(Some(b"hello, chunked!")));
}

#[test]
fn a_connection_that_ends_says_so() {
    for (value, closes) in
        [("close", true), ("keep-alive, Close", true), ("keep-alive", false), ("enclosed", false)]
    {
        let answer = format!("HTTP/1.1 204 No Content\r\nConnection: {value}\r\n\r\n");
        let head = head(answer.as_bytes()).unwrap().unwrap();
        assert_eq!((head.closes, head.framing), (closes, Framing::Length(0)));
    }
}

#[test]
fn what_is_no_first_line_is_refused() {
    for line in [
        "",
        "HTTP/1.0 200 OK",
        "HTTP/2 200",
        "HTTP/1.1 20",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 099 no",
        "HTTP/1.1 600 no",
        "HTTP/1.1 100 Continue",
        "HTTP/1.1 200\0",
        "ICY 200 OK",
        "HTTP/1.1 200OK",
    ] {
        check(format!("{line}\r\nContent-Length: 0\r\n\r\n").as_bytes(), Err(Malformed::StatusLine));
    }
}

#[test]
fn what_is_no_field_is_refused() {
    for field in [
        "no colon",
        ": empty",
        "sp ace: 1",
        "Content-Length : 0",
        " folded: 1",
        "x: a\nb",
        "x: a\rb",
        "x: \x01",
        "x\x7f: 1",
    ] {
        check(
            format!("HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: 0\r\n\r\n").as_bytes(),
            Err(Malformed::Field),
        );
    }
}

#[test]
fn a_length_that_is_not_clear_is_refused() {
    for fields in [
        "X: 1",
        "Content-Length: -1",
        "Content-Length: +1",
        "Content-Length: 1 1",
        "Content-Length: 0x1",
        "Content-Length: ",
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip",
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ] {
        check(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nx").as_bytes(), Err(Malformed::Length));
    }
    check(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", Ok(Some(b"x")));
}

#[test]
fn nothing_is_believed_beyond_its_bound() {
    check(b"HTTP/1.1 200 OK\r\nContent-Length: 67108865\r\n\r\n", Err(Malformed::BodyTooLong));
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &vec![b'a'; HEAD_BYTES_MAX]].concat();
    check(&endless, Err(Malformed::HeadTooLong));
    // An end that stands beyond the bound is too late.
    let late = [endless.as_slice(), b"\r\nContent-Length: 0\r\n\r\n"].concat();
    check(&late, Err(Malformed::HeadTooLong));
    check(&chunked(&[b'1'; 300]), Err(Malformed::Chunk));
    check(&chunked(b"7fffffff\r\n"), Err(Malformed::BodyTooLong));
}

#[test]
fn chunks_that_are_none_are_refused() {
    for bytes in [
        b"\r\nhello".as_slice(),
        b"-1\r\n",
        b"g\r\n",
        b"5 5\r\nhello",
        b"100000000\r\n",
        b"5\r\nhelloXX",
        b"0\r\nX: 1\r\n\r\n",
        b"0\r\nX",
    ] {
        check(&chunked(bytes), Err(Malformed::Chunk));
    }
}

#[test]
fn bytes_behind_an_answer_are_refused() {
    check(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy", Err(Malformed::Surplus));
    check(&chunked(b"0\r\n\r\nHTTP/1.1 200 OK\r\n"), Err(Malformed::Surplus));
}

fn chunked(rest: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(), rest].concat()
}

#[track_caller]
fn check(bytes: &[u8], want: Result<Option<&[u8]>, Malformed>) {
    let got = head(bytes).and_then(|head| match head {
        Some(head) => Ok(body(&head, bytes)?.map(Cow::into_owned)),
        None => Ok(None),
    });
    assert_eq!(got, want.map(|body| body.map(<[u8]>::to_vec)), "{}", String::from_utf8_lossy(bytes));
}
