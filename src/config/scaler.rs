//! `[scaler]` as used: groups, rules and prices; the pools are `scaler_pools.rs`'s.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::civil::Date;
use peregrine_scaler::budget::Budget;
use peregrine_scaler::calendar::Calendars;
use peregrine_scaler::control::FleetSpec;
use peregrine_scaler::fleet::{GroupSpec, PlaceSpec};
use peregrine_scaler::rule::{Arm, Condition, Rule};

use super::checker::{Checker, DAY, SECOND};
use super::layers::key_of;
use super::scaler_file::{ArmFile, GroupFile, GroupRegionFile, PriceFile, RuleFile, ScalerFile};
use super::scaler_pools::PoolConfig;
use super::units::WrittenDuration;

/// Machines of one group.
const MACHINES_MAX: usize = 1000;
/// Groups, rules, pools: more of any of them are refused.
const ENTRIES_MAX: usize = 128;
/// Of a calendar's file.
const CALENDAR_BYTES_MAX: u64 = 1 << 20;
/// Money, of whatever currency the prices are in.
const MONEY_MAX: f64 = 1e9;

/// How many machines there are.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalerConfig {
    /// Does this node scale?
    pub enabled: bool,
    /// Decide and change nothing.
    pub dry_run: bool,
    /// How often it is decided anew.
    pub evaluate_every: Duration,
    /// A report of a node that is older is none.
    pub stale_after: Duration,
    /// How long fewer machines must have been enough before some go.
    pub stabilisation: Duration,
    /// Share by which the demand must differ from the capacity.
    pub dead_band: f64,
    /// What a millisecond of the mean round trip is worth, per hour.
    pub rtt_worth: f64,
    /// How long machines of a former release stay stopped.
    pub rollback_for: Duration,
    /// How long the right to change a machine lasts.
    pub hold: Duration,
    /// What may be spent.
    pub budget: Budget,
    /// What is kept is kept here.
    pub dir: PathBuf,
    /// Costs and decisions that are older are dropped.
    pub keep: Duration,
    /// Market calendars: those that come with the product, and the user's.
    pub calendars: Calendars,
    /// Forecasts the demand; empty: only its seasons do.
    pub demand_model: String,
    /// Those that are in use, by name.
    pub groups: Vec<GroupConfig>,
    /// Those that are in use, by name.
    pub rules: Vec<Rule>,
    /// Those that are in use.
    pub pools: BTreeMap<String, PoolConfig>,
    /// What machines cost.
    pub prices: Vec<Price>,
}

/// Machines of one purpose and size.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupConfig {
    /// How many, where, and for how much.
    pub spec: GroupSpec,
    /// Calendars that its load follows.
    pub markets: Vec<String>,
    /// What its machines run.
    pub release: String,
}

/// What a machine costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// Who bills it.
    pub provider: String,
    /// Where it stands.
    pub region: String,
    /// What the provider calls it.
    pub kind: String,
    /// While it runs.
    pub running_per_hour: f64,
    /// While it is stopped.
    pub stopped_per_hour: f64,
    /// When that was read from the provider.
    pub read_on: Date,
}

/// What groups speak of; `None`: something is wrong with it, which is told.
struct Known<'a> {
    pools: Option<&'a BTreeMap<String, PoolConfig>>,
    prices: Option<&'a [Price]>,
    calendars: Option<&'a Calendars>,
}

impl ScalerConfig {
    /// What the controller is made with.
    #[must_use]
    pub fn fleet(&self) -> FleetSpec {
        FleetSpec {
            groups: self.groups.iter().map(|group| group.spec.clone()).collect(),
            rules: self.rules.clone(),
            budget: self.budget,
            stale_after: self.stale_after,
            stabilisation: self.stabilisation,
            dead_band: self.dead_band,
            rtt_worth: self.rtt_worth,
            rollback_for: self.rollback_for,
            hold: self.hold,
        }
    }
}

