//! What clients ask over a stream. Pure.

use std::collections::BTreeMap;

use peregrine_actors::series::{Pattern, SeriesName, Tick};
use peregrine_actors::stream::{Encoding, From, Levels, Wish};
use peregrine_runtime::TraceContext;

use crate::gateway::json::{Cursor, JsonError, Scalar, once};
use crate::gateway::members::pass_over;
use crate::gateway::ticks::parse::{BadTick, TickParts, tick};

/// Of all messages together.
const MEMBERS: [&str; 16] = [
    "op",
    "id",
    "model",
    "series",
    "levels",
    "from",
    "epoch",
    "conflate",
    "snapshot",
    "traceparent",
    "ticks",
    "ts",
    "value",
    "hist_exog",
    "futr_exog",
    "stat_exog",
];
/// Most ticks of one message.
const TICKS_MAX: usize = 1024;
/// Most series whose places one subscription may state.
const PLACES_MAX: usize = 16_384;

/// Longest text that a client may call something by.
const ID_BYTES_MAX: usize = 256;

/// What a client calls a message, or the subscription that it made; given back as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Id {
    Number(u64),
    /// Below zero.
    Negative(i64),
    Text(Box<str>),
}

/// One thing that a client asks.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Op {
    Subscribe(Subscribe),
    /// The subscription that was made under this id.
    Unsubscribe,
    Ping,
    /// And what they are part of, if the client says so.
    Ticks(Vec<Tick>, Option<TraceContext>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Subscribe {
    /// `None`: the node's default.
    pub(super) model: Option<String>,
    pub(super) patterns: Vec<Pattern>,
    /// As asked.
    pub(super) levels: Option<Levels>,
    pub(super) conflate: bool,
    pub(super) wish: Wish,
}

/// A message that asks nothing; the caller acts.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum BadOp {
    #[error(transparent)]
    Tick(#[from] BadTick),
    #[error("the message has no `op`")]
    NoOp,
    #[error("`op` must be subscribe, unsubscribe, ping or tick")]
    Unknown,
    #[error("`series` must be at most {count_max} names or patterns in one subscription")]
    TooMany { count_max: usize },
    #[error("`{name}` must be {want}")]
    Member { name: &'static str, want: &'static str },
    #[error(
        "a subscription takes no `{0}`: it brings all of what the version says that answers at that time"
    )]
    OfForecasts(&'static str),
}

impl BadOp {
    /// What its sender is told: messages in another encoding are read as the JSON that says the same.
    pub(super) fn detail(&self, encoding: Encoding) -> String {
        match (self, encoding) {
            (Self::Tick(BadTick::Json(error)), Encoding::MessagePack) => error.without_place(),
            _ => self.to_string(),
        }
    }
}

impl std::convert::From<JsonError> for BadOp {
    fn from(error: JsonError) -> Self {
        Self::Tick(error.into())
    }
}

#[derive(Default)]
struct Members {
    op: Option<String>,
    id: Option<Id>,
    model: Option<String>,
    series: Option<Vec<String>>,
    levels: Option<Vec<f64>>,
    from: Option<From>,
    epoch: Option<From>,
    conflate: Option<bool>,
    snapshot: Option<bool>,
    ticks: Option<Vec<Tick>>,
    parent: Option<Option<TraceContext>>,
    /// What `/v1/forecast` takes, and was read past here.
    of_forecasts: Option<&'static str>,
    tick: TickParts,
}

/// Reads a message of at most `patterns_max` patterns. The id is given back even of one that is refused.
pub(super) fn parse(text: &[u8], patterns_max: usize) -> (Option<Id>, Result<Op, BadOp>) {
    let mut members = Members::default();
    let read = read(text, patterns_max, &mut members);
    let id = members.id.take();
    (id, read.and_then(|()| members.into_op()))
}

