//! Where forecasts start: every `h` days from the first held-out day on, as often as `h` whole days are left.
//!
//! No day is forecast twice; days left over at the end are forecast by none.

use peregrine_shaders::{ModelSpec, Windows};

use super::panel::{Panel, Series};

/// The origins of one horizon; there is at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origins {
    horizon: usize,
    holdout: usize,
}

/// One forecast to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    /// Counted from the first held-out day; series that end together share its dates.
    pub(super) index: usize,
    pub(super) series: &'a Series,
    /// Position of the first value to be forecast.
    pub(super) start: usize,
}

impl Origins {
    /// `None` where no forecast fits.
    pub(super) fn new(holdout: usize, horizon: usize) -> Option<Self> {
        (horizon > 0 && horizon <= holdout).then_some(Self { horizon, holdout })
    }

    pub(super) fn horizon(self) -> usize {
        self.horizon
    }

    pub(super) fn count(self) -> usize {
        self.holdout / self.horizon
    }

    /// Series by series; each must be longer than the held-out days.
    pub(super) fn of_panel(self, panel: &Panel) -> impl Iterator<Item = Origin<'_>> {
        panel.series().iter().flat_map(move |series| {
            let first = series.y().len() - self.holdout;
            (0..self.count()).map(move |index| Origin { index, series, start: first + index * self.horizon })
        })
    }
}

impl<'a> Origin<'a> {
    /// What is known when the forecast is made.
    pub(super) fn history(&self) -> &'a [f32] {
        &self.series.y()[..self.start]
    }

    /// What came.
    pub(super) fn truth(&self, horizon: usize) -> &'a [f32] {
        &self.series.y()[self.start..self.start + horizon]
    }

    /// The model's input: finite and of the right length, since a panel holds finite numbers alone and its series
    /// were found long enough. Known-future columns are read from the rows that were held out.
    pub(super) fn window(&self, panel: &Panel, spec: &ModelSpec) -> Windows {
        let from = self.start - spec.window;
        Windows {
            rows: 1,
            y: self.series.y()[from..self.start].to_vec(),
            mask: None,
            hist_exog: self.columns(panel, &spec.hist_exog, from..self.start),
            futr_exog: self.columns(panel, &spec.futr_exog, from..self.start + spec.horizon),
            stat_exog: self.columns(panel, &spec.stat_exog, self.start - 1..self.start),
        }
    }

    fn columns(&self, panel: &Panel, names: &[String], rows: std::ops::Range<usize>) -> Vec<f32> {
        let columns: Vec<&[f32]> =
            names.iter().filter_map(|name| Some(self.series.exogenous(panel.place(name)?))).collect();
        rows.flat_map(|row| columns.iter().map(move |column| column[row])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::point_spec;

    const TABLE: &str = "unique_id,ds,y,p,f,s\nA,1,1,10,21,7\nA,2,2,11,22,7\nA,3,3,12,23,8\nA,4,4,13,24,9\nA,5,5,14,25,9\n\
                         B,1,6,0,0,0\nB,2,7,0,0,0\nB,3,8,0,0,0\n";

    #[test]
    fn origins_step_by_the_horizon_from_the_first_held_out_day() {
        check(2, 1, &[("A", 0, 3), ("A", 1, 4), ("B", 0, 1), ("B", 1, 2)]);
    }

    #[test]
    fn days_that_fill_no_horizon_are_left_over() {
        check(3, 2, &[("A", 0, 2), ("B", 0, 0)]);
    }

    #[test]
    fn a_holdout_shorter_than_the_horizon_has_no_origin() {
        assert_eq!(Origins::new(1, 2), None);
        assert_eq!(Origins::new(1, 0), None);
    }

    #[test]
    fn a_window_ends_before_its_origin_and_future_columns_reach_over_the_horizon() {
        let (panel, name) = (panel(), |text: &str| vec![text.to_owned()]);
        let spec = ModelSpec {
            hist_exog: vec!["f".to_owned(), "p".to_owned()],
            futr_exog: name("f"),
            stat_exog: name("s"),
            ..point_spec(2, 2)
        };
        let origin = Origins::new(2, 2).unwrap().of_panel(&panel).next().unwrap();
        let windows = origin.window(&panel, &spec);
        assert_eq!(windows.y, [2.0, 3.0]);
        assert_eq!(windows.hist_exog, [22.0, 11.0, 23.0, 12.0]);
        assert_eq!(windows.futr_exog, [22.0, 23.0, 24.0, 25.0]);
        assert_eq!(windows.stat_exog, [8.0]);
        assert_eq!(windows.check(&spec), Ok(()));
        assert_eq!((origin.history(), origin.truth(2)), (&[1.0, 2.0, 3.0][..], &[4.0, 5.0][..]));
    }

    #[track_caller]
    fn check(holdout: usize, horizon: usize, want: &[(&str, usize, usize)]) {
        let panel = panel();
        let origins = Origins::new(holdout, horizon).unwrap();
        let got: Vec<_> =
            origins.of_panel(&panel).map(|origin| (origin.series.id(), origin.index, origin.start)).collect();
        assert_eq!(got, want);
    }

    fn panel() -> Panel {
        Panel::read(TABLE.as_bytes(), "y", &["p", "f", "s"].map(str::to_owned)).unwrap()
    }
}
