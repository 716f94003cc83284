//! A parser of PromQL, as strict as Prometheus about what it knows, which is what dashboards and rules are made of: no
//! subqueries, no `@`, no `offset`. What it does not know it refuses, so that nothing passes unread.

use std::collections::BTreeSet;

/// An expression whose types fit.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Number(f64),
    Selector(Selector),
    Call { function: &'static str, arguments: Vec<Expr> },
    Aggregate { by: Option<Vec<String>>, without: Vec<String>, of: Box<Expr> },
    Binary { operator: &'static str, on: Option<Vec<String>>, left: Box<Expr>, right: Box<Expr> },
}

/// What is read of one metric.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selector {
    pub(super) metric: String,
    /// Labels that are compared.
    pub(super) matched: Vec<(String, String)>,
    pub(super) is_range: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Scalar,
    Vector,
    Range,
}

/// Functions, what they take and what they give. `histogram_quantile` takes `le` away.
const FUNCTIONS: [(&str, &[Kind], Kind); 9] = [
    ("rate", &[Kind::Range], Kind::Vector),
    ("increase", &[Kind::Range], Kind::Vector),
    ("max_over_time", &[Kind::Range], Kind::Vector),
    ("avg_over_time", &[Kind::Range], Kind::Vector),
    ("changes", &[Kind::Range], Kind::Vector),
    ("histogram_quantile", &[Kind::Scalar, Kind::Vector], Kind::Vector),
    ("clamp_min", &[Kind::Vector, Kind::Scalar], Kind::Vector),
    ("vector", &[Kind::Scalar], Kind::Vector),
    ("absent", &[Kind::Vector], Kind::Vector),
];
const AGGREGATES: [&str; 5] = ["sum", "min", "max", "avg", "count"];
/// Weakest first; those of one line bind alike, from the left.
const OPERATORS: [&[&str]; 5] =
    [&["or"], &["and", "unless"], &["==", "!=", "<=", ">=", "<", ">"], &["+", "-"], &["*", "/", "%"]];
const SETS: [&str; 3] = ["or", "and", "unless"];

/// Reads a whole expression.
pub(super) fn parse(text: &str) -> Result<Expr, String> {
    let mut parser = Parser { text, at: 0 };
    let expr = parser.binary(0)?;
    parser.blanks();
    if parser.at < text.len() {
        return Err(format!("nothing is expected at `{}`", &text[parser.at..]));
    }
    expr.kind()?;
    Ok(expr)
}

impl Expr {
    /// All that is read, at any depth.
    pub(super) fn selectors(&self) -> Vec<&Selector> {
        match self {
            Self::Number(_) => Vec::new(),
            Self::Selector(selector) => vec![selector],
            Self::Call { arguments, .. } => arguments.iter().flat_map(Self::selectors).collect(),
            Self::Aggregate { of, .. } => of.selectors(),
            Self::Binary { left, right, .. } => [left.selectors(), right.selectors()].concat(),
        }
    }

    /// The labels that the result has, if `of` says what a metric has; or which label is asked for in vain.
    pub(super) fn labels(
        &self,
        of: &dyn Fn(&Selector) -> Result<BTreeSet<String>, String>,
    ) -> Result<BTreeSet<String>, String> {
        let has = |labels: &BTreeSet<String>, wanted: &[String]| match wanted
            .iter()
            .find(|label| !labels.contains(*label))
        {
            Some(label) => Err(format!("there is no label `{label}` among {labels:?}")),
            None => Ok(()),
        };
        match self {
            Self::Number(_) => Ok(BTreeSet::new()),
            Self::Selector(selector) => of(selector),
            Self::Call { function, arguments } => {
                let mut all = BTreeSet::new();
                for argument in arguments {
                    all.extend(argument.labels(of)?);
                }
                if *function == "histogram_quantile" && !all.remove("le") {
                    return Err("histogram_quantile without `le`".to_owned());
                }
                Ok(all)
            }
            Self::Aggregate { by, without, of: inner } => {
                let mut labels = inner.labels(of)?;
                has(&labels, without)?;
                let Some(by) = by else {
                    labels.retain(|label| !without.contains(label));
                    return Ok(if without.is_empty() { BTreeSet::new() } else { labels });
                };
                has(&labels, by)?;
                Ok(by.iter().cloned().collect())
            }
            Self::Binary { operator, on, left, right } => {
                let vectors = left.kind()? == Kind::Vector && right.kind()? == Kind::Vector;
                let (left, right) = (left.labels(of)?, right.labels(of)?);
                if let Some(on) = on {
                    has(&left, on)?;
                    has(&right, on)?;
                    return Ok(if SETS.contains(operator) { left } else { on.iter().cloned().collect() });
                }
                if vectors && *operator != "or" && left != right {
                    return Err(format!("{left:?} and {right:?} never match"));
                }
                // `or` gives either side's; a scalar has none and takes none away.
                Ok(match (*operator, left.is_empty(), right.is_empty()) {
                    ("or", ..) => left.union(&right).cloned().collect(),
                    ("and" | "unless", ..) | (_, false, _) => left,
                    (_, true, _) => right,
                })
            }
        }
    }

