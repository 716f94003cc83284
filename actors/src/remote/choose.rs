//! Which nodes are asked for a forecast, in which order, and how often across an ocean.
//!
//! Plain values in, an order out: knows no clock, no address, and nothing of how asking goes.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use peregrine_runtime::{NodeId, Region};

use super::message::Provider;
use crate::settings::RoutingSettings;

/// Which of several nodes is asked first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prefer {
    /// The nearest by class of round trip; among those the least loaded, then the cheapest.
    #[default]
    Nearest,
    /// The least loaded; among those the nearest.
    LeastLoaded,
    /// The cheapest; among those the nearest.
    Cheapest,
    /// Those of one region, then the others; the nearest first.
    Region(Region),
}

/// What a request wants of the node that answers it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) prefer: &'a Prefer,
    /// The region of this node.
    pub(crate) home: &'a Region,
    pub(crate) needs_gpu: bool,
    /// Where all that could answer have their breakers open, one of those is asked nevertheless: were all ejected at
    /// once, nobody would be left to answer. For requests that nobody else takes.
    pub(crate) takes_any: bool,
    /// Until its deadline.
    pub(crate) remaining: Duration,
}

/// A provider with what this node itself knows of it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) provider: Provider,
    /// Its breaker lets nothing through.
    pub(crate) is_open: bool,
    /// An operator says so.
    pub(crate) is_forced: bool,
    /// It said that it is full, and the time it named is not over.
    pub(crate) is_full: bool,
    /// Our requests there now.
    pub(crate) in_flight: usize,
    /// Our requests in its region now.
    pub(crate) region_in_flight: usize,
}

/// Why nobody can be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// They are full, or hold as much of ours as they may.
    pub(crate) full: usize,
    /// Their breakers are open, or they leave.
    pub(crate) unwell: usize,
    /// The time that is left does not reach there and back.
    pub(crate) far: usize,
}

/// Round trips of one class are equally near: what differs is noise.
const NEAR: [Duration; 3] = [Duration::from_millis(2), Duration::from_millis(10), Duration::from_millis(35)];
/// Loads that differ by less are equal, or every new record would turn all traffic.
const LOAD_STEPS: f32 = 8.0;

/// Nodes to be asked in this order, and how many cannot be.
pub(crate) fn order(
    candidates: Vec<Candidate>,
    wish: Wish<'_>,
    settings: &RoutingSettings,
) -> (Vec<Stop>, Passed) {
    let turn = |region: &Region| turn_of(region, wish.prefer, wish.home, &settings.standby_by_region);
    let mut passed = Passed::default();
    let mut open: Vec<(Rank, Stop)> = Vec::with_capacity(candidates.len());
    let mut ejected = Vec::new();
    for candidate in candidates {
        let provider = candidate.provider;
        // Its own word about its GPUs is as good as a breaker here, and found out without failing.
        let is_ejected = candidate.is_open || wish.needs_gpu && provider.gpu_open;
        if wish.needs_gpu && !provider.has_gpu {
            continue;
        } else if provider.draining
            || candidate.is_open && candidate.is_forced
            || is_ejected && !wish.takes_any
        {
            passed.unwell += 1;
        } else if candidate.is_full
            || candidate.in_flight >= settings.in_flight_max
            || candidate.region_in_flight >= settings.in_flight_max_of(&provider.region)
        {
            passed.full += 1;
        } else if provider.rtt >= wish.remaining {
            passed.far += 1;
        } else {
            // What a node says of its load is old; what we sent there meanwhile is not in it.
            let ours = candidate.in_flight as f32 / settings.in_flight_max.max(1) as f32;
            let rank = Rank {
                standby: provider.standby,
                turn: turn(&provider.region),
                doubted: provider.doubted,
                // Who is doubted counts as a class farther, but for that nobody crosses an ocean.
                class: match class(provider.rtt, settings.ocean_rtt) {
                    class if class < NEAR.len() => class + usize::from(provider.doubted),
                    class => class,
                },
                load: load_step(provider.load + ours),
                cost: if provider.cost.is_nan() { f32::INFINITY } else { provider.cost },
                in_flight: candidate.in_flight,
                rtt: provider.rtt,
            };
            let across_ocean = provider.rtt > settings.ocean_rtt;
            let stop = Stop {
                node: provider.node,
                region: provider.region,
                rtt: provider.rtt,
                across_ocean,
                is_ejected: candidate.is_open,
            };
            if is_ejected { &mut ejected } else { &mut open }.push((rank, stop));
        }
    }
    if open.is_empty() {
        open = ejected;
    } else {
        passed.unwell += ejected.len();
    }
    open.sort_by(|(a, a_stop), (b, b_stop)| {
        let ranked = match wish.prefer {
            Prefer::Nearest | Prefer::Region(_) => a.turn.cmp(&b.turn).then_with(|| a.by_distance(b)),
            Prefer::LeastLoaded => a.by_doubt(b).then(a.load.cmp(&b.load)).then_with(|| a.by_distance(b)),
            Prefer::Cheapest => a.by_doubt(b).then(a.cost.total_cmp(&b.cost)).then_with(|| a.by_distance(b)),
        };
        a.standby.cmp(&b.standby).then(ranked).then_with(|| a_stop.node.cmp(&b_stop.node))
    });
    (open.into_iter().map(|(_, stop)| stop).collect(), passed)
}

