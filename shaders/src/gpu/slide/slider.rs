//! The host's end of a stack that slides.

use std::sync::Arc;

use super::wgsl::MEETING_WORDS;
use super::{Slide, TURNS_MAX_SOLO};
use crate::gpu::device::{Device, Flows};
use crate::gpu::flow::stays;
use crate::gpu::resident::{Extent, Interrupted, Program, Resident};
use crate::{ExecuteError, NotServed, SlidingStack};

/// A stack that stays on its device with the states of all its windows; each step that is pushed has its forecast.
pub struct Slider {
    stack: Arc<SlidingStack>,
    resident: Resident,
    /// The life of the kernel that has the states of the window: another one has to make them again.
    life: u32,
    /// The latest steps, the oldest at `oldest` once there are as many as a window has.
    history: Vec<f32>,
    pushed: usize,
    /// What each workgroup adds to each output.
    partials: Vec<f32>,
}

impl Slider {
    /// # Errors
    /// [`ExecuteError::Refused`] where the device or the stack does not allow it; what the driver says otherwise.
    pub(in crate::gpu) fn start(device: &Device, stack: &Arc<SlidingStack>) -> Result<Self, ExecuteError> {
        let solo = device.flows == Flows::Solo;
        let slide = Slide::of(stack, solo)?;
        let turns_max = if solo { TURNS_MAX_SOLO } else { stays::TURNS_MAX };
        let step = 0..stack.in_width();
        let extent = Extent {
            rows_max: 1,
            row_words: slide.words(),
            inputs: Vec::from([step]),
            out_width: slide.partials(),
            turns_max,
        };
        let program = Program {
            name: stack.name.clone(),
            wgsl: slide.wgsl(turns_max),
            workgroups: [u32::try_from(slide.workgroups).expect("a handful"), 1],
            extent,
            weights: slide.pack(),
            own_bytes: vec![slide.state_vec4s() as u64 * 16, MEETING_WORDS as u64 * 4],
            solo,
        };
        let partials = vec![0.0; slide.partials()];
        let history = vec![0.0; stack.steps * stack.in_width()];
        let resident = Resident::start(device, program, None)?;
        Ok(Self { stack: Arc::clone(stack), resident, life: 0, history, pushed: 0, partials })
    }

    /// The stack that slides.
    #[must_use]
    pub fn stack(&self) -> &Arc<SlidingStack> {
        &self.stack
    }

    /// Takes the newest step, `[in_width]`, and forecasts from the window that ends with it, `[outputs]`; until as many
    /// steps as a window has were pushed, from those that were.
    ///
    /// # Errors
    /// The kernel did not answer. The step counts as pushed: [`window`](Self::window) has it, for the ordinary path.
    ///
    /// # Panics
    /// When a length is wrong.
    pub fn push(&mut self, step: &[f32], output: &mut [f32]) -> Result<(), NotServed> {
        let in_width = self.stack.in_width();
        assert_eq!((step.len(), output.len()), (in_width, self.stack.outputs()), "a step in, a forecast out");
        let at = self.pushed % self.stack.steps * in_width;
        self.history[at..at + in_width].copy_from_slice(step);
        self.pushed += 1;
        let before = (self.pushed - 1).min(self.stack.steps - 1);
        let mut ago = 0;
        loop {
            let at = (self.pushed - 1 - ago) % self.stack.steps * in_width;
            let step = &self.history[at..at + in_width];
            match self.resident.go_on(self.life, step, &mut self.partials) {
                Ok(()) if ago == 0 => break,
                Ok(()) => ago -= 1,
                Err(Interrupted::Began(life)) => {
                    self.life = life;
                    ago = before;
                }
                Err(Interrupted::NotServed(why)) => return Err(why),
            }
        }
        output.copy_from_slice(&self.stack.head.bias);
        for partials in self.partials.chunks_exact(output.len()) {
            for (value, partial) in output.iter_mut().zip(partials) {
                *value += partial;
            }
        }
        Ok(())
    }

    /// A step whose answer nobody waits for, as if none had come in time.
    #[cfg(test)]
    pub(crate) fn push_in_vain(&mut self, step: &[f32]) {
        let at = self.pushed % self.stack.steps * step.len();
        self.history[at..at + step.len()].copy_from_slice(step);
        self.pushed += 1;
        self.resident.miss(1, &[step]);
    }

    /// Whether the kernel is silent and waits to be launched again.
    #[cfg(test)]
    pub(crate) fn rests(&self) -> bool {
        self.resident.rests()
    }

    /// The steps of the newest window, the oldest first, `[steps · in_width]`; zeros for those that were not.
    #[must_use]
    pub fn window(&self) -> Vec<f32> {
        let mut window = self.history.clone();
        if self.pushed >= self.stack.steps {
            window.rotate_left(self.pushed % self.stack.steps * self.stack.in_width());
        }
        window
    }
}
