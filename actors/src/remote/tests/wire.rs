//! Every message there and back; then the same bytes cut, bent and prolonged.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use peregrine_runtime::{NodeId, Region};
use peregrine_shaders::{Backend, Family, Head, ModelSpec, NormalizerKind, WindowError, Windows};

use crate::Timing;
use crate::remote::{RemoteAnswer, RemoteForecast, RemoteRefusal, WireError};

#[test]
fn requests_come_back() {
    requests().iter().for_each(|request| check(request, RemoteForecast::write, RemoteForecast::read));
}

#[test]
fn answers_come_back() {
    for answer in answers() {
        check(&Shown(answer), |shown, out| shown.0.write(out), |bytes| RemoteAnswer::read(bytes).map(Shown));
    }
}

#[test]
fn refusals_come_back() {
    refusals().iter().for_each(|refusal| check(refusal, RemoteRefusal::write, RemoteRefusal::read));
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let mut bytes = Vec::new();
    RemoteRefusal::Unavailable("ä".repeat(400)).write(&mut bytes);
    let read = RemoteRefusal::read(&bytes).unwrap();
    assert_eq!(read, RemoteRefusal::Unavailable("ä".repeat(256)));
}

#[test]
fn counts_that_the_bytes_do_not_hold_are_refused() {
    let mut bytes = Vec::new();
    requests()[0].write(&mut bytes);
    // The count of `y` stands behind the name, the version, two flags, the rows and the mask's flag.
    let at = 4 + "model".len() + 1 + 4 + 1 + 1 + 4 + 1;
    for count in [0_u32, 2, 1 << 20, u32::MAX / 4, u32::MAX - 1, u32::MAX] {
        let mut bent = bytes.clone();
        bent[at..at + 4].copy_from_slice(&count.to_le_bytes());
        assert!(RemoteForecast::read(&bent).is_err(), "{count}");
    }
}

#[test]
fn a_shape_that_overflows_is_refused() {
    let answer = answers().remove(0);
    let spec = ModelSpec { window: 1 << 20, series: 1 << 20, ..ModelSpec::clone(&answer.spec) };
    let mut bytes = Vec::new();
    RemoteAnswer { spec: Arc::new(spec), ..answer }.write(&mut bytes);
    assert_eq!(RemoteAnswer::read(&bytes).err(), Some(WireError::Shape));
}

#[test]
fn windows_that_do_not_divide_into_rows_are_refused() {
    let windows = Windows { rows: 2, y: vec![1.0; 3], ..Windows::default() };
    let mut bytes = Vec::new();
    RemoteForecast { windows: Some(windows), ..requests()[0].clone() }.write(&mut bytes);
    assert_eq!(RemoteForecast::read(&bytes).err(), Some(WireError::Shape));
}

/// There and back; then no prefix and no longer form is a message, and no bent byte or bit does harm.
#[track_caller]
fn check<T: PartialEq + Debug>(
    message: &T,
    write: impl Fn(&T, &mut Vec<u8>),
    read: impl Fn(&[u8]) -> Result<T, WireError>,
) {
    let mut bytes = Vec::new();
    write(message, &mut bytes);
    assert_eq!(read(&bytes).as_ref(), Ok(message));
    for len in 0..bytes.len() {
        assert!(read(&bytes[..len]).is_err(), "the first {len} bytes are a message");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(read(&longer).is_err(), "a byte too many is taken");
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bent = bytes.clone();
            bent[at] ^= 1 << bit;
            // What still is a message is a whole one: it goes back to the very same bytes.
            if let Ok(other) = read(&bent) {
                let mut again = Vec::new();
                write(&other, &mut again);
                assert!(again == bent || is_spare(&again, &bent), "byte {at}, bit {bit}");
                assert!(again.len() <= bytes.len());
            }
        }
    }
}

/// The version of a request that names none is not read.
fn is_spare(again: &[u8], bent: &[u8]) -> bool {
    again.len() == bent.len() && again.iter().zip(bent).filter(|(a, b)| a != b).count() <= 4
}

fn requests() -> Vec<RemoteForecast> {
    let windows = Windows { rows: 1, y: vec![1.0, -2.5, 3e-20, 4.0], ..Windows::default() };
    let first = RemoteForecast {
        model: "model".to_owned(),
        version: Some(3),
        may_degrade: false,
        windows: Some(windows.clone()),
    };
    let full = Windows {
        rows: 2,
        y: vec![1.0; 8],
        mask: Some(vec![1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]),
        hist_exog: vec![0.5; 16],
        futr_exog: vec![f32::MAX; 12],
        stat_exog: vec![-0.0, 7.0],
    };
    vec![
        first.clone(),
        RemoteForecast { version: None, may_degrade: true, windows: Some(full), ..first.clone() },
        RemoteForecast { windows: None, ..first },
    ]
}

/// Compared by what it shows: shapes have no equality of their own.
struct Shown(RemoteAnswer);

impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

impl Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

fn answers() -> Vec<RemoteAnswer> {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let spec = |head: Head, columns: &[&str]| ModelSpec {
        name: "model".to_owned(),
        family: Family::Tsmixer,
        horizon: 2,
        window: 4,
        series: 3,
        normalizer: NormalizerKind::Revin,
        head,
        hist_exog: names(&["vol", "spread"]),
        futr_exog: names(&["day"]),
        stat_exog: names(&[]),
        columns: names(columns),
    };
    let specs = [
        spec(Head::Point, &["mean"]),
        spec(Head::Quantiles(vec![0.5, 0.1]), &["median", "lo-80"]),
        spec(Head::StudentT, &["mean", "df", "loc", "scale"]),
        spec(Head::Normal, &["mean", "loc", "scale"]),
    ];
    let answer = |(rows, spec): (usize, ModelSpec)| RemoteAnswer {
        version: 7,
        digest: "00ff".to_owned(),
        weight_bytes: 12_345,
        rows,
        values: (0..rows * spec.answer_len()).map(|at| at as f32 * 0.25 - 1.0).collect(),
        spec: Arc::new(spec),
        backend: Backend::Gpu,
        degraded: rows == 2,
        timing: Timing {
            queue: Duration::from_micros(12),
            compute: Duration::from_millis(3),
            batch_rows: 64,
        },
        node: NodeId::new("node-1").unwrap(),
        region: Region::new("ams").unwrap(),
    };
    // No rows: the answer to a question for shapes.
    specs.into_iter().enumerate().map(answer).collect()
}

fn refusals() -> Vec<RemoteRefusal> {
    let windows = [
        WindowError::Empty,
        WindowError::Length { tensor: "mask", rows: 1, got: 2, want: usize::MAX },
        WindowError::NotFinite { tensor: "stat_exog", row: 3, index: 4 },
        WindowError::Mask { row: 5, index: 6 },
    ];
    let mut refusals: Vec<_> = windows.into_iter().map(RemoteRefusal::Window).collect();
    refusals.extend([
        RemoteRefusal::UnknownModel,
        RemoteRefusal::UnknownVersion,
        RemoteRefusal::NotReady,
        RemoteRefusal::Overloaded { retry_after_ms: 250 },
        RemoteRefusal::Stopping,
        RemoteRefusal::Degraded,
        RemoteRefusal::Unavailable("cpu is down".to_owned()),
        RemoteRefusal::Unreachable("link lost".to_owned()),
        RemoteRefusal::Malformed("code 9".to_owned()),
        RemoteRefusal::TooManyRows { max: 4096 },
        RemoteRefusal::NotFinite { row: 2 },
        RemoteRefusal::DeadlineExceeded,
    ]);
    refusals
}
