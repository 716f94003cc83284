//! The other nodes as the room for remote inference sees them: who serves a model, and how they are asked.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use peregrine_actors::{Peers, Provider, RemoteAnswer, RemoteForecast, RemoteRefusal, TraceParent};
use peregrine_runtime::{
    AskError, Cluster, Deadline, Member, NodeId, Refusal, Region, RemoteMessage, Standing,
};

use super::forecast::{AskForecast, SERVICE};
use super::offer::{Offer, doubted, model_of, service_of};
use crate::reload::Current;

/// Requests of more numbers go by the lane for large messages.
const SMALL_NUMBERS_MAX: usize = 8 << 10;
/// Assumed where nothing is measured yet and the class has no ceiling.
const RTT_MAX: Duration = Duration::from_millis(300);
/// Whoever finds the way to a node full may come back after this.
const RETRY_AFTER_MS: u32 = 5;

pub(super) struct ClusterPeers {
    pub(super) cluster: Cluster,
    pub(super) here: (NodeId, Region),
    /// For `routing.remote` and what regions cost.
    pub(super) config: Current,
}

impl Peers for ClusterPeers {
    fn here(&self) -> (NodeId, Region) {
        self.here.clone()
    }

    fn providers(&self, model: &str, version: Option<u32>) -> Vec<Provider> {
        let config = self.config.get();
        if !config.routing.remote {
            return Vec::new();
        }
        let (view, service) = (self.cluster.view(), service_of(model));
        let others = view.members.values().filter(|member| member.id != self.here.0);
        let doubted = doubted(&view, &self.here.0);
        let serve = others.filter_map(|member| {
            let offer = Offer::from_text(member.services.get(&service)?);
            offer.covers(version).then(|| {
                let cost = config.regions.get(&member.region).and_then(|region| region.cost_per_hour);
                self.provider(member, &offer, cost, doubted.contains(member.id.as_str()))
            })
        });
        serve.collect()
    }

    fn serve_anything(&self) -> bool {
        let offers = |member: &Member| {
            member.id != self.here.0 && member.services.keys().any(|service| model_of(service).is_some())
        };
        self.config.get().routing.remote && self.cluster.view().members.values().any(offers)
    }

    fn ask(
        &self,
        node: &NodeId,
        request: Arc<RemoteForecast>,
        trace: Option<TraceParent>,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<RemoteAnswer, RemoteRefusal>> {
        let numbers = request.windows.as_ref().map_or(0, |windows| {
            let tensors = [&windows.y, &windows.hist_exog, &windows.futr_exog, &windows.stat_exog];
            tensors.iter().map(|tensor| tensor.len()).sum()
        });
        if numbers > SMALL_NUMBERS_MAX {
            self.ask_by(node, AskForecast::<true>::new(request, trace), deadline)
        } else {
            self.ask_by(node, AskForecast::<false>::new(request, trace), deadline)
        }
    }
}

impl ClusterPeers {
    fn provider(&self, member: &Member, offer: &Offer, cost: Option<f64>, doubted: bool) -> Provider {
        let rtt = self.cluster.rtt(&member.id);
        Provider {
            node: member.id.clone(),
            region: member.region.clone(),
            rtt: rtt.unwrap_or_else(|| self.cluster.distance(&member.id).ceiling().min(RTT_MAX)),
            load: member.load,
            cost: cost.map_or(f32::NAN, |cost| cost as f32), // comparison needs no more digits
            has_gpu: offer.has_gpu,
            gpu_open: offer.gpu_open,
            doubted,
            draining: member.standing == Standing::Draining,
            standby: offer.standby,
        }
    }

    fn ask_by<M>(
        &self,
        node: &NodeId,
        message: M,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<RemoteAnswer, RemoteRefusal>>
    where
        M: RemoteMessage + actix::Message<Result = Result<RemoteAnswer, RemoteRefusal>>,
    {
        let address = self.cluster.address::<M>(node, SERVICE);
        Box::pin(async move {
            let address = address.ok_or_else(|| RemoteRefusal::Unreachable("it has left".to_owned()))?;
            address.ask(message, deadline).await.unwrap_or_else(|error| Err(refusal(error)))
        })
    }
}

/// What an ask that never reached the other node's forecasts, or got lost, comes to.
fn refusal(error: AskError) -> RemoteRefusal {
    match error {
        AskError::Full => RemoteRefusal::Overloaded { retry_after_ms: RETRY_AFTER_MS },
        AskError::Deadline => RemoteRefusal::DeadlineExceeded,
        AskError::Failed => RemoteRefusal::Unavailable("its actor failed".to_owned()),
        AskError::Closed | AskError::Refused(Refusal::UnknownService) => RemoteRefusal::Stopping,
        AskError::Unreachable
        | AskError::Lost
        | AskError::Refused(Refusal::NoRoute | Refusal::OtherLife | Refusal::Overtaken) => {
            RemoteRefusal::Unreachable(error.to_string())
        }
        AskError::Refused(
            Refusal::UnknownType | Refusal::UnknownVersion | Refusal::TooLarge | Refusal::Malformed,
        ) => RemoteRefusal::Malformed(error.to_string()),
    }
}
