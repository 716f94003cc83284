//! What a node says of itself in the gossip: one whole record, and beside it what changes often.
//!
//! No key per actor or service: gossip state is small, and a record is replaced as a whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::cluster::{Incarnation, Member, NodeId, Region, Standing};
use crate::wire;

/// Keys of the gossip's state.
pub(crate) const RECORD: &str = "record";
pub(crate) const LOAD: &str = "load";
pub(crate) const CUT: &str = "cut";
pub(crate) const MISSED: &str = "missed";

/// Longest record in its written form; longer ones are nobody's.
const RECORD_TEXT_MAX: usize = 48 << 10;
/// Roles and services of one node.
const NAMES_MAX: usize = 1024;

/// What a node is and offers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) region: String,
    pub(crate) roles: Vec<String>,
    pub(crate) version: String,
    pub(crate) draining: bool,
    /// This life is over: whoever hears of it need not wait for the detector.
    pub(crate) left: bool,
    pub(crate) services: BTreeMap<String, String>,
}

impl Record {
    /// As gossip carries it: text, since its values are strings.
    pub(crate) fn to_text(&self) -> String {
        let mut bytes = Vec::new();
        // Plain data; serde has nothing to object to.
        let _ = wire::write(self, &mut bytes);
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }

    /// Nothing if it is no record.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        if text.len() > RECORD_TEXT_MAX || !text.len().is_multiple_of(2) {
            return None;
        }
        let bytes: Option<Vec<u8>> = (text.as_bytes().as_chunks::<2>().0.iter())
            .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
            .collect();
        wire::read_hello(&bytes?).ok()
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Lives as gossip carries them: names and incarnations in turn.
pub(crate) fn lives_to_text<'a>(lives: impl Iterator<Item = (&'a NodeId, Incarnation)>) -> String {
    let words: Vec<String> = lives.map(|(id, incarnation)| format!("{id} {}", incarnation.0)).collect();
    words.join(" ")
}

/// The lives that a node says it misses; what is none is left out.
pub(crate) fn missed<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Vec<(NodeId, Incarnation)> {
    let mut words = get(MISSED).unwrap_or_default().split(' ');
    let mut pairs = std::iter::from_fn(|| Some((words.next()?, words.next()?)));
    let lives = pairs.by_ref().filter_map(|(id, incarnation)| {
        Some((NodeId::new(id).ok()?, Incarnation(incarnation.parse().ok()?)))
    });
    lives.take(NAMES_MAX).collect()
}

/// Whether a node says that it is gone.
pub(crate) fn has_left<'a>(get: impl Fn(&str) -> Option<&'a str>) -> bool {
    get(RECORD).and_then(Record::from_text).is_some_and(|record| record.left)
}

/// A member from what gossip knows of it; nothing while its record has not come, or says what no node says.
pub(crate) fn member<'a>(
    (id, generation, addr): (&str, u64, SocketAddr),
    get: impl Fn(&str) -> Option<&'a str>,
) -> Option<Member> {
    let record = Record::from_text(get(RECORD)?)?;
    if record.left || record.roles.len() > NAMES_MAX || record.services.len() > NAMES_MAX {
        return None;
    }
    let load: f32 = get(LOAD).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let cut = get(CUT).unwrap_or_default();
    Some(Member {
        id: NodeId::new(id).ok()?,
        incarnation: Incarnation(generation),
        addr,
        region: Region::new(&record.region).ok()?,
        roles: record.roles,
        version: record.version,
        load: if load.is_finite() { load.clamp(0.0, 1.0) } else { 1.0 },
        standing: if record.draining { Standing::Draining } else { Standing::Active },
        services: record.services,
        cut_from: cut.split(' ').filter_map(|name| NodeId::new(name).ok()).take(NAMES_MAX).collect(),
    })
}
