//! One criterion binary. Figures and their conditions: `benches/NOTES.md`.

use criterion::{criterion_group, criterion_main};

mod cpu_executor;
mod gateway;
mod journal;

/// Seeded noise in `[0, 1)`: never zeros, which would hide unwritten outputs, and the same in every run.
fn noise() -> impl FnMut() -> f32 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32
    }
}

criterion_group!(benches, cpu_executor::forecast, gateway::bodies, journal::append);
criterion_main!(benches);
