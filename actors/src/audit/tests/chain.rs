//! A chain of three segments, and everything that can be done to it. Nothing goes unnoticed.

use super::*;
use crate::audit::frame::is_begun;

/// Segments by their number, and the head.
#[derive(Clone)]
struct Chain {
    segments: Vec<(u64, Vec<u8>)>,
    head: Head,
}

/// Predictions of one group.
const GROUPED: u64 = 2;

/// Three segments of three groups each; the first begins the chain.
fn chain(first: u64) -> Chain {
    let spec = spec();
    let mut link = if first == 1 { Link::default() } else { Link([9; 32]) };
    let mut chain = Chain { segments: Vec::new(), head: Head::default() };
    for index in first..first + 3 {
        let header = SegmentHeader { format: Format::Grouped, index, created_ms: 5, before: link };
        let (header, start) = header.encode();
        let mut bytes = header.to_vec();
        link = start;
        for number in 0..3 {
            let numbers = (0..GROUPED).map(|at| (index * 3 + number) * GROUPED + at);
            let bodies: Vec<Vec<u8>> = numbers.map(|number| body(&spec, number)).collect();
            link = append(&mut bytes, &bodies, link);
        }
        let records = (index - first + 1) * 3 * GROUPED;
        chain.head = Head { segment: index, offset: bytes.len() as u64, records, link };
        chain.segments.push((index, bytes));
    }
    chain
}

/// One group more, and its link.
fn append(bytes: &mut Vec<u8>, bodies: &[Vec<u8>], before: Link) -> Link {
    let mut group = Group::default();
    bodies.iter().for_each(|body| group.push(body));
    let (frame, link) = group.seal(before);
    bytes.extend_from_slice(frame);
    link
}

fn faults(chain: &Chain, through: Option<Link>) -> Vec<Fault> {
    report(chain, through).faults
}

fn report(chain: &Chain, through: Option<Link>) -> Report {
    let mut verifier = Verifier::new(Head::decode(&chain.head.encode()), through);
    for (place, (index, bytes)) in chain.segments.iter().enumerate() {
        verifier.segment(*index, bytes, None, place + 1 == chain.segments.len());
    }
    verifier.finish()
}

/// Where the frames of a segment are.
fn frames(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    unchecked(bytes).map(|frame| frame.at as usize..frame.end() as usize).collect()
}

#[test]
fn what_nobody_touched_is_whole() {
    let whole = chain(1);
    assert_eq!(faults(&whole, None), []);
    let (_, link) = SegmentHeader::decode(&whole.segments[1].1).unwrap();
    assert_eq!(faults(&whole, Some(link)), []);
    assert_eq!(faults(&whole, Some(Link([1; 32]))), [Fault::Through(Link([1; 32]))]);
}

#[test]
fn a_link_covers_the_link_before_it_and_its_frame_however_long_it_is() {
    let before = Link([7; 32]);
    for len in [0, 1, 1000, (16 << 10) - 40, 16 << 10, (64 << 10) - 40, (64 << 10) + 1, 200_000] {
        let mut group = Group::of(&vec![5; len]);
        // Sealed again, as after a write that failed.
        group.seal(Link::default());
        let (frame, link) = group.seal(before);
        let (covered, end) = frame.split_at(frame.len() - 32);
        let lens = [(len as u32 + 4).to_le_bytes(), (len as u32).to_le_bytes()].concat();
        assert_eq!((&covered[..8], covered.len()), (&*lens, len + 8));
        assert!(covered[8..].iter().all(|byte| *byte == 5));
        let mut hash = blake3::Hasher::new();
        hash.update(&before.0).update(covered);
        assert_eq!((end, link), (&link.0[..], Link(hash.finalize().into())), "{len} bytes");
    }
}

#[test]
fn every_bit_of_every_byte_counts() {
    let whole = chain(1);
    for (place, (_, bytes)) in whole.segments.iter().enumerate() {
        for at in 0..bytes.len() {
            let mut edited = whole.clone();
            edited.segments[place].1[at] ^= 1 << (at % 8);
            let faults = faults(&edited, None);
            let named = faults.iter().any(|fault| match fault {
                Fault::Segment { segment, .. } | Fault::Moved { segment, .. } => *segment == place as u64 + 1,
                _ => false,
            });
            assert!(named, "segment {} byte {at}: {faults:?}", place + 1);
        }
    }
    for at in 0..HEAD_BYTES {
        let mut head = whole.head.encode();
        head[at] ^= 1;
        assert_eq!(Head::decode(&head), None, "byte {at} of the head");
    }
}

