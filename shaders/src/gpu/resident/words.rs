//! What host and kernel say to each other, and where it lies. Knows no Vulkan: two pieces of memory are enough.
//!
//! The layout is told in [`stays`]; this is the host's half of it.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use crate::NotServed;
use crate::gpu::flow::stays::{
    HEADER, LEFT_AT, LINE, NOT_YET, OUTPUTS_AT, REQUEST_MASK, ROW_BITS, SETS, STOP,
};

/// A word that says nothing yet, and what a value that looks like it is written as.
const EMPTY: u32 = u32::MAX;
const NAN: u32 = 0x7fc0_0000;
/// The first request: far from the zeros that memory begins with.
const FIRST: u32 = 2 * SETS;

/// From the start word of one launch to that of the other: what devices ask of the place of a binding, at most.
pub(super) const START_BYTES: u64 = 256;

/// How much there is of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::gpu) struct Extent {
    /// Rows of the largest request, in whole groups.
    pub(in crate::gpu) rows_max: usize,
    /// Words of one row, the inputs first.
    pub(in crate::gpu) row_words: usize,
    /// Words of each input, from the first of a row.
    pub(in crate::gpu) inputs: Vec<Range<usize>>,
    /// Outputs of one row.
    pub(in crate::gpu) out_width: usize,
    /// Requests of one launch at most.
    pub(in crate::gpu) turns_max: u32,
}

impl Extent {
    /// Bytes that the host writes and the kernel polls.
    pub(super) fn words_bytes(&self) -> u64 {
        (4 * (HEADER + SETS as usize * self.rows_max * self.row_words)) as u64
    }

    /// Bytes that the kernel writes and the host polls.
    pub(super) fn sink_bytes(&self) -> u64 {
        (4 * (OUTPUTS_AT + self.rows_max * self.out_width).next_multiple_of(LINE)) as u64
    }
}

/// The host's end of the line.
pub(super) struct Line {
    extent: Extent,
    words: NonNull<u32>,
    sink: NonNull<u32>,
    starts: NonNull<u32>,
    /// Which of the two launches answers.
    launch: usize,
    /// The next one.
    request: u32,
    /// Requests of the launch that runs, its stop included.
    turns: u32,
}

// SAFETY: it owns the use of both pieces, which any thread may reach; the pointers outlive it by its maker's word.
unsafe impl Send for Line {}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// A workgroup waited for another in vain.
    GaveUp,
    /// The launch that would have answered had left: nobody asked for long.
    Left,
    /// Nothing came in time.
    Late,
}

impl Silence {
    /// What its caller is told: a launch that left has done nothing wrong, and the next one answers as ever.
    pub(super) const fn told(self) -> NotServed {
        match self {
            Self::Left => NotServed::Away,
            Self::GaveUp | Self::Late => NotServed::Silent,
        }
    }
}

impl Line {
    /// Clears both pieces.
    ///
    /// # Safety
    /// `words` and `sink` point to the bytes that the extent asks for, `starts` to twice [`START_BYTES`], aligned to
    /// words, mapped until after the last use of the line, and no kernel runs on them now.
    pub(super) unsafe fn new(extent: Extent, [words, sink, starts]: [NonNull<u32>; 3]) -> Self {
        let mut line = Self { extent, words, sink, starts, launch: 0, request: FIRST, turns: 0 };
        line.clear();
        line
    }

    /// As new. No kernel runs.
    pub(super) fn clear(&mut self) {
        let Extent { rows_max, row_words, .. } = self.extent;
        (0..HEADER).for_each(|at| self.tell(at, 0));
        (HEADER..HEADER + SETS as usize * rows_max * row_words).for_each(|at| self.tell(at, EMPTY));
        for at in 0..OUTPUTS_AT + rows_max * self.extent.out_width {
            self.heard(at).store(if at < OUTPUTS_AT { 0 } else { EMPTY }, Ordering::Relaxed);
        }
        (0..2).for_each(|launch| self.prepare(launch));
        self.request = FIRST;
        self.begin(0, FIRST);
    }

