//! A pull tokenizer over one JSON text: bounded depth, no tree, numbers straight into a `Vec<f32>`.
//!
//! Knows nothing of tensors or forecasts; callers say which members they expect. Strings are borrowed unless they
//! hold an escape.

use std::borrow::Cow;

#[cfg(target_arch = "x86_64")]
use super::fractions::Sse41;
use super::fractions::{Portable, ShortFraction};
use super::numbers::{parse_f32, parse_f32_by};

/// What writers of JSON put where they have no number; some write words that JSON does not have.
const NO_NUMBERS: [&str; 4] = ["null", "NaN", "Infinity", "-Infinity"];

/// Nesting that is walked over in members nobody asked for.
const SKIP_DEPTH_MAX: usize = 32;

/// The text is not the JSON that was expected. The caller's mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    /// Something else stands there.
    #[error("malformed JSON at byte {at}: expected {wanted}")]
    Expected {
        /// Offset in the text.
        at: usize,
        /// What should stand there.
        wanted: &'static str,
    },
    /// Arrays or objects in each other beyond the bound.
    #[error("JSON nested deeper than {depth_max} at byte {at}")]
    TooDeep {
        /// Offset in the text.
        at: usize,
        /// The bound.
        depth_max: usize,
    },
    /// A member that stands twice.
    #[error("member `{name}` stands twice (byte {at})")]
    Twice {
        /// Offset in the text.
        at: usize,
        /// The member.
        name: &'static str,
    },
    /// A member that nobody asked for, nearly one that is.
    #[error("unknown member `{name}` (byte {at}): `{meant}` was probably meant")]
    Misspelt {
        /// Offset in the text.
        at: usize,
        /// As written.
        name: Box<str>,
        /// The member.
        meant: &'static str,
    },
    /// More numbers than the bound.
    #[error("more than {count_max} numbers at byte {at}")]
    TooMany {
        /// Offset in the text.
        at: usize,
        /// The bound.
        count_max: usize,
    },
    /// A number that no `f32` can hold.
    #[error("number {index} is too large for FP32 (byte {at})")]
    Infinite {
        /// Offset in the text.
        at: usize,
        /// Which leaf, counted from zero.
        index: usize,
    },
}

impl JsonError {
    /// For who sent no JSON, and whose bytes have other places.
    pub(crate) fn without_place(&self) -> String {
        match self {
            Self::Expected { wanted, .. } => format!("malformed message: expected {wanted}"),
            Self::TooDeep { depth_max, .. } => format!("nested deeper than {depth_max}"),
            Self::Twice { name, .. } => format!("member `{name}` stands twice"),
            Self::Misspelt { name, meant, .. } => {
                format!("unknown member `{name}`: `{meant}` was probably meant")
            }
            Self::TooMany { count_max, .. } => format!("more than {count_max} numbers"),
            Self::Infinite { index, .. } => format!("number {index} is too large for FP32"),
        }
    }
}

/// A scalar: what a parameter may be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar<'a> {
    Text(Cow<'a, str>),
    /// The text of the number.
    Number(&'a str),
    Flag(bool),
}

/// How the numbers of an array stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nesting {
    /// Of the deepest; 1: flat.
    pub(crate) depth: usize,
    /// Numbers in each of the innermost arrays; `None`: not as many in all, or some beside an array.
    pub(crate) row_len: Option<usize>,
}

