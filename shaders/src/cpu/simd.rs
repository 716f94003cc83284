//! Which vector instructions this machine has, and the few operations the kernels need of them.
//!
//! Every operation rounds as IEEE 754 says and multiply-add rounds once, so all levels give the same bits.

use half::f16;

/// A level of vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simd {
    /// Whatever the compiler makes of plain loops.
    Portable,
    /// 256 bits, fused multiply-add, and halves that are widened.
    Avx2,
    /// 512 bits.
    Avx512,
}

/// Plain loops that are compiled once for every level. `run` must be `#[inline(always)]`, and so must all it calls.
pub(crate) trait Kernel {
    /// Does the work.
    fn run(self);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2(kernel: impl Kernel) {
    kernel.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn run_avx512(kernel: impl Kernel) {
    kernel.run();
}

impl Simd {
    /// Runs a kernel as it was compiled for this level.
    #[inline(always)]
    pub(crate) fn run(self, kernel: impl Kernel) {
        debug_assert!(Self::available().contains(&self));
        match self {
            Self::Portable => kernel.run(),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: executors are made only for levels of this machine.
            Self::Avx2 => unsafe { run_avx2(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { run_avx512(kernel) },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => unreachable!("not a level of this machine"),
        }
    }

    /// The levels that this machine can run, slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut levels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                levels.push(Self::Avx2);
                if is_x86_feature_detected!("avx512f") {
                    levels.push(Self::Avx512);
                }
            }
        }
        levels
    }

    /// The fastest level of this machine.
    #[must_use]
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::Portable)
    }

    /// Columns of a weight panel: two vectors.
    pub(crate) const fn panel_width(self) -> usize {
        match self {
            Self::Portable | Self::Avx2 => 16,
            Self::Avx512 => 32,
        }
    }

    /// Rows of the largest register block.
    pub(crate) const fn block_rows(self) -> usize {
        match self {
            Self::Portable | Self::Avx2 => 6,
            Self::Avx512 => 12,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
        }
    }
}

/// One vector of f32. Methods are inlined into functions that enable the instructions.
///
/// # Safety
/// Callers of any method must run on a machine that has the instructions; pointers must be good for `LEN` floats.
pub(crate) trait Lanes: Copy {
    const LEN: usize;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// Finite halves, widened.
    unsafe fn load_halves(from: *const f16) -> Self;
    /// Whole numbers.
    unsafe fn load_bytes(from: *const i8) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self · factor + addend`, rounded once.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// `max(x, 0)`; NaN stays.
    unsafe fn relu(self) -> Self;
    /// `x > 0 ? x : slope · x`
    unsafe fn leaky(self, slope: Self) -> Self;
    /// Asks for the cache line at `at`, which need not be mapped.
    unsafe fn prefetch(at: *const u8);
}

/// Eight floats without instructions of their own.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 8]);

impl Plain {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

/// A finite half as a number. Its bits at their places in a float are this number over 2¹¹², subnormal ones too.
#[inline(always)]
fn widen(half: u16) -> f32 {
    const POWER: f32 = f32::from_bits((127 + 112) << 23);
    let (sign, rest) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7fff) << 13);
    f32::from_bits((f32::from_bits(rest) * POWER).to_bits() | sign)
}

impl Lanes for Plain {
    const LEN: usize = 8;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's pointer is good for eight floats.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_halves(from: *const f16) -> Self {
        // SAFETY: the caller's pointer is good for eight halves.
        Self(unsafe { from.cast::<[u16; 8]>().read_unaligned() }.map(widen))
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const i8) -> Self {
        // SAFETY: the caller's pointer is good for eight bytes.
        Self(unsafe { from.cast::<[i8; 8]>().read() }.map(f32::from))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's pointer is good for eight floats.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(factor.0[i], addend.0[i])))
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Self(self.0.map(|x| if x < 0.0 { 0.0 } else { x }))
    }
    #[inline(always)]
    unsafe fn leaky(self, slope: Self) -> Self {
        self.zip(slope, |x, slope| if x > 0.0 { x } else { slope * x })
    }
    #[inline(always)]
    unsafe fn prefetch(_at: *const u8) {}
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    //! The two levels of x86-64.

    use super::{Lanes, f16};
    use std::arch::x86_64::*;

    /// 256 bits.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256);

    /// 512 bits.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    // SAFETY (every block below): the trait's callers have the instructions and hand in pointers good for one vector.
    #[allow(clippy::undocumented_unsafe_blocks, reason = "one contract for all, stated by the trait")]
    impl Lanes for Avx2 {
        const LEN: usize = 8;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            Self(unsafe { _mm256_set1_ps(x) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm256_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn load_halves(from: *const f16) -> Self {
            Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
        }
        #[inline(always)]
        unsafe fn load_bytes(from: *const i8) -> Self {
            Self(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            Self(unsafe { _mm256_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
        }
        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // The second operand wins where one is NaN.
            Self(unsafe { _mm256_max_ps(_mm256_setzero_ps(), self.0) })
        }
        #[inline(always)]
        unsafe fn leaky(self, slope: Self) -> Self {
            unsafe {
                let positive = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, _mm256_setzero_ps());
                Self(_mm256_blendv_ps(_mm256_mul_ps(slope.0, self.0), self.0, positive))
            }
        }
        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
    }

    // SAFETY (every block below): the trait's callers have the instructions and hand in pointers good for one vector.
    #[allow(clippy::undocumented_unsafe_blocks, reason = "one contract for all, stated by the trait")]
    impl Lanes for Avx512 {
        const LEN: usize = 16;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            Self(unsafe { _mm512_set1_ps(x) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn load_halves(from: *const f16) -> Self {
            Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
        }
        #[inline(always)]
        unsafe fn load_bytes(from: *const i8) -> Self {
            Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
        }
        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // The second operand wins where one is NaN.
            Self(unsafe { _mm512_max_ps(_mm512_setzero_ps(), self.0) })
        }
        #[inline(always)]
        unsafe fn leaky(self, slope: Self) -> Self {
            unsafe {
                let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, _mm512_setzero_ps());
                Self(_mm512_mask_blend_ps(positive, _mm512_mul_ps(slope.0, self.0), self.0))
            }
        }
        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
    }
}
