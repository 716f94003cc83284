//! Bytes from outside, one function for each parser that meets them: each takes any bytes, panics when a promise is
//! broken, and says whether they were taken for what they should be.
//!
//! `cargo fuzz` feeds them without end (`fuzz/`); a test of this crate feeds them the stored corpus and a fixed number
//! of mutations of it. What nodes send each other's runtime is fed in the same way in `runtime/`.

mod files;
mod market;
mod models;
mod peers;
mod stores;
#[cfg(test)]
mod tests;

pub use crate::cluster::series::fuzzing::series;
pub use crate::gateway::fuzzing::{
    body, certificate, command, forecast, headers, infer, message_pack, overview, symbols, ticks, websocket,
};
pub use files::{config, data, jwks, keys, panel, sealed, signature, table, token};
pub use market::{calendar, condition, decisions, demand};
pub use models::{ensemble, model, native};
pub(crate) use peers::{answer, message};
pub use peers::{forecasts, platform};
pub use peregrine_shaders::gpu::fuzzing::kernels;
pub use stores::{home, journal, ledger, pools, records, scaler};

/// A door for bytes.
pub type Door = fn(&[u8]) -> bool;

/// Every door, under the name of its target and of its corpus.
pub const DOORS: &[(&str, Door)] = &[
    ("body", body),
    ("calendar", calendar),
    ("certificate", certificate),
    ("command", command),
    ("condition", condition),
    ("config", config),
    ("data", data),
    ("decisions", decisions),
    ("demand", demand),
    ("ensemble", ensemble),
    ("forecast", forecast),
    ("forecasts", forecasts),
    ("headers", headers),
    ("home", home),
    ("infer", infer),
    ("journal", journal),
    ("jwks", jwks),
    ("kernels", kernels),
    ("keys", keys),
    ("ledger", ledger),
    ("message_pack", message_pack),
    ("model", model),
    ("native", native),
    ("overview", overview),
    ("panel", panel),
    ("platform", platform),
    ("pools", pools),
    ("records", records),
    ("scaler", scaler),
    ("sealed", sealed),
    ("series", series),
    ("signature", signature),
    ("symbols", symbols),
    ("table", table),
    ("ticks", ticks),
    ("token", token),
    ("websocket", websocket),
];
