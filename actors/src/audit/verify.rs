//! Walks a whole chain and names what was edited, removed, added or moved. Pure: segments come as bytes, oldest first.

use std::collections::BTreeMap;

use super::frame::{Frames, is_begun};
use super::index::Index;
use super::link::{Flaw, Head, Link, SegmentHeader};
use super::note::Note;
use super::record::{Record, is_record};

/// Something is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Where the chain stops to hold within a segment.
    #[error("segment {segment}, byte {at}, after {records} good records of it: {flaw}")]
    Segment {
        /// Which segment.
        segment: u64,
        /// Where its first flawed frame begins.
        at: u64,
        /// Predictions before it.
        records: u64,
        /// What is wrong.
        flaw: Flaw,
    },
    /// A file says that it is another segment.
    #[error("segment {segment} calls itself {found}: segments were moved")]
    Moved {
        /// Its name.
        segment: u64,
        /// What its header says.
        found: u64,
    },
    /// Segments that should be there are not, and no note says that they were dropped.
    #[error("segments {from} to {to} are missing")]
    Missing {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// It does not follow the segment before.
    #[error(
        "segment {segment} does not follow the one before: records between them are missing, or either was replaced"
    )]
    Joint {
        /// Which segment.
        segment: u64,
    },
    /// It holds up, and this build cannot read it.
    #[error("segment {segment}, byte {at}: {reason}")]
    Unread {
        /// Which segment.
        segment: u64,
        /// Where.
        at: u64,
        /// Why.
        reason: String,
    },
    /// The index leads elsewhere than to the records.
    #[error("the index of segment {segment} was edited")]
    Index {
        /// Of which segment.
        segment: u64,
    },
    /// The file that says where the chain ends.
    #[error("there is no head, or it was edited: what may be missing at the end cannot be told")]
    Head,
    /// What the head speaks of is not there.
    #[error(
        "the chain does not reach its head, segment {segment} byte {offset}: its end is missing, or was replaced"
    )]
    End {
        /// The head's segment.
        segment: u64,
        /// Bytes of it.
        offset: u64,
    },
    /// The link that was asked for is in no record.
    #[error(
        "the chain does not go through {0}: it was replaced, or cut back, or that part was dropped since"
    )]
    Through(Link),
    /// What a node itself found when it started.
    #[error("segment {segment}, byte {offset}: when a node started, {found}")]
    Broken {
        /// Of where the chain should have ended.
        segment: u64,
        /// Bytes of it.
        offset: u64,
        /// What was found instead.
        found: String,
    },
}

/// What was found in a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of the chain; empty: nothing was changed.
    pub faults: Vec<Fault>,
    /// Segments that are there.
    pub segments: u64,
    /// Predictions in them.
    pub records: u64,
    /// The first and the last of segments that are not there and were dropped, by what the chain says.
    pub dropped: Vec<(u64, u64)>,
    /// Predictions that were answered without a record, by what the chain says.
    pub unrecorded: u64,
    /// Starts after a node that was killed: what waited in its memory to be written is missing.
    pub killed: u64,
    /// Bytes of a record that is being written, or was when its node was killed.
    pub torn_bytes: u64,
    /// The last link.
    pub link: Link,
}

/// A walk along the chain.
#[derive(Debug)]
pub struct Verifier {
    report: Report,
    head: Option<Head>,
    /// The chain goes through the head.
    reaches_head: bool,
    through: Option<Link>,
    /// Index of the last segment; its last link, if that is known.
    last: Option<(u64, Option<Link>)>,
    /// The last links of dropped segments.
    drops: BTreeMap<u64, Link>,
    /// Segments that are not there, and what the one after them says of the last.
    gaps: Vec<(u64, u64, Link)>,
}

impl Verifier {
    /// Of a chain that should go through `head`, which was read before any segment, and through `through`, which
    /// somebody has kept elsewhere.
    #[must_use]
    pub fn new(head: Option<Head>, through: Option<Link>) -> Self {
        let (last, drops, gaps) = (None, BTreeMap::new(), Vec::new());
        Self { report: Report::default(), head, reaches_head: false, through, last, drops, gaps }
    }