fn read(text: &[u8], patterns_max: usize, members: &mut Members) -> Result<(), BadOp> {
    let mut cursor = Cursor::new(text);
    cursor.object(|key, cursor| {
        // A tick's value may be `null`; any other member that is so is as good as none.
        if key != "value" && cursor.null() {
            return Ok(());
        }
        let at = cursor.at();
        match key {
            "op" => once(&mut members.op, cursor.string()?.into_owned(), "op", at)?,
            "id" => once(&mut members.id, id(cursor)?, "id", at)?,
            "model" => once(&mut members.model, cursor.string()?.into_owned(), "model", at)?,
            "series" => once(&mut members.series, texts(cursor, patterns_max)?, "series", at)?,
            "levels" => once(&mut members.levels, levels(cursor)?, "levels", at)?,
            "from" => once(&mut members.from, of_series(cursor, "from")?, "from", at)?,
            "epoch" => once(&mut members.epoch, of_series(cursor, "epoch")?, "epoch", at)?,
            "conflate" => once(&mut members.conflate, flag(cursor, "conflate")?, "conflate", at)?,
            "snapshot" => once(&mut members.snapshot, flag(cursor, "snapshot")?, "snapshot", at)?,
            // As a header's: what is none, or cannot be read, is passed over.
            "traceparent" => {
                let parent = TraceContext::parse(cursor.string()?.as_bytes());
                once(&mut members.parent, parent, "traceparent", at)?;
            }
            "ticks" => once(&mut members.ticks, ticks(cursor)?, "ticks", at)?,
            "version" | "horizon" => {
                members.of_forecasts = Some(if key == "version" { "version" } else { "horizon" });
                cursor.skip()?;
            }
            _ => {
                if !members.tick.member(key, cursor)? {
                    pass_over(cursor, key, &MEMBERS)?;
                }
            }
        }
        Ok::<(), BadOp>(())
    })?;
    Ok(cursor.end()?)
}

impl Members {
    fn into_op(self) -> Result<Op, BadOp> {
        match self.op.as_deref() {
            None => Err(BadOp::NoOp),
            Some("ping") => Ok(Op::Ping),
            Some("unsubscribe") => Ok(Op::Unsubscribe),
            Some("subscribe") => self.into_subscribe().map(Op::Subscribe),
            Some("tick") => {
                let parent = self.parent.flatten();
                self.into_ticks().map(|ticks| Op::Ticks(ticks, parent))
            }
            Some(_) => Err(BadOp::Unknown),
        }
    }

    fn into_subscribe(self) -> Result<Subscribe, BadOp> {
        if let Some(name) = self.of_forecasts {
            return Err(BadOp::OfForecasts(name));
        }
        let want = "a list of names or patterns of series";
        let series = self.series.unwrap_or_default();
        let wrong = BadOp::Member { name: "series", want };
        if series.is_empty() {
            return Err(wrong);
        }
        let patterns: Result<_, _> = series.iter().map(|text| Pattern::new(text)).collect();
        let levels =
            self.levels.map(|levels| Levels::new(&levels)).transpose().map_err(|_| BadOp::Member {
                name: "levels",
                want: "at most 8 percentages between 0 and 100 with at most two decimals",
            })?;
        Ok(Subscribe {
            model: self.model,
            patterns: patterns.map_err(|_| wrong)?,
            levels,
            conflate: self.conflate.unwrap_or(false),
            wish: Wish { snapshot: self.snapshot.unwrap_or(false), from: self.from, epoch: self.epoch },
        })
    }

    fn into_ticks(mut self) -> Result<Vec<Tick>, BadOp> {
        if let Some(ticks) = self.ticks {
            let alone = self.series.is_none() && !self.tick.any();
            let want = "at least one tick, and stand alone";
            return if alone && !ticks.is_empty() {
                Ok(ticks)
            } else {
                Err(BadOp::Member { name: "ticks", want })
            };
        }
        let mut series = self.series.unwrap_or_default();
        if series.len() > 1 {
            return Err(BadOp::Member { name: "series", want: "the name of one series" });
        }
        self.tick.series = series.pop();
        Ok(vec![self.tick.finish()?])
    }
}

fn id(cursor: &mut Cursor<'_>) -> Result<Id, BadOp> {
    let id = match cursor.scalar()? {
        Scalar::Text(text) if text.len() <= ID_BYTES_MAX => Some(Id::Text(text.into())),
        Scalar::Number(text) => {
            let negative = || text.parse().map(Id::Negative);
            text.parse().map(Id::Number).or_else(|_| negative()).ok()
        }
        Scalar::Text(_) | Scalar::Flag(_) => None,
    };
    id.ok_or(BadOp::Member { name: "id", want: "a text of at most 256 bytes, or a whole number of 64 bits" })
}

/// One text, or a list of them.
fn texts(cursor: &mut Cursor<'_>, count_max: usize) -> Result<Vec<String>, BadOp> {
    if cursor.peek() == Some(b'"') {
        return Ok(vec![cursor.string()?.into_owned()]);
    }
    let mut texts = Vec::new();
    cursor.array(|cursor| {
        if texts.len() == count_max {
            return Err(BadOp::TooMany { count_max });
        }
        texts.push(cursor.string()?.into_owned());
        Ok(())
    })?;
    Ok(texts)
}

