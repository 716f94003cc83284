//! Several forecasters that answer as one.
//!
//! Each member gets the newest part of the window that it was trained on. Quantiles are joined level by level, by their
//! mean or median (Vincent 1912; Lichtendahl et al. 2013), which keeps the order of levels. Where some members are point
//! forecasts, these count as medians: a bound is the mean (or median) of all members' medians plus that of what the
//! members with quantiles add to their own.

use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::head::level_column;
use crate::loader::{Combine, EnsembleBlueprint, LoadError, hex};
use crate::{
    ExecuteError, Executor, Family, Files, Head, ModelSpec, NormalizerKind, Plan, Precision, Windows,
};

use super::Scratch;
use super::pipeline::is_finite;
use super::trained::Trained;

/// The members, in the order of the file.
#[derive(Debug)]
pub(super) struct Ensemble {
    members: Vec<Member>,
    combine: Combine,
    /// Column of the median in the answer.
    middle: usize,
}

#[derive(Debug)]
struct Member {
    name: String,
    trained: Trained,
    weight: f64,
    /// Its column of each of the answer's; none where it has but one, its middle.
    columns: Vec<usize>,
}

/// Reused between batches.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    windows: Windows,
    answers: Vec<Vec<f32>>,
    terms: Vec<(f64, f64)>,
}

impl Ensemble {
    /// Loads the members, of which `version` says which one is tried first; the spec is that of the whole.
    pub(super) fn load(
        blueprint: EnsembleBlueprint,
        files: &dyn Files,
        version: &dyn Fn(&str) -> Option<u32>,
    ) -> Result<(ModelSpec, String, Self), LoadError> {
        let EnsembleBlueprint { name, combine, members, bytes } = blueprint;
        let mut digest = Sha256::new_with_prefix(&bytes);
        let mut loaded = Vec::with_capacity(members.len());
        for mut member in members {
            if let Some(version) = version(&member.name) {
                put_first(&mut member.dirs, version);
            }
            let trained = first_that_loads(&member.dirs, files)?;
            digest.update(&trained.digest);
            loaded.push(Member { name: member.name, trained, weight: member.weight, columns: Vec::new() });
        }
        let spec = joint_spec(name, &loaded)?;
        for member in &mut loaded {
            // The spec has just been joined of all levels.
            member.columns = columns(&member.trained.spec.head, &spec.head).unwrap_or_default();
        }
        let middle = middle(&spec.head)
            .ok_or_else(|| LoadError::parameter("members", "have quantiles but no median"))?;
        Ok((spec, hex(&digest.finalize()), Self { members: loaded, combine, middle }))
    }

    pub(super) fn plans(&self) -> impl Iterator<Item = &Arc<Plan>> {
        self.members.iter().map(|member| &member.trained.plan)
    }

    /// All members rounded; `None` when one cannot be.
    pub(super) fn rounded(&self, precision: Precision) -> Option<Self> {
        let rounded = |member: &Member| {
            let trained = member.trained.rounded(precision)?;
            let (name, columns) = (member.name.clone(), member.columns.clone());
            Some(Member { name, trained, weight: member.weight, columns })
        };
        let members = self.members.iter().map(rounded).collect::<Option<Vec<Member>>>()?;
        Some(Self { members, combine: self.combine, middle: self.middle })
    }

    /// Whether all members are.
    pub(super) fn is_normalized(&self) -> bool {
        self.members.iter().all(|member| member.trained.is_normalized())
    }

    /// Asks every member and joins the answers. `out` becomes `[rows, h, C]`.
    pub(super) fn forecast(
        &self,
        spec: &ModelSpec,
        executor: &mut dyn Executor,
        windows: &Windows,
        scratch: &mut Scratch,
        out: &mut Vec<f32>,
    ) -> Result<(), ExecuteError> {
        // Members use the rest of the scratch while this part is out on loan.
        let mut workspace = std::mem::take(&mut scratch.ensemble);
        let joined = self.join(spec, executor, windows, (scratch, &mut workspace), out);
        scratch.ensemble = workspace;
        joined
    }

    fn join(
        &self,
        spec: &ModelSpec,
        executor: &mut dyn Executor,
        windows: &Windows,
        (scratch, workspace): (&mut Scratch, &mut Workspace),
        out: &mut Vec<f32>,
    ) -> Result<(), ExecuteError> {
        let Workspace { windows: cut, answers, terms } = workspace;
        answers.resize_with(self.members.len(), Vec::new);
        for (member, answer) in self.members.iter().zip(answers.iter_mut()) {
            newest(windows, spec.window, member.trained.spec.window, cut);
            member.trained.forecast(executor, cut, scratch, answer)?;
        }
        out.clear();
        out.resize(windows.rows * spec.answer_len(), 0.0);
        for (step, target) in out.chunks_exact_mut(spec.columns.len()).enumerate() {
            self.join_step(answers, step, terms, target);
        }
        // A bound is a centre and a distance, whose sum may be too large where neither is.
        match out.chunks_exact(spec.answer_len()).position(|row| !is_finite(row)) {
            Some(row) => Err(ExecuteError::NotFinite { row }),
            None => Ok(()),
        }
    }

