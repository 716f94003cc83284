//! Which endpoint a request is for.

use peregrine_fly::machines::{HttpRequest, Method};

/// An endpoint.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Route {
    pub(crate) app: Option<String>,
    pub(crate) machine: Option<String>,
    /// As the limits count it; endpoints without a name there have one of their own.
    pub(crate) action: &'static str,
    /// What comes after the action: the key of metadata.
    pub(crate) key: Option<String>,
    /// Changes of a machine that is leased need the nonce.
    pub(crate) is_guarded: bool,
}

pub(crate) fn route(request: &HttpRequest) -> Option<Route> {
    let path: Vec<&str> = request.path.strip_prefix("/v1/")?.split('/').collect();
    let of_app = |app: Option<&str>, action: &'static str| {
        let app = app.map(str::to_owned);
        Some(Route { app, machine: None, action, key: None, is_guarded: false })
    };
    let (app, id, rest) = match path.as_slice() {
        ["apps"] => return of_app(None, "app"),
        ["apps", app] => return of_app(Some(app), "app"),
        ["platform", "placements"] => return of_app(None, "placements"),
        ["platform", "regions"] => return of_app(None, "regions"),
        ["apps", app, "machines"] => {
            let action = if request.method == Method::Get { "list" } else { "create" };
            return of_app(Some(app), action);
        }
        ["apps", app, "machines", id, rest @ ..] => (app, id, rest),
        _ => return None,
    };
    let (action, is_guarded) = match (request.method, rest) {
        (Method::Get, []) => ("get", false),
        (Method::Post, []) => ("update", true),
        (Method::Delete, []) => ("destroy", true),
        (Method::Post, ["start"]) => ("start", true),
        (Method::Post, ["stop"]) => ("stop", true),
        (Method::Post, ["suspend"]) => ("suspend", true),
        (Method::Post, ["restart"]) => ("restart", true),
        (Method::Post, ["signal"]) => ("signal", true),
        (Method::Post, ["cordon"]) => ("cordon", true),
        (Method::Post, ["uncordon"]) => ("uncordon", true),
        (Method::Get, ["wait"]) => ("wait", false),
        (Method::Get, ["lease"]) => ("lease_get", false),
        (Method::Post, ["lease"]) => ("lease", false),
        (Method::Delete, ["lease"]) => ("lease_release", false),
        (Method::Get, ["metadata", ..]) => ("metadata_get", false),
        (_, ["metadata", ..]) => ("metadata_set", false),
        (Method::Get, ["events"]) => ("events", false),
        (Method::Get, ["versions"]) => ("versions", false),
        _ => return None,
    };
    Some(Route {
        app: Some((*app).to_owned()),
        machine: Some((*id).to_owned()),
        action,
        key: rest.get(1).map(|key| (*key).to_owned()),
        is_guarded,
    })
}
