//! `GET /v1/cluster`: the nodes as this one sees them, and how its links do.

use actix_web::HttpResponse;
use actix_web::web::{self, Data};
use peregrine_runtime::{Cluster, Member, NodeId, RttClass, Standing};
use serde_json::{Map, Value, json};

use super::health::standing_alone;
use super::{Shared, get};
use crate::alerts::LostNode;
use crate::cluster::{Offer, doubters, machine_of, model_of};
use crate::security::rfc3339;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    get(config, "/v1/cluster", show);
}

async fn show(shared: Data<Shared>) -> HttpResponse {
    let config = shared.config();
    let name = config.cluster.as_ref().map(|part| part.name.as_str());
    let size = config.cluster.as_ref().map_or(1, |part| part.size);
    let node = json!({ "name": config.node.name.as_str(), "region": config.node.region.as_str() });
    let Some(cluster) = &shared.cluster else {
        let members = [standing_alone(&shared)];
        return HttpResponse::Ok()
            .json(json!({ "cluster": name, "node": node, "size": size, "members": members, "lost": [] }));
    };
    let stats = cluster.stats();
    HttpResponse::Ok().json(json!({
        "cluster": name,
        "node": node,
        "size": size,
        "members": members(cluster),
        "lost": lost(&shared),
        "links": {
            "opened": stats.links_opened,
            "lost": stats.links_lost,
            "refused": stats.links_refused,
            "violations": stats.violations,
        },
        "messages": {
            "asks_waiting": stats.asks_waiting,
            "detours": stats.detours,
            "relayed": stats.relayed,
            "refused_here": stats.refused,
            "refused_there": stats.tells_refused,
        },
    }))
}

/// Every live node, this one included, by name.
pub(super) fn members(cluster: &Cluster) -> Vec<Value> {
    cluster.view().members.values().map(|member| view(cluster, member)).collect()
}

/// Nodes that are gone without a word, for as long as the alert about them lasts.
pub(super) fn lost(shared: &Shared) -> Vec<Value> {
    let lost = shared.lost_nodes.list();
    let view = |node: &LostNode| json!({ "node": node.id.as_str(), "region": node.region.as_str(), "since": rfc3339(node.since) });
    lost.iter().map(view).collect()
}

/// The same in words.
pub(super) fn losses(shared: &Shared) -> Vec<String> {
    let lost = shared.lost_nodes.list();
    let words = |LostNode { id, region, since }: &LostNode| {
        format!("node `{id}` in {region} is gone without a word since {}", rfc3339(*since))
    };
    lost.iter().map(words).collect()
}

fn view(cluster: &Cluster, member: &Member) -> Value {
    let (is_here, of_all) = (member.id == *cluster.id(), cluster.view());
    let models: Map<String, Value> = (member.services.iter())
        .filter_map(|(service, text)| {
            let offer = Offer::from_text(text);
            let versions: Vec<String> = offer.versions.iter().map(u32::to_string).collect();
            let offered = json!({
                "versions": versions,
                "gpu": offer.has_gpu,
                "gpu_open": offer.gpu_open,
                "standby": offer.standby,
            });
            Some((model_of(service)?.to_owned(), offered))
        })
        .collect();
    let rtt = cluster.rtt(&member.id).filter(|_| !is_here);
    json!({
        "node": member.id.as_str(),
        "region": member.region.as_str(),
        "here": is_here,
        "roles": member.roles,
        "version": member.version,
        "incarnation": member.incarnation.0,
        "address": member.addr.to_string(),
        "state": match member.standing {
            Standing::Active => "active",
            Standing::Draining => "draining",
        },
        "load": member.load,
        "connected": is_here || cluster.connected(&member.id),
        "rtt_ms": rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        "distance": (!is_here).then(|| distance(cluster.distance(&member.id))),
        "cut_from": member.cut_from.iter().map(NodeId::as_str).collect::<Vec<_>>(),
        "doubted_by": doubters(&of_all, &member.id).map(NodeId::as_str).collect::<Vec<_>>(),
        "models": models,
        "machine": machine_of(member).map(|machine| {
            json!({ "provider": "fly", "app": machine.app, "id": machine.id, "public": machine.is_public })
        }),
    })
}

fn distance(class: RttClass) -> &'static str {
    match class {
        RttClass::SameHost => "same_host",
        RttClass::SameRegion => "same_region",
        RttClass::Near => "near",
        RttClass::Far => "far",
        RttClass::VeryFar => "very_far",
    }
}
