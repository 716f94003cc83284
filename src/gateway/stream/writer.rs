//! One way to say things, two ways to write them: JSON text or `MessagePack`.

use std::fmt::Display;
use std::io::Write as _;

use peregrine_actors::series::Timestamp;
use peregrine_actors::stream::Encoding;

use crate::gateway::numbers::print_list;
use crate::gateway::ticks::Millis;
use crate::gateway::v2::print::text;

/// Writes one value. Lengths of maps and lists are said first and must be kept to.
pub(super) struct Writer {
    out: Vec<u8>,
    encoding: Encoding,
    /// JSON: a value stands before the next one.
    comma: bool,
}

impl Writer {
    pub(super) fn new(encoding: Encoding) -> Self {
        Self { out: Vec::with_capacity(256), encoding, comma: false }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// A map of `len` members, written by `members`.
    pub(super) fn map(&mut self, len: usize, members: impl FnOnce(&mut Self)) {
        self.nest(b"{}", 0x80, 0xDE, len, members);
    }

    /// A list of `len` values, written by `values`.
    pub(super) fn list(&mut self, len: usize, values: impl FnOnce(&mut Self)) {
        self.nest(b"[]", 0x90, 0xDC, len, values);
    }

    /// The name of the next member.
    pub(super) fn key(&mut self, key: &str) -> &mut Self {
        self.text(key);
        if self.encoding == Encoding::Json {
            self.out.push(b':');
            self.comma = false;
        }
        self
    }

    pub(super) fn text(&mut self, value: &str) {
        self.value(|out| text(out, value), |out| head_of_text(out, value));
    }

    pub(super) fn flag(&mut self, value: bool) {
        let word: &[u8] = if value { b"true" } else { b"false" };
        self.value(|out| out.extend_from_slice(word), |out| out.push(0xC2 + u8::from(value)));
    }

    pub(super) fn number(&mut self, value: u64) {
        self.value(|out| shown(out, value), |out| unsigned(out, value));
    }

    /// A whole number below zero.
    pub(super) fn negative(&mut self, value: i64) {
        self.value(
            |out| shown(out, value),
            |out| {
                out.push(0xD3);
                out.extend_from_slice(&value.to_be_bytes());
            },
        );
    }

    pub(super) fn fraction(&mut self, value: f64) {
        self.value(
            |out| shown(out, value),
            |out| {
                out.push(0xCB);
                out.extend_from_slice(&value.to_be_bytes());
            },
        );
    }

    /// Milliseconds since 1970. In `MessagePack` a fraction of one is only as exact as an f64.
    pub(super) fn millis(&mut self, at: Timestamp) {
        let (whole, nanos) = (at.0.div_euclid(1_000_000), at.0.rem_euclid(1_000_000));
        self.value(
            |out| shown(out, Millis(at)),
            |out| match u64::try_from(whole) {
                Ok(whole) if nanos == 0 => unsigned(out, whole),
                _ => {
                    out.push(0xCB);
                    out.extend_from_slice(&(whole as f64 + nanos as f64 / 1e6).to_be_bytes());
                }
            },
        );
    }

    /// A list of finite numbers.
    pub(super) fn floats(&mut self, values: &[f32]) {
        self.value(
            |out| print_list(out, values),
            |out| {
                head(out, 0x90, 0xDC, values.len());
                for value in values {
                    out.push(0xCA);
                    out.extend_from_slice(&value.to_be_bytes());
                }
            },
        );
    }

    fn nest(&mut self, braces: &[u8; 2], short: u8, long: u8, len: usize, inner: impl FnOnce(&mut Self)) {
        self.value(|out| out.push(braces[0]), |out| head(out, short, long, len));
        self.comma = false;
        inner(self);
        if self.encoding == Encoding::Json {
            self.out.push(braces[1]);
        }
        self.comma = true;
    }

    fn value(&mut self, json: impl FnOnce(&mut Vec<u8>), message_pack: impl FnOnce(&mut Vec<u8>)) {
        match self.encoding {
            Encoding::MessagePack => message_pack(&mut self.out),
            Encoding::Json => {
                if self.comma {
                    self.out.push(b',');
                }
                json(&mut self.out);
                self.comma = true;
            }
        }
    }
}

/// As it is displayed, without a text of its own between.
fn shown(out: &mut Vec<u8>, value: impl Display) {
    let _ = write!(out, "{value}"); // a vector takes whatever it is given
}

/// Of a list or a map.
fn head(out: &mut Vec<u8>, short: u8, long: u8, len: usize) {
    match len {
        0..16 => out.push(short | len as u8),
        16..65_536 => {
            out.push(long);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(long + 1);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

fn head_of_text(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        len @ 0..32 => out.push(0xA0 | len as u8),
        len @ 32..256 => out.extend_from_slice(&[0xD9, len as u8]),
        len @ 256..65_536 => {
            out.push(0xDA);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0xDB);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

fn unsigned(out: &mut Vec<u8>, value: u64) {
    match value {
        0..128 => out.push(value as u8),
        128..65_536 => {
            out.push(0xCD);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        _ => {
            out.push(0xCF);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}
