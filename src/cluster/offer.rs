//! What a node says of the models it serves, as services of its record, and what it reads of others.
//!
//! Pure: statuses in, text out, and back. What comes in was written by another node, perhaps a newer one: words that
//! are not known are passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use peregrine_actors::{BreakerMode, BreakerState, BreakerStatus, Guarded, ModelState, ModelStatus};
use peregrine_fly::passage::HostMachine;
use peregrine_runtime::{Member, NodeId, Region, View};
use peregrine_shaders::Backend;

/// Bytes of names and words that a record carries in every round of gossip.
const OFFERS_BYTES_MAX: usize = 12 << 10;
/// Versions of one model that are offered, the latest.
const VERSIONS_MAX: usize = 8;

/// What one node offers of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Rising.
    pub(crate) versions: Vec<u32>,
    /// Asked when no other can answer.
    pub(crate) standby: bool,
    /// A GPU serves it.
    pub(crate) has_gpu: bool,
    /// …but the breaker of each GPU is open for it. A word of its own, so that nodes that do not know it go on as before.
    pub(crate) gpu_open: bool,
}

/// Nodes of which a record says that they are doubted; of more, nothing is said.
const DOUBTS_MAX: usize = 64;
const DOUBTS: &str = "doubts/";

/// The service by which a model is found.
pub(super) fn service_of(model: &str) -> String {
    format!("model/{model}")
}

/// The model that a service stands for, if it stands for one.
pub(crate) fn model_of(service: &str) -> Option<&str> {
    service.strip_prefix("model/")
}

/// The service that names the Machine a node runs on. Nodes that do not know it see no model in it.
pub(super) const MACHINE: &str = "fly/machine";

/// The Machine that a node says it runs on.
pub(crate) fn machine_of(member: &Member) -> Option<HostMachine> {
    HostMachine::from_text(member.services.get(MACHINE)?)
}

impl Offer {
    /// `v1 v2 gpu gpu-open standby`
    fn to_text(&self) -> String {
        let mut text = String::new();
        for version in &self.versions[self.versions.len().saturating_sub(VERSIONS_MAX)..] {
            let _ = write!(text, "v{version} "); // text takes everything
        }
        text.push_str(if self.has_gpu { "gpu " } else { "" });
        text.push_str(if self.gpu_open { "gpu-open " } else { "" });
        text.push_str(if self.standby { "standby" } else { "" });
        text.truncate(text.trim_end().len());
        text
    }

    pub(crate) fn from_text(text: &str) -> Self {
        let mut offer = Self::default();
        for word in text.split(' ') {
            match word {
                "gpu" => offer.has_gpu = true,
                "gpu-open" => offer.gpu_open = true,
                "standby" => offer.standby = true,
                word => offer
                    .versions
                    .extend(word.strip_prefix('v').and_then(|number| number.parse::<u32>().ok())),
            }
        }
        offer
    }

    /// Whether it covers a request for `version`, or for any.
    pub(super) fn covers(&self, version: Option<u32>) -> bool {
        version.is_none_or(|version| self.versions.contains(&version))
    }
}

/// The services of a node that serves `models`, and how many did not fit.
pub(super) fn offers(
    models: &[Arc<ModelStatus>],
    is_standby: impl Fn(&str) -> bool,
    has_gpu: bool,
    breakers: &[BreakerStatus],
) -> (BTreeMap<String, String>, usize) {
    let mut by_model = BTreeMap::<&str, Offer>::new();
    for model in models.iter().filter(|model| model.state == ModelState::Ready) {
        let name = model.spec.name.as_str();
        let offer = by_model.entry(name).or_insert_with(|| Offer {
            has_gpu,
            gpu_open: has_gpu && gpus_are_open(name, breakers),
            standby: is_standby(name),
            ..Offer::default()
        });
        offer.versions.push(model.version);
        offer.versions.sort_unstable();
    }
    let (mut services, mut bytes, mut left_out) = (BTreeMap::new(), 0, 0);
    for (model, offer) in by_model {
        let (service, text) = (service_of(model), offer.to_text());
        bytes += service.len() + text.len() + 16;
        if bytes <= OFFERS_BYTES_MAX {
            services.insert(service, text);
        } else {
            left_out += 1;
        }
    }
    (services, left_out)
}

