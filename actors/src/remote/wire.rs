//! Bytes of the messages between nodes: fixed order, little-endian, tensors raw.
//!
//! What comes in is hostile. Nothing is allocated for a count before the bytes that it speaks of are seen to be there,
//! shapes are multiplied with care, and a message ends where its bytes end. The envelope around it carries the version
//! of this form.

use std::sync::Arc;
use std::time::Duration;

use peregrine_runtime::{NodeId, Region};
use peregrine_shaders::{Backend, Family, Head, ModelSpec, NormalizerKind, WindowError, Windows};

use super::message::{RemoteAnswer, RemoteForecast, RemoteRefusal};
use crate::request::Timing;
use crate::status::nanos;

/// Bytes that are no message. Whoever sent them is wrong, or newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// They end too early.
    #[error("the message is cut short")]
    Short,
    /// They go on after the end.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// A choice that this build does not know.
    #[error("`{what}` cannot be {code}")]
    Code {
        /// Of what.
        what: &'static str,
        /// What was sent.
        code: u8,
    },
    /// More than is ever sent.
    #[error("`{0}` is too large")]
    TooLarge(&'static str),
    /// Not UTF-8, or no name.
    #[error("`{0}` is no text of its kind")]
    Text(&'static str),
    /// Counts that contradict each other.
    #[error("the lengths of the tensors contradict their shape")]
    Shape,
}

/// Longest name of a model, column or digest, in bytes.
const NAME_BYTES_MAX: usize = 1024;
/// Longest reason of a refusal, in bytes.
const REASON_BYTES_MAX: usize = 512;
/// Names in one list, and quantiles of one head.
const NAMES_MAX: usize = 1024;
/// Steps or series of a model, and windows of a request.
const EXTENT_MAX: usize = 1 << 20;
/// Numbers of one row of any tensor.
const ROW_LEN_MAX: usize = 1 << 26;

// Their places are their codes: appended to, never reordered.
const FAMILIES: [Family; 13] = [
    Family::Nhits,
    Family::Nbeats,
    Family::Mlp,
    Family::Dlinear,
    Family::Nlinear,
    Family::Tide,
    Family::Tsmixer,
    Family::Patchtst,
    Family::Lstm,
    Family::Gru,
    Family::Deepar,
    Family::Tcn,
    Family::Ensemble,
];
const NORMALIZERS: [NormalizerKind; 7] = [
    NormalizerKind::Identity,
    NormalizerKind::Standard,
    NormalizerKind::Robust,
    NormalizerKind::MinMax,
    NormalizerKind::MinMax1,
    NormalizerKind::Invariant,
    NormalizerKind::Revin,
];
const BACKENDS: [Backend; 2] = [Backend::Cpu, Backend::Gpu];
const TENSORS: [&str; 5] = ["y", "mask", "hist_exog", "futr_exog", "stat_exog"];

impl RemoteForecast {
    /// Appends its bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        put_text(out, &self.model, NAME_BYTES_MAX);
        put_u8(out, u8::from(self.version.is_some()));
        put_u32(out, self.version.unwrap_or(0));
        put_u8(out, u8::from(self.may_degrade));
        let Some(windows) = &self.windows else {
            put_u8(out, 0);
            return;
        };
        put_u8(out, 1);
        put_count(out, windows.rows);
        put_u8(out, u8::from(windows.mask.is_some()));
        let tensors = [&windows.y, &windows.hist_exog, &windows.futr_exog, &windows.stat_exog];
        tensors.iter().for_each(|tensor| put_count(out, tensor.len()));
        let mask = windows.mask.as_deref().unwrap_or_default();
        out.reserve(4 * (mask.len() + tensors.iter().map(|tensor| tensor.len()).sum::<usize>()));
        put_floats(out, &windows.y);
        put_floats(out, mask);
        tensors[1..].iter().for_each(|tensor| put_floats(out, tensor));
    }

    /// The message that these bytes are.
    ///
    /// # Errors
    /// When they are none; see [`WireError`].
    pub fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(bytes);
        let model = reader.name("model")?;
        let named = reader.flag("version")?;
        let version = reader.u32()?;
        let may_degrade = reader.flag("may_degrade")?;
        let windows = if reader.flag("windows")? { Some(read_windows(&mut reader)?) } else { None };
        reader.end()?;
        Ok(Self { model, version: named.then_some(version), may_degrade, windows })
    }
}