    /// This launch will wait for its start. It does not run.
    pub(super) fn prepare(&mut self, launch: usize) {
        self.heard(LEFT_AT + launch).store(0, Ordering::Relaxed);
        self.start(launch, 0, NOT_YET);
        self.start(launch, 1, launch as u32);
        flush();
    }

    /// This launch answers from `request` on.
    fn begin(&mut self, launch: usize, request: u32) {
        self.launch = launch;
        self.turns = 0;
        self.start(launch, 0, request);
        flush();
    }

    fn start(&self, launch: usize, at: usize, word: u32) {
        debug_assert!(launch < 2 && at < START_BYTES as usize / 4);
        // SAFETY: inside the piece of two starts; volatile, since the kernel reads.
        unsafe { self.starts.add(launch * START_BYTES as usize / 4 + at).write_volatile(word) };
    }

    /// Whether a launch has left by itself.
    pub(super) fn has_left(&self, launch: usize) -> bool {
        self.heard(LEFT_AT + launch).load(Ordering::Relaxed) != 0
    }

    /// Whether the launch that runs should be replaced soon, or will not hear another request.
    pub(super) fn is_worn(&self) -> bool {
        self.turns >= self.extent.turns_max - 1
    }

    /// Has the launch that runs stop; the one that waits behind it answers from here on.
    pub(super) fn hand_over(&mut self) {
        let stop = self.request;
        self.request = self.request.wrapping_add(1) & REQUEST_MASK;
        self.begin(1 - self.launch, self.request);
        self.control(stop, STOP);
        flush();
    }

    /// Has the launch that waits answer the request that the other one left without an answer, and listens to it.
    ///
    /// Only where a launch is one workgroup: of several, some may have answered their part.
    pub(super) fn take_up(&mut self, output: &mut [f32], within: Duration) -> Result<(), Silence> {
        self.begin(1 - self.launch, self.request.wrapping_sub(1) & REQUEST_MASK);
        self.turns = 1;
        self.listen(output, within)
    }

    /// Has the `launches` under way stop, one after the other, or fewer if there is nothing to stop.
    pub(super) fn stop(&mut self, launches: usize) {
        match launches {
            0 => {}
            1 => self.control(self.request, STOP),
            _ => {
                self.hand_over();
                self.control(self.request, STOP);
            }
        }
        flush();
    }

    /// Answers `rows` rows: `inputs[i]` is `[rows, width]`, `output` is `[rows, out_width]`.
    pub(super) fn ask(
        &mut self,
        rows: usize,
        inputs: &[&[f32]],
        output: &mut [f32],
        within: Duration,
    ) -> Result<(), Silence> {
        assert_eq!(output.len(), rows * self.extent.out_width, "room for the answer");
        self.tell_request(rows, inputs);
        self.listen(output, within)
    }

    /// A request, whose answer has to be listened to before the next.
    pub(super) fn tell_request(&mut self, rows: usize, inputs: &[&[f32]]) {
        let Extent { rows_max, row_words, .. } = self.extent;
        assert!(
            rows > 0 && rows <= rows_max && inputs.len() == self.extent.inputs.len(),
            "as many as it takes"
        );
        let request = self.request;
        let set = HEADER + (request % SETS) as usize * rows_max * row_words;
        for (input, place) in inputs.iter().zip(&self.extent.inputs) {
            assert_eq!(input.len(), rows * place.len(), "whole rows of an input");
            for (row, values) in input.chunks_exact(place.len().max(1)).enumerate() {
                self.write(set + row * row_words + place.start, values);
            }
        }
        // In any order: the kernel waits for each of the words.
        self.control(request, u32::try_from(rows).expect("a handful"));
        flush();
        self.request = request.wrapping_add(1) & REQUEST_MASK;
        self.turns += 1;
    }

