//! `[routing]`, `[regions]` and `[placement]` as the actors are told them. Pure.

use std::collections::BTreeMap;

use peregrine_actors::{HedgeLimits, Placement, Prefer, RetryLimits, RoutingSettings};

use crate::config::{Config, DeviceChoice, PreferChoice};

/// How this node asks others.
pub(crate) fn routing(config: &Config) -> RoutingSettings {
    let routing = &config.routing;
    let elsewhere = config.placement.iter().filter_map(|(model, placed)| {
        let region = placed.remote.as_ref().filter(|region| **region != config.node.region)?;
        Some((model.clone(), region.clone()))
    });
    let regions = || config.regions.iter();
    RoutingSettings {
        prefer: match routing.prefer {
            PreferChoice::Nearest => Prefer::Nearest,
            PreferChoice::LeastLoaded => Prefer::LeastLoaded,
            PreferChoice::Cost => Prefer::Cheapest,
        },
        regions_by_model: elsewhere.collect(),
        hedge: HedgeLimits {
            enabled: routing.hedge_budget > 0.0,
            percentile: routing.hedge_percentile,
            delay_min: routing.hedge_after_min,
            share: routing.hedge_budget,
            ..HedgeLimits::default()
        },
        retry: RetryLimits { share: routing.retry_budget, ..RetryLimits::default() },
        ocean_rtt: routing.ocean_rtt,
        in_flight_max: routing.remote_in_flight_max,
        region_in_flight_max: routing.remote_in_flight_max,
        in_flight_max_by_region: regions()
            .filter_map(|(name, region)| Some((name.clone(), region.in_flight_max?)))
            .collect(),
        standby_by_region: regions()
            .filter_map(|(name, region)| Some((name.clone(), region.standby.clone()?)))
            .collect(),
    }
}

/// The models whose device is decided.
pub(crate) fn devices(config: &Config) -> BTreeMap<String, Placement> {
    let decided = config.placement.iter().filter_map(|(model, placed)| {
        let placement = match placed.device {
            DeviceChoice::Any => return None,
            DeviceChoice::Gpu => Placement::Gpu,
            DeviceChoice::Cpu => Placement::Cpu,
        };
        Some((model.clone(), placement))
    });
    decided.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peregrine_runtime::Region;

    use super::*;
    use crate::config::{Sources, resolve};

    fn config(text: &str) -> Config {
        resolve(&Sources::default()).unwrap().over(text).unwrap().config
    }

    fn region(name: &str) -> Region {
        Region::new(name).unwrap()
    }

    #[test]
    fn what_is_written_is_what_the_actors_are_told() {
        let told = routing(&config(
            "[routing]\nprefer = \"cost\"\nhedge_percentile = 0.9\nhedge_after_min = \"7ms\"\nhedge_budget = 0.02\n\
             retry_budget = 0.3\nocean_rtt = \"90ms\"\nremote_in_flight_max = 9\n\
             [regions.fra]\nin_flight_max = 4\ncost_per_hour = 1.0\nstandby = \"iad\"\n",
        ));
        assert_eq!(told.prefer, Prefer::Cheapest);
        let hedge = &told.hedge;
        assert_eq!((hedge.enabled, hedge.percentile, hedge.share), (true, 0.9, 0.02));
        assert_eq!((hedge.delay_min, told.ocean_rtt), (Duration::from_millis(7), Duration::from_millis(90)));
        assert_eq!((told.retry.share, told.in_flight_max), (0.3, 9));
        assert_eq!((told.in_flight_max_of(&region("fra")), told.in_flight_max_of(&region("nrt"))), (4, 9));
        assert_eq!(told.standby_by_region.get(&region("fra")), Some(&region("iad")));
    }

    #[test]
    fn without_a_budget_nothing_is_hedged() {
        assert!(!routing(&config("routing.hedge_budget = 0.0")).hedge.enabled);
    }

    #[test]
    fn a_model_of_this_region_is_not_sent_away() {
        let text = |home: &str| {
            format!(
                "node.region = \"{home}\"\n[placement.nhits-vol-quantile]\nremote = \"remote:iad\"\ndevice = \"cpu\"\n"
            )
        };
        let away = config(&text("fra"));
        assert_eq!(routing(&away).regions_by_model.get("nhits-vol-quantile"), Some(&region("iad")));
        assert!(routing(&config(&text("iad"))).regions_by_model.is_empty());
        assert_eq!(devices(&away).get("nhits-vol-quantile"), Some(&Placement::Cpu));
    }
}