fn read_windows(reader: &mut Reader<'_>) -> Result<Windows, WireError> {
    let rows = reader.extent("rows")?;
    let masked = reader.flag("mask")?;
    let counts = [reader.count()?, reader.count()?, reader.count()?, reader.count()?];
    let [y, hist, futr, stat] = counts;
    if counts.iter().any(|count| count % rows != 0 || count / rows > ROW_LEN_MAX) {
        return Err(WireError::Shape);
    }
    let mask = if masked { y } else { 0 };
    let total = [y, mask, hist, futr, stat].iter().try_fold(0_usize, |sum, count| sum.checked_add(*count));
    if total.and_then(|total| total.checked_mul(4)) != Some(reader.0.len()) {
        return Err(WireError::Shape);
    }
    Ok(Windows {
        rows,
        y: reader.floats(y)?,
        mask: if masked { Some(reader.floats(mask)?) } else { None },
        hist_exog: reader.floats(hist)?,
        futr_exog: reader.floats(futr)?,
        stat_exog: reader.floats(stat)?,
    })
}

impl RemoteAnswer {
    /// Appends its bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_spec(&self.spec, out);
        put_u32(out, self.version);
        put_text(out, &self.digest, NAME_BYTES_MAX);
        put_u64(out, self.weight_bytes as u64);
        put_u8(out, code_of(&BACKENDS, &self.backend));
        put_u8(out, u8::from(self.degraded));
        put_u64(out, nanos(self.timing.queue));
        put_u64(out, nanos(self.timing.compute));
        put_count(out, self.timing.batch_rows);
        put_text(out, self.node.as_str(), NAME_BYTES_MAX);
        put_text(out, self.region.as_str(), NAME_BYTES_MAX);
        put_count(out, self.rows);
        out.reserve(4 * self.values.len());
        put_floats(out, &self.values);
    }

    /// The message that these bytes are.
    ///
    /// # Errors
    /// When they are none; see [`WireError`].
    pub fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(bytes);
        let spec = read_spec(&mut reader)?;
        let version = reader.u32()?;
        let digest = reader.name("digest")?;
        let weight_bytes = usize::try_from(reader.u64()?).map_err(|_| WireError::TooLarge("weight_bytes"))?;
        let backend = reader.choice("backend", &BACKENDS)?;
        let degraded = reader.flag("degraded")?;
        let queue = Duration::from_nanos(reader.u64()?);
        let compute = Duration::from_nanos(reader.u64()?);
        let batch_rows = reader.count()?;
        let node = NodeId::new(&reader.name("node")?).map_err(|_| WireError::Text("node"))?;
        let region = Region::new(&reader.name("region")?).map_err(|_| WireError::Text("region"))?;
        let rows = reader.count()?;
        let count = rows.checked_mul(spec.answer_len()).ok_or(WireError::Shape)?;
        if count.checked_mul(4) != Some(reader.0.len()) {
            return Err(WireError::Shape);
        }
        let values = reader.floats(count)?;
        reader.end()?;
        let timing = Timing { queue, compute, batch_rows };
        let spec = Arc::new(spec);
        Ok(Self {
            spec,
            version,
            digest,
            weight_bytes,
            rows,
            values,
            backend,
            degraded,
            timing,
            node,
            region,
        })
    }
}

fn write_spec(spec: &ModelSpec, out: &mut Vec<u8>) {
    put_text(out, &spec.name, NAME_BYTES_MAX);
    put_u8(out, code_of(&FAMILIES, &spec.family));
    put_count(out, spec.horizon);
    put_count(out, spec.window);
    put_count(out, spec.series);
    put_u8(out, code_of(&NORMALIZERS, &spec.normalizer));
    let (code, quantiles): (u8, &[f64]) = match &spec.head {
        Head::Point => (0, &[]),
        Head::Quantiles(quantiles) => (1, quantiles),
        Head::StudentT => (2, &[]),
        Head::Normal => (3, &[]),
    };
    put_u8(out, code);
    put_count(out, quantiles.len());
    quantiles.iter().for_each(|quantile| out.extend_from_slice(&quantile.to_le_bytes()));
    for names in [&spec.hist_exog, &spec.futr_exog, &spec.stat_exog, &spec.columns] {
        put_count(out, names.len());
        names.iter().for_each(|name| put_text(out, name, NAME_BYTES_MAX));
    }
}