    fn listen(&self, output: &mut [f32], within: Duration) -> Result<(), Silence> {
        let started = Instant::now();
        let (fours, rest) = output.as_chunks_mut::<4>();
        let rest_at = OUTPUTS_AT + 4 * fours.len();
        for (at, four) in (OUTPUTS_AT..).step_by(4).zip(fours) {
            *four = self.until(started, within, || self.take_four(at))?;
        }
        for (at, value) in (rest_at..).zip(rest) {
            *value = self.until(started, within, || self.take(at))?;
        }
        fence(Ordering::Acquire);
        Ok(())
    }

    /// Until something is there.
    fn until<T>(
        &self,
        started: Instant,
        within: Duration,
        look: impl Fn() -> Option<T>,
    ) -> Result<T, Silence> {
        /// Between two looks at the clock.
        const POLLS: u32 = 256;
        let mut polls = 0;
        loop {
            if let Some(there) = look() {
                return Ok(there);
            }
            polls += 1;
            if polls % POLLS == 0 {
                // Whoever was kept away himself has to look once more.
                if self.has_left(self.launch) {
                    return look().ok_or(Silence::Left);
                }
                if started.elapsed() > within {
                    let gave_up = self.heard(0).load(Ordering::Relaxed) != 0;
                    return look().ok_or(if gave_up { Silence::GaveUp } else { Silence::Late });
                }
            }
            std::hint::spin_loop();
        }
    }

    /// An output, which is empty again then.
    fn take(&self, at: usize) -> Option<f32> {
        let word = self.heard(at);
        let bits = Some(word.load(Ordering::Relaxed)).filter(|bits| *bits != EMPTY)?;
        word.store(EMPTY, Ordering::Relaxed);
        Some(f32::from_bits(bits))
    }

    /// Four of them, if all are there; `at` is a multiple of four.
    fn take_four(&self, at: usize) -> Option<[f32; 4]> {
        debug_assert!(at.is_multiple_of(4) && (at + 3) * 4 < self.extent.sink_bytes() as usize);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: part of every x86-64; inside the piece and aligned, since the piece is. The kernel's stores are whole
        // words, so that each of the four is either empty or said.
        unsafe {
            use std::arch::x86_64::{__m128i, _mm_cmpeq_epi32, _mm_movemask_epi8, _mm_set1_epi32};
            let four = self.sink.add(at).as_ptr().cast::<__m128i>();
            let (words, empty) = (four.read_volatile(), _mm_set1_epi32(EMPTY.cast_signed()));
            if _mm_movemask_epi8(_mm_cmpeq_epi32(words, empty)) != 0 {
                return None;
            }
            four.write_volatile(empty);
            Some(std::mem::transmute::<__m128i, [f32; 4]>(words))
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let four = [at, at + 1, at + 2, at + 3].map(|at| self.heard(at));
            if four.iter().any(|word| word.load(Ordering::Relaxed) == EMPTY) {
                return None;
            }
            Some(four.map(|word| f32::from_bits(word.swap(EMPTY, Ordering::Relaxed))))
        }
    }

    /// The control word of a request.
    fn control(&self, request: u32, rows: u32) {
        self.tell(LINE * (1 + (request % SETS) as usize), request << ROW_BITS | rows);
    }

    /// Values as words from `at` on; one that looks empty is another NaN.
    fn write(&self, at: usize, values: &[f32]) {
        let first = at.next_multiple_of(4).min(at + values.len()) - at;
        let (head, rest) = values.split_at(first);
        for (offset, value) in head.iter().enumerate() {
            self.tell(at + offset, word_of(*value));
        }
        let (fours, tail) = rest.as_chunks::<4>();
        for (offset, four) in fours.iter().enumerate() {
            self.tell_four(at + first + 4 * offset, *four);
        }
        for (offset, value) in tail.iter().enumerate() {
            self.tell(at + first + 4 * fours.len() + offset, word_of(*value));
        }
    }

