//! Ticks as clients write them.

pub(crate) mod parse;
