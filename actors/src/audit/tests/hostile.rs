//! Bytes that anybody may have written: they are refused, and take no more memory than they are.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};

use super::*;

#[test]
fn a_record_that_ends_early_or_late_is_refused() {
    let body = body(&spec(), 1);
    for len in 0..body.len() {
        assert!(Record::decode(&body[..len]).is_err(), "{len} bytes");
        let _ = record::keys(&body[..len], |_| {});
        let _ = Note::decode(&body[..len]);
    }
    assert_eq!(Record::decode(&[&body[..], &[0]].concat()), Err(RecordError::Trailing));
}

#[test]
fn counts_that_nothing_stands_behind_are_refused() {
    // Every four bytes in turn say that four billion things follow.
    let body = body(&spec(), 1);
    for at in 1..body.len() - 4 {
        let mut edited = body.clone();
        edited[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        if let Ok(record) = Record::decode(&edited) {
            assert!(record.windows.rows <= body.len() && record.values.len() <= body.len());
        }
        let mut count = 0;
        let _ = record::keys(&edited, |_| count += 1);
        assert!(count <= body.len(), "{count} keys of {} bytes", body.len());
    }
}

#[test]
fn noise_is_no_record_no_note_and_no_segment() {
    let mut chance = SmallRng::seed_from_u64(3);
    for _ in 0..20_000 {
        let mut noise: Vec<u8> = (0..chance.random_range(0..200)).map(|_| chance.random()).collect();
        if let Some(first) = noise.first_mut() {
            *first %= 8; // the kinds that there are
        }
        assert!(Record::decode(&noise).is_err());
        let _ = Note::decode(&noise);
        assert!(SegmentHeader::decode(&noise).is_err());
        for format in [Format::Single, Format::Grouped] {
            assert!(Frames::new(&noise, format, Link::default()).all(|frame| frame.is_err()));
            let frame = frame_at(&noise, 0, format);
            assert!(frame.is_none_or(|frame| frame.entries().count() <= noise.len()));
        }
        let _ = unchecked(&noise).count();
        assert!(Head::decode(&noise).is_none());
    }
}

#[test]
fn texts_are_ids_and_links_or_they_are_not() {
    assert_eq!("1f-a".parse(), Ok(PredictionId { run: 31, number: 10 }));
    for wrong in ["", "-", "1", "1-", "-1", "01-1", "1-+1", "1F-A", "1-2-3", "10000000000000000-1"] {
        assert_eq!(wrong.parse::<PredictionId>(), Err(NoPredictionId), "{wrong}");
    }
    let link = Link([0xa5; 32]);
    assert_eq!(link.to_string().parse(), Ok(link));
    assert_eq!("a5".parse::<Link>(), Err(NoLink));
    assert_eq!("+5".repeat(32).parse::<Link>(), Err(NoLink));
    assert_eq!("é".repeat(32).parse::<Link>(), Err(NoLink));
}
