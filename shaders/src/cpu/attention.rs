//! `attention`: softmax(Q · Kᵀ + previous) · V per head, in one row.

use super::activation::exp;
use super::lanes;
use super::simd::Kernel;
use crate::Attention;

/// One row. `scores` gets what the softmax sees; `shares` is scratch of one float a step.
pub(crate) struct AttentionRow<'a> {
    pub(crate) command: &'a Attention,
    pub(crate) qkv: &'a [f32],
    pub(crate) previous: Option<&'a [f32]>,
    pub(crate) scores: &'a mut [f32],
    pub(crate) dst: &'a mut [f32],
    pub(crate) shares: &'a mut [f32],
}

impl Kernel for AttentionRow<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { command: &Attention { heads, steps, .. }, qkv, previous, scores, dst, shares } = self;
        let model = dst.len() / steps;
        let width = model / heads;
        let part = |part: usize, step: usize, head: usize| {
            let first = (3 * step + part) * model + head * width;
            &qkv[first..first + width]
        };
        let shares = &mut shares[..steps];
        for head in 0..heads {
            for query in 0..steps {
                let at = (head * steps + query) * steps;
                let scores = &mut scores[at..at + steps];
                let q = part(0, query, head);
                for (key, score) in scores.iter_mut().enumerate() {
                    *score = lanes::dot(q, part(1, key, head));
                }
                if let Some(previous) = previous {
                    for (score, before) in scores.iter_mut().zip(&previous[at..at + steps]) {
                        *score += before;
                    }
                }
                let top = scores
                    .iter()
                    .fold(f32::NEG_INFINITY, |top, &score| if score > top { score } else { top });
                for (share, score) in shares.iter_mut().zip(&*scores) {
                    *share = exp(score - top);
                }
                let total = lanes::sum(shares, |share| share);
                let to = &mut dst[query * model + head * width..][..width];
                to.fill(0.0);
                for (key, share) in shares.iter().enumerate() {
                    let share = share / total;
                    for (to, v) in to.iter_mut().zip(part(2, key, head)) {
                        *to = share.mul_add(*v, *to);
                    }
                }
            }
        }
    }
}
