//! `peregrine forecast`: a long CSV in (plain or gzip), the forecast of each series' last window out. No node, no actor.
//!
//! Output: `unique_id,step,ds,` and what a node answers to `/v1/forecast`: the middle, the bounds of each level, quantiles
//! that bound none. `ds` is that of the input's future rows, and behind those follows from the series' step where that is
//! regular. Numbers are the shortest text that reads back as the same f32.

use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_shaders::{
    ExecuteError, Executor, Forecaster, Head, LoadError, ModelSpec, Scratch, Windows, head,
};

use super::CliError;
use super::options::{ConfigArgs, ModelsArgs, vault};
use crate::backends;
use crate::catalog::{self, Entry};
use crate::config::BackendChoice;
use crate::levels::{offered, offers, own_levels};
use crate::long_table::{Forecastable, TableError, last_windows};

/// Windows per executor call: enough to fill a device, few enough for the bar to move.
const BATCH_ROWS: usize = 256;
const GPU_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
#[command(mut_arg("config", |arg| arg.help("Configuration file that names the repositories")))]
pub(super) struct ForecastArgs {
    /// Name in a repository, or a model folder
    #[arg(long)]
    model: String,
    /// CSV unique_id,ds,y[,exogenous…], plain or gzip, rows of a series in order of time; - is stdin. The last window of each
    /// series is forecast; a shorter series is padded on the left and masked; rows with empty y after the last value give the
    /// future exogenous columns
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    input: PathBuf,
    /// Steps ahead; default: all that the model forecasts
    #[arg(long, value_name = "STEPS")]
    horizon: Option<NonZeroUsize>,
    /// Percent that intervals hold, several with commas; default: those that the model has, 80 and 95 of one that gives all
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', value_parser = percent)]
    levels: Option<Vec<f64>>,
    /// Where the forecasts go; default: stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Which device computes
    #[arg(long, value_enum, default_value = "cpu")]
    backend: BackendChoice,
    /// With matrices of halves, as the profiles high_throughput and memory_optimized have them
    #[arg(long)]
    halves: bool,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    models: ModelsArgs,
}

/// Why a table is not forecast; the caller acts, or the operator where a device or file fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForecastCsvError {
    /// Not readable, or not writable.
    #[error("{}: {source}", file.display())]
    File { file: PathBuf, source: io::Error },
    /// The table is wrong.
    #[error("{}: {source}", file.display())]
    Table { file: PathBuf, source: TableError },
    /// The model is.
    #[error("model `{model}`: {source}")]
    Load { model: String, source: LoadError },
    /// It has no such form.
    #[error("model `{model}`: a weight is larger than a half can be: forecast it without --halves")]
    NotHalved { model: String },
    /// A long table says nothing of which series belong together, and in which order.
    #[error(
        "model `{model}` forecasts {series} series together, a CSV holds them one by one: ask a node's /v2 route"
    )]
    SeveralSeries { model: String, series: usize },
    /// The network overflows on these values.
    #[error("series `{id}`: the forecast is not finite")]
    NotFinite { id: String },
    /// The device failed.
    #[error("the device failed: {0}")]
    Execute(ExecuteError),
}

pub(super) fn run(args: ForecastArgs) -> Result<(), CliError> {
    if let Some(output) = &args.output
        && is_one_file(&args.input, output)
    {
        return Err(CliError::Usage(format!(
            "--output {} is the input: name another file",
            output.display()
        )));
    }
    let forecaster = loaded(&args)?;
    let ModelSpec { family, series, .. } = **forecaster.spec();
    if family.is_multivariate() {
        return Err(ForecastCsvError::SeveralSeries { model: args.model, series }.into());
    }
    let extent = Extent::new(&args, forecaster.spec())?;
    let input: Box<dyn Read> = if args.input == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let of_input = |source| ForecastCsvError::File { file: args.input.clone(), source };
        Box::new(File::open(&args.input).map_err(of_input)?)
    };
    let series = last_windows(input, forecaster.spec())
        .map_err(|source| ForecastCsvError::Table { file: args.input.clone(), source })?;
    let mut executor = backends::open(args.backend, backends::cores(), GPU_TIMEOUT)?;
    let bar = progress_bar(series.len());
    let values = forecast(&forecaster, executor.as_mut(), &series, |rows| bar.inc(rows as u64))?;
    bar.finish_and_clear();
    let table = written(&series, &values, forecaster.spec(), &extent);
    match &args.output {
        None => io::stdout().lock().write_all(table.as_bytes())?,
        Some(file) => std::fs::write(file, table)
            .map_err(|source| ForecastCsvError::File { file: file.clone(), source })?,
    }
    Ok(())
}

fn percent(text: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| "is no number".to_owned())
}

