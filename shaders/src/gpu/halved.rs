//! Which sides of a layer lie in the arena as halves.
//!
//! Cooperative matrices round what they read. A buffer that only they read may as well be written rounded: the bits are the
//! same, half the bytes move, and nothing is left to round in the loop. Such a row begins where it would begin as f32.

use crate::{BufferId, Command, Init, Linear, Plan, View};

use super::variants::{Kind, Layer};

/// Sides of one layer that are halves in the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Halved {
    pub(super) src: bool,
    pub(super) dst: bool,
}

impl Halved {
    /// Those that need kernels of their own.
    pub(super) const ALL: [Self; 3] =
        [Self { src: false, dst: true }, Self { src: true, dst: true }, Self { src: true, dst: false }];

    /// Its place in [`ALL`](Self::ALL); `None` where both sides are f32.
    pub(super) fn index(self) -> Option<usize> {
        Self::ALL.iter().position(|each| *each == self)
    }
}

/// Of each command of a plan, where all plain layers are multiplied by cooperative matrices.
pub(super) fn sides(plan: &Plan) -> Vec<Halved> {
    let is_halved: Vec<bool> =
        (0..plan.buffer_widths.len()).map(|at| is_halved(plan, BufferId(at))).collect();
    let each = |command: &Command| match command {
        Command::Linear(linear) => {
            Halved { src: is_halved[linear.src.buffer.0], dst: is_halved[linear.dst.buffer.0] }
        }
        _ => Halved::default(),
    };
    plan.commands.iter().map(each).collect()
}

/// Whether only plain layers write and read a buffer, whole and in the same lines.
fn is_halved(plan: &Plan, buffer: BufferId) -> bool {
    let touches = |view: View| view.buffer == buffer;
    let mut of_layers =
        Layer::all(plan).filter(|layer| touches(layer.linear.src) || touches(layer.linear.dst));
    let lines = of_layers.next().map_or(1, |layer| layer.lines(1));
    let is_outside = plan.output == buffer || plan.inputs.contains(&buffer);
    let is_whole = |view: View| view.offset == 0 && view.width == plan.width(buffer);
    let is_fine = |command: &Command| {
        let reads = command.reads().into_iter().flatten().any(touches);
        let writes = command.writes().into_iter().flatten().any(touches);
        match command {
            _ if !reads && !writes => true,
            Command::Linear(linear) => {
                let as_mask = linear.mask.is_some_and(touches);
                let layer = Layer::of(plan, linear);
                layer.kind == Kind::Plain
                    && !as_mask
                    && layer.lines(1) == lines
                    && (!reads || is_whole(linear.src))
                    && (!writes || is_whole(linear.dst) && is_simple(linear))
            }
            _ => false,
        }
    };
    !is_outside && plan.commands.iter().all(is_fine)
}

/// Whether a layer's outputs are its sums, bent.
fn is_simple(linear: &Linear) -> bool {
    linear.init == Init::Bias && linear.mask.is_none()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Activation, PlanBuilder, Repeat, Weights};

    const HALVES: Halved = Halved { src: true, dst: true };
    const NONE: Halved = Halved { src: false, dst: false };

    fn layer(src: View, dst: View) -> Linear {
        let matrix = vec![0.0; src.width * dst.width];
        let weights = Weights::new(dst.width, src.width, &matrix, vec![0.0; dst.width]);
        Linear::plain(src, dst, Arc::new(weights), Activation::Relu)
    }

    /// Three layers in a row, `change` done to the commands before the plan is made.
    #[track_caller]
    fn check(
        hidden: usize,
        change: impl FnOnce(&mut PlanBuilder, [View; 4], &mut Vec<Command>),
        expected: [Halved; 3],
    ) {
        let mut builder = PlanBuilder::new("three layers");
        let input = builder.input(8);
        let (first, second, output) = (builder.buffer(hidden), builder.buffer(hidden), builder.buffer(4));
        let mut commands =
            [layer(input, first), layer(first, second), layer(second, output)].map(Command::Linear).to_vec();
        change(&mut builder, [input, first, second, output], &mut commands);
        for command in commands {
            match command {
                Command::Linear(linear) => builder.linear(linear),
                Command::Move(step) => builder.move_columns(step),
                other => panic!("not used here: {other:?}"),
            }
        }
        assert_eq!(sides(&builder.finish(output))[..3], expected);
    }

    #[test]
    fn what_only_layers_read_and_write_is_halves() {
        let expected = [Halved { src: false, dst: true }, HALVES, Halved { src: true, dst: false }];
        check(8, |_, _, _| (), expected);
        assert_eq!(expected.map(Halved::index), [Some(0), Some(1), Some(2)]);
        assert_eq!(NONE.index(), None);
    }

    #[test]
    fn a_buffer_of_steps_is_halves_where_all_have_the_same_steps() {
        let at_both = |src: View, dst: View| {
            let [one_src, one_dst] = [src, dst].map(|view| view.slice(0, view.width / 2));
            let repeat = Repeat { count: 2, src_step: one_src.width, dst_step: one_dst.width };
            Command::Linear(Linear { src, dst, repeat, ..layer(one_src, one_dst) })
        };
        let second_in_steps =
            |_: &mut PlanBuilder, [_, first, second, _]: [View; 4], commands: &mut Vec<Command>| {
                commands[1] = at_both(first, second);
            };
        check(32, second_in_steps, [NONE; 3]);
        let all_in_steps =
            |_: &mut PlanBuilder, [input, first, second, _]: [View; 4], commands: &mut Vec<Command>| {
                commands[0] = at_both(input, first);
                commands[1] = at_both(first, second);
            };
        check(32, all_in_steps, [Halved { src: false, dst: true }, Halved { src: true, dst: false }, NONE]);
    }

    #[test]
    fn what_others_touch_is_not() {
        // No whole vectors.
        check(6, |_, _, _| (), [NONE; 3]);
        let second_alone = [NONE, Halved { src: false, dst: true }, Halved { src: true, dst: false }];
        let copied = |builder: &mut PlanBuilder, [_, first, ..]: [View; 4], commands: &mut Vec<Command>| {
            let copy = builder.buffer(8);
            commands.push(Command::Move(crate::Move::copy(first, copy)));
        };
        check(8, copied, second_alone);
        let half_read =
            |builder: &mut PlanBuilder, [_, first, ..]: [View; 4], commands: &mut Vec<Command>| {
                let other = builder.buffer(4);
                commands.push(Command::Linear(layer(first.slice(4, 4), other)));
            };
        check(8, half_read, second_alone);
        let as_mask =
            |builder: &mut PlanBuilder, [input, first, ..]: [View; 4], commands: &mut Vec<Command>| {
                let other = builder.buffer(8);
                commands.push(Command::Linear(Linear { mask: Some(first), ..layer(input, other) }));
            };
        check(8, as_mask, second_alone);
        let summed = |_: &mut PlanBuilder, [input, first, ..]: [View; 4], commands: &mut Vec<Command>| {
            commands.insert(1, Command::Linear(Linear { init: Init::Accumulate, ..layer(input, first) }));
        };
        check(8, summed, [NONE, NONE, Halved { src: false, dst: true }]);
        let repeated = |builder: &mut PlanBuilder, [_, first, ..]: [View; 4], commands: &mut Vec<Command>| {
            let other = builder.buffer(8);
            let repeat = Repeat { count: 2, src_step: 4, dst_step: 4 };
            let weights = layer(first.slice(0, 4), other.slice(0, 4)).weights;
            commands.push(Command::Linear(Linear { weights, repeat, ..layer(first, other) }));
        };
        check(8, repeated, second_alone);
    }
}
