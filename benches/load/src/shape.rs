//! What a model takes and gives, as its server says. Pure.

use serde_json::Value;

use crate::LoadError;

/// Most numbers of one row of one tensor; a server that names more is not believed.
const ROW_LEN_MAX: usize = 1 << 22;

/// One input tensor, without its batch dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dimensions behind the first.
    pub dims: Vec<usize>,
}

impl Tensor {
    /// Numbers of one row.
    #[must_use]
    pub fn row_len(&self) -> usize {
        self.dims.iter().product()
    }
}

/// What a model takes and gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its name.
    pub model: String,
    /// What it takes, `y` first; masks are left out.
    pub inputs: Vec<Tensor>,
    /// What it gives.
    pub output: Tensor,
}

/// The path of a model's metadata, if its name can stand in one.
///
/// # Errors
/// [`LoadError::Unsuited`] for a name with anything but letters, digits, `.`, `-` and `_`.
pub fn path(model: &str) -> Result<String, LoadError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if model.is_empty() || !model.bytes().all(plain) {
        return Err(LoadError::Unsuited(format!("`{model}` is no name of a model")));
    }
    Ok(format!("/v2/models/{model}"))
}

impl Shape {
    /// Reads the answer of `GET /v2/models/M`.
    ///
    /// # Errors
    /// [`LoadError::Unusable`] where it is not what a forecaster would answer.
    pub fn of(model: &str, metadata: &Value) -> Result<Self, LoadError> {
        let unusable = |detail| LoadError::Unusable { path: format!("/v2/models/{model}"), detail };
        let tensors = |member: &str| -> Option<Vec<Tensor>> {
            metadata[member].as_array()?.iter().map(tensor).collect()
        };
        let mut inputs = tensors("inputs").ok_or_else(|| unusable("`inputs` cannot be read"))?;
        inputs.retain(|input| input.name != "mask");
        if inputs.first().is_none_or(|first| first.dims.is_empty()) {
            return Err(unusable("`inputs` name no window"));
        }
        let mut outputs = tensors("outputs").ok_or_else(|| unusable("`outputs` cannot be read"))?;
        match (outputs.pop(), outputs.is_empty()) {
            (Some(output), true) if !output.dims.is_empty() => {
                Ok(Self { model: model.to_owned(), inputs, output })
            }
            _ => Err(unusable("`outputs` is not one tensor")),
        }
    }

    /// Steps back.
    #[must_use]
    pub fn window(&self) -> usize {
        self.inputs[0].dims[0]
    }

    /// Steps ahead.
    #[must_use]
    pub fn horizon(&self) -> usize {
        self.output.dims[0]
    }

    /// Whether one window is of several series.
    #[must_use]
    pub fn is_multivariate(&self) -> bool {
        self.inputs[0].dims.len() > 1
    }

    /// Whether it takes anything besides the series.
    #[must_use]
    pub fn has_exogenous(&self) -> bool {
        self.inputs.len() > 1
    }
}

fn tensor(value: &Value) -> Option<Tensor> {
    let dims = value["shape"].as_array()?;
    let (batch, dims) = dims.split_first()?;
    let dims: Vec<usize> = dims
        .iter()
        .map(|dim| usize::try_from(dim.as_u64()?).ok().filter(|&dim| dim > 0))
        .collect::<Option<_>>()?;
    let row_len = dims.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim))?;
    let usable = batch.as_i64() == Some(-1) && value["datatype"] == "FP32" && row_len <= ROW_LEN_MAX;
    usable.then_some(Tensor { name: value["name"].as_str()?.to_owned(), dims })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_become_a_shape() {
        let shape = Shape::of("m", &metadata(json!([-1, 168]), json!([-1, 24, 3]))).unwrap();
        assert_eq!((shape.window(), shape.horizon(), shape.output.row_len()), (168, 24, 72));
        assert!(!shape.is_multivariate() && !shape.has_exogenous());
        let shape = Shape::of("m", &metadata(json!([-1, 168, 7]), json!([-1, 24, 7]))).unwrap();
        assert!(shape.is_multivariate());
    }

    #[test]
    fn what_no_forecaster_says_is_refused() {
        for (input, output) in [
            (json!([168]), json!([-1, 24])),
            (json!([-1]), json!([-1, 24])),
            (json!([-1, 168]), json!([-1, 0])),
            (json!([-1, -1]), json!([-1, 24])),
            (json!([-1, 1.5]), json!([-1, 24])),
            (json!([-1, 1_u64 << 40, 1_u64 << 40]), json!([-1, 24])),
            (json!([-1, 168]), json!([-1, 1 << 23])),
            (json!(null), json!([-1, 24])),
        ] {
            assert!(Shape::of("m", &metadata(input.clone(), output.clone())).is_err(), "{input} {output}");
        }
        assert!(Shape::of("m", &json!({})).is_err() && Shape::of("m", &Value::Null).is_err());
    }

    fn metadata(input: Value, output: Value) -> Value {
        let tensor = |name: &str, shape: Value| json!({"name": name, "datatype": "FP32", "shape": shape});
        json!({"inputs": [tensor("y", input), tensor("mask", json!([-1, 168]))], "outputs": [tensor("forecast", output)]})
    }
}