impl Checker<'_> {
    pub(super) fn scaler(&mut self, written: ScalerFile) -> Option<ScalerConfig> {
        let enabled = self.present("scaler.enabled", written.enabled);
        let dry_run = self.present("scaler.dry_run", written.dry_run);
        let evaluate_every = self.time("scaler.evaluate_every", written.evaluate_every, SECOND / 10..=DAY);
        // Nodes say what they measure every second: what is never older than that would never be there.
        let stale_after = self.time("scaler.stale_after", written.stale_after, SECOND * 2..=DAY);
        let stabilisation = self.time("scaler.stabilisation", written.stabilisation, Duration::ZERO..=DAY);
        let share = |share| (0.0..=1.0).contains(&share);
        let dead_band = self.number("scaler.dead_band", written.dead_band, share, "within 0 and 1");
        let rtt_worth = self.money("scaler.rtt_worth", written.rtt_worth);
        let rollback_for = self.time("scaler.rollback_for", written.rollback_for, Duration::ZERO..=DAY * 31);
        let hold = self.time("scaler.hold", written.hold, SECOND..=SECOND * 3600);
        if let (Some(hold), Some(every)) = (hold, evaluate_every)
            && hold <= every
        {
            let message = format!("{hold:?} is not more than evaluate_every = {every:?}");
            self.mistake("scaler.hold", message);
        }
        let per_hour = self.money("scaler.budget_per_hour", written.budget_per_hour);
        let per_month = self.money("scaler.budget_per_month", written.budget_per_month);
        let bound = |money: f64| (money > 0.0).then_some(money);
        let dir = self.present("scaler.dir", written.dir);
        let dir = dir.and_then(|dir| {
            let named = (!dir.as_os_str().is_empty()).then_some(dir);
            self.require(named, "scaler.dir", || "names no folder".to_owned())
        });
        let keep = self.time("scaler.keep", written.keep, SECOND * 3600..=DAY * 3660);
        let calendars = self.calendars(written.calendars);
        let demand_model = self.present("scaler.demand_model", written.demand_model);
        let prices = self.prices(written.prices.unwrap_or_default());
        let groups = written.groups.unwrap_or_default();
        let drains = drains(&groups);
        let pools = dir.as_ref().and_then(|dir| self.pools(written.pools.unwrap_or_default(), dir, &drains));
        let names: Vec<String> = groups.keys().cloned().collect();
        let known = Known {
            pools: pools.as_ref(),
            prices: prices.as_deref(),
            calendars: calendars.as_ref().map(|(_, calendars)| calendars),
        };
        let groups = self.groups(groups, &known);
        let rules = self.scaler_rules(written.rules.unwrap_or_default(), &names);
        Some(ScalerConfig {
            enabled: enabled?,
            dry_run: dry_run?,
            evaluate_every: evaluate_every?,
            stale_after: stale_after?,
            stabilisation: stabilisation?,
            dead_band: dead_band?,
            rtt_worth: rtt_worth?,
            rollback_for: rollback_for?,
            hold: hold?,
            budget: Budget { per_hour: bound(per_hour?), per_month: bound(per_month?) },
            dir: dir?,
            keep: keep?,
            calendars: calendars?.1,
            demand_model: demand_model?,
            groups: groups?,
            rules: rules?,
            pools: pools?,
            prices: prices?,
        })
    }

    fn money(&mut self, key: &str, written: Option<f64>) -> Option<f64> {
        self.number(key, written, |money| (0.0..=MONEY_MAX).contains(&money), "within 0 and 1000000000")
    }

    /// The files that were named, and all calendars together.
    fn calendars(&mut self, written: Option<Vec<PathBuf>>) -> Option<(Vec<PathBuf>, Calendars)> {
        const KEY: &str = "scaler.calendars";
        let files = self.present(KEY, written)?;
        let mut texts = Vec::new();
        for file in &files {
            let name =
                file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_ascii_lowercase();
            match read_calendar(file) {
                Ok(text) => texts.push((name, text)),
                Err(why) => self.mistake(KEY, format!("`{}` cannot be read: {why}", file.display())),
            }
        }
        let texts: Vec<(&str, &str)> =
            texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let calendars = self.named(Calendars::built_in().with(&texts), KEY)?;
        (texts.len() == files.len()).then_some((files, calendars))
    }

    fn prices(
        &mut self,
        written: BTreeMap<String, BTreeMap<String, BTreeMap<String, PriceFile>>>,
    ) -> Option<Vec<Price>> {
        let mut prices = Some(Vec::new());
        for (provider, regions) in written {
            for (region, kinds) in regions {
                for (kind, written) in kinds {
                    let price = self.price([&provider, &region, &kind], written);
                    prices = prices.zip(price).map(|(mut prices, price)| {
                        prices.push(price);
                        prices
                    });
                }
            }
        }
        prices
    }

    fn price(&mut self, [provider, region, kind]: [&String; 3], written: PriceFile) -> Option<Price> {
        let key = |key: &str| key_of(&["scaler", "prices", provider, region, kind, key]);
        let running = self.money(&key("running_per_hour"), written.running_per_hour);
        let stopped = self.money(&key("stopped_per_hour"), Some(written.stopped_per_hour.unwrap_or(0.0)));
        // A price without its day is worth nothing a year later.
        let read_on = self.present(&key("read_on"), written.read_on);
        let read_on = read_on.and_then(|text| {
            self.require(text.parse().ok(), &key("read_on"), || {
                format!("`{text}` is not a day such as 2026-11-28")
            })
        });
        Some(Price {
            provider: provider.clone(),
            region: region.clone(),
            kind: kind.clone(),
            running_per_hour: running?,
            stopped_per_hour: stopped?,
            read_on: read_on?,
        })
    }

    fn groups(
        &mut self,
        written: BTreeMap<String, GroupFile>,
        known: &Known<'_>,
    ) -> Option<Vec<GroupConfig>> {
        self.few("scaler.groups", written.len())?;
        let (mut groups, mut is_whole) = (Vec::new(), true);
        for (name, written) in written {
            let is_used = written.enabled.unwrap_or(true);
            match self.group(&name, written, known) {
                Some(group) if is_used => groups.push(group),
                Some(_) => {}
                None => is_whole = !is_used && is_whole,
            }
        }
        is_whole.then_some(groups)
    }

    fn group(&mut self, name: &str, written: GroupFile, known: &Known<'_>) -> Option<GroupConfig> {
        let key = |key: &str| key_of(&["scaler", "groups", name, key]);
        if !is_label(name) {
            let message = format!("`{name}` is no name: 1 to 32 of a-z, 0-9 and `-`, a letter first");
            self.mistake(&key_of(&["scaler", "groups", name]), message);
        }
        let pool = self.present(&key("pool"), written.pool);
        if let (Some(pool), Some(pools)) = (&pool, known.pools)
            && written.enabled.unwrap_or(true)
            && !pools.contains_key(pool)
        {
            self.mistake(&key("pool"), format!("there is no pool `{pool}` in use"));
        }
        let max = self.machines(&key("machines_max"), written.machines_max, 1);
        let min = self.machines(&key("machines_min"), Some(written.machines_min.unwrap_or(0)), 0);
        let warm = self.machines(&key("warm"), Some(written.warm.unwrap_or(0)), 0);
        for (at, number) in [("machines_min", min), ("warm", warm)] {
            if let (Some(number), Some(max)) = (number, max)
                && number > max
            {
                self.mistake(&key(at), format!("{number} is more than machines_max = {max}"));
            }
        }
        let above = |number: f64| number > 0.0 && number <= 1e9;
        let capacity =
            self.number(&key("capacity"), written.capacity, above, "above 0 and at most 1000000000");
        let time = |written: Option<WrittenDuration>, otherwise: u32| {
            Some(written.unwrap_or(WrittenDuration(SECOND * otherwise)))
        };
        let drain = self.time(&key("drain"), time(written.drain, 30), Duration::ZERO..=DAY);
        let ready_after = self.time(&key("ready_after"), time(written.ready_after, 60), SECOND / 1000..=DAY);
        let release = written.release.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
        if !(1..=256).contains(&release.len()) || release.contains(char::is_control) {
            self.mistake(&key("release"), "is not one line of 1 to 256 bytes".to_owned());
        }
        let markets = written.markets.unwrap_or_default();
        if let Some(calendars) = known.calendars {
            for market in &markets {
                self.named(calendars.get(market), &key("markets"));
            }
        }
        let bills = [("provider", written.provider.as_deref()), ("kind", written.kind.as_deref())];
        let regions = self.present(&key("regions"), written.regions);
        let places: Option<Vec<Option<PlaceSpec>>> = regions.map(|regions| {
            let each = regions.into_iter();
            each.map(|(region, written)| self.place(name, region, written, bills, max, known.prices))
                .collect()
        });
        if places.as_ref().is_some_and(Vec::is_empty) {
            self.mistake(&key("regions"), "names none".to_owned());
        }
        let places: Option<Vec<PlaceSpec>> = places?.into_iter().collect();
        let spec = GroupSpec {
            name: name.to_owned(),
            pool: pool?,
            machines_min: min?,
            machines_max: max?,
            warm: warm?,
            capacity: capacity?,
            places: places?,
            drain: drain?,
            ready_after: ready_after?,
        };
        let room: u64 = spec.places.iter().map(|place| u64::from(place.machines_max)).sum();
        if room < u64::from(spec.machines_min) && spec.machines_min <= spec.machines_max {
            let min = spec.machines_min;
            self.mistake(&key("machines_min"), format!("{min} is more than the {room} of all its regions"));
        }
        Some(GroupConfig { spec, markets, release })
    }

    fn place(
        &mut self,
        group: &str,
        region: String,
        written: GroupRegionFile,
        bills: [(&str, Option<&str>); 2],
        group_max: Option<u32>,
        prices: Option<&[Price]>,
    ) -> Option<PlaceSpec> {
        let path = key_of(&["scaler", "groups", group, "regions", &region]);
        let fits = peregrine_runtime::Region::new(&region);
        self.named(fits, &path);
        let max = match written.machines_max {
            None => group_max,
            Some(_) => self.machines(&format!("{path}.machines_max"), written.machines_max, 0),
        };
        let own = [written.provider.as_deref(), written.kind.as_deref()];
        let [provider, kind] = [0, 1].map(|at| {
            let (name, of_group) = bills[at];
            self.present(&key_of(&["scaler", "groups", group, name]), own[at].or(of_group))
        });
        let (provider, kind, prices) = (provider?, kind?, prices?);
        let price = prices.iter().find(|price| {
            (price.provider.as_str(), price.region.as_str(), price.kind.as_str())
                == (provider, region.as_str(), kind)
        });
        let price = self.require(price, &path, || {
            format!("has no price: [{}] is missing", key_of(&["scaler", "prices", provider, &region, kind]))
        })?;
        Some(PlaceSpec {
            running_per_hour: price.running_per_hour,
            stopped_per_hour: price.stopped_per_hour,
            machines_max: max?,
            region,
        })
    }

    fn scaler_rules(&mut self, written: BTreeMap<String, RuleFile>, groups: &[String]) -> Option<Vec<Rule>> {
        self.few("scaler.rules", written.len())?;
        let (mut rules, mut is_whole) = (Vec::new(), true);
        for (name, written) in written {
            let is_used = written.enabled.unwrap_or(true);
            match self.scaler_rule(name, written, groups) {
                Some(rule) if is_used => rules.push(rule),
                Some(_) => {}
                None => is_whole = false,
            }
        }
        is_whole.then_some(rules)
    }

    fn scaler_rule(&mut self, name: String, written: RuleFile, known: &[String]) -> Option<Rule> {
        let path = key_of(&["scaler", "rules", &name]);
        let fits = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !fits {
            self.mistake(&path, format!("`{name}` is no name: 1 to 64 of a-z, 0-9 and `_`"));
        }
        let groups = written.groups.unwrap_or_default();
        for group in groups.iter().filter(|group| !known.contains(group)) {
            self.mistake(&format!("{path}.groups"), format!("there is no group `{group}`"));
        }
        if written.up.is_none() && written.down.is_none() {
            self.mistake(&path, "has neither `up` nor `down`: it would do nothing".to_owned());
            return None;
        }
        let up = written.up.map(|arm| self.arm(&format!("{path}.up"), arm));
        let down = written.down.map(|arm| self.arm(&format!("{path}.down"), arm));
        let (up, down) =
            (up.map_or(Some(None), |arm| arm.map(Some)), down.map_or(Some(None), |arm| arm.map(Some)));
        Some(Rule {
            name,
            groups,
            priority: written.priority.unwrap_or(0),
            is_emergency: written.emergency.unwrap_or(false),
            up: up?,
            down: down?,
        })
    }

    fn arm(&mut self, path: &str, written: ArmFile) -> Option<Arm> {
        let key = |key: &str| format!("{path}.{key}");
        let when = self.present(&key("when"), written.when);
        let when = when.and_then(|text| self.named(Condition::new(&text), &key("when")));
        let step = self.machines(&key("step"), Some(written.step.unwrap_or(1)), 1);
        let cooldown = self.time(&key("cooldown"), written.cooldown, Duration::ZERO..=DAY);
        let lasting = Some(written.r#for.unwrap_or(WrittenDuration(Duration::ZERO)));
        let holds_for = self.time(&key("for"), lasting, Duration::ZERO..=DAY);
        let min = self.machines(&key("machines_min"), Some(written.machines_min.unwrap_or(0)), 0);
        let max = self.machines(&key("machines_max"), written.machines_max, 0);
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            self.mistake(&key("machines_min"), format!("{min} is more than machines_max = {max}"));
        }
        Some(Arm {
            when: when?,
            step: step?,
            cooldown: cooldown?,
            holds_for: holds_for?,
            machines_min: min?,
            machines_max: max?,
        })
    }

    /// Of machines, how many; at least `min`.
    pub(super) fn machines(&mut self, key: &str, written: Option<usize>, min: usize) -> Option<u32> {
        self.within(key, written, min..=MACHINES_MAX).and_then(|number| u32::try_from(number).ok())
    }

    /// `None` with a mistake: whoever wrote so many meant something else.
    pub(super) fn few(&mut self, key: &str, len: usize) -> Option<()> {
        self.require((len <= ENTRIES_MAX).then_some(()), key, || {
            format!("{len} of them are more than {ENTRIES_MAX}")
        })
    }
}

/// Can a group or a pool be called so? It becomes part of the names of machines, hosts and files.
pub(super) fn is_label(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&name.len())
        && name.bytes().all(fits)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
}

fn read_calendar(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(CALENDAR_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > CALENDAR_BYTES_MAX {
        return Err(io::Error::other(format!("more than {CALENDAR_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// How long machines may take to end, by group; what is wrong with it is found with the group.
fn drains(groups: &BTreeMap<String, GroupFile>) -> BTreeMap<String, Duration> {
    let drain = |group: &GroupFile| group.drain.map_or(SECOND * 30, |WrittenDuration(drain)| drain);
    groups.iter().map(|(name, group)| (name.clone(), drain(group))).collect()
}
