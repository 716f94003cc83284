//! What operators have decided about circuits, whatever calls say.

use parking_lot::Mutex;
use peregrine_runtime::NodeId;

use crate::status::Guarded;

/// Who decides what a circuit lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerMode {
    /// The calls.
    #[default]
    Auto,
    /// The operator: nothing passes.
    ForcedOpen,
    /// The operator: everything passes, and nothing is counted.
    Disabled,
    /// The operator: everything passes, and the circuit shows what it would have done.
    MetricsOnly,
}

impl BreakerMode {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::ForcedOpen, Self::Disabled, Self::MetricsOnly];

    /// Lowercase name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::ForcedOpen => "forced-open",
            Self::Disabled => "disabled",
            Self::MetricsOnly => "metrics-only",
        }
    }
}

/// Which circuits are meant: those that fit whatever is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BreakerSelector {
    /// Of this model.
    pub model: Option<String>,
    /// Of this version.
    pub version: Option<u32>,
    /// `cpu`, `gpu`, `coverage` or `remote`.
    pub backend: Option<String>,
    /// Of the device in this place among those of its kind.
    pub device: Option<usize>,
    /// Of this other node.
    pub node: Option<NodeId>,
}

impl BreakerSelector {
    /// Whether a circuit is meant.
    #[must_use]
    pub fn fits(&self, guards: &Guarded) -> bool {
        let (model, version) = guards.model().unzip();
        self.model.as_deref().is_none_or(|wanted| model == Some(wanted))
            && self.version.is_none_or(|wanted| version == Some(wanted))
            && self.backend.as_deref().is_none_or(|wanted| guards.backend() == wanted)
            && self.device.is_none_or(|wanted| guards.device().map(|device| device.index) == Some(wanted))
            && self.node.as_ref().is_none_or(|wanted| guards.node() == Some(wanted))
    }

    /// Whether it means every circuit that another does.
    fn covers(&self, other: &Self) -> bool {
        fn covered<T: PartialEq>(wide: &Option<T>, narrow: &Option<T>) -> bool {
            wide.is_none() || wide == narrow
        }
        covered(&self.model, &other.model)
            && covered(&self.version, &other.version)
            && covered(&self.backend, &other.backend)
            && covered(&self.device, &other.device)
            && covered(&self.node, &other.node)
    }
}

/// More orders are in force than anybody can overlook; the operator takes some back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{ORDERS_MAX} orders about breakers are in force: set some back to auto first")]
pub struct TooManyOrders;

const ORDERS_MAX: usize = 256;

/// Orders in force; of several about one circuit the latest counts. They outlive the circuits.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    usual: BreakerMode,
    list: Mutex<Vec<(BreakerSelector, BreakerMode)>>,
}

impl Orders {
    pub(crate) fn new(usual: BreakerMode) -> Self {
        Self { usual, list: Mutex::default() }
    }

    pub(crate) fn mode(&self, guards: &Guarded) -> BreakerMode {
        let list = self.list.lock();
        list.iter().rev().find(|(selector, _)| selector.fits(guards)).map_or(self.usual, |(_, mode)| *mode)
    }

    /// Whether an order is in force about all or some of what is meant and nothing else.
    pub(crate) fn has(&self, selector: &BreakerSelector) -> bool {
        self.list.lock().iter().any(|(earlier, _)| selector.covers(earlier))
    }

    pub(crate) fn give(&self, selector: BreakerSelector, mode: BreakerMode) -> Result<(), TooManyOrders> {
        let mut list = self.list.lock();
        let kept = list.iter().filter(|(earlier, _)| !selector.covers(earlier)).count();
        if kept >= ORDERS_MAX {
            return Err(TooManyOrders);
        }
        list.retain(|(earlier, _)| !selector.covers(earlier));
        if kept > 0 || mode != self.usual {
            list.push((selector, mode));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use peregrine_shaders::Backend;

    use super::*;
    use crate::devices::DeviceId;

    fn gate(model: &str, version: u32, backend: Backend) -> Guarded {
        Guarded::Device { model: model.into(), version, device: DeviceId { backend, index: 0 } }
    }

    fn of(model: Option<&str>, backend: Option<&str>) -> BreakerSelector {
        let own = |text: &str| text.to_owned();
        BreakerSelector { model: model.map(own), backend: backend.map(own), ..BreakerSelector::default() }
    }

    #[test]
    fn a_selector_means_what_fits_all_it_says() {
        let peer = Guarded::Peer { node: NodeId::new("a").unwrap() };
        let all = BreakerSelector::default();
        assert!(all.fits(&gate("m", 1, Backend::Cpu)) && all.fits(&peer));
        assert!(of(Some("m"), Some("gpu")).fits(&gate("m", 1, Backend::Gpu)));
        assert!(!of(Some("m"), Some("gpu")).fits(&gate("m", 1, Backend::Cpu)));
        assert!(!of(Some("m"), None).fits(&peer));
        assert!(of(None, Some("remote")).fits(&peer));
        assert!(BreakerSelector { node: NodeId::new("a").ok(), ..of(None, None) }.fits(&peer));
        assert!(!BreakerSelector { version: Some(2), ..of(None, None) }.fits(&gate("m", 1, Backend::Cpu)));
    }

    #[test]
    fn the_latest_order_counts_and_a_wider_one_replaces_narrower_ones() {
        let (orders, guards) = (Orders::new(BreakerMode::Auto), gate("m", 1, Backend::Gpu));
        let given = |selector, mode| {
            orders.give(selector, mode).unwrap();
            (orders.mode(&guards).name(), orders.list.lock().len())
        };
        assert_eq!(given(of(Some("m"), None), BreakerMode::ForcedOpen), ("forced-open", 1));
        assert_eq!(given(of(Some("m"), Some("gpu")), BreakerMode::Auto), ("auto", 2));
        assert_eq!(given(of(Some("n"), None), BreakerMode::Disabled), ("auto", 3));
        assert_eq!(given(of(Some("m"), None), BreakerMode::MetricsOnly), ("metrics-only", 2));
        assert_eq!(given(of(None, None), BreakerMode::Auto), ("auto", 0), "nothing is left");
    }

    #[test]
    fn orders_are_bounded() {
        let orders = Orders::default();
        let give = |n: usize| orders.give(of(Some(&n.to_string()), None), BreakerMode::Disabled);
        (0..ORDERS_MAX).for_each(|n| give(n).unwrap());
        assert_eq!(give(ORDERS_MAX), Err(TooManyOrders));
        give(0).unwrap();
        orders.give(of(None, None), BreakerMode::Auto).unwrap();
        give(ORDERS_MAX).unwrap();
    }
}
