//! Bytes that are hostile, and nodes that fail.

mod room;
mod wire;
