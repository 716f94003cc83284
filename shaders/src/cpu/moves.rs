//! `moves`: `dst[j] = src[start + j · step]` in one row.

/// # Panics
/// When a source column lies outside `src`.
pub(crate) fn move_columns(src: &[f32], dst: &mut [f32], start: usize, step: i32) {
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
            let mut from = start as isize;
            for to in dst {
                *to = src[from as usize];
                from += step as isize;
            }
        }
    }
}