#[test]
fn a_group_that_is_gone_doubled_or_elsewhere_is_named() {
    let whole = chain(1);
    for place in 0..3 {
        let bytes = &whole.segments[place].1;
        let frames = frames(bytes);
        for at in 0..3 {
            let segment = place as u64 + 1;
            let mut gone = whole.clone();
            gone.segments[place].1.drain(frames[at].clone());
            let found = faults(&gone, None);
            // The last of a segment is missed by what follows: the next segment, or the head.
            let wanted = match (at, place) {
                (0 | 1, _) => Fault::Segment {
                    segment,
                    at: frames[at].start as u64,
                    records: at as u64 * GROUPED,
                    flaw: Flaw::Link,
                },
                (_, 0 | 1) => Fault::Joint { segment: segment + 1 },
                _ => Fault::End { segment: 3, offset: whole.head.offset },
            };
            assert_eq!(found.first(), Some(&wanted), "{found:?}");
            let mut doubled = whole.clone();
            let copy = bytes[frames[at].clone()].to_vec();
            doubled.segments[place].1.splice(frames[at].end..frames[at].end, copy);
            check(&doubled, segment, frames[at].end, (at as u64 + 1) * GROUPED);
        }
        let mut swapped = whole.clone();
        let pair = [&bytes[frames[1].clone()], &bytes[frames[0].clone()]].concat();
        swapped.segments[place].1.splice(frames[0].start..frames[1].end, pair);
        check(&swapped, place as u64 + 1, frames[0].start, 0);
    }
}

#[track_caller]
fn check(chain: &Chain, segment: u64, at: usize, records: u64) {
    let wanted = Fault::Segment { segment, at: at as u64, records, flaw: Flaw::Link };
    assert_eq!(faults(chain, None).first(), Some(&wanted));
}

#[test]
fn a_record_that_is_gone_doubled_or_elsewhere_in_its_group_is_named() {
    let whole = chain(1);
    let frame = unchecked(&whole.segments[1].1).nth(1).unwrap();
    let (at, end) = (frame.at as usize, frame.end() as usize - 32);
    let places: Vec<usize> = frame.entries().map(|entry| entry.at as usize).collect();
    assert_eq!(places.len(), GROUPED as usize);
    let [first, second] = [places[0]..places[1], places[1]..end].map(|place| &whole.segments[1].1[place]);
    for (what, entries) in [
        ("the first is gone", vec![second]),
        ("the second is gone", vec![first]),
        ("all are gone", vec![]),
        ("one is doubled", vec![first, first, second]),
        ("they changed places", vec![second, first]),
        ("something is between them", vec![first, &[0; 4], second]),
    ] {
        let content = entries.concat();
        let mut edited = whole.clone();
        edited.segments[1].1.splice(at + 4..end, content.iter().copied());
        edited.segments[1].1[at..at + 4].copy_from_slice(&(content.len() as u32).to_le_bytes());
        let wanted = Fault::Segment { segment: 2, at: at as u64, records: GROUPED, flaw: Flaw::Link };
        assert_eq!(faults(&edited, None).first(), Some(&wanted), "{what}");
    }
}

#[test]
fn a_group_whose_entries_do_not_fill_it_is_no_part_of_a_chain() {
    // Its link holds: whoever wrote it meant to hide something behind the last entry.
    let mut hiding = chain(1);
    let (_, bytes) = &mut hiding.segments[2];
    let content = [&2_u32.to_le_bytes()[..], &[3, 0], &[9, 9]].concat();
    let len = (content.len() as u32).to_le_bytes();
    let link = Format::Grouped.hash(&[&hiding.head.link.0, &len, &content]);
    bytes.extend([&len[..], &content, &link.0].concat());
    let wanted =
        Fault::Segment { segment: 3, at: hiding.head.offset, records: 3 * GROUPED, flaw: Flaw::Link };
    assert_eq!(faults(&hiding, None), [wanted]);
}

