//! Hyper-parameters: untrusted JSON, read by name, type and bound.

use serde_json::{Map, Value};

use super::LoadError;

/// Bound of every width, count and length read from a file, before products are checked.
pub(crate) const SIZE_MAX: usize = 1 << 16;

#[derive(Debug)]
pub(crate) struct Hparams(Map<String, Value>);

impl Hparams {
    pub(crate) fn new(map: Map<String, Value>) -> Self {
        Self(map)
    }

    /// A size in `1..=SIZE_MAX`.
    pub(crate) fn size(&self, name: &str) -> Result<usize, LoadError> {
        size(name, self.some(name)?)
    }

    /// A size that may also be zero; absent or null is zero.
    pub(crate) fn count(&self, name: &str) -> Result<usize, LoadError> {
        match self.get(name) {
            None => Ok(0),
            Some(value) if value.as_u64() == Some(0) => Ok(0),
            Some(value) => size(name, value),
        }
    }

    /// As [`Self::size`]; `None` when absent or null.
    pub(crate) fn size_if_set(&self, name: &str) -> Result<Option<usize>, LoadError> {
        self.get(name).map(|value| size(name, value)).transpose()
    }

    /// A list of sizes.
    pub(crate) fn sizes(&self, name: &str) -> Result<Vec<usize>, LoadError> {
        list(name, self.some(name)?)?.iter().map(|value| size(name, value)).collect()
    }

    /// A list of lists of sizes.
    pub(crate) fn size_lists(&self, name: &str) -> Result<Vec<Vec<usize>>, LoadError> {
        let rows = list(name, self.some(name)?)?;
        rows.iter().map(|row| list(name, row)?.iter().map(|value| size(name, value)).collect()).collect()
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str, LoadError> {
        self.some(name)?.as_str().ok_or_else(|| LoadError::parameter(name, "is not a string"))
    }

    pub(crate) fn text_if_set(&self, name: &str) -> Result<Option<&str>, LoadError> {
        self.get(name).map(|_| self.text(name)).transpose()
    }

    /// A list of strings; absent or null is an empty one.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, LoadError> {
        let Some(value) = self.get(name) else {
            return Ok(Vec::new());
        };
        let not_text = || LoadError::parameter(name, "holds something other than strings");
        list(name, value)?.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(not_text)).collect()
    }

    /// Absent or null is false.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, LoadError> {
        self.flag_or(name, false)
    }

    /// Absent or null is `unset`.
    pub(crate) fn flag_or(&self, name: &str, unset: bool) -> Result<bool, LoadError> {
        let Some(value) = self.get(name) else {
            return Ok(unset);
        };
        value.as_bool().ok_or_else(|| LoadError::parameter(name, "is not a boolean"))
    }

    /// A finite number; absent or null is zero.
    pub(crate) fn number(&self, name: &str) -> Result<f64, LoadError> {
        let Some(value) = self.get(name) else {
            return Ok(0.0);
        };
        value.as_f64().ok_or_else(|| LoadError::parameter(name, "is not a number"))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn some(&self, name: &str) -> Result<&Value, LoadError> {
        self.get(name).ok_or_else(|| LoadError::parameter(name, "is missing"))
    }
}

fn size(name: &str, value: &Value) -> Result<usize, LoadError> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.filter(|number| (1..=SIZE_MAX).contains(number)).ok_or_else(|| {
        LoadError::parameter(name, format!("is {value}, wanted a whole number in 1..={SIZE_MAX}"))
    })
}

fn list<'a>(name: &str, value: &'a Value) -> Result<&'a Vec<Value>, LoadError> {
    value.as_array().ok_or_else(|| LoadError::parameter(name, "is not a list"))
}