    fn kind(&self) -> Result<Kind, String> {
        match self {
            Self::Number(_) => Ok(Kind::Scalar),
            Self::Selector(selector) => Ok(if selector.is_range { Kind::Range } else { Kind::Vector }),
            Self::Call { function, arguments } => {
                let (_, takes, gives) =
                    FUNCTIONS.iter().find(|(name, ..)| name == function).expect("parsed by name");
                let kinds: Vec<Kind> = arguments.iter().map(Self::kind).collect::<Result<_, _>>()?;
                if kinds == *takes {
                    Ok(*gives)
                } else {
                    Err(format!("{function} takes {takes:?}, not {kinds:?}"))
                }
            }
            Self::Aggregate { of, .. } => match of.kind()? {
                Kind::Vector => Ok(Kind::Vector),
                other => Err(format!("an aggregate of {other:?}")),
            },
            Self::Binary { operator, on, left, right } => {
                let kinds = (left.kind()?, right.kind()?);
                let vectors = kinds == (Kind::Vector, Kind::Vector);
                if kinds.0 == Kind::Range
                    || kinds.1 == Kind::Range
                    || (!vectors && (on.is_some() || SETS.contains(operator)))
                {
                    return Err(format!("{operator} between {kinds:?}"));
                }
                if kinds == (Kind::Scalar, Kind::Scalar) {
                    let compares = OPERATORS[2].contains(operator);
                    return if compares { Err("scalars are compared".to_owned()) } else { Ok(Kind::Scalar) };
                }
                Ok(Kind::Vector)
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn binary(&mut self, level: usize) -> Result<Expr, String> {
        let Some(operators) = OPERATORS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = operators.iter().find(|operator| self.operator(operator)) {
            let on = if self.word("on") { Some(self.names()?) } else { None };
            let right = self.binary(level + 1)?;
            left = Expr::Binary { operator, on, left: Box::new(left), right: Box::new(right) };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, String> {
        if self.sign("(") {
            let inner = self.binary(0)?;
            self.expect(")")?;
            return Ok(inner);
        }
        self.blanks();
        let rest = &self.text[self.at..];
        if rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != 'e').unwrap_or(rest.len());
            self.at += end;
            return rest[..end]
                .parse()
                .map(Expr::Number)
                .map_err(|_| format!("`{}` is no number", &rest[..end]));
        }
        let name = self.name()?;
        if AGGREGATES.contains(&name.as_str()) {
            return self.aggregate();
        }
        if self.sign("(") {
            let known = FUNCTIONS.iter().find(|(function, ..)| *function == name);
            let (function, ..) = known.ok_or_else(|| format!("unknown function `{name}`"))?;
            let mut arguments = vec![self.binary(0)?];
            while self.sign(",") {
                arguments.push(self.binary(0)?);
            }
            self.expect(")")?;
            return Ok(Expr::Call { function, arguments });
        }
        self.selector(name)
    }

    fn aggregate(&mut self) -> Result<Expr, String> {
        let (mut by, mut without) = (None, Vec::new());
        if self.word("by") {
            by = Some(self.names()?);
        } else if self.word("without") {
            without = self.names()?;
        }
        self.expect("(")?;
        let of = Box::new(self.binary(0)?);
        self.expect(")")?;
        Ok(Expr::Aggregate { by, without, of })
    }

    fn selector(&mut self, metric: String) -> Result<Expr, String> {
        let mut matched = Vec::new();
        if self.sign("{") {
            while !self.sign("}") {
                if !matched.is_empty() {
                    self.expect(",")?;
                }
                let label = self.name()?;
                let known = ["=~", "!~", "!=", "="].iter().any(|sign| self.sign(sign));
                if !known {
                    return Err(format!("`{label}` is compared with nothing"));
                }
                matched.push((label, self.quoted()?));
            }
        }
        let is_range = self.sign("[");
        if is_range {
            self.span()?;
            self.expect("]")?;
        }
        Ok(Expr::Selector(Selector { metric, matched, is_range }))
    }

    /// `5m`, `1h30m`, `1500ms`.
    fn span(&mut self) -> Result<(), String> {
        let start = self.at;
        let rest = self.text[start..].split(']').next().unwrap_or_default();
        let mut left = rest;
        while !left.is_empty() {
            let digits = left.len() - left.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let unit =
                ["ms", "s", "m", "h", "d", "w"].into_iter().find(|unit| left[digits..].starts_with(unit));
            let unit = unit.filter(|_| digits > 0).ok_or_else(|| format!("`{rest}` is no time"))?;
            left = &left[digits + unit.len()..];
        }
        self.at += rest.len();
        if rest.is_empty() { Err("no time within []".to_owned()) } else { Ok(()) }
    }

    fn names(&mut self) -> Result<Vec<String>, String> {
        self.expect("(")?;
        let mut names = vec![self.name()?];
        while self.sign(",") {
            names.push(self.name()?);
        }
        self.expect(")")?;
        Ok(names)
    }

    fn name(&mut self) -> Result<String, String> {
        self.blanks();
        let rest = &self.text[self.at..];
        let end =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':').unwrap_or(rest.len());
        if end == 0 || rest.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("a name is expected at `{rest}`"));
        }
        self.at += end;
        Ok(rest[..end].to_owned())
    }

