//! `MessagePack` of a client, written as the JSON that says the same, so that both are read by one parser.
//!
//! Nothing is allocated by a length that the bytes have not borne out; nesting is bounded.

use crate::gateway::v2::print::text;

const DEPTH_MAX: usize = 8;

/// Bytes that are not the `MessagePack` that was expected. The caller's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadMessagePack {
    #[error("the message ends early")]
    Short,
    #[error("byte {0:#04x} begins nothing that has a meaning here")]
    Unknown(u8),
    #[error("text is not UTF-8")]
    Utf8,
    #[error("the name of a member is no text")]
    Key,
    #[error("nested deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("something follows the message")]
    Tail,
}

/// The JSON text of one value.
pub(super) fn to_json(bytes: &[u8]) -> Result<Vec<u8>, BadMessagePack> {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    let mut from = From { bytes };
    from.value(&mut out, DEPTH_MAX)?;
    if from.bytes.is_empty() { Ok(out) } else { Err(BadMessagePack::Tail) }
}

struct From<'a> {
    bytes: &'a [u8],
}

impl<'a> From<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], BadMessagePack> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(BadMessagePack::Short)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadMessagePack> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(BadMessagePack::Short)?;
        self.bytes = rest;
        Ok(*taken)
    }

    /// A length of one, two or four bytes.
    fn len(&mut self, power: u8) -> Result<usize, BadMessagePack> {
        let bytes = self.take(1 << power)?;
        Ok(bytes.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)))
    }

    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), BadMessagePack> {
        let [first] = self.array()?;
        match first {
            0x00..=0x7F => print(out, first),
            0xE0..=0xFF => print(out, first as i8),
            0xCC => print(out, u8::from_be_bytes(self.array()?)),
            0xCD => print(out, u16::from_be_bytes(self.array()?)),
            0xCE => print(out, u32::from_be_bytes(self.array()?)),
            0xCF => print(out, u64::from_be_bytes(self.array()?)),
            0xD0 => print(out, i8::from_be_bytes(self.array()?)),
            0xD1 => print(out, i16::from_be_bytes(self.array()?)),
            0xD2 => print(out, i32::from_be_bytes(self.array()?)),
            0xD3 => print(out, i64::from_be_bytes(self.array()?)),
            0xCA => {
                let value = f32::from_be_bytes(self.array()?);
                match word(value.into()) {
                    Some(word) => out.extend_from_slice(word),
                    None => print(out, value),
                }
            }
            0xCB => {
                let value = f64::from_be_bytes(self.array()?);
                if let Some(word) = word(value) {
                    out.extend_from_slice(word);
                } else if value.abs() < 1e21 && (value == 0.0 || value.abs() > 1e-7) {
                    print(out, value);
                } else {
                    out.extend_from_slice(format!("{value:e}").as_bytes());
                }
            }
            0xC0 => out.extend_from_slice(b"null"),
            0xC2 => out.extend_from_slice(b"false"),
            0xC3 => out.extend_from_slice(b"true"),
            0xA0..=0xBF | 0xD9..=0xDB => self.text(first, out)?,
            0x90..=0x9F => self.list(usize::from(first & 0x0F), out, depth)?,
            0xDC | 0xDD => {
                let len = self.len(first - 0xDC + 1)?;
                self.list(len, out, depth)?;
            }
            0x80..=0x8F => self.map(usize::from(first & 0x0F), out, depth)?,
            0xDE | 0xDF => {
                let len = self.len(first - 0xDE + 1)?;
                self.map(len, out, depth)?;
            }
            other => return Err(BadMessagePack::Unknown(other)),
        }
        Ok(())
    }

    fn text(&mut self, first: u8, out: &mut Vec<u8>) -> Result<(), BadMessagePack> {
        let len = match first {
            0xA0..=0xBF => usize::from(first & 0x1F),
            _ => self.len(first - 0xD9)?,
        };
        let bytes = self.take(len)?;
        text(out, std::str::from_utf8(bytes).map_err(|_| BadMessagePack::Utf8)?);
        Ok(())
    }

    fn list(&mut self, len: usize, out: &mut Vec<u8>, depth: usize) -> Result<(), BadMessagePack> {
        let inner = depth.checked_sub(1).ok_or(BadMessagePack::TooDeep)?;
        out.push(b'[');
        for at in 0..len {
            if at > 0 {
                out.push(b',');
            }
            self.value(out, inner)?;
        }
        out.push(b']');
        Ok(())
    }

    fn map(&mut self, len: usize, out: &mut Vec<u8>, depth: usize) -> Result<(), BadMessagePack> {
        let inner = depth.checked_sub(1).ok_or(BadMessagePack::TooDeep)?;
        out.push(b'{');
        for at in 0..len {
            if at > 0 {
                out.push(b',');
            }
            let [first] = self.array()?;
            if !matches!(first, 0xA0..=0xBF | 0xD9..=0xDB) {
                return Err(BadMessagePack::Key);
            }
            self.text(first, out)?;
            out.push(b':');
            self.value(out, inner)?;
        }
        out.push(b'}');
        Ok(())
    }
}

fn print(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    out.extend_from_slice(value.to_string().as_bytes());
}

/// What stands for a number that JSON has not.
fn word(value: f64) -> Option<&'static [u8]> {
    match value {
        value if value.is_nan() => Some(b"NaN"),
        f64::INFINITY => Some(b"Infinity"),
        f64::NEG_INFINITY => Some(b"-Infinity"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_say_the_same_in_json() {
        check(
            b"\x83\xA2op\xA4ping\xA2id\xCD\x01\x00\xA1x\x93\xC0\xC3\xFF",
            r#"{"op":"ping","id":256,"x":[null,true,-1]}"#,
        );
        check(b"\xCB\x3F\xB9\x99\x99\x99\x99\x99\x9A", "0.1");
        check(b"\xCB\x7E\x37\xE4\x3C\x88\x00\x75\x9C", "1e300");
        check(b"\xCA\x3D\xCC\xCC\xCD", "0.1");
        check(b"\xD9\x02a\"", r#""a\"""#);
        check(b"\xDC\x00\x01\x01", "[1]");
    }

    #[test]
    fn what_is_no_number_is_the_word_that_the_parser_knows() {
        check(b"\xCA\x7F\x80\x00\x00", "Infinity");
        check(b"\xCB\xFF\xF0\x00\x00\x00\x00\x00\x00", "-Infinity");
        check(b"\xCA\x7F\xC0\x00\x00", "NaN");
    }

    #[test]
    fn lies_and_strangers_are_refused() {
        let deep = [0x91; 20];
        for (bytes, want) in [
            (&b""[..], BadMessagePack::Short),
            (b"\xDD\xFF\xFF\xFF\xFF\x01", BadMessagePack::Short),
            (b"\xDB\xFF\xFF\xFF\xFFab", BadMessagePack::Short),
            (b"\xC4\x01a", BadMessagePack::Unknown(0xC4)),
            (b"\x81\x01\x01", BadMessagePack::Key),
            (b"\xA1\xFF", BadMessagePack::Utf8),
            (b"\x01\x01", BadMessagePack::Tail),
            (&deep, BadMessagePack::TooDeep),
        ] {
            assert_eq!(to_json(bytes), Err(want), "{bytes:x?}");
        }
    }

    #[track_caller]
    fn check(bytes: &[u8], want: &str) {
        assert_eq!(to_json(bytes).map(|json| String::from_utf8(json).unwrap()), Ok(want.to_owned()));
    }
}
