//! `GET /v1/scorecard`: how good predictions were, once the truth has come.

use std::sync::Arc;

use actix_web::web::{self, Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use peregrine_actors::scorecard::{Coverage, Question, Score, Scorecard, WINDOW};
use serde_json::{Value, json};

use super::error::{Problem, Refusal};
use super::{Shared, get};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    get(config, "/v1/scorecard", show);
}

/// `?model=&version=&series=&steps=`; what is not there means all.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wish {
    model: Option<String>,
    version: Option<u32>,
    series: Option<String>,
    steps: bool,
}

async fn show(shared: Data<Shared>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let refused =
        |error| Refusal::query("model, version, series and steps (true or false)", &error, &request);
    let wish = Query::<Wish>::from_query(request.query_string()).map_err(refused)?.into_inner();
    if let Some(model) = &wish.model {
        shared.known(model, wish.version).await?;
    }
    let card = Arc::clone(&shared.scorecard);
    // Reads every stream of the node: not on a thread that answers requests.
    let read = web::block(move || document(&card, &wish));
    Ok(HttpResponse::Ok().json(read.await.map_err(|_| Refusal::NoModel)?))
}

fn document(card: &Scorecard, wish: &Wish) -> Value {
    let question = Question {
        model: wish.model.as_deref(),
        version: wish.version,
        series: wish.series.as_deref(),
        by_step: false,
    };
    let steps = if wish.steps { card.scores(Question { by_step: true, ..question }) } else { Vec::new() };
    let scored = card.scored();
    let model_view = |score: &Score| {
        let is_it = |model: &str, version: u32| *model == *score.model && version == score.version;
        let scored = scored.iter().find(|(model, version, _)| is_it(model, *version));
        let mut view = view(score);
        view["model"] = json!(*score.model);
        view["version"] = json!(score.version.to_string());
        // Counted by version, not by series.
        if wish.series.is_none() {
            view["scored"] = json!(scored.map_or(0, |(.., count)| *count));
        }
        if wish.steps {
            let own = steps.iter().filter(|step| is_it(&step.model, step.version));
            view["steps"] = own.map(step_view).collect();
        }
        view
    };
    let models: Vec<Value> = card.scores(question).iter().map(model_view).collect();
    json!({ "window": WINDOW, "models": models })
}

fn step_view(score: &Score) -> Value {
    let mut view = view(score);
    view["step"] = json!(score.step);
    view
}

fn view(score: &Score) -> Value {
    let coverage = |one: &Coverage| json!({ "level": one.level, "held": one.held, "weight": one.weight });
    json!({
        "series": score.series,
        "weight": score.weight,
        "mae": score.mae,
        "mase": score.mase,
        "pinball": score.pinball,
        "coverage": score.coverage.iter().map(coverage).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use peregrine_actors::series::{SeriesName, Timestamp};
    use peregrine_actors::stream::{Prediction, StreamId};
    use peregrine_shaders::{Head, ModelSpec};

    use super::*;
    use crate::testing::point_spec;

    #[test]
    fn a_scored_model_is_shown_whole_and_by_step() {
        let card = card();
        let answer = document(&card, &Wish { steps: true, ..Wish::default() });
        let model = &answer["models"][0];
        assert_eq!(
            (&model["model"], &model["version"], &model["scored"]),
            (&json!("m"), &json!("3"), &json!(1))
        );
        assert_eq!((&model["series"], &model["mae"], &model["mase"]), (&json!(1), &json!(0.5), &json!(0.25)));
        let coverage = json!([{ "level": 80.0, "held": 100.0, "weight": model["weight"] }]);
        assert_eq!(model["coverage"], coverage);
        assert_eq!(model["steps"].as_array().map(Vec::len), Some(1));
        assert_eq!(model["steps"][0]["step"], json!(1));
        check(&card, Wish::default(), 1);
        let of_series = document(&card, &Wish { series: Some("a".to_owned()), ..Wish::default() });
        assert_eq!(of_series["models"][0].get("scored"), None, "counted by version, not by series");
    }

    #[test]
    fn what_is_asked_for_is_all_that_is_shown() {
        let card = card();
        check(&card, Wish { model: Some("other".to_owned()), ..Wish::default() }, 0);
        check(&card, Wish { version: Some(3), ..Wish::default() }, 1);
        check(&card, Wish { series: Some("b".to_owned()), ..Wish::default() }, 0);
        check(&card, Wish { series: Some("a".to_owned()), ..Wish::default() }, 1);
    }

    #[track_caller]
    fn check(card: &Scorecard, wish: Wish, models: usize) {
        assert_eq!(document(card, &wish)["models"].as_array().map(Vec::len), Some(models), "{wish:?}");
    }

    /// One step of one prediction that met its truth: off by a half where the series has moved by two.
    fn card() -> Arc<Scorecard> {
        let card = Arc::new(Scorecard::default());
        let series = SeriesName::new("a").unwrap();
        let spec = ModelSpec {
            head: Head::Quantiles(vec![0.1, 0.5, 0.9]),
            columns: ["lo-80", "median", "hi-80"].map(str::to_owned).to_vec(),
            ..point_spec(2, 2)
        };
        card.observed(&series, 7, 1.0);
        card.predicted(&Prediction {
            stream: StreamId { model: Arc::from("m"), series: series.clone() },
            seq: 7,
            epoch: 0,
            position: 7,
            last: Timestamp(0),
            accepted_at: None,
            made_at: Timestamp(0),
            spec: Arc::new(spec),
            version: 3,
            values: [1.0, 2.5, 4.0, 1.0, 2.5, 4.0].into(),
            backend: Arc::from("cpu"),
            degraded: false,
        });
        card.observed(&series, 8, 3.0);
        card
    }
}