fn levels(cursor: &mut Cursor<'_>) -> Result<Vec<f64>, BadOp> {
    let mut levels = Vec::new();
    cursor.array(|cursor| {
        // More than any form has are refused later, so few are kept.
        let level = cursor.number()?.parse().unwrap_or(f64::NAN);
        if levels.len() < 64 {
            levels.push(level);
        }
        Ok::<(), BadOp>(())
    })?;
    Ok(levels)
}

fn of_series(cursor: &mut Cursor<'_>, name: &'static str) -> Result<From, BadOp> {
    if cursor.peek() != Some(b'{') {
        return Ok(From::All(cursor.unsigned()?));
    }
    let mut each = BTreeMap::new();
    cursor.object(|series, cursor| {
        let wrong = BadOp::Member { name, want: "a number, or one for each series by its name" };
        let series = SeriesName::new(series).map_err(|_| wrong.clone())?;
        if each.len() == PLACES_MAX {
            return Err(wrong);
        }
        each.insert(series, cursor.unsigned()?);
        Ok(())
    })?;
    Ok(From::Each(each))
}

fn flag(cursor: &mut Cursor<'_>, name: &'static str) -> Result<bool, BadOp> {
    match cursor.scalar()? {
        Scalar::Flag(flag) => Ok(flag),
        Scalar::Text(_) | Scalar::Number(_) => Err(BadOp::Member { name, want: "true or false" }),
    }
}

