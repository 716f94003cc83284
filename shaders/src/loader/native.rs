//! The library's own file: one safetensors whose header carries class, hyper-parameters and shared tensors.

use std::collections::HashMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::archive::Archive;
use super::blueprint::{self, Blueprint, Claims};
use super::hparams::Hparams;
use super::{LoadError, columns, doubles};

const FORMAT: &str = "2";

pub(crate) fn read(path: &Path, archive: &mut Archive) -> Result<Blueprint, LoadError> {
    let field = |key: &str| {
        let missing = || LoadError::parameter(key, "is missing from the header");
        archive.metadata(key).map(str::to_owned).ok_or_else(missing)
    };
    let format = field("nf_format")?;
    if format != FORMAT {
        return Err(LoadError::unsupported(format!("nf_format {format}")));
    }
    let class = field("model_class")?;
    let family = crate::Family::ALL.into_iter().find(|family| family.class() == class);
    let family = family.ok_or_else(|| LoadError::UnknownFamily { class: class.clone() })?;
    let hparams: Map<String, Value> = json("hyper_parameters", &field("hyper_parameters")?)?;
    let shared: HashMap<String, Vec<String>> = json("shared", &field("shared")?)?;
    for (kept, dropped) in shared {
        for name in dropped {
            archive.alias(name, kept.clone());
        }
    }
    let hparams = Hparams::new(hparams);
    Claims {
        name: name(path),
        class,
        horizon: hparams.size("h")?,
        window: blueprint::window_len(family, &hparams)?,
        series: hparams.size_if_set("n_series")?,
        head: head(&hparams, archive)?,
        columns: None,
        hparams,
    }
    .check()
}

fn head(hparams: &Hparams, archive: &Archive) -> Result<crate::Head, LoadError> {
    let loss = hparams.get("loss").ok_or_else(|| LoadError::parameter("loss", "is missing"))?;
    let class = loss.get("cls").and_then(Value::as_str);
    let class = class.ok_or_else(|| LoadError::parameter("loss.cls", "is missing"))?;
    let distribution = loss.pointer("/args/distribution").and_then(Value::as_str);
    columns::head(class, levels(archive)?, distribution)
}

/// The levels are stored in f32; the shortest decimal that rounds to it is the one that was meant.
fn levels(archive: &Archive) -> Result<Option<Vec<f64>>, LoadError> {
    const NAME: &str = "loss.quantiles";
    let Some(&[len]) = archive.shape(NAME) else {
        return Ok(None);
    };
    let levels = archive.take(NAME, &[len])?;
    let decimal = |level: f64| (level as f32).to_string().parse().unwrap_or(level);
    Ok(Some(levels.into_iter().map(decimal).collect()))
}

/// `…/NAME/native.safetensors` and `…/NAME.safetensors` are both called `NAME`.
fn name(path: &Path) -> String {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let parent = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    match parent {
        Some(parent) if stem == "native" => parent.to_owned(),
        _ => stem.to_owned(),
    }
}

fn json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, LoadError> {
    let read = serde_json::from_str(text).and_then(|read| doubles::refuse(text.as_bytes()).map(|()| read));
    read.map_err(|source| LoadError::Json { what: what.to_owned(), source })
}