/// A place in a text.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Offset of the next byte.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Bytes not yet read.
    pub(crate) fn rest_len(&self) -> usize {
        self.text.len() - self.at
    }

    /// The next byte behind blanks.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Nothing but blanks may follow.
    pub(crate) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end of the document")),
        }
    }

    /// Calls `member` with each key of an object; it must read the value.
    pub(crate) fn object<E: From<JsonError>>(
        &mut self,
        mut member: impl FnMut(&str, &mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take(b'{', "an object")?;
        if self.taken(b'}') {
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.expected("a member name").into());
            }
            let key = self.string()?;
            self.take(b':', "`:`")?;
            member(&key, self)?;
            if self.taken(b'}') {
                return Ok(());
            }
            self.take(b',', "`,` or `}`")?;
        }
    }

    /// As [`Self::object`], where a member that is `null` is as good as none: some serialisers write absent ones so.
    pub(crate) fn members<E: From<JsonError>>(
        &mut self,
        mut member: impl FnMut(&str, &mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.object(|key, cursor| if cursor.null() { Ok(()) } else { member(key, cursor) })
    }

    /// Calls `element` at each element of an array; it must read the value.
    pub(crate) fn array<E: From<JsonError>>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take(b'[', "an array")?;
        if self.taken(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if self.taken(b']') {
                return Ok(());
            }
            self.take(b',', "`,` or `]`")?;
        }
    }

    /// A string.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.take(b'"', "a string")?;
        let from = self.at;
        let mut escaped = false;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(0..0x20) | None => return Err(self.expected("the end of the string")),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        let read = if escaped {
            serde_json::from_slice(&self.text[from - 1..self.at]).ok().map(Cow::Owned)
        } else {
            std::str::from_utf8(&self.text[from..self.at - 1]).ok().map(Cow::Borrowed)
        };
        read.ok_or(JsonError::Expected { at: from, wanted: "a string of valid UTF-8" })
    }

    /// The text of a number.
    pub(crate) fn number(&mut self) -> Result<&'a str, JsonError> {
        self.peek();
        let rest = &self.text[self.at..];
        let Some((_, len)) = parse_f32(rest) else {
            return Err(self.expected("a number"));
        };
        self.at += len;
        std::str::from_utf8(&rest[..len]).map_err(|_| self.expected("a number"))
    }

    /// An unsigned integer.
    pub(crate) fn unsigned(&mut self) -> Result<u64, JsonError> {
        self.peek();
        let at = self.at;
        self.number()?.parse().map_err(|_| JsonError::Expected { at, wanted: "an unsigned integer" })
    }

    /// A string, a number or a boolean.
    pub(crate) fn scalar(&mut self) -> Result<Scalar<'a>, JsonError> {
        match self.peek() {
            Some(b'"') => self.string().map(Scalar::Text),
            Some(b't') => self.word("true").map(|()| Scalar::Flag(true)),
            Some(b'f') => self.word("false").map(|()| Scalar::Flag(false)),
            Some(b'-' | b'0'..=b'9') => self.number().map(Scalar::Number),
            _ => Err(self.expected("a string, a number or a boolean")),
        }
    }

    /// Whether `null` stands here; it is then read.
    pub(crate) fn null(&mut self) -> bool {
        self.peek() == Some(b'n') && self.word("null").is_ok()
    }

    /// The word that stands in the place of a number, where `error` is that none is there.
    pub(crate) fn no_number(&self, error: &JsonError) -> Option<&'static str> {
        let JsonError::Expected { at, wanted: "a number" } = error else { return None };
        let rest = self.text.get(*at..)?;
        NO_NUMBERS.into_iter().find(|word| rest.starts_with(word.as_bytes()))
    }

    /// As [`Self::no_number`]; the word is then read.
    pub(crate) fn pass_no_number(&mut self, error: &JsonError) -> Option<&'static str> {
        let word = self.no_number(error)?;
        let JsonError::Expected { at, .. } = error else { return None };
        self.at = at + word.len();
        Some(word)
    }

    /// Appends the numbers of a flat or nested array to `out` in order, at most `count_max` of them; returns how they
    /// stood, nested no deeper than `depth_max`.
    pub(crate) fn leaves(
        &mut self,
        out: &mut Vec<f32>,
        depth_max: usize,
        count_max: usize,
    ) -> Result<Nesting, JsonError> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("sse4.1") {
            // SAFETY: just detected.
            return unsafe { self.leaves_sse41(out, depth_max, count_max) };
        }
        // SAFETY: the portable way asks nothing of the machine.
        unsafe { self.leaves_by::<Portable>(out, depth_max, count_max) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "sse4.1")]
    fn leaves_sse41(
        &mut self,
        out: &mut Vec<f32>,
        depth_max: usize,
        count_max: usize,
    ) -> Result<Nesting, JsonError> {
        // SAFETY: this function is compiled for, and only called on, machines with SSE 4.1.
        unsafe { self.leaves_by::<Sse41>(out, depth_max, count_max) }
    }

    /// # Safety
    /// The machine must have what `Way` needs.
    #[inline(always)]
    unsafe fn leaves_by<Way: ShortFraction>(
        &mut self,
        out: &mut Vec<f32>,
        depth_max: usize,
        count_max: usize,
    ) -> Result<Nesting, JsonError> {
        if self.peek() != Some(b'[') {
            return Err(self.expected("an array of numbers"));
        }
        let (mut depth, mut deepest, mut count) = (0, 0, 0);
        let (mut rows, mut is_innermost) = (Rows::default(), false);
        loop {
            match self.peek() {
                Some(b'[') => {
                    rows.open(count, is_innermost);
                    is_innermost = true;
                    self.at += 1;
                    depth += 1;
                    if depth > depth_max {
                        return Err(JsonError::TooDeep { at: self.at - 1, depth_max });
                    }
                    deepest = deepest.max(depth);
                    if self.peek() != Some(b']') {
                        continue;
                    }
                }
                _ => {
                    rows.is_uneven |= !is_innermost;
                    // SAFETY: the caller's promise.
                    unsafe { self.run_of_numbers::<Way>(out, &mut count, count_max)? };
                }
            }
            loop {
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        break;
                    }
                    Some(b']') => {
                        if is_innermost {
                            rows.close(count, depth);
                        }
                        is_innermost = false;
                        self.at += 1;
                        depth -= 1;
                        if depth == 0 {
                            return Ok(Nesting { depth: deepest, row_len: rows.len_of_all() });
                        }
                    }
                    _ => return Err(self.expected("`,` or `]`")),
                }
            }
        }
    }

    /// One number and those behind it that only a comma parts, as they mostly come: all state stays in registers.
    ///
    /// # Safety
    /// The machine must have what `Way` needs.
    #[inline(always)]
    unsafe fn run_of_numbers<Way: ShortFraction>(
        &mut self,
        out: &mut Vec<f32>,
        count: &mut usize,
        count_max: usize,
    ) -> Result<(), JsonError> {
        let (text, mut at, mut index) = (self.text, self.at, *count);
        loop {
            // SAFETY: the caller's promise.
            let Some((value, len)) = (unsafe { parse_f32_by::<Way>(&text[at..]) }) else {
                return Err(JsonError::Expected { at, wanted: "a number" });
            };
            if !value.is_finite() {
                return Err(JsonError::Infinite { at, index });
            }
            if index == count_max {
                return Err(JsonError::TooMany { at, count_max });
            }
            out.push(value);
            index += 1;
            at += len;
            match text.get(at..at + 2) {
                Some([b',', b'-' | b'0'..=b'9']) => at += 1,
                _ => break,
            }
        }
        (self.at, *count) = (at, index);
        Ok(())
    }

    /// Walks over any value.
    pub(crate) fn skip(&mut self) -> Result<(), JsonError> {
        self.skip_within(SKIP_DEPTH_MAX)
    }

    fn skip_within(&mut self, depth: usize) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'{' | b'[') if depth == 0 => {
                Err(JsonError::TooDeep { at: self.at, depth_max: SKIP_DEPTH_MAX })
            }
            Some(b'{') => self.object(|_, inner| inner.skip_within(depth - 1)),
            Some(b'[') => self.array(|inner| inner.skip_within(depth - 1)),
            Some(b'n') => self.word("null"),
            _ => self.scalar().map(drop),
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), JsonError> {
        if self.text[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.expected(word))
        }
    }

    fn take(&mut self, byte: u8, wanted: &'static str) -> Result<(), JsonError> {
        if self.taken(byte) { Ok(()) } else { Err(self.expected(wanted)) }
    }

    fn taken(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expected(&self, wanted: &'static str) -> JsonError {
        JsonError::Expected { at: self.at.min(self.text.len()), wanted }
    }
}

/// The innermost arrays that were read.
#[derive(Default)]
struct Rows {
    /// Numbers before the newest.
    start: usize,
    /// Length and depth of those before.
    like: Option<(usize, usize)>,
    is_uneven: bool,
}

impl Rows {
    /// An array begins after `count` numbers; inside one that could have been an innermost one?
    fn open(&mut self, count: usize, inside: bool) {
        self.is_uneven |= inside && count > self.start;
        self.start = count;
    }

    fn close(&mut self, count: usize, depth: usize) {
        let this = (count - self.start, depth);
        self.is_uneven |= *self.like.get_or_insert(this) != this;
    }

    fn len_of_all(&self) -> Option<usize> {
        self.like.filter(|_| !self.is_uneven).map(|(len, _)| len)
    }
}

/// Fills a slot that may be filled once.
pub(crate) fn once<T>(
    slot: &mut Option<T>,
    value: T,
    name: &'static str,
    at: usize,
) -> Result<(), JsonError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(JsonError::Twice { at, name }),
    }
}

#[cfg(test)]
#[path = "tests/json.rs"]
mod tests;