/// When a region's turn is: the one that is wanted, then the one that takes over for it, then all others.
fn turn_of(region: &Region, prefer: &Prefer, home: &Region, standby: &BTreeMap<Region, Region>) -> u8 {
    let wanted = if let Prefer::Region(wanted) = prefer { wanted } else { home };
    if region == wanted {
        0
    } else if standby.get(wanted) == Some(region) {
        1
    } else {
        2
    }
}

/// A node that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) node: NodeId,
    pub(crate) region: Region,
    pub(crate) rtt: Duration,
    pub(crate) across_ocean: bool,
    /// Its breaker is open; it is asked since those of all others are too.
    pub(crate) is_ejected: bool,
}

/// The way of one request from node to node: each at most once, and after the first at most one across an ocean.
#[derive(Debug, Default)]
pub(crate) struct Course {
    ahead: std::vec::IntoIter<Stop>,
    asked: Vec<NodeId>,
    ocean_spent: bool,
}

impl Course {
    /// Goes on by these stops; who was asked already is not asked again.
    pub(crate) fn set(&mut self, mut stops: Vec<Stop>) {
        stops.retain(|stop| !self.asked.contains(&stop.node));
        self.ahead = stops.into_iter();
    }

    /// The next node to be asked in the time that is left.
    pub(crate) fn next(&mut self, remaining: Duration) -> Option<Stop> {
        let spent = self.ocean_spent;
        self.ahead.find(|stop| stop.rtt < remaining && !(spent && stop.across_ocean))
    }

    /// What [`Self::next`] would give.
    pub(crate) fn peek(&self, remaining: Duration) -> Option<&Stop> {
        let fits = |stop: &&Stop| stop.rtt < remaining && !(self.ocean_spent && stop.across_ocean);
        self.ahead.as_slice().iter().find(fits)
    }

    /// That node was asked: passing one by costs nothing.
    pub(crate) fn asked(&mut self, stop: &Stop) {
        self.ocean_spent |= !self.asked.is_empty() && stop.across_ocean;
        self.asked.push(stop.node.clone());
    }
}

struct Rank {
    standby: bool,
    turn: u8,
    doubted: bool,
    class: usize,
    load: u32,
    cost: f32,
    in_flight: usize,
    rtt: Duration,
}

impl Rank {
    fn by_doubt(&self, other: &Self) -> Ordering {
        self.doubted.cmp(&other.doubted)
    }

    fn by_distance(&self, other: &Self) -> Ordering {
        let nearest = self.class.cmp(&other.class).then(self.by_doubt(other));
        let nearest = nearest.then_with(|| self.load.cmp(&other.load));
        let cheapest = nearest.then_with(|| self.cost.total_cmp(&other.cost));
        cheapest.then_with(|| self.in_flight.cmp(&other.in_flight)).then_with(|| self.rtt.cmp(&other.rtt))
    }
}

fn class(rtt: Duration, ocean_rtt: Duration) -> usize {
    if rtt > ocean_rtt { NEAR.len() + 1 } else { NEAR.iter().take_while(|bound| rtt > **bound).count() }
}

