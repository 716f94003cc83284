//! Reading and writing the bytes of records: little-endian, lengths before what they count.
//!
//! What is read is hostile: nothing is allocated for a count before the bytes that it speaks of are seen to be there.

/// First byte of a prediction's body; notes have others.
pub(super) const RECORD: u8 = 7;
/// The same, of one that holds the hash of its windows: what a former segment's link covers in their place.
pub(super) const FORMER_RECORD: u8 = 1;

/// Bytes that are no record of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They end too early.
    #[error("the record is cut short")]
    Short,
    /// They go on after the end.
    #[error("bytes follow the record")]
    Trailing,
    /// A choice that this build does not know: a newer one wrote it.
    #[error("`{what}` cannot be {code}")]
    Code {
        /// Of what.
        what: &'static str,
        /// What was read.
        code: u8,
    },
    /// Not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(RecordError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, RecordError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn flag(&mut self, what: &'static str) -> Result<bool, RecordError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            code => Err(RecordError::Code { what, code }),
        }
    }

    pub(super) fn u32(&mut self) -> Result<u32, RecordError> {
        u32_at(self.take(4)?, 0).ok_or(RecordError::Short)
    }

    pub(super) fn u64(&mut self) -> Result<u64, RecordError> {
        u64_at(self.take(8)?, 0).ok_or(RecordError::Short)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, RecordError> {
        let len = self.u32()? as usize;
        std::str::from_utf8(self.take(len)?).map_err(|_| RecordError::Text)
    }

    /// The bytes of so many numbers are there before room is made for them.
    pub(super) fn floats(&mut self, count: usize) -> Result<Vec<f32>, RecordError> {
        let bytes = self.take(count.checked_mul(4).ok_or(RecordError::Short)?)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// How many things of at least so many bytes can still come.
    pub(super) fn count_max(&self, bytes_min: usize) -> usize {
        self.rest.len() / bytes_min
    }

    pub(super) fn end(self) -> Result<(), RecordError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RecordError::Trailing) }
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

pub(super) fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// Texts come from names and bodies that are bounded far below 4 GiB.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u32(out, text.len() as u32);
    out.extend_from_slice(text.as_bytes());
}

/// A copy of their bytes, where the machine is little-endian.
pub(super) fn put_floats(out: &mut Vec<u8>, numbers: &[f32]) {
    let start = out.len();
    out.resize(start + size_of_val(numbers), 0);
    for (bytes, number) in out[start..].chunks_exact_mut(4).zip(numbers) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
}
