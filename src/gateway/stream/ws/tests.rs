use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

const BYTES_MAX: usize = 1000;

#[test]
fn messages_come_out_as_they_went_in() {
    check(&[one(Opcode::Text, b"hi")], &[Ok(Event::Text(b"hi".to_vec()))]);
    check(&[one(Opcode::Binary, b"")], &[Ok(Event::Binary(Vec::new()))]);
    let long = vec![b'x'; 300];
    check(&[one(Opcode::Text, &long)], &[Ok(Event::Text(long))]);
    check(
        &[one(Opcode::Ping, b"p"), one(Opcode::Pong, b"")],
        &[Ok(Event::Ping(b"p".to_vec())), Ok(Event::Pong)],
    );
}

#[test]
fn fragments_are_joined_around_control_frames() {
    let frames = [
        masked(0x01, b"Hel"),
        masked(0x89, b"ping"),
        masked(0x00, b"lo, "),
        masked(0x00, b""),
        masked(0x80, "wörld".as_bytes()),
        masked(0x82, b"next"),
    ];
    let want = [
        Ok(Event::Ping(b"ping".to_vec())),
        Ok(Event::Text("Hello, wörld".as_bytes().to_vec())),
        Ok(Event::Binary(b"next".to_vec())),
    ];
    check(&frames, &want);
}

#[test]
fn broken_frames_are_protocol_errors() {
    for first in [0xC1, 0xA1, 0x91, 0x83, 0x87, 0x8B, 0x8F, 0x09, 0x08, 0x80, 0x00] {
        check_code(&[masked(first, b"x")], PROTOCOL);
    }
    check_code(&[masked(0x01, b"a"), masked(0x01, b"b")], PROTOCOL);
    check_code(&[vec![0x81, 0x01, b'x']], PROTOCOL); // not masked
    check_code(&[masked(0x89, &[0; 126])], PROTOCOL);
    check_code(&[vec![0x82, 0xFE, 0, 125, 0, 0, 0, 0]], PROTOCOL); // 125 in two bytes
    check_code(&[vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]], PROTOCOL);
}

#[test]
fn close_codes_are_checked() {
    check(&[masked(0x88, b"")], &[Ok(Event::Close(1000))]);
    for code in [1000_u16, 1001, 1003, 1007, 1011, 1014, 3000, 4999] {
        check(&[masked(0x88, &code.to_be_bytes())], &[Ok(Event::Close(code))]);
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        check_code(&[masked(0x88, &code.to_be_bytes())], PROTOCOL);
    }
    check_code(&[masked(0x88, b"x")], PROTOCOL);
    check_code(&[masked(0x88, b"\x03\xE8\xFF")], NOT_UTF8);
}

#[test]
fn text_fails_at_the_first_byte_that_cannot_be() {
    for (bytes, good) in [
        (&b"\xCE\xBA\xF4\x90\x80\x80"[..], 3),
        (b"a\x80", 1),
        (b"\xED\xA0\x80", 1),
        (b"\xE0\x80\x80", 1),
        (b"\xC0\xAF", 0),
        (b"\xF8\x88\x80", 0),
    ] {
        let mut reader = Reader::new(MessageLimits::of(BYTES_MAX));
        let mut sent = masked(0x81, bytes);
        sent.extend_from_slice(&[0; 8]);
        let head_len = 6;
        let (mut head, mut body) = (sent[..head_len + good].to_vec(), sent[head_len + good..][..1].to_vec());
        assert_eq!(reader.next(&mut &mut head[..]), Ok(None), "{bytes:x?}");
        assert_eq!(reader.next(&mut &mut body[..]).unwrap_err().code, NOT_UTF8, "{bytes:x?}");
    }
    check_code(&[masked(0x81, b"\xCE")], NOT_UTF8);
    check(&[masked(0x01, b"\xCE"), masked(0x80, b"\xBA")], &[Ok(Event::Text("κ".as_bytes().to_vec()))]);
}

#[test]
fn what_is_too_large_is_refused_by_its_head() {
    let tebibyte = (1_u64 << 40).to_be_bytes();
    check_code(&[[&[0x82, 0xFF][..], &tebibyte, &[0; 4]].concat()], TOO_BIG);
    check_code(&[masked(0x02, &[0; 999]), masked(0x80, &[0; 2])], TOO_BIG);
    check(&[masked(0x02, &[0; 999]), masked(0x80, &[0; 1])], &[Ok(Event::Binary(vec![0; 1000]))]);
}

#[test]
fn fragments_without_end_are_refused() {
    let mut frames = vec![masked(0x02, b"")];
    frames.extend((0..200).map(|_| masked(0x00, b"")));
    check_code(&frames, POLICY);
}

#[test]
fn whatever_comes_nothing_breaks_and_little_is_kept() {
    for seed in 0..2000 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut reader = Reader::new(MessageLimits::of(BYTES_MAX));
        let mut bytes: Vec<u8> = (0..random.random_range(0..400)).map(|_| random.random()).collect();
        if random.random() {
            // Mostly frames that are in order, with one byte turned over.
            let payload: Vec<u8> =
                (0..random.random_range(0..200)).map(|_| random.random_range(0..128)).collect();
            bytes = [masked(0x01, &payload), masked(0x89, b"x"), masked(0x80, &payload)].concat();
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
        }
        let mut rest = &mut bytes[..];
        while !rest.is_empty() {
            let len = random.random_range(1..=rest.len());
            let (mut now, later) = std::mem::take(&mut rest).split_at_mut(len);
            rest = later;
            loop {
                match reader.next(&mut now) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        rest = &mut [];
                        break;
                    }
                }
            }
            assert!(reader.kept() <= BYTES_MAX + 125, "seed {seed}");
        }
    }
}

fn one(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    masked(0x80 | opcode as u8, payload)
}

/// A client's frame, from the encoder of the server's.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let plain = frame(Opcode::Text, payload);
    let head_len = plain.len() - payload.len();
    let mut out = vec![first, plain[1] | 0x80];
    out.extend_from_slice(&plain[2..head_len]);
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// In chunks of every size.
#[track_caller]
fn check(frames: &[Vec<u8>], want: &[Result<Event, CloseReason>]) {
    for chunk in [1, 2, 3, 7, 64, 100_000] {
        assert_eq!(read(frames, chunk), want, "in chunks of {chunk}");
    }
}

#[track_caller]
fn check_code(frames: &[Vec<u8>], code: u16) {
    for chunk in [1, 5, 100_000] {
        let got = read(frames, chunk);
        let last = got.last().expect("something came");
        assert_eq!(last.as_ref().expect_err("an error").code, code);
    }
}

fn read(frames: &[Vec<u8>], chunk: usize) -> Vec<Result<Event, CloseReason>> {
    let mut reader = Reader::new(MessageLimits::of(BYTES_MAX));
    let mut events = Vec::new();
    for bytes in frames.concat().chunks_mut(chunk) {
        let mut rest = bytes;
        loop {
            match reader.next(&mut rest) {
                Ok(Some(event)) => events.push(Ok(event)),
                Ok(None) => break,
                Err(reason) => {
                    events.push(Err(reason));
                    return events;
                }
            }
        }
    }
    events
}
