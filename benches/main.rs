//! One criterion binary. Figures and their conditions: `benches/NOTES.md`.

use criterion::{criterion_group, criterion_main};

mod cpu_executor;
mod gateway;

criterion_group!(benches, cpu_executor::forecast, gateway::bodies);
criterion_main!(benches);
