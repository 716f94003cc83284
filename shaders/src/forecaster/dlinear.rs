//! DLinear: trend and remainder, each through its own layer; folded into one.

use crate::loader::{Archive, Blueprint, LoadError};

use super::dense::Dense;
use super::network::{Anchor, Network};
use super::nlinear::single_layer;

pub(super) fn build(blueprint: &Blueprint, archive: &Archive) -> Result<Network, LoadError> {
    let Blueprint { spec, hparams } = blueprint;
    let average_len = hparams.size("moving_avg_window")?;
    if average_len % 2 == 0 {
        return Err(LoadError::unsupported("an even moving_avg_window"));
    }
    let out_width = spec.horizon * spec.head.network_width();
    let trend = Dense::take(archive, "linear_trend", out_width, spec.window)?;
    let season = Dense::take(archive, "linear_season", out_width, spec.window)?;
    single_layer(spec, &folded(&trend, &season, average_len), Anchor::None)
}

/// `T·(A·y) + S·(y − A·y) = (S + (T − S)·A)·y`, with `A` the moving mean over the window that repeats its ends.
fn folded(trend: &Dense, season: &Dense, average_len: usize) -> Dense {
    let (window, reach) = (trend.in_width, average_len / 2);
    let mut layer = season.clone();
    for (bias, more) in layer.bias.iter_mut().zip(&trend.bias) {
        *bias += more;
    }
    let rows = trend.matrix.chunks_exact(window).zip(season.matrix.chunks_exact(window));
    let mut running = vec![0.0; window + 1];
    for (target, (trend_row, season_row)) in layer.matrix.chunks_exact_mut(window).zip(rows) {
        let share = |t: usize| (trend_row[t] - season_row[t]) / average_len as f64;
        for t in 0..window {
            running[t + 1] = running[t] + share(t);
        }
        for (at, weight) in target.iter_mut().enumerate() {
            // Every mean that reaches this position takes its value once …
            *weight += running[(at + reach + 1).min(window)] - running[at.saturating_sub(reach)];
        }
        for t in 0..window {
            // … and an end once more for each place that reaches beyond it.
            target[0] += share(t) * reach.saturating_sub(t) as f64;
            target[window - 1] += share(t) * (t + reach + 1).saturating_sub(window) as f64;
        }
    }
    layer
}
