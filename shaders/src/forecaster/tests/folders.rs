//! The trained models of the repository: every stored case within its tolerance.

use std::path::PathBuf;

use super::Interpreter;
use crate::cpu::CpuExecutor;
use crate::verify::verify;
use crate::{Command, Executor, Forecaster, PlainFiles, Precision};

pub(super) const SHIPPED: [&str; 7] = [
    "nhits-168x24-quantile",
    "nhits-vol-quantile",
    "nbeats-vol-quantile",
    "mlp-vol-quantile",
    "tide-vol-quantile",
    "patchtst-vol-point",
    "tcn-vol-point",
];
pub(super) const TESTED: [&str; 13] = [
    "nhits-ret-quantile",
    "nhits-rate-point",
    "nhits-gk-exog",
    "nhits-vol-point",
    "nbeats-vol-point",
    "dlinear-vol-point",
    "nlinear-vol-quantile",
    "lstm-vol-point",
    "lstm-vol-recursive",
    "gru-ret-quantile",
    "deepar-ret",
    "tide-gk-exog",
    "tsmixer-vol-point",
];

/// Folder of a model of the repository.
pub(super) fn folder(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let shipped = root.join("models").join(name);
    if shipped.is_dir() { shipped } else { root.join("tests/models").join(name) }
}

fn check(executor: &mut dyn Executor) {
    for name in SHIPPED.into_iter().chain(TESTED) {
        let report = verify(&folder(name), &PlainFiles, Precision::F32, executor).unwrap();
        println!("{name}: worst {:.2e} on {}", report.worst, report.device);
        let failed: Vec<_> = report.cases.iter().filter(|case| !case.pass).collect();
        assert!(report.passed && failed.is_empty(), "{name}: {failed:#?}");
        assert_eq!(report.model, name);
        assert!(!report.cases.is_empty());
        // Far below the tolerance: what is left is the rounding of f32.
        assert!(report.worst < 1e-5, "{name}: {}", report.worst);
    }
}

#[test]
fn every_stored_case_is_reproduced_by_plain_loops() {
    check(&mut Interpreter);
}

#[test]
fn every_stored_case_is_reproduced_by_the_cpu_executor() {
    check(&mut CpuExecutor::new(1));
    check(&mut CpuExecutor::new(2));
}

#[test]
fn halves_stay_within_what_is_said_of_them() {
    let mut executor = CpuExecutor::new(2);
    for name in SHIPPED.into_iter().chain(TESTED) {
        let report = verify(&folder(name), &PlainFiles, Precision::F16, &mut executor).unwrap();
        println!("{name}: worst {:.2e} with halves", report.worst);
        assert!(report.passed && report.precision == Precision::F16, "{name}: {:.2e}", report.worst);
        assert!(report.worst > 1e-6, "{name}: nothing was rounded");
    }
}

#[test]
fn what_was_rounded_says_so_and_is_smaller() {
    let mut total = (0, 0);
    for name in SHIPPED.into_iter().chain(TESTED) {
        let exact = Forecaster::load(&folder(name)).unwrap();
        let [halved, whole] =
            [(Precision::F16, "+f16"), (Precision::Int8, "+int8")].map(|(precision, sign)| {
                let rounded = exact.rounded(precision).unwrap();
                assert_eq!(rounded.digest().strip_suffix(sign), Some(exact.digest()));
                assert_eq!(rounded.precision(), precision);
                assert!(std::sync::Arc::ptr_eq(rounded.spec(), exact.spec()));
                rounded.weight_bytes()
            });
        assert!(halved < exact.weight_bytes(), "{name}");
        total.0 += whole;
        total.1 += halved;
    }
    // Of a layer with one input the scales outweigh what its whole numbers save.
    assert!(total.0 * 10 < total.1 * 6, "{total:?}");
}

#[test]
fn folding_leaves_the_fewest_multiply_adds() {
    let forecaster = Forecaster::load(&folder("nhits-168x24-quantile")).unwrap();
    let plan = forecaster.plans().next().unwrap();
    let layers = |inputs: usize| inputs * 256 + 256 * 256;
    let backcasts = 2 * 256 * 168;
    // Block 0 through its 30 knots, which are 32 columns so that all slices begin with a whole vector; blocks 1 and 2
    // straight to 24 steps of 5: their 60 and 120 knots would cost as much in block 2 and less in block 1.
    let forecast = (256 * 32 + 32 * 120) + (256 * 60 + 60 * 120) + 256 * 120;
    assert_eq!(plan.row_macs(), layers(84) + layers(84) + layers(168) + backcasts + forecast);
    let pools = plan.commands.iter().filter(|command| matches!(command, Command::Pool(_))).count();
    assert_eq!(pools, 2);
}

#[test]
fn digests_are_those_of_the_weights_file() {
    let forecaster = Forecaster::load(&folder("dlinear-vol-point")).unwrap();
    assert_eq!(forecaster.digest().len(), 64);
    assert!(forecaster.digest().bytes().all(|byte| byte.is_ascii_hexdigit()));
}