#[test]
fn segments_that_are_gone_or_elsewhere_are_named() {
    let whole = chain(1);
    for (place, wanted) in [
        (0, Fault::Missing { from: 1, to: 1 }),
        (1, Fault::Missing { from: 2, to: 2 }),
        (2, Fault::End { segment: 3, offset: whole.head.offset }),
    ] {
        let mut gone = whole.clone();
        gone.segments.remove(place);
        assert_eq!(faults(&gone, None), [wanted]);
    }
    let mut swapped = whole.clone();
    let first = swapped.segments[0].1.clone();
    swapped.segments[0].1 = std::mem::replace(&mut swapped.segments[1].1, first);
    assert_eq!(faults(&swapped, None)[0], Fault::Moved { segment: 1, found: 2 });
    let mut none = whole;
    none.segments.clear();
    assert!(matches!(*faults(&none, None), [Fault::End { .. }]));
}

#[test]
fn what_was_dropped_is_missed_unless_the_chain_says_so() {
    let whole = chain(4);
    let end = Link([9; 32]);
    assert_eq!(faults(&whole, None), [Fault::Missing { from: 1, to: 3 }]);
    let noted = |segment, end| {
        let mut chain = whole.clone();
        let note = Note::Dropped { at_ms: 1, segment, end, bytes: 7 }.encode();
        let (_, bytes) = &mut chain.segments[2];
        chain.head.link = append(bytes, &[note], chain.head.link);
        chain.head.offset = bytes.len() as u64;
        report(&chain, None)
    };
    // The notes of the first two were dropped with what they stood in.
    let all_noted = noted(3, end);
    assert_eq!((all_noted.faults.as_slice(), all_noted.dropped.as_slice()), (&[][..], &[(1, 3)][..]));
    let missing = noted(2, end);
    assert_eq!((missing.faults, missing.dropped), (vec![Fault::Missing { from: 1, to: 3 }], Vec::new()));
    assert_eq!(noted(3, Link([8; 32])).faults, [Fault::Joint { segment: 4 }]);
}

#[test]
fn a_rewritten_chain_holds_and_does_not_go_through_what_was_kept_elsewhere() {
    // Who can write everything can write another chain: only what is kept out of reach tells.
    let whole = chain(1);
    let mut forged = whole.clone();
    forged.segments.truncate(2);
    let (index, bytes) = &forged.segments[1];
    let link = unchecked(bytes).last().map(|frame| frame.link).unwrap();
    forged.head = Head { segment: *index, offset: bytes.len() as u64, records: 6 * GROUPED, link };
    assert_eq!(faults(&forged, None), []);
    assert_eq!(faults(&forged, Some(whole.head.link)), [Fault::Through(whole.head.link)]);
    assert_eq!(faults(&whole, Some(whole.head.link)), []);
}

/// Bytes of no meaning.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn what_is_being_written_is_torn_and_no_fault() {
    let mut torn = chain(1);
    let record = torn.segments[2].1[HEADER_BYTES..HEADER_BYTES + 50].to_vec();
    torn.segments[2].1.extend(record);
    assert_eq!(faults(&torn, None), []);
    // Of a frame, and not of anything else.
    for added in [noise(5 << 20), noise(100), noise(70_000)] {
        let mut longer = chain(1);
        let at = longer.segments[2].1.len() as u64;
        longer.segments[2].1.extend(added);
        let found = faults(&longer, None);
        let is_added = |fault: &Fault| matches!(fault, Fault::Segment { segment: 3, at: found, flaw: Flaw::Link, .. } if *found == at);
        assert!(matches!(&found[..], [fault] if is_added(fault)), "{found:?}");
    }
    let group = {
        let mut group = Group::default();
        group.push(&[7; 1000]);
        group.push(&[7; 300_000]);
        group.seal(Link::default()).0.to_vec()
    };
    for len in 0..group.len() {
        if len < 1100 || len % 997 == 0 || len > group.len() - 100 {
            assert!(is_begun(&group[..len], Format::Grouped), "{len}");
        }
    }
    // Behind the head and nothing else.
    let whole = chain(1);
    let mut cut = whole.clone();
    cut.segments[2].1.truncate(whole.head.offset as usize - 1);
    assert!(faults(&cut, None).contains(&Fault::End { segment: 3, offset: whole.head.offset }));
    let mut early = whole;
    early.segments[1].1.extend([1; 50]);
    assert!(matches!(faults(&early, None)[0], Fault::Segment { segment: 2, flaw: Flaw::Short, .. }));
}
