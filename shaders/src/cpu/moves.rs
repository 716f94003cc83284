//! `moves`: `dst[i, j] = src[start + i · step + j · step]` in one row.

use crate::Move;

/// # Panics
/// When a source column lies outside `src`.
pub(crate) fn move_columns(step: &Move, src: &[f32], dst: &mut [f32]) {
    let [outer, inner] = step.counts;
    let ([src_outer, src_inner], [dst_outer, dst_inner]) = (step.src_steps, step.dst_steps);
    for i in 0..outer {
        let start = step.start.wrapping_add_signed(i as isize * src_outer as isize);
        let dst = &mut dst[i * dst_outer..];
        match dst_inner {
            0 | 1 => line(src, &mut dst[..inner], start, src_inner),
            _ => {
                let mut from = start;
                for to in dst.iter_mut().step_by(dst_inner).take(inner) {
                    *to = src[from];
                    from = from.wrapping_add_signed(src_inner as isize);
                }
            }
        }
    }
}

fn line(src: &[f32], dst: &mut [f32], start: usize, step: i32) {
    match step {
        1 => dst.copy_from_slice(&src[start..start + dst.len()]),
        0 => dst.fill(src[start]),
        -1 => {
            let from = &src[start + 1 - dst.len()..=start];
            for (to, &x) in dst.iter_mut().zip(from.iter().rev()) {
                *to = x;
            }
        }
        _ => {
            let mut from = start;
            for to in dst {
                *to = src[from];
                from = from.wrapping_add_signed(step as isize);
            }
        }
    }
}