/// By whatever names.
fn is_one_file(one: &Path, other: &Path) -> bool {
    let identity = |path| {
        let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        Some((found.dev(), found.ino()))
    };
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// The model as it is to compute.
fn loaded(args: &ForecastArgs) -> Result<Forecaster, CliError> {
    let entry = find(&args.model, &args.config, &args.models)?;
    let model = || args.model.clone();
    let forecaster = catalog::load(&entry, &vault()?)
        .map_err(|source| ForecastCsvError::Load { model: model(), source })?;
    if !args.halves {
        return Ok(forecaster);
    }
    Ok(forecaster.halved().ok_or_else(|| ForecastCsvError::NotHalved { model: model() })?)
}

/// A model folder if the name is one, else the newest version in the repositories.
pub(super) fn find(model: &str, config: &ConfigArgs, models: &ModelsArgs) -> Result<Entry, CliError> {
    if catalog::holds_model(Path::new(model)) {
        let found = catalog::find(Path::new(model))?;
        return found.into_iter().last().ok_or_else(|| CliError::Usage(format!("{model}: no model in it")));
    }
    let config = config.resolved(models)?.config;
    let entries = catalog::scan(&config.models.repositories)?;
    if let Some(entry) = entries.iter().rfind(|entry| entry.name == model) {
        return Ok(entry.clone());
    }
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.dedup();
    Err(CliError::Usage(format!("unknown model `{model}`; the repositories hold: {}", names.join(", "))))
}

/// All values, series by series, `[h, C]` each.
fn forecast(
    forecaster: &Forecaster,
    executor: &mut dyn Executor,
    series: &[Forecastable],
    mut done: impl FnMut(usize),
) -> Result<Vec<f32>, ForecastCsvError> {
    let mut values = Vec::with_capacity(series.len() * forecaster.spec().answer_len());
    let (mut scratch, mut out) = (Scratch::default(), Vec::new());
    for chunk in series.chunks(BATCH_ROWS) {
        let mut batch = Windows::default();
        for one in chunk {
            batch.append(&one.windows, forecaster.spec().y_len());
        }
        forecaster.forecast(executor, &batch, &mut scratch, &mut out).map_err(|error| match error {
            ExecuteError::NotFinite { row } => ForecastCsvError::NotFinite { id: chunk[row].id.clone() },
            error => ForecastCsvError::Execute(error),
        })?;
        values.extend_from_slice(&out);
        done(chunk.len());
    }
    Ok(values)
}

/// How much of a forecast is written.
struct Extent {
    horizon: usize,
    /// Percent, rising.
    levels: Vec<f64>,
}

impl Extent {
    fn new(args: &ForecastArgs, spec: &ModelSpec) -> Result<Self, CliError> {
        let (model, horizon_max) = (&args.model, spec.horizon);
        if let Some(horizon) = args.horizon.filter(|horizon| horizon.get() > horizon_max) {
            let message = format!("--horizon {horizon}: model `{model}` forecasts {horizon_max} steps");
            return Err(CliError::Usage(message));
        }
        let mut levels = args.levels.clone().unwrap_or_else(|| own_levels(spec));
        let is_given = |level: f64| level > 0.0 && level < 100.0 && offers(&spec.head, level);
        if let Some(&level) = levels.iter().find(|&&level| !is_given(level)) {
            let offered = offered(spec);
            return Err(CliError::Usage(format!("--levels {level}: no level of model `{model}`, {offered}")));
        }
        levels.sort_by(f64::total_cmp);
        levels.dedup();
        Ok(Self { horizon: args.horizon.map_or(horizon_max, NonZeroUsize::get), levels })
    }

    fn columns(&self, spec: &ModelSpec) -> Vec<String> {
        let middle = if matches!(spec.head, Head::Quantiles(_)) { "median" } else { "mean" };
        let mut columns: Vec<String> =
            head::has_median(&spec.head).then(|| middle.to_owned()).into_iter().collect();
        columns.extend(self.levels.iter().rev().map(|level| format!("lo-{level}")));
        columns.extend(self.levels.iter().map(|level| format!("hi-{level}")));
        columns.extend(head::lone_quantiles(&spec.head).map(|(quantile, _)| format!("quantile-{quantile}")));
        columns
    }

    /// As [`Self::columns`] has them, each of all steps.
    fn values(&self, spec: &ModelSpec, answer: &[f32]) -> Vec<Vec<f32>> {
        let mut values: Vec<Vec<f32>> = head::median(spec, answer).into_iter().collect();
        let bounds = self.levels.iter().filter_map(|&level| head::bounds(spec, answer, level));
        let (lows, highs): (Vec<_>, Vec<_>) = bounds.unzip();
        values.extend(lows.into_iter().rev().chain(highs));
        values.extend(head::lone_quantiles(&spec.head).map(|(_, at)| head::column(spec, answer, at)));
        values
    }
}

fn written(series: &[Forecastable], values: &[f32], spec: &ModelSpec, extent: &Extent) -> String {
    let columns = extent.columns(spec).into_iter().map(|column| format!(",{column}"));
    let mut text = format!("unique_id,step,ds{}\n", columns.collect::<String>());
    for (one, answer) in series.iter().zip(values.chunks_exact(spec.answer_len())) {
        let columns = extent.values(spec, answer);
        for step in 0..extent.horizon {
            let ds = one.future_ds.get(step).map_or("", String::as_str);
            text.push_str(&format!("{},{},{}", cell(&one.id), step + 1, cell(ds)));
            text.extend(columns.iter().map(|values| format!(",{}", values[step])));
            text.push('\n');
        }
    }
    text
}

/// Quoted where CSV asks for it.
fn cell(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// On stderr; hidden when that is no terminal.
fn progress_bar(series: usize) -> ProgressBar {
    let bar = ProgressBar::new(series as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} series, {eta} left") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::ExitCode;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use peregrine_shaders::cpu::CpuExecutor;

    use super::*;

    /// One series of as many values as the model's window has, and more.
    fn history(id: &str, scale: f32) -> String {
        (0..70).map(|at| format!("{id},{at},{}\n", (at as f32 * 0.3).sin() * scale - 3.0)).collect()
    }

    #[test]
    fn a_packed_table_is_the_same_table() {
        let spec = crate::testing::point_spec(2, 2);
        let text = "unique_id,ds,y\nA,1,5\nA,2,6\n";
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text.as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        let read = |bytes: &[u8]| last_windows(bytes, &spec);
        assert_eq!(read(&packed).unwrap(), read(text.as_bytes()).unwrap());
        assert!(matches!(read(&packed[..packed.len() / 2]), Err(TableError::Csv(_))));
    }

    #[test]
    fn every_series_gets_its_own_rows_and_numbers_read_back() {
        let forecaster = Forecaster::load(Path::new("models/nbeats-vol-quantile")).unwrap();
        let spec = forecaster.spec();
        let text = format!("unique_id,ds,y\n{}{}\"a,b\",70,\n", history("\"a,b\"", 0.1), history("C", 0.5));
        let series = last_windows(text.as_bytes(), spec).unwrap();
        let mut executor = CpuExecutor::new(1);
        let mut steps = 0;
        let values = forecast(&forecaster, &mut executor, &series, |rows| steps += rows).unwrap();
        assert_eq!((values.len(), steps), (2 * spec.answer_len(), 2));

        let table = written(&series, &values, spec, &whole(spec));
        let mut reader = csv::Reader::from_reader(table.as_bytes());
        assert_eq!(reader.headers().unwrap().iter().skip(3).collect::<Vec<_>>(), spec.columns);
        let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
        assert_eq!((&records[0][0], &records[0][1], &records[0][2]), ("a,b", "1", "70"));
        assert_eq!((&records[20][0], &records[20][1], &records[20][2]), ("C", "1", "70"));
        let read: Vec<f32> = records
            .iter()
            .flat_map(|r| r.iter().skip(3).map(|c| c.parse().unwrap()).collect::<Vec<f32>>())
            .collect();
        assert_eq!(read, values);
    }

    #[test]
    fn a_distribution_is_written_as_a_node_answers_it() {
        let model = Path::new("tests/models/deepar-ret");
        let plain = file_written(model, &[]).unwrap();
        let header = |table: &str| table.lines().next().unwrap().to_owned();
        assert_eq!(header(&plain), "unique_id,step,ds,mean,lo-95,lo-80,hi-80,hi-95");
        let asked = file_written(model, &["--levels", "90,50.5", "--horizon", "2"]).unwrap();
        assert_eq!(header(&asked), "unique_id,step,ds,mean,lo-90,lo-50.5,hi-50.5,hi-90");
        let rows: Vec<Vec<&str>> = asked.lines().skip(1).map(|line| line.split(',').collect()).collect();
        assert_eq!(rows.len(), 2);
        for (row, step) in rows.iter().zip(1..) {
            assert_eq!(row[..3], ["A", &step.to_string(), &(69 + step).to_string()]);
            let of: Vec<f64> = row[3..].iter().map(|cell| cell.parse().unwrap()).collect();
            assert!(of[1] < of[2] && of[2] < of[0] && of[0] < of[3] && of[3] < of[4], "{of:?}");
        }
    }

    #[test]
    fn what_a_model_does_not_give_is_wrong_usage_and_said() {
        let quantiles = Path::new("models/nbeats-vol-quantile");
        for options in [
            ["--levels", "90"],
            ["--levels", "0"],
            ["--levels", "x"],
            ["--horizon", "21"],
            ["--horizon", "0"],
        ] {
            assert_eq!(file_written(quantiles, &options), Err(ExitCode::from(2)), "{options:?}");
        }
        assert_eq!(
            file_written(Path::new("models/tcn-vol-point"), &["--levels", "80"]),
            Err(ExitCode::from(2))
        );
        let narrow = file_written(quantiles, &["--levels", "80"]).unwrap();
        assert!(narrow.starts_with("unique_id,step,ds,median,lo-80,hi-80\n"), "{narrow}");
        let point = file_written(Path::new("models/tcn-vol-point"), &[]).unwrap();
        assert!(point.starts_with("unique_id,step,ds,mean\n"), "{point}");
    }

    #[test]
    fn quantiles_of_no_interval_are_written_themselves() {
        let quantiles = vec![0.1, 0.3, 0.9];
        let spec = ModelSpec {
            columns: quantiles.iter().map(f64::to_string).collect(),
            head: Head::Quantiles(quantiles),
            ..crate::testing::point_spec(2, 1)
        };
        let series = last_windows("unique_id,ds,y\nA,1,5\nA,3,6\n".as_bytes(), &spec).unwrap();
        let table = written(&series, &[1.0, 2.0, 4.0], &spec, &whole(&spec));
        assert_eq!(table, "unique_id,step,ds,median,lo-80,hi-80,quantile-0.3\nA,1,,2.6666667,1,4,2\n");
    }

    fn whole(spec: &ModelSpec) -> Extent {
        Extent { horizon: spec.horizon, levels: own_levels(spec) }
    }

    /// The file that the verb writes, or how it ended instead.
    fn file_written(model: &Path, options: &[&str]) -> Result<String, ExitCode> {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in.csv"), dir.path().join("out.csv"));
        fs::write(&input, format!("unique_id,ds,y\n{}", history("A", 0.5))).unwrap();
        let mut line: Vec<&std::ffi::OsStr> = ["peregrine", "forecast", "--model"].map(AsRef::as_ref).into();
        line.push(model.as_ref());
        line.extend([
            AsRef::as_ref("--input"),
            input.as_os_str(),
            AsRef::as_ref("--output"),
            output.as_ref(),
        ]);
        line.extend(options.iter().map(|option| std::ffi::OsStr::new(*option)));
        let code = crate::cli::run(line);
        fs::read_to_string(&output).map_err(|_| code)
    }

    #[test]
    fn the_input_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (input, link) = (dir.path().join("in.csv"), dir.path().join("link.csv"));
        let text = format!("unique_id,ds,y\n{}", history("A", 0.5));
        fs::write(&input, &text).unwrap();
        std::os::unix::fs::symlink("in.csv", &link).unwrap();
        for output in [&input, &link] {
            let mut line: Vec<&std::ffi::OsStr> =
                ["peregrine", "forecast", "--model", "models/tcn-vol-point", "--input"]
                    .map(AsRef::as_ref)
                    .into();
            line.extend([input.as_os_str(), AsRef::as_ref("--output"), output.as_os_str()]);
            assert_eq!(crate::cli::run(line), ExitCode::from(2));
            assert_eq!(fs::read_to_string(&input).unwrap(), text);
        }
    }

    #[test]
    fn halves_compute_where_they_are_asked_for() {
        let model = Path::new("models/nbeats-vol-quantile");
        let forecaster = Forecaster::load(model).unwrap();
        let text = format!("unique_id,ds,y\n{}", history("A", 0.5));
        let series = last_windows(text.as_bytes(), forecaster.spec()).unwrap();
        let expected = |forecaster: &Forecaster| {
            let values = forecast(forecaster, &mut CpuExecutor::new(1), &series, |_| {}).unwrap();
            written(&series, &values, forecaster.spec(), &whole(forecaster.spec()))
        };
        let (whole, halved) = (expected(&forecaster), expected(&forecaster.halved().unwrap()));
        assert_ne!(whole, halved);
        assert_eq!(file_written(model, &[]), Ok(whole));
        assert_eq!(file_written(model, &["--halves"]), Ok(halved));
    }

    #[test]
    fn a_model_that_has_no_halves_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("large");
        fs::create_dir(&model).unwrap();
        for file in ["model.json", "weights.safetensors"] {
            fs::copy(Path::new("models/mlp-vol-quantile").join(file), model.join(file)).unwrap();
        }
        // The last weight of the last matrix.
        let weights = model.join("weights.safetensors");
        let mut bytes = fs::read(&weights).unwrap();
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&1e6_f32.to_le_bytes());
        fs::write(&weights, bytes).unwrap();
        assert!(file_written(&model, &[]).is_ok());
        assert_eq!(file_written(&model, &["--halves"]), Err(ExitCode::from(1)));
        let said = ForecastCsvError::NotHalved { model: "large".to_owned() }.to_string();
        assert!(said.ends_with("forecast it without --halves"), "{said}");
    }
}