fn ticks(cursor: &mut Cursor<'_>) -> Result<Vec<Tick>, BadOp> {
    let mut ticks = Vec::new();
    cursor.array(|cursor| {
        if ticks.len() == TICKS_MAX {
            return Err(BadOp::Member { name: "ticks", want: "at most 1024 ticks" });
        }
        ticks.push(tick(cursor)?);
        Ok(())
    })?;
    Ok(ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_read() {
        let text = r#"{"op":"subscribe","id":7,"model":"m","series":["AAPL","crypto/*"],"levels":[80],"from":3,"conflate":true,"new":{}}"#;
        let want = Subscribe {
            model: Some("m".to_owned()),
            patterns: vec![Pattern::new("AAPL").unwrap(), Pattern::new("crypto/*").unwrap()],
            levels: Some(Levels::new(&[80.0]).unwrap()),
            conflate: true,
            wish: Wish { snapshot: false, from: Some(From::All(3)), epoch: None },
        };
        assert_eq!(parse(text.as_bytes(), 8), (Some(Id::Number(7)), Ok(Op::Subscribe(want))));
        let text = r#"{"op":"subscribe","series":"a","from":{"a":1,"b":2},"epoch":9,"snapshot":true}"#;
        let (_, Ok(Op::Subscribe(got))) = parse(text.as_bytes(), 8) else { panic!("a subscription") };
        let each = [("a", 1), ("b", 2)].map(|(name, seq)| (SeriesName::new(name).unwrap(), seq)).into();
        let (from, epoch) = (Some(From::Each(each)), Some(From::All(9)));
        assert_eq!(got.wish, Wish { snapshot: true, from, epoch });
        let nulls = r#"{"op":"subscribe","id":null,"model":null,"series":["a"],"levels":null,"from":null,"epoch":null,"conflate":null,"snapshot":null,"version":null}"#;
        assert_eq!(parse(nulls.as_bytes(), 8), parse(br#"{"op":"subscribe","series":["a"]}"#, 8));
    }

    #[test]
    fn who_sent_no_json_is_told_of_none() {
        for text in [r#"{"op":7}"#, r#"{"op":"ping","op":"ping"}"#] {
            let (_, Err(bad)) = parse(text.as_bytes(), 8) else { panic!("{text}") };
            let (of_json, packed) = (bad.detail(Encoding::Json), bad.detail(Encoding::MessagePack));
            assert!(of_json.contains("byte"), "{of_json}");
            assert!(!packed.contains("byte") && !packed.contains("JSON"), "{packed}");
        }
    }

    #[test]
    fn ticks_come_alone_or_together() {
        let one = r#"{"op":"tick","series":"a","ts":1,"value":2}"#;
        let (_, Ok(Op::Ticks(ticks, None))) = parse(one.as_bytes(), 8) else { panic!("a tick") };
        assert_eq!(ticks.len(), 1);
        let two =
            r#"{"op":"tick","ticks":[{"series":"a","ts":1,"value":2},{"series":"b","ts":1,"value":null}]}"#;
        let (_, Ok(Op::Ticks(ticks, None))) = parse(two.as_bytes(), 8) else { panic!("ticks") };
        assert_eq!(ticks.len(), 2);
    }

    #[test]
    fn ticks_may_be_part_of_a_trace() {
        const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (member, want) in [
            (format!(r#","traceparent":"{PARENT}""#), Some(PARENT)),
            (r#","traceparent":"none""#.to_owned(), None),
            (String::new(), None),
        ] {
            let text = format!(r#"{{"op":"tick","series":"a","ts":1,"value":2{member}}}"#);
            let (_, Ok(Op::Ticks(_, got))) = parse(text.as_bytes(), 8) else { panic!("a tick") };
            assert_eq!(got.map(|context| context.traceparent()).as_deref(), want);
        }
        let twice = r#"{"op":"tick","series":"a","ts":1,"value":2,"traceparent":"","traceparent":""}"#;
        assert!(parse(twice.as_bytes(), 8).1.is_err());
    }

    #[test]
    fn what_asks_nothing_is_refused_with_its_id() {
        for (text, part) in [
            ("", "expected an object"),
            ("{}", "no `op`"),
            (r#"{"op":"x"}"#, "`op` must be"),
            (r#"{"op":"subscribe"}"#, "`series` must be"),
            (r#"{"op":"subscribe","series":[""]}"#, "`series` must be"),
            (r#"{"op":"subscribe","series":["1","2","3","4","5","6","7","8","9"]}"#, "at most 8 names"),
            (r#"{"op":"subscribe","series":["a"],"levels":[100]}"#, "`levels` must be"),
            (r#"{"op":"subscribe","series":["a"],"from":-1}"#, "an unsigned integer"),
            (r#"{"op":"subscribe","series":["a"],"version":9}"#, "takes no `version`"),
            (r#"{"horizon":2,"op":"subscribe","series":["a"]}"#, "takes no `horizon`"),
            (r#"{"op":"tick","ticks":[]}"#, "`ticks` must be"),
            (r#"{"op":"tick","ticks":[{}],"value":1}"#, "no `series`"),
            (r#"{"op":"tick","series":"a","ts":7,"value":NaN}"#, "series `a`, ts 7: `value` is NaN"),
            (
                r#"{"op":"tick","ticks":[{"value":Infinity,"series":"b","ts":7}]}"#,
                "series `b`, ts 7: `value` is Infinity",
            ),
            (r#"{"op":"tick","series":["a","b"],"ts":1,"value":1}"#, "one series"),
            (r#"{"op":"ping"} {"#, "the end"),
            (r#"{"op":"subscribe","series":["a"],"Model":"m"}"#, "`model` was probably meant"),
            (r#"{"op":"subscribe","series":["a"],"level":[80]}"#, "`levels` was probably meant"),
            (r#"{"op":"tick","ticks":[{"series":"a","ts":1,"value":1,"histExog":{}}]}"#, "`hist_exog` was"),
        ] {
            let (_, refused) = parse(text.as_bytes(), 8);
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert_eq!(parse(br#"{"id":5,"op":"x"}"#, 8).0, Some(Id::Number(5)));
    }

    #[test]
    fn an_id_is_a_text_or_a_whole_number() {
        for (text, want) in [
            (r#""desk 1""#.to_owned(), Some(Id::Text("desk 1".into()))),
            (r#""\u00e9""#.to_owned(), Some(Id::Text("é".into()))),
            (r#""""#.to_owned(), Some(Id::Text("".into()))),
            (u64::MAX.to_string(), Some(Id::Number(u64::MAX))),
            (i64::MIN.to_string(), Some(Id::Negative(i64::MIN))),
            ("18446744073709551616".to_owned(), None),
            ("1.5".to_owned(), None),
            ("true".to_owned(), None),
            (format!(r#""{}""#, "x".repeat(ID_BYTES_MAX)), Some(Id::Text("x".repeat(ID_BYTES_MAX).into()))),
            (format!(r#""{}""#, "x".repeat(ID_BYTES_MAX + 1)), None),
        ] {
            let (id, op) = parse(format!(r#"{{"op":"ping","id":{text}}}"#).as_bytes(), 8);
            assert_eq!((&id, op.is_ok()), (&want, want.is_some()), "{text}");
            assert!(op.err().is_none_or(|bad| bad.to_string().starts_with("`id` must be a text")), "{text}");
        }
    }
}
