//! Values that were made of a text, by its digest: of those that were not asked for longest as many leave as there is no
//! room for.

/// SHA-256.
pub(super) type Digest = [u8; 32];

pub(super) struct Recent<T> {
    /// In the order in which they were asked for, the newest last.
    values: Vec<(Digest, T)>,
    /// How much of the room one takes.
    size: fn(&T) -> usize,
    size_max: usize,
}

impl<T: Clone> Recent<T> {
    pub(super) fn new(size: fn(&T) -> usize, size_max: usize) -> Self {
        Self { values: Vec::new(), size, size_max }
    }

    pub(super) fn get(&mut self, digest: &Digest) -> Option<T> {
        let at = self.values.iter().position(|(known, _)| known == digest)?;
        self.values[at..].rotate_left(1);
        self.values.last().map(|(_, value)| value.clone())
    }

    /// Whether it is new: two threads may have made the same, and the first stays.
    pub(super) fn insert(&mut self, digest: Digest, value: T) -> bool {
        if self.get(&digest).is_some() {
            return false;
        }
        self.values.push((digest, value));
        let mut size: usize = self.values.iter().map(|(_, value)| (self.size)(value)).sum();
        let mut leaving = 0;
        while size > self.size_max {
            size -= (self.size)(&self.values[leaving].1);
            leaving += 1;
        }
        self.values.drain(..leaving);
        true
    }

    /// The one that was asked for last is the last.
    pub(super) fn all(&self) -> &[(Digest, T)] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_longest_leaves_for_what_is_new() {
        let mut recent = Recent::new(|_| 1, 2);
        assert!(recent.insert([1; 32], "one") && recent.insert([2; 32], "two"));
        assert_eq!(recent.get(&[1; 32]), Some("one"));
        assert!(recent.insert([3; 32], "three"));
        assert_eq!([1, 2, 3].map(|of| recent.get(&[of; 32])), [Some("one"), None, Some("three")]);
        assert!(!recent.insert([1; 32], "another"));
        assert_eq!(recent.all(), [([3; 32], "three"), ([1; 32], "one")]);
    }

    #[test]
    fn what_is_large_takes_the_room_of_several() {
        let mut recent = Recent::new(|value: &usize| *value, 30);
        for digest in [1, 2, 3] {
            recent.insert([digest; 32], 10);
        }
        recent.get(&[1; 32]).expect("it is there");
        recent.insert([4; 32], 20);
        assert_eq!(recent.all(), [([1; 32], 10), ([4; 32], 20)]);
        recent.insert([5; 32], 31);
        assert_eq!(recent.all(), [], "what has no room at all is not kept");
    }
}
