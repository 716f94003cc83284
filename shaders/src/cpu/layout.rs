//! Where a plan's buffers live: in the caller's slices where possible, else in one arena per thread.
//!
//! Buffers that are never needed at the same time share their columns of the arena.

use crate::Plan;

/// Columns of the arena start at multiples of a cache line.
const ALIGN: usize = 16;
/// A stride of a multiple of this many floats would put every row into the same few sets of the first-level cache.
const STRIDE_AVOIDED: usize = 128;

/// Home of one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Read where the caller left it.
    Input(usize),
    /// Written where the caller wants it.
    Output,
    /// In the arena, `offset · rows of the tile` floats in, with rows `stride` apart.
    Arena { offset: usize, stride: usize },
    /// No command touches it.
    Nowhere,
}

/// Home of every buffer of a plan.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) places: Vec<Place>,
    /// Floats of the arena for each row of a tile.
    pub(crate) arena_width: usize,
}

impl Layout {
    pub(crate) fn of(plan: &Plan) -> Self {
        let lives = lives(plan);
        let mut places = vec![Place::Nowhere; plan.buffer_widths.len()];
        let mut taken: Vec<Taken> = Vec::new();
        let mut order: Vec<usize> = (0..places.len()).collect();
        // Wide buffers first: the narrow ones fill the gaps.
        order.sort_by_key(|&buffer| std::cmp::Reverse(plan.buffer_widths[buffer]));
        for buffer in order {
            let Some(life) = lives[buffer] else { continue };
            let input = plan.inputs.iter().position(|input| input.0 == buffer);
            let is_output = plan.output.0 == buffer;
            places[buffer] = match input {
                Some(index) if !life.written && !is_output => Place::Input(index),
                None if is_output => Place::Output,
                _ => {
                    let stride = stride(plan.buffer_widths[buffer]);
                    let offset = first_gap(&taken, life, stride);
                    taken.push(Taken { life, from: offset, to: offset + stride });
                    Place::Arena { offset, stride }
                }
            };
        }
        let arena_width = taken.iter().map(|taken| taken.to).max().unwrap_or(0);
        Self { places, arena_width }
    }
}

/// Commands from the first to the last that needs a buffer. The caller's reading and writing count as commands
/// before the first and after the last.
#[derive(Clone, Copy, Debug)]
struct Life {
    from: usize,
    to: usize,
    written: bool,
}

struct Taken {
    life: Life,
    from: usize,
    to: usize,
}

fn lives(plan: &Plan) -> Vec<Option<Life>> {
    let mut lives = vec![None; plan.buffer_widths.len()];
    for input in &plan.inputs {
        extend(&mut lives[input.0], 0, false);
    }
    for (at, command) in plan.commands.iter().enumerate() {
        for view in command.reads().into_iter().flatten() {
            extend(&mut lives[view.buffer.0], at + 1, false);
        }
        for view in command.writes().into_iter().flatten() {
            extend(&mut lives[view.buffer.0], at + 1, true);
        }
    }
    extend(&mut lives[plan.output.0], plan.commands.len() + 1, false);
    lives
}

fn extend(life: &mut Option<Life>, at: usize, written: bool) {
    let life = life.get_or_insert(Life { from: at, to: at, written });
    life.to = at;
    life.written |= written;
}

fn stride(width: usize) -> usize {
    let stride = width.next_multiple_of(ALIGN);
    if stride.is_multiple_of(STRIDE_AVOIDED) { stride + ALIGN } else { stride }
}

/// The lowest columns that nobody else has during `life`.
fn first_gap(taken: &[Taken], life: Life, width: usize) -> usize {
    let mut rivals: Vec<&Taken> =
        taken.iter().filter(|other| other.life.from <= life.to && life.from <= other.life.to).collect();
    rivals.sort_by_key(|rival| rival.from);
    let mut offset = 0;
    for rival in rivals {
        if offset + width <= rival.from {
            break;
        }
        offset = offset.max(rival.to);
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Move, PlanBuilder};

    #[test]
    fn buffers_that_are_done_give_way_to_later_ones() {
        let (layout, _) = chain(6);
        assert_eq!(layout.arena_width, 2 * stride(40), "five steps between need two homes");
    }

    #[test]
    fn no_two_live_buffers_share_a_column() {
        let plan = crate::tests::Case::nhits(1).plan;
        let layout = Layout::of(&plan);
        let lives = lives(&plan);
        for a in 0..layout.places.len() {
            for b in 0..a {
                let (
                    Place::Arena { offset: at_a, stride: wide_a },
                    Place::Arena { offset: at_b, stride: wide_b },
                ) = (layout.places[a], layout.places[b])
                else {
                    continue;
                };
                let (life_a, life_b) = (lives[a].unwrap(), lives[b].unwrap());
                let meet = life_a.from <= life_b.to && life_b.from <= life_a.to;
                let share = at_a < at_b + wide_b && at_b < at_a + wide_a;
                assert!(!(meet && share), "buffers {a} and {b}");
            }
        }
    }

    #[test]
    fn the_callers_slices_are_used_in_place() {
        let (layout, plan) = chain(3);
        assert_eq!(layout.places[plan.inputs[0].0], Place::Input(0));
        assert_eq!(layout.places[plan.output.0], Place::Output);
    }

    #[test]
    fn an_input_that_is_written_lives_in_the_arena() {
        let mut plan = PlanBuilder::new("written input");
        let (a, b) = (plan.input(5), plan.input(5));
        plan.move_columns(Move::copy(a, b));
        let out = plan.buffer(5);
        plan.move_columns(Move::copy(b, out));
        let layout = Layout::of(&plan.finish(out));
        assert!(matches!(layout.places[b.buffer.0], Place::Arena { .. }));
    }

    /// A chain of copies of 40 columns.
    fn chain(steps: usize) -> (Layout, Plan) {
        let mut plan = PlanBuilder::new("chain");
        let mut last = plan.input(40);
        for _ in 0..steps {
            let next = plan.buffer(40);
            plan.move_columns(Move::copy(last, next));
            last = next;
        }
        let plan = plan.finish(last);
        (Layout::of(&plan), plan)
    }
}