    /// As four [`tell`](Self::tell); `at` is a multiple of four.
    fn tell_four(&self, at: usize, values: [f32; 4]) {
        debug_assert!(at.is_multiple_of(4) && (at + 3) * 4 < self.extent.words_bytes() as usize);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: part of every x86-64; inside the piece, as all callers' arithmetic from the extent has it, and aligned,
        // since the piece is.
        unsafe {
            use std::arch::x86_64::{
                __m128i, _mm_and_si128, _mm_andnot_si128, _mm_cmpeq_epi32, _mm_or_si128, _mm_set1_epi32,
                _mm_stream_si128,
            };
            let words = std::mem::transmute::<[f32; 4], __m128i>(values);
            let empty = _mm_cmpeq_epi32(words, _mm_set1_epi32(EMPTY.cast_signed()));
            let nan = _mm_and_si128(empty, _mm_set1_epi32(NAN.cast_signed()));
            let words = _mm_or_si128(nan, _mm_andnot_si128(empty, words));
            _mm_stream_si128(self.words.add(at).as_ptr().cast(), words);
        }
        #[cfg(not(target_arch = "x86_64"))]
        (at..).zip(values).for_each(|(at, value)| self.tell(at, word_of(value)));
    }

    fn tell(&self, at: usize, word: u32) {
        debug_assert!((at * 4) < self.extent.words_bytes() as usize);
        // SAFETY: inside the piece, as all callers' arithmetic from the extent has it; volatile, since the kernel reads.
        unsafe { self.words.add(at).write_volatile(word) };
    }

    /// A word that the kernel writes.
    fn heard(&self, at: usize) -> &AtomicU32 {
        debug_assert!((at * 4) < self.extent.sink_bytes() as usize);
        // SAFETY: inside the piece and aligned; the kernel's stores are whole words, as an atomic's are.
        unsafe { AtomicU32::from_ptr(self.sink.add(at).as_ptr()) }
    }
}

/// What a value is said as.
fn word_of(value: f32) -> u32 {
    if value.to_bits() == EMPTY { NAN } else { value.to_bits() }
}