    /// `step` counts steps of all rows.
    fn join_step(&self, answers: &[Vec<f32>], step: usize, terms: &mut Vec<(f64, f64)>, target: &mut [f32]) {
        let columns = target.len();
        let own = |index: usize, column: usize| {
            let Member { trained, columns, .. } = &self.members[index];
            let width = trained.spec.columns.len();
            let column = columns.get(column).copied().unwrap_or(0);
            f64::from(answers[index][step * width + column])
        };
        let has_column = |index: usize| self.members[index].trained.spec.columns.len() == columns;
        // Where a member has only a middle, the others' bounds are moved to the common one.
        let moved = !(0..self.members.len()).all(has_column);
        let middle = |index: usize| if moved { own(index, self.middle) } else { 0.0 };
        let members = || self.members.iter().enumerate();
        terms.clear();
        terms.extend(members().map(|(index, member)| (middle(index), member.weight)));
        let centre = if moved { join(self.combine, terms) } else { 0.0 };
        for (column, bound) in target.iter_mut().enumerate() {
            terms.clear();
            let with_column = members().filter(|(index, _)| has_column(*index));
            terms.extend(
                with_column.map(|(index, member)| (own(index, column) - middle(index), member.weight)),
            );
            *bound = (centre + join(self.combine, terms)) as f32;
        }
    }
}

/// The folder of this version before all others, if it is one of them.
fn put_first(dirs: &mut [PathBuf], version: u32) {
    let is_it = |dir: &PathBuf| dir.file_name().is_some_and(|name| *name == *version.to_string());
    if let Some(at) = dirs.iter().position(is_it) {
        dirs[..=at].rotate_right(1);
    }
}

/// As a node does that serves a good version 1 where version 2 is damaged. What is wrong is told of the first.
fn first_that_loads(dirs: &[PathBuf], files: &dyn Files) -> Result<Trained, LoadError> {
    let mut first = None;
    for dir in dirs {
        match Trained::load(dir, files) {
            Ok(trained) => return Ok(trained),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| LoadError::parameter("members", "have no folder")))
}

/// Weighted mean or median of `(value, weight)`; there is at least one.
fn join(combine: Combine, terms: &mut [(f64, f64)]) -> f64 {
    match combine {
        Combine::Mean => {
            let weight: f64 = terms.iter().map(|(_, weight)| weight).sum();
            terms.iter().map(|(value, weight)| value * weight).sum::<f64>() / weight
        }
        Combine::Median => {
            terms.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
            let (low, high) = (terms[(terms.len() - 1) / 2].0, terms[terms.len() / 2].0);
            low + (high - low) / 2.0
        }
    }
}

/// The last `width` of each row's `window` values.
fn newest(windows: &Windows, window: usize, width: usize, into: &mut Windows) {
    let copy = |from: &[f32], to: &mut Vec<f32>| {
        to.clear();
        from.chunks_exact(window).for_each(|row| to.extend_from_slice(&row[window - width..]));
    };
    into.rows = windows.rows;
    copy(&windows.y, &mut into.y);
    match &windows.mask {
        Some(mask) => copy(mask, into.mask.get_or_insert_default()),
        None => into.mask = None,
    }
}

fn middle(head: &Head) -> Option<usize> {
    match head {
        Head::Point => Some(0),
        Head::Quantiles(levels) => level_column(levels, 0.5),
        Head::StudentT | Head::Normal => None,
    }
}

/// Where a member has the levels of the answer, in their order. `None`: it has others.
fn columns(member: &Head, answer: &Head) -> Option<Vec<usize>> {
    let (Head::Quantiles(own), Head::Quantiles(wanted)) = (member, answer) else { return None };
    let columns: Option<Vec<usize>> = wanted.iter().map(|level| level_column(own, *level)).collect();
    columns.filter(|columns| columns.len() == own.len())
}

fn joint_spec(name: String, members: &[Member]) -> Result<ModelSpec, LoadError> {
    let specs: Vec<&ModelSpec> = members.iter().map(|member| member.trained.spec.as_ref()).collect();
    let refuse =
        |name: &str, problem: &str| Err(LoadError::parameter("members", format!("`{name}` {problem}")));
    // Every quantile member has the same levels, in some order; the first's is the answer's. Without one the answer is a point.
    let shape = specs.iter().copied().find(|spec| spec.head != Head::Point).unwrap_or(specs[0]);
    for (spec, Member { name, .. }) in specs.iter().zip(members) {
        let exogenous = spec.hist_exog.len() + spec.futr_exog.len() + spec.stat_exog.len();
        if exogenous > 0 {
            return refuse(name, "needs exogenous columns");
        }
        if spec.horizon != shape.horizon {
            return refuse(name, "has another horizon than the others");
        }
        if spec.series != 1 {
            return refuse(name, "forecasts several series at once");
        }
        match &spec.head {
            Head::Point => {}
            Head::Quantiles(_) if columns(&spec.head, &shape.head).is_some() => {}
            Head::Quantiles(_) => return refuse(name, "has other quantiles than the others"),
            Head::StudentT | Head::Normal => return refuse(name, "forecasts a distribution"),
        }
    }
    Ok(ModelSpec {
        name,
        family: Family::Ensemble,
        window: specs.iter().map(|spec| spec.window).max().unwrap_or(0),
        normalizer: NormalizerKind::Identity,
        ..shape.clone()
    })
}