/// Whether a node would refuse every request of the model that wants a GPU. One that lets probes through would not.
fn gpus_are_open(model: &str, breakers: &[BreakerStatus]) -> bool {
    let of_model = |one: &&BreakerStatus| {
        matches!(&one.guards, Guarded::Device { model: of, device, .. }
            if of == model && device.backend == Backend::Gpu)
    };
    let mut gpus = breakers.iter().filter(of_model).peekable();
    gpus.peek().is_some() && gpus.all(refuses)
}

fn refuses(breaker: &BreakerStatus) -> bool {
    let open = matches!(breaker.state, BreakerState::Open { .. } | BreakerState::ForcedOpen);
    open && breaker.mode != BreakerMode::MetricsOnly
}

/// Services that say of which nodes this one's breaker is open. An operator's order is about this node alone and no
/// news of the other.
pub(super) fn doubts(breakers: &[BreakerStatus]) -> BTreeMap<String, String> {
    let seen = breakers.iter().filter(|one| refuses(one) && one.mode == BreakerMode::Auto);
    let nodes = seen.filter_map(|one| match &one.guards {
        Guarded::Peer { node } => Some((format!("{DOUBTS}{node}"), "open".to_owned())),
        Guarded::Device { .. } | Guarded::Coverage { .. } => None,
    });
    nodes.take(DOUBTS_MAX).collect()
}

/// The names of all nodes that others than `but` say they doubt: one look at each record.
pub(super) fn doubted<'a>(view: &'a View, but: &NodeId) -> BTreeSet<&'a str> {
    let others = view.members.values().filter(|member| member.id != *but);
    let said = |member: &'a Member| {
        let services = member.services.keys().filter_map(|service| service.strip_prefix(DOUBTS));
        services.filter(|node| *node != member.id.as_str())
    };
    others.flat_map(said).collect()
}

/// The nodes of a view that say they doubt `node`, which itself is no witness.
pub(crate) fn doubters<'a>(view: &'a View, node: &NodeId) -> impl Iterator<Item = &'a NodeId> {
    let (service, accused) = (format!("{DOUBTS}{node}"), node.clone());
    let others = view.members.values().filter(move |member| member.id != accused);
    others.filter(move |member| member.services.contains_key(&service)).map(|member| &member.id)
}

/// What the nodes of a view serve, `me` left out: by model and version, the regions that have it.
pub(crate) fn elsewhere(view: &View, me: &NodeId) -> BTreeMap<(String, u32), BTreeSet<Region>> {
    let mut served = BTreeMap::<(String, u32), BTreeSet<Region>>::new();
    for member in view.members.values().filter(|member| member.id != *me) {
        for (service, text) in &member.services {
            let Some(model) = model_of(service) else { continue };
            for version in Offer::from_text(text).versions {
                served.entry((model.to_owned(), version)).or_default().insert(member.region.clone());
            }
        }
    }
    served
}