/// What was told before is told before what follows: the memory on the device is written in combined pieces, which
/// leave the processor in any order without this.
fn flush() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of every x86-64.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
    #[cfg(not(target_arch = "x86_64"))]
    fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;
    use std::time::Duration;

    use super::{EMPTY, Extent, LEFT_AT, Line, NAN, OUTPUTS_AT, SETS, START_BYTES};
    use crate::NotServed;
    use crate::gpu::flow::stays::EMPTIED_BEHIND;

    /// A line that no kernel listens to.
    #[track_caller]
    fn with_line(test: impl FnOnce(&mut Line)) {
        let pair = 0..2;
        let extent =
            Extent { rows_max: 1, row_words: 2, inputs: Vec::from([pair]), out_width: 1, turns_max: 8 };
        with_line_of(extent, test);
    }

    #[track_caller]
    fn with_line_of(extent: Extent, test: impl FnOnce(&mut Line)) {
        // As coarse as what a driver maps.
        let mut pieces = [extent.words_bytes(), extent.sink_bytes(), 2 * START_BYTES]
            .map(|bytes| vec![0_u128; (bytes as usize).div_ceil(16)]);
        let starts = pieces.each_mut().map(|piece| NonNull::from(piece.as_mut_slice()).cast::<u32>());
        // SAFETY: as large as the extent says, alive until the end, and no kernel is there.
        test(&mut unsafe { Line::new(extent, starts) });
    }

    /// What a request is told, where the kernel has written these words before: `(place, word)`.
    #[track_caller]
    fn check(written: &[(usize, u32)], told: Result<f32, NotServed>) {
        with_line(|line| {
            for (at, word) in written {
                line.heard(*at).store(*word, std::sync::atomic::Ordering::Relaxed);
            }
            let mut output = [f32::NAN];
            let answer = line.ask(1, &[&[1.0, 2.0]], &mut output, Duration::ZERO);
            assert_eq!(answer.map(|()| output[0]).map_err(super::Silence::told), told, "{written:?}");
        });
    }

    #[test]
    fn an_answer_counts_whatever_else_is_said() {
        check(&[(OUTPUTS_AT, 2.5_f32.to_bits())], Ok(2.5));
        check(&[(OUTPUTS_AT, 2.5_f32.to_bits()), (LEFT_AT, 1)], Ok(2.5));
    }

    /// A launch that was told to stop may still be emptying words when the next request is there.
    #[test]
    fn a_request_behind_a_stop_is_not_where_words_are_emptied() {
        with_line(|line| {
            for _ in 0..2 * SETS {
                line.tell_request(1, &[&[1.0, 2.0]]);
                let stop = line.request;
                line.hand_over();
                let told = line.request;
                for emptied in [stop - 1, stop].map(|request| request - EMPTIED_BEHIND) {
                    assert_ne!(told % SETS, emptied % SETS, "request {told}, words of {emptied}");
                }
            }
        });
    }

    /// Answers are taken by fours, and what is left one by one.
    #[test]
    fn an_answer_is_whole_or_none_and_leaves_nothing_behind() {
        let six = 0..6;
        let extent =
            Extent { rows_max: 1, row_words: 6, inputs: Vec::from([six]), out_width: 6, turns_max: 8 };
        with_line_of(extent, |line| {
            let input = [f32::from_bits(EMPTY), 1.0, 2.0, f32::from_bits(EMPTY), 3.0, f32::from_bits(EMPTY)];
            for missing in 0..6 {
                for at in 0..6 {
                    let word = if at == missing { EMPTY } else { (at as f32).to_bits() };
                    line.heard(OUTPUTS_AT + at).store(word, std::sync::atomic::Ordering::Relaxed);
                }
                let mut output = [f32::NAN; 6];
                let answer = line.ask(1, &[&input], &mut output, Duration::ZERO);
                assert_eq!(answer, Err(super::Silence::Late), "{missing} is not there");
                line.heard(OUTPUTS_AT + missing)
                    .store((missing as f32).to_bits(), std::sync::atomic::Ordering::Relaxed);
                // What was taken of the first try is empty.
                let taken = if missing < 4 { 0 } else { missing };
                for at in 0..taken {
                    let word = line.heard(OUTPUTS_AT + at).load(std::sync::atomic::Ordering::Relaxed);
                    assert_eq!(word, EMPTY, "{at}");
                    line.heard(OUTPUTS_AT + at)
                        .store((at as f32).to_bits(), std::sync::atomic::Ordering::Relaxed);
                }
                assert_eq!(line.listen(&mut output, Duration::ZERO), Ok(()));
                assert_eq!(output, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
            }
            let set = super::HEADER + ((line.request - 1) % SETS) as usize * 6;
            // SAFETY: inside the piece, which nobody else uses.
            let told: [u32; 6] =
                std::array::from_fn(|at| unsafe { line.words.add(set + at).read_volatile() });
            let said = [NAN, 1.0_f32.to_bits(), 2.0_f32.to_bits(), NAN, 3.0_f32.to_bits(), NAN];
            assert_eq!(told, said, "no value looks empty");
        });
    }

    #[test]
    fn a_launch_that_left_is_away_and_one_that_says_nothing_is_silent() {
        check(&[(LEFT_AT, 1)], Err(NotServed::Away));
        check(&[(LEFT_AT + 1, 1)], Err(NotServed::Silent));
        check(&[(OUTPUTS_AT, EMPTY)], Err(NotServed::Silent));
        check(&[(0, 1)], Err(NotServed::Silent));
    }
}
