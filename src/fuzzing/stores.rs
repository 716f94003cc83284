//! What a disk may hand back, and programs of the operator print.

use peregrine_actors::audit::{
    Format, Frames, HEAD_BYTES, HEADER_BYTES, Head, Link, Note, PredictionId, Record, SegmentHeader,
    frame_at, index, is_intact, unchecked,
};

pub use crate::journal::fuzzing::journal;
pub use crate::scaler::fuzzing::{home, ledger, pools, scaler};

/// A segment of audit records, one record, a note, a head, an index, or the words by which people ask for one of them:
/// the first byte chooses.
pub fn records(input: &[u8]) -> bool {
    let Some((choice, bytes)) = input.split_first() else { return false };
    match choice % 7 {
        0 => segment(bytes),
        1 => Record::decode(bytes).is_ok_and(|record| {
            assert!(record.windows.rows <= bytes.len() && record.values.len() <= bytes.len());
            record.rows.iter().for_each(|row| drop(record.rows_called(&row.series)));
            true
        }),
        2 => Note::decode(bytes).is_ok_and(|note| {
            assert_eq!(Note::decode(&note.encode()), Ok(note));
            true
        }),
        3 => Head::decode(bytes).is_some_and(|head| {
            assert_eq!(head.encode()[..], bytes[..HEAD_BYTES]);
            true
        }),
        4 => index::find_in(bytes, &[1, u64::MAX]).is_some(),
        5 => std::str::from_utf8(bytes).is_ok_and(|text| {
            let id = text.parse::<PredictionId>();
            assert!(id.is_ok_and(|id| id.to_string() == text) || id.is_err(), "one text for one number");
            id.is_ok()
        }),
        _ => std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<Link>().is_ok()),
    }
}

fn segment(bytes: &[u8]) -> bool {
    for frame in unchecked(bytes) {
        let at = usize::try_from(frame.at).expect("within the bytes");
        let format = Format::of(bytes).expect("nothing is found in what is no segment");
        assert!(frame_at(bytes, at, format).is_some_and(|found| found.end() == frame.end()));
        let _ = is_intact(bytes, at, format);
        for entry in frame.entries() {
            assert!((frame.at..frame.end()).contains(&entry.at));
            let _ = (Record::decode(entry.body), Note::decode(entry.body));
        }
    }
    let Ok((header, link)) = SegmentHeader::decode(bytes) else {
        return false;
    };
    assert_eq!((&header.encode().0[..], header.encode().1), (&bytes[..HEADER_BYTES], link));
    let mut frames = Frames::new(bytes, header.format, link);
    let whole = frames.by_ref().all(|frame| frame.is_ok());
    assert_eq!(whole, frames.end().0 == bytes.len() as u64);
    whole && frames.end().1 != Link::default()
}