fn read_spec(reader: &mut Reader<'_>) -> Result<ModelSpec, WireError> {
    let name = reader.name("model")?;
    let family = reader.choice("family", &FAMILIES)?;
    let horizon = reader.extent("horizon")?;
    let window = reader.extent("window")?;
    let series = reader.extent("series")?;
    let normalizer = reader.choice("normalizer", &NORMALIZERS)?;
    let code = reader.u8()?;
    let quantiles = reader.doubles()?;
    let head = match (code, quantiles.len()) {
        (0, 0) => Head::Point,
        (1, 1..) => Head::Quantiles(quantiles),
        (2, 0) => Head::StudentT,
        (3, 0) => Head::Normal,
        _ => return Err(WireError::Code { what: "head", code }),
    };
    let hist_exog = reader.names("hist_exog")?;
    let futr_exog = reader.names("futr_exog")?;
    let stat_exog = reader.names("stat_exog")?;
    let columns = reader.names("columns")?;
    let span = window + horizon;
    let row_lens = [
        window.checked_mul(series),
        window.checked_mul(hist_exog.len()),
        span.checked_mul(futr_exog.len()),
        horizon.checked_mul(series).and_then(|len| len.checked_mul(columns.len())),
    ];
    let fits = |len: &Option<usize>| len.is_some_and(|len| len <= ROW_LEN_MAX);
    if head.answer_width() != columns.len() || !row_lens.iter().all(fits) {
        return Err(WireError::Shape);
    }
    Ok(ModelSpec {
        name,
        family,
        horizon,
        window,
        series,
        normalizer,
        head,
        hist_exog,
        futr_exog,
        stat_exog,
        columns,
    })
}

impl RemoteRefusal {
    /// Appends its bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::UnknownModel => put_u8(out, 0),
            Self::UnknownVersion => put_u8(out, 1),
            Self::NotReady => put_u8(out, 2),
            Self::Overloaded { retry_after_ms } => {
                put_u8(out, 3);
                put_u32(out, *retry_after_ms);
            }
            Self::Stopping => put_u8(out, 4),
            Self::Degraded => put_u8(out, 5),
            Self::Unavailable(reason) => put_reason(out, 6, reason),
            Self::Unreachable(reason) => put_reason(out, 7, reason),
            Self::Malformed(reason) => put_reason(out, 8, reason),
            Self::Window(error) => {
                put_u8(out, 9);
                write_window_error(error, out);
            }
            Self::TooManyRows { max } => {
                put_u8(out, 10);
                put_count(out, *max);
            }
            Self::NotFinite { row } => {
                put_u8(out, 11);
                put_count(out, *row);
            }
            Self::DeadlineExceeded => put_u8(out, 12),
        }
    }

    /// The message that these bytes are.
    ///
    /// # Errors
    /// When they are none; see [`WireError`].
    pub fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(bytes);
        let refusal = match reader.u8()? {
            0 => Self::UnknownModel,
            1 => Self::UnknownVersion,
            2 => Self::NotReady,
            3 => Self::Overloaded { retry_after_ms: reader.u32()? },
            4 => Self::Stopping,
            5 => Self::Degraded,
            6 => Self::Unavailable(reader.text("reason", REASON_BYTES_MAX)?),
            7 => Self::Unreachable(reader.text("reason", REASON_BYTES_MAX)?),
            8 => Self::Malformed(reader.text("reason", REASON_BYTES_MAX)?),
            9 => Self::Window(read_window_error(&mut reader)?),
            10 => Self::TooManyRows { max: reader.count()? },
            11 => Self::NotFinite { row: reader.count()? },
            12 => Self::DeadlineExceeded,
            code => return Err(WireError::Code { what: "refusal", code }),
        };
        reader.end()?;
        Ok(refusal)
    }
}

fn write_window_error(error: &WindowError, out: &mut Vec<u8>) {
    match error {
        WindowError::Empty => put_u8(out, 0),
        WindowError::Length { tensor, rows, got, want } => {
            put_u8(out, 1);
            put_u8(out, code_of(&TENSORS, tensor));
            [rows, got, want].into_iter().for_each(|&count| put_u64(out, count as u64));
        }
        WindowError::NotFinite { tensor, row, index } => {
            put_u8(out, 2);
            put_u8(out, code_of(&TENSORS, tensor));
            [row, index].into_iter().for_each(|&count| put_u64(out, count as u64));
        }
        WindowError::Mask { row, index } => {
            put_u8(out, 3);
            [row, index].into_iter().for_each(|&count| put_u64(out, count as u64));
        }
    }
}

