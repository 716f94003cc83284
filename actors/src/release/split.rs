//! Which version answers a request that names none: by weight, and for ever the same one for the same key.
//!
//! Pure: a key or a turn goes in, a version comes out.

/// Versions that can have a part of one model's traffic.
pub const VERSIONS_MAX: usize = 16;
/// The most that one weight can be; what counts is how they compare.
pub const WEIGHT_MAX: u32 = 1_000_000;
/// 2^64 by the golden ratio: multiples of it fill the circle evenly, however many there are (Weyl's sequence).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Versions and their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    weights: Box<[(u32, u32)]>,
    total: u64,
}

impl Split {
    /// Of weights, of which one at least is above zero.
    pub(crate) fn new(weights: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let weights: Box<[_]> = weights.into_iter().filter(|(_, weight)| *weight > 0).collect();
        debug_assert!(!weights.is_empty(), "nobody would answer");
        let total = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
        Self { weights, total }
    }

    /// Part of the traffic that a version gets, 0 to 1.
    pub(crate) fn share(&self, version: u32) -> f64 {
        let weight = self.weights.iter().find(|(one, _)| *one == version).map_or(0, |(_, weight)| *weight);
        f64::from(weight) / self.total as f64
    }

    /// For callers that name no key: of any run of turns each version gets its part, but for one or two.
    pub(crate) fn by_turn(&self, turn: u64) -> u32 {
        let point = (u128::from(turn.wrapping_mul(GOLDEN)) * u128::from(self.total)) >> 64;
        let mut passed = 0;
        let found = self.weights.iter().find(|(_, weight)| {
            passed += u128::from(*weight);
            point < passed
        });
        found.or(self.weights.last()).map_or(0, |(version, _)| *version)
    }

    /// For callers that name a key: weighted rendezvous (Thaler & Ravishankar 1998, weights after Mosharaf 2014).
    /// When weights change, only those move that have to, between the versions whose part grows and the others.
    pub(crate) fn by_key(&self, key: u64) -> u32 {
        if let [(only, _)] = *self.weights {
            return only;
        }
        let distance = |&(version, weight): &(u32, u32)| {
            let drawn = mixed(key ^ mixed(u64::from(version)));
            let uniform = ((drawn >> 11) + 1) as f64 / (1_u64 << 53) as f64; // in (0, 1]
            -uniform.ln() / f64::from(weight)
        };
        let nearest = self.weights.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
        nearest.map_or(0, |(version, _)| *version)
    }
}

/// The same number for the same text, in every process and build (FNV-1a, then mixed).
#[must_use]
pub fn key_of(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    mixed(text.bytes().fold(0xCBF2_9CE4_8422_2325, step))
}

/// Every bit of the input moves half of the output's (the finalizer of `splitmix64`).
const fn mixed(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(GOLDEN);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}