/// What cannot be a load counts as full.
fn load_step(load: f32) -> u32 {
    if load.is_finite() { (load.clamp(0.0, 4.0) * LOAD_STEPS) as u32 } else { u32::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_comes_first_then_the_least_loaded_then_the_cheapest() {
        let nodes = [node("far", 80.0, 0.0), node("near", 1.0, 0.9), node("calm", 1.5, 0.1)];
        check(&nodes, &Prefer::Nearest, &["calm", "near", "far"]);
        let equal = [cost("dear", 2.0), cost("cheap", 1.0)];
        check(&equal, &Prefer::Nearest, &["cheap", "dear"]);
    }

    #[test]
    fn a_small_difference_is_none() {
        let nodes = [node("b", 0.9, 0.50), node("a", 1.1, 0.51)];
        check(&nodes, &Prefer::Nearest, &["b", "a"]);
        let nodes = [node("b", 1.0, 0.51), node("a", 1.0, 0.50)];
        check(&nodes, &Prefer::Nearest, &["a", "b"]);
    }

    #[test]
    fn the_least_loaded_comes_first_if_that_is_wanted() {
        let nodes = [node("far", 80.0, 0.0), node("near", 1.0, 0.9), node("calm", 1.5, 0.1)];
        check(&nodes, &Prefer::LeastLoaded, &["calm", "far", "near"]);
    }

    #[test]
    fn the_cheapest_comes_first_if_that_is_wanted() {
        let nodes = [cost("dear", 2.0), cost("odd", f32::NAN), cost("cheap", 1.0)];
        check(&nodes, &Prefer::Cheapest, &["cheap", "dear", "odd"]);
    }

    #[test]
    fn a_region_comes_first_if_that_is_wanted() {
        let mut nodes = [node("near", 1.0, 0.0), node("there", 90.0, 0.0), node("mid", 20.0, 0.0)];
        nodes[1].provider.region = region("nrt");
        check(&nodes, &Prefer::Region(region("nrt")), &["there", "near", "mid"]);
        check(&nodes, &Prefer::Region(region("gru")), &["near", "mid", "there"]);
    }

    #[test]
    fn the_region_that_takes_over_comes_next() {
        let mut nodes = [node("near", 1.0, 0.0), node("standby", 90.0, 0.0), node("there", 95.0, 0.0)];
        nodes[1].provider.region = region("syd");
        check(&nodes, &Prefer::Region(region("nrt")), &["standby", "near", "there"]);
        nodes[2].provider.region = region("nrt");
        check(&nodes, &Prefer::Region(region("nrt")), &["there", "standby", "near"]);
        let home = region("nrt");
        let (stops, _) = order(nodes.to_vec(), nearest(&home), &settings());
        assert_eq!(names(&stops), ["there", "standby", "near"]);
    }

    #[test]
    fn a_standby_is_asked_last() {
        let mut nodes = [node("standby", 1.0, 0.0), node("far", 90.0, 1.0)];
        nodes[0].provider.standby = true;
        for prefer in [Prefer::Nearest, Prefer::LeastLoaded, Prefer::Cheapest, Prefer::Region(region("ams"))]
        {
            check(&nodes, &prefer, &["far", "standby"]);
        }
    }

    #[test]
    fn what_we_sent_there_is_load() {
        let mut nodes = [node("a", 1.0, 0.0), node("b", 1.0, 0.3)];
        nodes[0].in_flight = 6;
        check(&nodes, &Prefer::Nearest, &["b", "a"]);
    }

    #[test]
    fn a_load_that_is_none_counts_as_full() {
        let nodes = [node("odd", 1.0, f32::NAN), node("busy", 1.0, 1.0)];
        check(&nodes, &Prefer::Nearest, &["busy", "odd"]);
    }

    #[test]
    fn who_leaves_or_fails_is_not_asked() {
        let mut nodes = [node("open", 1.0, 0.0), node("leaves", 1.0, 0.0), node("well", 50.0, 0.9)];
        nodes[0].is_open = true;
        nodes[1].provider.draining = true;
        let passed = check(&nodes, &Prefer::Nearest, &["well"]);
        assert_eq!(passed, Passed { unwell: 2, ..Passed::default() });
    }

    #[test]
    fn never_are_all_ejected_at_once() {
        let home = region("sjc");
        let wish = Wish { takes_any: true, ..nearest(&home) };
        let mut nodes = [node("b", 2.0, 0.0), node("a", 1.0, 0.0), node("forced", 0.1, 0.0)];
        nodes.iter_mut().for_each(|node| node.is_open = true);
        nodes[2].is_forced = true;
        let (stops, passed) = order(nodes.to_vec(), wish, &settings());
        assert_eq!((names(&stops), passed.unwell), (vec!["a", "b"], 1));
        assert!(stops.iter().all(|stop| stop.is_ejected));
        nodes[0].is_open = false;
        let (stops, passed) = order(nodes.to_vec(), wish, &settings());
        assert_eq!((names(&stops), passed.unwell), (vec!["b"], 2), "one that is well is enough");
        assert!(!stops[0].is_ejected);
    }

    #[test]
    fn who_is_doubted_is_asked_after_others_that_are_no_farther() {
        let mut nodes = [node("doubted", 1.0, 0.0), node("busy", 1.5, 0.9), node("farther", 8.0, 0.0)];
        nodes[0].provider.doubted = true;
        check(&nodes, &Prefer::Nearest, &["busy", "farther", "doubted"]);
        check(&nodes, &Prefer::LeastLoaded, &["farther", "busy", "doubted"]);
        check(&nodes, &Prefer::Cheapest, &["busy", "farther", "doubted"]);
        // It is not worth two classes, nor an ocean.
        let far = [nodes[0].clone(), node("two-classes", 20.0, 0.0), node("ocean", 90.0, 0.0)];
        check(&far, &Prefer::Nearest, &["doubted", "two-classes", "ocean"]);
        let mut coast = [node("coast", 60.0, 0.0), node("ocean", 90.0, 0.0)];
        coast[0].provider.doubted = true;
        check(&coast, &Prefer::Nearest, &["coast", "ocean"]);
    }

    #[test]
    fn hearsay_ejects_nobody() {
        let mut nodes = [node("b", 1.0, 0.2), node("a", 1.0, 0.0)];
        nodes.iter_mut().for_each(|node| node.provider.doubted = true);
        assert_eq!(check(&nodes, &Prefer::Nearest, &["a", "b"]), Passed::default());
        assert_eq!(check(&nodes[..1], &Prefer::Nearest, &["b"]), Passed::default());
    }

    #[test]
    fn a_gpu_that_its_node_does_not_trust_is_not_asked_and_its_cpu_is() {
        let mut nodes = [node("open", 1.0, 0.0), node("well", 50.0, 0.0)];
        nodes[0].provider.gpu_open = true;
        let home = region("sjc");
        let wish = Wish { needs_gpu: true, ..nearest(&home) };
        let (stops, passed) = order(nodes.to_vec(), wish, &settings());
        assert_eq!((names(&stops), passed.unwell), (vec!["well"], 1));
        assert_eq!(names(&order(nodes.to_vec(), nearest(&home), &settings()).0), ["open", "well"]);
        // Where there is no other, it is for those that have nobody else.
        let (stops, passed) = order(nodes[..1].to_vec(), wish, &settings());
        assert_eq!((stops.len(), passed.unwell), (0, 1));
        let last = Wish { takes_any: true, ..wish };
        assert_eq!(names(&order(nodes[..1].to_vec(), last, &settings()).0), ["open"]);
    }

    #[test]
    fn who_is_full_is_not_asked() {
        let mut nodes = [node("said-so", 1.0, 0.0), node("ours", 1.0, 0.0), node("region", 1.0, 0.0)];
        nodes[0].is_full = true;
        nodes[1].in_flight = 10;
        nodes[2].provider.region = region("nrt");
        nodes[2].region_in_flight = 3;
        let passed = check(&nodes, &Prefer::Nearest, &[]);
        assert_eq!(passed, Passed { full: 3, ..Passed::default() });
    }

    #[test]
    fn who_cannot_answer_in_time_is_not_asked() {
        let passed = check(&[node("moon", 2600.0, 0.0)], &Prefer::Nearest, &[]);
        assert_eq!(passed, Passed { far: 1, ..Passed::default() });
    }

    #[test]
    fn a_gpu_is_asked_of_those_that_have_one() {
        let mut nodes = vec![node("gpu", 50.0, 0.0), node("cpu", 1.0, 0.0)];
        nodes[1].provider.has_gpu = false;
        let home = region("sjc");
        let wish = Wish { needs_gpu: true, ..nearest(&home) };
        let (stops, _) = order(nodes, wish, &settings());
        assert_eq!(names(&stops), ["gpu"]);
    }

    #[test]
    fn an_ocean_is_crossed_for_at_most_one_retry() {
        let course = |rtts: &[f64], expected: &[&str]| {
            let named: Vec<_> = rtts.iter().enumerate().map(|(at, &rtt)| (format!("n{at}"), rtt)).collect();
            let nodes: Vec<_> = named.iter().map(|(name, rtt)| node(name, *rtt, 0.0)).collect();
            let home = region("sjc");
            let Wish { remaining, .. } = nearest(&home);
            let (stops, _) = order(nodes, nearest(&home), &settings());
            let mut course = Course::default();
            course.set(stops);
            let mut asked = Vec::new();
            while let Some(stop) = course.next(remaining) {
                course.asked(&stop);
                asked.push(stop.node.to_string());
            }
            assert_eq!(asked, expected);
        };
        course(&[1.0, 2.0, 90.0, 91.0, 92.0], &["n0", "n1", "n2"]);
        // The first try is no retry.
        course(&[90.0, 91.0, 92.0], &["n0", "n1"]);
        course(&[60.0, 70.0, 75.0], &["n0", "n1", "n2"]);
    }

    #[test]
    fn who_was_passed_by_has_not_been_asked() {
        let home = region("sjc");
        let Wish { remaining, .. } = nearest(&home);
        let nodes = vec![node("a", 90.0, 0.0), node("b", 91.0, 0.0), node("c", 92.0, 0.0)];
        let mut course = Course::default();
        course.set(order(nodes, nearest(&home), &settings()).0);
        course.next(remaining); // passed by
        let first = course.next(remaining).unwrap();
        course.asked(&first);
        let ahead = course.peek(remaining).cloned();
        assert_eq!(ahead.as_ref().map(|stop| stop.node.as_str()), Some("c"));
        assert_eq!(course.next(remaining), ahead);
        assert_eq!(course.next(remaining), None);
    }

    #[test]
    fn another_course_forgets_nothing() {
        let home = region("sjc");
        let Wish { remaining, .. } = nearest(&home);
        let stops = |nodes: &[Candidate]| order(nodes.to_vec(), nearest(&home), &settings()).0;
        let nodes = [node("a", 1.0, 0.0), node("b", 90.0, 0.0), node("c", 91.0, 0.0), node("d", 2.0, 0.0)];
        let mut course = Course::default();
        course.set(stops(&nodes[..2]));
        for name in ["a", "b"] {
            let stop = course.next(remaining).unwrap();
            course.asked(&stop);
            assert_eq!(stop.node.as_str(), name);
        }
        course.set(stops(&nodes));
        assert_eq!(course.next(remaining).unwrap().node.as_str(), "d", "not asked, and no ocean away");
        assert_eq!(course.next(remaining), None);
    }

    fn region(name: &str) -> Region {
        Region::new(name).unwrap()
    }

    fn node(name: &str, rtt_ms: f64, load: f32) -> Candidate {
        Candidate {
            provider: Provider {
                node: NodeId::new(name).unwrap(),
                region: region("ams"),
                rtt: Duration::from_secs_f64(rtt_ms / 1e3),
                load,
                cost: 1.0,
                has_gpu: true,
                gpu_open: false,
                doubted: false,
                draining: false,
                standby: false,
            },
            is_open: false,
            is_forced: false,
            is_full: false,
            in_flight: 0,
            region_in_flight: 0,
        }
    }

    fn cost(name: &str, cost: f32) -> Candidate {
        let mut node = node(name, 1.0, 0.0);
        node.provider.cost = cost;
        node
    }

    fn settings() -> RoutingSettings {
        RoutingSettings {
            in_flight_max: 10,
            in_flight_max_by_region: BTreeMap::from([(region("nrt"), 3)]),
            standby_by_region: BTreeMap::from([(region("nrt"), region("syd"))]),
            ..RoutingSettings::default()
        }
    }

    fn nearest(home: &Region) -> Wish<'_> {
        Wish {
            prefer: &Prefer::Nearest,
            home,
            needs_gpu: false,
            takes_any: false,
            remaining: Duration::from_secs(1),
        }
    }

    fn names(stops: &[Stop]) -> Vec<&str> {
        stops.iter().map(|stop| stop.node.as_str()).collect()
    }

    #[track_caller]
    fn check(nodes: &[Candidate], prefer: &Prefer, expected: &[&str]) -> Passed {
        let home = region("sjc");
        let (stops, passed) = order(nodes.to_vec(), Wish { prefer, ..nearest(&home) }, &settings());
        assert_eq!(names(&stops), expected);
        passed
    }
}
