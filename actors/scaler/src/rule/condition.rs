//! One condition in the Common Expression Language, compiled once, and the facts it is asked about.
//!
//! Source: the CEL specification, github.com/google/cel-spec. Only names that are known compile, so that a condition
//! that misspells a signal is a mistake of the configuration and not a rule that never acts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, ExecutionError, Program, Value};

use super::Direction;
use crate::signal::{GroupSignals, Reading, Signal};

/// Longest expression.
const TEXT_LEN_MAX: usize = 2048;

/// Names that are not measured by nodes, with what they say.
pub const NAMES: [(&str, &str); 8] = [
    ("machines", "machines that run or are on their way"),
    ("machines_ready", "machines whose nodes take requests"),
    ("market_open", "whether a market of the group is open"),
    ("market_opens_in", "seconds until the next opening, also while one is open, where it is known"),
    ("cost_per_1000", "money for 1,000 predictions, of late"),
    ("cost_per_hour", "money that the group costs now"),
    ("demand", "requests per second that are forecast until a new machine would be ready, upper bound"),
    ("time_to_ready", "seconds from a decision to the first answer of a new machine, measured"),
];

/// What the language knows by itself, but for its macros: there is no list to go through, and lists within lists would take
/// hours. To build it anew for each question would take a hundred times the answer's time.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::default().with_stdlib()));

/// A condition, compiled.
#[derive(Clone)]
pub struct Condition {
    text: String,
    program: Arc<Program>,
    /// Those of the facts' names that it speaks of.
    names: Vec<String>,
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({})", self.text)
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// A condition that says nothing. Whoever wrote it acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// It is no expression of the language.
    #[error("`{text}` is no expression: {why}")]
    Syntax {
        /// What was written.
        text: String,
        /// Where it fails.
        why: String,
    },
    /// It speaks of something that there is not.
    #[error("`{name}` is not known; known are {}", known().join(", "))]
    UnknownName {
        /// The name.
        name: String,
    },
    /// It is not true or false.
    #[error("`{text}` is {kind}, neither true nor false")]
    NotBoolean {
        /// What was written.
        text: String,
        /// What it is.
        kind: String,
    },
    /// It is longer than anybody reads.
    #[error("is longer than {TEXT_LEN_MAX} characters")]
    TooLong,
}

fn known() -> Vec<&'static str> {
    let signals = Signal::ALL.into_iter().map(Signal::name);
    signals.chain(NAMES.iter().map(|(name, _)| *name)).collect()
}

/// What conditions are asked about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    readings: BTreeMap<&'static str, Reading>,
    truths: BTreeMap<&'static str, bool>,
}

impl Facts {
    /// What nodes say.
    #[must_use]
    pub fn of(signals: &GroupSignals) -> Self {
        let readings =
            Signal::ALL.into_iter().map(|signal| (signal.name(), signals.reading(signal))).collect();
        Self { readings, truths: BTreeMap::new() }
    }

    /// With one more number, if it is known. `name` is one of [`NAMES`].
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Option<f64>) -> Self {
        // A sum of nothing is -0.0, which nobody wants to read.
        let value = value.filter(|value| value.is_finite()).map(|value| value + 0.0);
        self.readings.insert(name, value.map_or(Reading::Missing, Reading::Known));
        self
    }

    /// With one more truth, if it is known.
    #[must_use]
    pub fn with_truth(mut self, name: &'static str, value: Option<bool>) -> Self {
        if let Some(value) = value {
            self.truths.insert(name, value);
        }
        self
    }

    /// What is known, by name, as text: for explanations.
    #[must_use]
    pub fn listed(&self) -> Vec<(&'static str, String)> {
        let numbers = self.readings.iter().map(|(name, reading)| {
            let text = match reading {
                Reading::Known(value) => format!("{value}"),
                Reading::Partly(value) => format!("{value} (some nodes are silent)"),
                Reading::Missing => "not known".to_owned(),
            };
            (*name, text)
        });
        let truths = self.truths.iter().map(|(name, truth)| (*name, truth.to_string()));
        numbers.chain(truths).collect()
    }

    fn value(&self, name: &str, direction: Direction) -> Option<Value> {
        if let Some(truth) = self.truths.get(name) {
            return Some(Value::Bool(*truth));
        }
        let reading = self.readings.get(name)?;
        let value = match direction {
            Direction::Up => reading.to_add(),
            Direction::Down => reading.to_remove(),
        };
        value.map(Value::Float)
    }
}

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// These are not known.
    Blind(Vec<String>),
    /// The expression is at fault.
    Broken(String),
}

impl Condition {
    /// Compiles `text`.
    ///
    /// # Errors
    /// See [`ConditionError`].
    pub fn new(text: &str) -> Result<Self, ConditionError> {
        if text.len() > TEXT_LEN_MAX {
            return Err(ConditionError::TooLong);
        }
        let program = ENV
            .compile(text)
            .map_err(|err| ConditionError::Syntax { text: text.to_owned(), why: err.to_string() })?;
        let known = known();
        let mut names: Vec<String> =
            program.references().variables().into_iter().map(str::to_owned).collect();
        names.sort_unstable();
        if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(ConditionError::UnknownName { name: name.clone() });
        }
        let condition = Self { text: text.to_owned(), program: Arc::new(program), names };
        condition.is_boolean()?;
        Ok(condition)
    }

    /// What was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// With everything known it must say yes or no; which types do not fit shows then.
    fn is_boolean(&self) -> Result<(), ConditionError> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        for name in &self.names {
            let value = if is_truth(name) { Value::Bool(true) } else { Value::Float(0.5) };
            context.add_variable_from_value(name.clone(), value);
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(_)) => Ok(()),
            Ok(value) => {
                Err(ConditionError::NotBoolean { text: self.text.clone(), kind: value.type_of().to_string() })
            }
            Err(err) => Err(ConditionError::Syntax { text: self.text.clone(), why: err.to_string() }),
        }
    }

    pub(super) fn ask(&self, facts: &Facts, direction: Direction) -> Answer {
        let mut context = Context::with_env(Arc::clone(&ENV));
        let mut missing = Vec::new();
        for name in &self.names {
            match facts.value(name, direction) {
                Some(value) => context.add_variable_from_value(name.clone(), value),
                None => missing.push(name.clone()),
            }
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(true)) => Answer::Yes,
            Ok(Value::Bool(false)) => Answer::No,
            Err(ExecutionError::UndeclaredReference(_)) => Answer::Blind(missing),
            // `missing || 3` and the like: what is not known comes out as an operator that does not fit.
            _ if !missing.is_empty() => Answer::Blind(missing),
            Ok(value) => Answer::Broken(format!("it is {}", value.type_of())),
            Err(err) => Answer::Broken(err.to_string()),
        }
    }
}

fn is_truth(name: &str) -> bool {
    name == "market_open"
}
