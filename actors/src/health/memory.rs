//! Of how much memory a node knows that it may use it.

/// Memory there is for this process, and what of it is in use, by whomever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRoom {
    /// In use; what the kernel takes back by itself is not.
    pub used_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
}

/// Says what a limit of this process' own leaves, where there is one and it is smaller than the machine.
#[derive(Clone, Copy, Debug)]
pub struct MemoryMeter(pub fn() -> Option<MemoryRoom>);

impl MemoryMeter {
    /// The limit's, or the machine's.
    pub(crate) fn read(self, machine: MemoryRoom) -> MemoryRoom {
        (self.0)().filter(|room| room.total_bytes < machine.total_bytes).unwrap_or(machine)
    }
}

impl Default for MemoryMeter {
    fn default() -> Self {
        Self(|| None)
    }
}

impl PartialEq for MemoryMeter {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_counts_where_it_is_smaller_than_the_machine() {
        const MACHINE: MemoryRoom = MemoryRoom { used_bytes: 10, total_bytes: 100 };
        let read = |meter: fn() -> Option<MemoryRoom>| MemoryMeter(meter).read(MACHINE);
        assert_eq!(read(|| None), MACHINE);
        assert_eq!(read(|| Some(MemoryRoom { used_bytes: 30, total_bytes: 200 })), MACHINE);
        let limit = MemoryRoom { used_bytes: 5, total_bytes: 50 };
        assert_eq!(read(|| Some(MemoryRoom { used_bytes: 5, total_bytes: 50 })), limit);
    }
}