/// The nodes of a view that serve a model (and `version` if named), `me` left out, by name.
pub(crate) fn servers<'a>(
    view: &'a View,
    me: &'a NodeId,
    model: &str,
    version: Option<u32>,
) -> impl Iterator<Item = &'a NodeId> {
    let service = service_of(model);
    let serves = move |member: &&Member| {
        let offer = member.services.get(&service).map(|text| Offer::from_text(text));
        member.id != *me && offer.is_some_and(|offer| offer.covers(version))
    };
    view.members.values().filter(serves).map(|member| &member.id)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peregrine_actors::DeviceId;
    use peregrine_shaders::ModelSpec;

    use super::*;
    use crate::testing::point_spec;

    #[test]
    fn an_offer_is_read_as_it_was_written() {
        for offer in [
            Offer { versions: vec![1], ..Offer::default() },
            Offer { versions: vec![1, 3], standby: true, has_gpu: true, gpu_open: false },
            Offer { versions: vec![2], standby: false, has_gpu: true, gpu_open: true },
            Offer { versions: vec![7], standby: true, ..Offer::default() },
        ] {
            assert_eq!(Offer::from_text(&offer.to_text()), offer);
        }
    }

    #[test]
    fn words_of_a_newer_node_are_passed_over() {
        let offer = Offer::from_text("v2 tpu v v-1 v99999999999 standby  ");
        assert_eq!(offer, Offer { versions: vec![2], standby: true, ..Offer::default() });
        assert_eq!(Offer::from_text(""), Offer::default());
    }

    #[test]
    fn a_version_is_covered_if_it_is_named() {
        let offer = Offer::from_text("v1 v3");
        assert!(offer.covers(None) && offer.covers(Some(3)) && !offer.covers(Some(2)));
    }

    #[test]
    fn ready_models_are_offered_with_all_their_versions() {
        let models = [
            model("a", 2, ModelState::Ready),
            model("a", 1, ModelState::Ready),
            model("b", 1, ModelState::Loading),
        ];
        let (services, left_out) = offers(&models, |name| name == "a", true, &[]);
        assert_eq!(services, BTreeMap::from([("model/a".to_owned(), "v1 v2 gpu standby".to_owned())]));
        assert_eq!(left_out, 0);
        assert_eq!(services.keys().map(|service| model_of(service)).collect::<Vec<_>>(), [Some("a")]);
        assert_eq!(model_of("singleton/scaler"), None);
    }

    #[test]
    fn a_gpu_is_said_to_be_open_when_each_of_the_model_is() {
        let open = BreakerState::Open { remaining: Duration::from_secs(1) };
        let auto = BreakerMode::Auto;
        let said = |states: &[(&str, usize, BreakerState, BreakerMode)]| {
            let breakers: Vec<_> = states
                .iter()
                .map(|(model, gpu, state, mode)| breaker(on_gpu(model, *gpu), *state, *mode))
                .collect();
            offers(&[model("a", 1, ModelState::Ready)], |_| false, true, &breakers).0["model/a"].clone()
        };
        assert_eq!(said(&[]), "v1 gpu");
        assert_eq!(said(&[("a", 0, open, auto)]), "v1 gpu gpu-open");
        assert_eq!(said(&[("a", 0, BreakerState::ForcedOpen, BreakerMode::ForcedOpen)]), "v1 gpu gpu-open");
        assert_eq!(said(&[("a", 0, open, auto), ("a", 1, BreakerState::Closed, auto)]), "v1 gpu");
        assert_eq!(said(&[("a", 0, BreakerState::HalfOpen, auto)]), "v1 gpu", "probes may come from others");
        assert_eq!(said(&[("a", 0, open, BreakerMode::MetricsOnly)]), "v1 gpu");
        assert_eq!(said(&[("b", 0, open, auto)]), "v1 gpu");
    }

    #[test]
    fn what_calls_have_shown_of_other_nodes_is_told_and_orders_are_not() {
        let open = BreakerState::Open { remaining: Duration::from_secs(1) };
        let peer = |name: &str| Guarded::Peer { node: NodeId::new(name).unwrap() };
        let said = doubts(&[
            breaker(peer("shown"), open, BreakerMode::Auto),
            breaker(peer("ordered"), BreakerState::ForcedOpen, BreakerMode::ForcedOpen),
            breaker(peer("watched"), open, BreakerMode::MetricsOnly),
            breaker(peer("tried"), BreakerState::HalfOpen, BreakerMode::Auto),
            breaker(on_gpu("a", 0), open, BreakerMode::Auto),
        ]);
        assert_eq!(said.into_keys().collect::<Vec<_>>(), ["doubts/shown"]);
        for service in ["doubts/shown", MACHINE] {
            assert_eq!(model_of(service), None, "nodes of before read no model in it");
        }
    }

    fn on_gpu(model: &str, index: usize) -> Guarded {
        let device = DeviceId { backend: Backend::Gpu, index };
        Guarded::Device { model: model.to_owned(), version: 1, device }
    }

    fn breaker(guards: Guarded, state: BreakerState, mode: BreakerMode) -> BreakerStatus {
        BreakerStatus { guards, mode, state, failures: 0, transitions: 0, reason: String::new() }
    }

    #[test]
    fn what_does_not_fit_a_record_is_left_out_and_counted() {
        let models: Vec<_> =
            (0..2000).map(|at| model(&format!("model-{at}"), 1, ModelState::Ready)).collect();
        let (services, left_out) = offers(&models, |_| false, false, &[]);
        assert_eq!(services.len() + left_out, 2000);
        assert!(
            left_out > 0
                && services.iter().map(|(name, text)| name.len() + text.len()).sum::<usize>()
                    <= OFFERS_BYTES_MAX
        );
    }

    fn model(name: &str, version: u32, state: ModelState) -> Arc<ModelStatus> {
        let spec = ModelSpec { name: name.to_owned(), ..point_spec(1, 1) };
        Arc::new(ModelStatus { spec: Arc::new(spec), version, digest: String::new(), state, weight_bytes: 0 })
    }
}