fn read_window_error(reader: &mut Reader<'_>) -> Result<WindowError, WireError> {
    Ok(match reader.u8()? {
        0 => WindowError::Empty,
        1 => WindowError::Length {
            tensor: reader.choice("tensor", &TENSORS)?,
            rows: reader.large()?,
            got: reader.large()?,
            want: reader.large()?,
        },
        2 => WindowError::NotFinite {
            tensor: reader.choice("tensor", &TENSORS)?,
            row: reader.large()?,
            index: reader.large()?,
        },
        3 => WindowError::Mask { row: reader.large()?, index: reader.large()? },
        code => return Err(WireError::Code { what: "window error", code }),
    })
}

// ---- writing ---------------------------------------------------------------------------------------------------------

fn put_u8(out: &mut Vec<u8>, value: u8) {
    out.push(value);
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// A count that does not fit is sent as one that no reader accepts.
fn put_count(out: &mut Vec<u8>, count: usize) {
    put_u32(out, u32::try_from(count).unwrap_or(u32::MAX));
}

/// As much of a text as readers accept, cut between characters.
fn put_text(out: &mut Vec<u8>, text: &str, bytes_max: usize) {
    let len = text.floor_char_boundary(bytes_max);
    put_count(out, len);
    out.extend_from_slice(&text.as_bytes()[..len]);
}

fn put_reason(out: &mut Vec<u8>, code: u8, reason: &str) {
    put_u8(out, code);
    put_text(out, reason, REASON_BYTES_MAX);
}

fn put_floats(out: &mut Vec<u8>, values: &[f32]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

/// The place of a value in its table; the tables hold every value there is.
fn code_of<T: PartialEq>(table: &[T], value: &T) -> u8 {
    table.iter().position(|known| known == value).map_or(u8::MAX, |place| place as u8)
}

// ---- reading ---------------------------------------------------------------------------------------------------------

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], WireError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    fn count(&mut self) -> Result<usize, WireError> {
        match self.u32()? {
            u32::MAX => Err(WireError::TooLarge("count")),
            count => Ok(count as usize),
        }
    }

    fn large(&mut self) -> Result<usize, WireError> {
        usize::try_from(self.u64()?).map_err(|_| WireError::TooLarge("count"))
    }

    /// A count that a shape is made of: at least one.
    fn extent(&mut self, what: &'static str) -> Result<usize, WireError> {
        match self.count()? {
            0 => Err(WireError::Shape),
            extent if extent > EXTENT_MAX => Err(WireError::TooLarge(what)),
            extent => Ok(extent),
        }
    }

    fn flag(&mut self, what: &'static str) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            code => Err(WireError::Code { what, code }),
        }
    }

    fn choice<T: Copy>(&mut self, what: &'static str, table: &[T]) -> Result<T, WireError> {
        let code = self.u8()?;
        table.get(usize::from(code)).copied().ok_or(WireError::Code { what, code })
    }

    fn text(&mut self, what: &'static str, bytes_max: usize) -> Result<String, WireError> {
        let len = self.count()?;
        if len > bytes_max {
            return Err(WireError::TooLarge(what));
        }
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| WireError::Text(what))?;
        Ok(text.to_owned())
    }

    fn name(&mut self, what: &'static str) -> Result<String, WireError> {
        self.text(what, NAME_BYTES_MAX)
    }

    fn names(&mut self, what: &'static str) -> Result<Vec<String>, WireError> {
        let count = self.count()?;
        if count > NAMES_MAX {
            return Err(WireError::TooLarge(what));
        }
        // Each name has at least the four bytes of its length.
        if count * 4 > self.0.len() {
            return Err(WireError::Short);
        }
        (0..count).map(|_| self.name(what)).collect()
    }

    fn doubles(&mut self) -> Result<Vec<f64>, WireError> {
        let count = self.count()?;
        if count > NAMES_MAX {
            return Err(WireError::TooLarge("quantiles"));
        }
        let bytes = self.take(count * 8)?;
        Ok(bytes.as_chunks().0.iter().map(|chunk| f64::from_le_bytes(*chunk)).collect())
    }

    fn floats(&mut self, count: usize) -> Result<Vec<f32>, WireError> {
        let bytes = self.take(count.checked_mul(4).ok_or(WireError::Shape)?)?;
        Ok(bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect())
    }

    fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.0.len())) }
    }
}
