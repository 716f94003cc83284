//! `pool`: windows along time of one row become one number each.

use crate::PoolMode;

/// `src` is `[steps, columns]`, `dst` is `[ceil(steps / kernel), columns]`. NaN in a window stays NaN.
pub(crate) fn pool(src: &[f32], dst: &mut [f32], columns: usize, kernel: usize, mode: PoolMode) {
    if kernel == 1 {
        dst.copy_from_slice(src);
        return;
    }
    if columns == 1 && kernel == 2 && mode == PoolMode::Max {
        // Most models; a plain loop over pairs vectorises.
        let pairs = src.chunks_exact(2);
        for (last, rest) in dst.iter_mut().skip(pairs.len()).zip(pairs.remainder()) {
            *last = *rest;
        }
        for (to, pair) in dst.iter_mut().zip(pairs) {
            *to = maximum(pair[0], pair[1]);
        }
        return;
    }
    // A window may be longer than the row.
    let window_len = kernel.saturating_mul(columns);
    for (to, window) in dst.chunks_exact_mut(columns).zip(src.chunks(window_len)) {
        let (first, rest) = window.split_at(columns);
        to.copy_from_slice(first);
        for step in rest.chunks_exact(columns) {
            for (to, &x) in to.iter_mut().zip(step) {
                *to = match mode {
                    PoolMode::Max => maximum(*to, x),
                    PoolMode::Mean => *to + x,
                };
            }
        }
        if mode == PoolMode::Mean {
            let count = (window.len() / columns) as f32;
            to.iter_mut().for_each(|sum| *sum /= count);
        }
    }
}

fn maximum(a: f32, b: f32) -> f32 {
    if a >= b || a.is_nan() { a } else { b }
}