    /// The next segment, by its name, and its index if it has one. Nothing is written behind the last.
    pub fn segment(&mut self, segment: u64, bytes: &[u8], index: Option<&[u8]>, is_last: bool) {
        self.report.segments += 1;
        let (header, link) = match SegmentHeader::decode(bytes) {
            Ok(decoded) => decoded,
            // Made and not yet written, by a node that runs or was killed then.
            Err(Flaw::Short) if is_last && self.reaches_head => {
                self.report.torn_bytes += bytes.len() as u64;
                return;
            }
            Err(flaw) => {
                self.fault(Fault::Segment { segment, at: 0, records: 0, flaw });
                return self.last = Some((segment, None));
            }
        };
        self.join(segment, &header);
        self.pass(segment, super::link::HEADER_BYTES as u64, link);
        let mut frames = Frames::new(bytes, header.format, link);
        let (mut records, mut flawed) = (0, None);
        let mut made = Index::default();
        while let Some(frame) = frames.next() {
            match frame {
                Ok(frame) => {
                    self.pass(segment, frames.end().0, frame.link);
                    for entry in frame.entries() {
                        made.add(frame.at, entry.body);
                        records += u64::from(is_record(entry.body));
                        self.read(segment, entry.at, entry.body);
                    }
                }
                Err(flaw) => flawed = Some(flaw),
            }
        }
        self.report.records += records;
        let (at, link) = frames.end();
        self.report.link = link;
        match flawed {
            Some(Flaw::Short) if is_last && self.reaches_head => {
                if is_begun(frames.rest(), header.format) {
                    self.report.torn_bytes += bytes.len() as u64 - at;
                } else {
                    self.fault(Fault::Segment { segment, at, records, flaw: Flaw::Link });
                }
            }
            Some(flaw) => self.fault(Fault::Segment { segment, at, records, flaw }),
            None => {}
        }
        if flawed.is_none() && index.is_some_and(|index| made.encode() != index) {
            self.fault(Fault::Index { segment });
        }
        self.last = Some((segment, flawed.is_none().then_some(link)));
    }

    /// All segments were walked.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let mut missing = Vec::new();
        for &gap in &self.gaps {
            match self.gap(gap) {
                Some(fault) => missing.push(fault),
                None => self.report.dropped.push((gap.0, gap.1)),
            }
        }
        missing.append(&mut self.report.faults);
        self.report.faults = missing;
        match self.head {
            None => self.fault(Fault::Head),
            Some(Head { segment, offset, .. }) if !self.reaches_head => {
                self.fault(Fault::End { segment, offset });
            }
            Some(_) => {}
        }
        if let Some(link) = self.through {
            self.fault(Fault::Through(link));
        }
        self.report
    }

    fn fault(&mut self, fault: Fault) {
        self.report.faults.push(fault);
    }

    fn join(&mut self, segment: u64, header: &SegmentHeader) {
        if header.index != segment {
            self.fault(Fault::Moved { segment, found: header.index });
        }
        match self.last {
            None if segment > 1 => self.gaps.push((1, segment - 1, header.before)),
            None if header.before != Link::default() => self.fault(Fault::Joint { segment }),
            Some((last, _)) if last.checked_add(1) != Some(segment) => {
                self.gaps.push((last.saturating_add(1), segment - 1, header.before));
            }
            Some((_, Some(link))) if link != header.before => self.fault(Fault::Joint { segment }),
            // Where the one before is flawed, that was said.
            None | Some(_) => {}
        }
    }

    /// What is wrong with a gap: nothing, if all of it was dropped, and the one after it follows the last.
    fn gap(&self, (from, to, before): (u64, u64, Link)) -> Option<Fault> {
        match self.drops.get(&to) {
            // Those before it were dropped by a note that was dropped since, or by one that is there.
            Some(end) if *end == before => None,
            Some(_) => Some(Fault::Joint { segment: to + 1 }),
            None => Some(Fault::Missing { from, to }),
        }
    }

    fn pass(&mut self, segment: u64, offset: u64, link: Link) {
        self.reaches_head |=
            self.head.is_some_and(|head| (head.segment, head.offset, head.link) == (segment, offset, link));
        if self.through == Some(link) {
            self.through = None;
        }
    }

    fn read(&mut self, segment: u64, at: u64, body: &[u8]) {
        let unread =
            |error: super::codec::RecordError| Fault::Unread { segment, at, reason: error.to_string() };
        if is_record(body) {
            if let Err(error) = Record::decode(body) {
                self.fault(unread(error));
            }
            return;
        }
        match Note::decode(body) {
            Ok(Note::Gap { count, .. }) => self.report.unrecorded += count,
            Ok(Note::Dropped { segment, end, .. }) => drop(self.drops.insert(segment, end)),
            Ok(Note::Opened { was_closed, .. }) => self.report.killed += u64::from(!was_closed),
            Ok(Note::Broken { segment, offset, found, .. }) => {
                self.fault(Fault::Broken { segment, offset, found });
            }
            Ok(Note::Closed { .. }) => {}
            Err(error) => self.fault(unread(error)),
        }
    }
}