    fn quoted(&mut self) -> Result<String, String> {
        self.expect("\"")?;
        let rest = &self.text[self.at..];
        let end = rest.find('"').ok_or("a text without its end")?;
        if rest[..end].contains('\\') {
            return Err("escapes are not known here".to_owned());
        }
        self.at += end + 1;
        Ok(rest[..end].to_owned())
    }

    /// A word of its own, not the beginning of another.
    fn word(&mut self, word: &str) -> bool {
        self.blanks();
        let rest = &self.text[self.at..];
        let after = rest.strip_prefix(word).map(|rest| rest.chars().next());
        let found =
            after.is_some_and(|next| next.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_' && c != ':'));
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn operator(&mut self, operator: &str) -> bool {
        if operator.starts_with(|c: char| c.is_ascii_alphabetic()) {
            self.word(operator)
        } else {
            self.sign(operator)
        }
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.blanks();
        let found = self.text[self.at..].starts_with(sign);
        self.at += if found { sign.len() } else { 0 };
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.sign(sign) {
            Ok(())
        } else {
            Err(format!("`{sign}` is expected at `{}`", &self.text[self.at..]))
        }
    }

    fn blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }
}

#[test]
fn what_prometheus_refuses_is_refused() {
    for text in [
        "",
        "sum(",
        "a b",
        "rate(a)",
        "sum(a[5m])",
        "rate(a[5m]) / a[5m]",
        "rate(a[])",
        "rate(a[5])",
        "rate(a[5x])",
        "nope(a)",
        "histogram_quantile(a, a)",
        "sum by (a",
        "sum by (1a) (a)",
        "a{b}",
        "a{b=c}",
        "a{b=\"c}",
        "a{b==\"c\"}",
        "1 == 1",
        "1 and a",
        "a and on (b) 1",
        "a)",
        "max by () (a)",
        "a[5m]b",
        "1.2.3",
        "a{b=\"c\" d=\"e\"}",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn operators_bind_as_in_prometheus() {
    let shape = |text: &str| format!("{:?}", parse(text).unwrap_or_else(|error| panic!("{text}: {error}")));
    for (text, same) in [
        ("a + b * c", "a + (b * c)"),
        ("a - b - c", "(a - b) - c"),
        ("a / b > 0.5 and c", "((a / b) > 0.5) and c"),
        ("a or b and c unless d", "a or ((b and c) unless d)"),
    ] {
        assert_eq!(shape(text), shape(same));
    }
}

#[test]
fn a_result_has_the_labels_that_it_can_have() {
    let of = |selector: &Selector| -> Result<BTreeSet<String>, String> {
        let labels: &[&str] =
            if selector.metric == "h_bucket" { &["node", "route", "le"] } else { &["node", "model"] };
        Ok(labels.iter().map(|label| (*label).to_owned()).collect())
    };
    let check = |text: &str, want: Option<&[&str]>| {
        let got = parse(text).expect("an expression").labels(&of).ok();
        let want = want.map(|labels| labels.iter().map(|label| (*label).to_owned()).collect::<BTreeSet<_>>());
        assert_eq!(got, want, "{text}");
    };
    check("m", Some(&["node", "model"]));
    check("sum by (node) (rate(m[5m])) * 100", Some(&["node"]));
    check("sum by (route) (m)", None);
    check("sum without (model) (m)", Some(&["node"]));
    check("histogram_quantile(0.9, sum by (node, le) (rate(h_bucket[5m])))", Some(&["node"]));
    check("histogram_quantile(0.9, sum by (node) (rate(h_bucket[5m])))", None);
    check("sum by (node) (m) / sum(m)", None);
    check("sum by (node) (m) / sum by (node) (h_bucket)", Some(&["node"]));
    check("m and on (node, route) h_bucket", None);
    check("m and on (node) h_bucket", Some(&["node", "model"]));
}
