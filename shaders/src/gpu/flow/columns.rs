//! Where the numbers of a plan's columns come from, once moves and pools are seen through.

use crate::{Move, Plan, Pool, PoolMode, View};

/// Where the number of a column comes from: `count` addresses `step` apart, pooled when there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gpu) struct Source {
    pub(in crate::gpu) at: usize,
    pub(in crate::gpu) step: usize,
    pub(in crate::gpu) count: usize,
    pub(in crate::gpu) mean: bool,
}

/// Neighbouring columns whose sources are `apart` from each other.
#[derive(Clone, Copy, Debug)]
pub(in crate::gpu) struct Segment {
    pub(in crate::gpu) first: usize,
    pub(in crate::gpu) len: usize,
    pub(in crate::gpu) source: Source,
    pub(in crate::gpu) apart: usize,
}

/// The columns of all buffers, as they are after the commands so far; those of the inputs have the first addresses.
pub(in crate::gpu) struct Columns {
    sources: Vec<Vec<Option<Source>>>,
    /// Columns of each input, one input after the other; results follow.
    pub(in crate::gpu) input_starts: Vec<usize>,
    input_columns: usize,
    /// The first address that nothing has.
    pub(in crate::gpu) next: usize,
}

impl Columns {
    pub(in crate::gpu) fn of(plan: &Plan) -> Self {
        let sources = plan.buffer_widths.iter().map(|width| vec![None; *width]).collect();
        let mut columns = Self { sources, input_starts: Vec::new(), input_columns: 0, next: 0 };
        for input in &plan.inputs {
            columns.input_starts.push(columns.next);
            columns.define(View { buffer: *input, offset: 0, width: plan.width(*input) });
        }
        columns.input_columns = columns.next;
        columns
    }

    /// New addresses for all columns of a view, one after the other; the first of them.
    pub(in crate::gpu) fn define(&mut self, view: View) -> usize {
        let first = self.next;
        for (column, at) in (first..first + view.width).enumerate() {
            let source = Source { at, step: 0, count: 1, mean: false };
            self.sources[view.buffer.0][view.offset + column] = Some(source);
        }
        self.next += view.width;
        first
    }

    fn read(&self, view: View, column: usize) -> Option<Source> {
        self.sources[view.buffer.0][view.offset + column]
    }

    /// `None` where a column has not been written yet.
    pub(in crate::gpu) fn sources(&self, view: View) -> Option<Vec<Source>> {
        (0..view.width).map(|column| self.read(view, column)).collect()
    }

    /// The same in runs of columns.
    pub(super) fn segments(&self, view: View) -> Option<Vec<Segment>> {
        self.sources(view).map(|sources| segments(&sources, &self.input_starts, self.input_columns))
    }

    /// `None` for what is pooled already.
    pub(in crate::gpu) fn pool(&mut self, pool: &Pool) -> Option<()> {
        let steps = pool.src.width / pool.columns;
        for column in 0..pool.dst.width {
            let first = column / pool.columns * pool.kernel;
            let count = pool.kernel.min(steps - first);
            let at = |step: usize| {
                let column = (first + step) * pool.columns + column % pool.columns;
                self.read(pool.src, column).filter(|source| source.count == 1)
            };
            let mut source = at(0)?;
            source.count = count;
            source.mean = pool.mode == PoolMode::Mean;
            if count > 1 {
                source.step = at(1)?.at.checked_sub(source.at)?;
            }
            for step in 1..count {
                if at(step)?.at != source.at + step * source.step {
                    return None;
                }
            }
            self.sources[pool.dst.buffer.0][pool.dst.offset + column] = Some(source);
        }
        Some(())
    }

    pub(in crate::gpu) fn shift(&mut self, step: &Move) {
        let [outer, inner] = step.counts;
        for (i, j) in (0..outer).flat_map(|i| (0..inner).map(move |j| (i, j))) {
            let steps = step.src_steps.map(|step| step as isize);
            let column = step.start as isize + i as isize * steps[0] + j as isize * steps[1];
            let source = self.read(step.src, column.unsigned_abs());
            let at = step.dst.offset + i * step.dst_steps[0] + j * step.dst_steps[1];
            self.sources[step.dst.buffer.0][at] = source;
        }
    }
}

/// Runs of columns whose sources look alike; none crosses from one input to another.
fn segments(sources: &[Source], input_starts: &[usize], input_columns: usize) -> Vec<Segment> {
    let area = |at: usize| match at < input_columns {
        true => input_starts.partition_point(|start| *start <= at),
        false => usize::MAX,
    };
    let mut found: Vec<Segment> = Vec::new();
    for (column, source) in sources.iter().enumerate() {
        if let Some(last) = found.last_mut() {
            let alike = Source { at: last.source.at, ..*source } == last.source
                && area(source.at) == area(last.source.at);
            if let Some(offset) = source.at.checked_sub(last.source.at).filter(|_| alike) {
                if last.len == 1 {
                    last.apart = offset;
                }
                if offset == last.len * last.apart {
                    last.len += 1;
                    continue;
                }
            }
        }
        found.push(Segment { first: column, len: 1, source: *source, apart: 0 });
    }
    found
}
