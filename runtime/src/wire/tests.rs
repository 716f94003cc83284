//! Headers and bodies as a hostile peer may write them.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{CodecError, HEADER_BYTES, Header, Kind, read_bounded, write};
use crate::fabric::Lane;

#[test]
fn a_header_is_read_as_it_was_written() {
    for (kind, lane) in [(Kind::Ask, Lane::Bulk), (Kind::Goodbye, Lane::Control), (Kind::Tell, Lane::Stream)]
    {
        let header = Header {
            schema: 7,
            type_id: 0xdead_beef,
            body_bytes: 1234,
            correlation: u64::MAX,
            budget_us: 99,
            trace: [5; 16],
            destination_incarnation: 3,
            ..Header::new(kind, lane)
        };
        assert_eq!(Header::read(&header.to_bytes()), Ok(header));
    }
}

#[test]
fn a_header_that_is_taken_writes_the_bytes_it_was_read_from() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut taken = 0;
    for _ in 0..100_000 {
        let mut bytes = Header::new(Kind::Ask, Lane::Ask).to_bytes();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..HEADER_BYTES);
            bytes[at] = rng.random();
        }
        if let Ok(header) = Header::read(&bytes) {
            taken += 1;
            assert_eq!(header.to_bytes(), bytes);
        }
    }
    assert!((1..100_000).contains(&taken), "both outcomes must occur, {taken} were taken");
}

#[test]
fn a_length_that_no_bytes_follow_is_malformed_and_allocates_nothing() {
    let mut bytes = u64::MAX.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[0; 280]);
    assert!(matches!(read_bounded::<Vec<u64>, 4096>(&bytes), Err(CodecError::Malformed(_))));
}

#[test]
fn a_small_body_is_given_little_room_and_a_large_one_what_its_type_allows() {
    const LIMIT: usize = 4 << 20;
    let claim = |len: u64| read_bounded::<String, LIMIT>(&[&len.to_le_bytes()[..], b"x"].concat());
    for len in [100 << 10, LIMIT as u64 - 8] {
        let refused = claim(len).expect_err("one byte is there").to_string();
        assert!(refused.contains("LimitExceeded"), "{len}: {refused}");
    }
    for len in [1, (64 << 10) - 8, (64 << 10) - 7, LIMIT - 8] {
        let (text, mut body) = ("x".repeat(len), Vec::new());
        write(&text, &mut body).unwrap();
        assert_eq!(read_bounded::<String, LIMIT>(&body), Ok(text), "{len}");
    }
}

#[test]
fn what_is_longer_than_its_type_allows_is_not_read() {
    assert_eq!(read_bounded::<Vec<u8>, 16>(&[0; 17]), Err(CodecError::TooLarge { bytes: 17, max: 16 }));
}

#[test]
fn bytes_left_over_are_malformed() {
    let mut bytes = Vec::new();
    write(&(1_u32, 2_u32), &mut bytes).unwrap();
    assert_eq!(read_bounded::<(u32, u32), 64>(&bytes), Ok((1, 2)));
    bytes.push(0);
    assert!(matches!(read_bounded::<(u32, u32), 64>(&bytes), Err(CodecError::Malformed(_))));
}
