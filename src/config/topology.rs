//! The cluster from as written to as used: addresses, credentials, names, and whether they fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use peregrine_fly::replay::BODY_BYTES_MAX;
use peregrine_runtime::{NodeId, Region};
use toml::Value;

use super::checker::{Checker, DAY, SECOND};
use super::cluster::{
    ClusterConfig, Credentials, DetectorConfig, Holding, NodeEntry, PlacementConfig, RegionConfig,
    RoutingConfig, Seed,
};
use super::cluster_file::{
    ClusterFile, DeviceChoice, NodeEntryFile, Numbered, PlacementFile, PreferChoice, RegionFile, RoleChoice,
    RoutingFile,
};
use super::layers::key_of;
use super::units::WrittenSize;
use super::{BackendChoice, Config, Origin, Secret};

/// Fly names a machine's private address here; it stands for a wildcard that was listened on.
const PRIVATE_ADDRESS: &str = "FLY_PRIVATE_IP";
/// Fewer can be guessed.
const SECRET_LEN_MIN: usize = 16;
/// More is a mistake of whoever wrote it.
const NODES_MAX: usize = 1000;

impl Checker<'_> {
    /// `None` inside: this node is alone. What is written is checked all the same.
    pub(super) fn cluster(
        &mut self,
        written: ClusterFile,
        environment: &[(String, String)],
        nodes: usize,
    ) -> Option<Option<ClusterConfig>> {
        let listen = self.socket_or_none("cluster.listen", written.listen);
        let name = self.present("cluster.name", written.name);
        let name = name.and_then(|name| self.named(NodeId::new(&name), "cluster.name"));
        let advertise = self.socket_or_none("cluster.advertise", written.advertise);
        let advertise = self.advertised(listen.flatten(), advertise.flatten(), environment);
        let seeds = self.seeds(written.seeds, listen.flatten(), advertise.flatten());
        let resolver = self.socket_or_none("cluster.resolver", written.resolver);
        let files = [
            ("cluster.ca", written.ca),
            ("cluster.certificate", written.certificate),
            ("cluster.key", written.key),
        ];
        let credentials = self.credentials(written.secret, files, listen.flatten().is_some());
        let roles = self.roles("cluster.roles", written.roles);
        let size = self.size(written.size, nodes);
        let gossip_interval =
            self.time("cluster.gossip_interval", written.gossip_interval, SECOND / 100..=SECOND * 10);
        let silence_max = self.time("cluster.silence_max", written.silence_max, SECOND / 10..=SECOND * 60);
        // One that is told of every interval may be told of late, and lose a message or two.
        let silence_max = silence_max.and_then(|silence| {
            let heard = gossip_interval.is_none_or(|interval| silence >= interval * 4);
            self.require(heard.then_some(silence), "cluster.silence_max", || {
                format!("{silence:?} is less than four times cluster.gossip_interval")
            })
        });
        let dead_grace = self.time("cluster.dead_grace", written.dead_grace, SECOND..=DAY);
        let detector = DetectorConfig {
            gossip_interval: gossip_interval?,
            silence_max: silence_max?,
            dead_grace: dead_grace?,
        };
        let (name, seeds, resolver) = (name?.to_string(), seeds?, resolver?);
        let (credentials, roles, size) = (credentials?, roles?, size?);
        let Some((listen, credentials)) = listen?.zip(credentials) else { return Some(None) };
        let advertise = advertise?;
        Some(Some(ClusterConfig {
            name,
            listen,
            advertise,
            seeds,
            resolver,
            credentials,
            roles,
            size,
            detector,
        }))
    }

    /// A wildcard is nowhere that others could dial.
    fn advertised(
        &mut self,
        listen: Option<SocketAddr>,
        written: Option<SocketAddr>,
        environment: &[(String, String)],
    ) -> Option<Option<SocketAddr>> {
        const KEY: &str = "cluster.advertise";
        if let Some(addr) = written {
            let dialled = !addr.ip().is_unspecified() && addr.port() != 0;
            return self.require(dialled.then_some(written), KEY, || {
                format!("`{addr}` is nowhere that others could dial: name an address and a port")
            });
        }
        let Some(listen) = listen.filter(|listen| listen.ip().is_unspecified()) else { return Some(None) };
        let private = environment.iter().find(|(name, _)| name == PRIVATE_ADDRESS);
        let private = private.and_then(|(_, text)| text.parse::<IpAddr>().ok());
        let Some(ip) = private.filter(|ip| !ip.is_unspecified() && listen.port() != 0) else {
            self.mistake(
                KEY,
                format!("is missing: `{listen}`, which is listened on, is nowhere that others could dial"),
            );
            return None;
        };
        let addr = SocketAddr::new(ip, listen.port());
        let origin = Origin::Variable(PRIVATE_ADDRESS.to_owned());
        self.replace(KEY, Value::String(addr.to_string()), Some(origin));
        Some(Some(addr))
    }

    fn seeds(
        &mut self,
        written: Option<Vec<String>>,
        listen: Option<SocketAddr>,
        advertise: Option<SocketAddr>,
    ) -> Option<Vec<Seed>> {
        const KEY: &str = "cluster.seeds";
        let written = self.present(KEY, written)?;
        let mut seeds = Vec::new();
        for text in &written {
            match seed(text) {
                Ok(seed) => seeds.push(seed),
                Err(message) => self.mistake(KEY, message),
            }
        }
        let own: Vec<SocketAddr> = advertise.into_iter().chain(listen).collect();
        let is_own = |seed: &Seed| matches!(seed, Seed::Addr(addr) if own.contains(addr));
        if !seeds.is_empty() && seeds.iter().all(is_own) {
            self.mistake(KEY, "only this node itself is named; others could not be found".to_owned());
        }
        Some(seeds)
    }

    /// `None` inside: none are given, which only a lone node may.
    fn credentials(
        &mut self,
        secret: Option<Secret>,
        files: [(&'static str, Option<PathBuf>); 3],
        needed: bool,
    ) -> Option<Option<Credentials>> {
        const KEY: &str = "cluster.secret";
        let secret = self.present(KEY, secret)?;
        let mut paths = Vec::new();
        for (key, written) in files {
            paths.push((key, self.present(key, written)?));
        }
        let given = paths.iter().filter(|(_, path)| !path.as_os_str().is_empty()).count();
        let long_enough = secret.expose().len() >= SECRET_LEN_MIN;
        match (secret.expose().is_empty(), given) {
            (true, 0) if needed => {
                self.mistake(KEY, "is missing: give it, or ca, certificate and key".to_owned());
                None
            }
            (true, 0) => Some(None),
            (false, 0) => self.require(long_enough.then_some(Some(Credentials::Secret(secret))), KEY, || {
                format!("is shorter than {SECRET_LEN_MIN} characters")
            }),
            (false, _) => {
                self.mistake(KEY, "is given beside ca, certificate or key: only one of both ways".to_owned());
                None
            }
            (true, _) => self.credential_files(&paths),
        }
    }

    fn credential_files(&mut self, paths: &[(&'static str, PathBuf)]) -> Option<Option<Credentials>> {
        let mut there = true;
        for (key, path) in paths {
            if path.as_os_str().is_empty() {
                self.mistake(key, "is missing: ca, certificate and key go together".to_owned());
                there = false;
            } else if !path.is_file() {
                self.mistake(key, format!("there is no file `{}`", path.display()));
                there = false;
            }
        }
        let [(_, ca), (_, certificate), (_, key)] = paths else { return None };
        let files = Credentials::Files { ca: ca.clone(), certificate: certificate.clone(), key: key.clone() };
        there.then_some(Some(files))
    }

    /// 0 stands for the nodes of the topology, or 1; the resolved form shows their number.
    fn size(&mut self, written: Option<usize>, nodes: usize) -> Option<usize> {
        const KEY: &str = "cluster.size";
        let size = self.within(KEY, written, 0..=NODES_MAX)?;
        if size == 0 {
            let size = nodes.max(1);
            self.replace(KEY, Value::Integer(i64::try_from(size).unwrap_or(i64::MAX)), None);
            return Some(size);
        }
        self.require((size >= nodes).then_some(size), KEY, || {
            format!("{size} is less than the {nodes} of [[nodes]]: two halves could both be a majority")
        })
    }

    fn roles(&mut self, key: &str, written: Option<Vec<RoleChoice>>) -> Option<BTreeSet<RoleChoice>> {
        let roles: BTreeSet<RoleChoice> = self.present(key, written)?.into_iter().collect();
        let some = (!roles.is_empty()).then_some(roles);
        self.require(some, key, || "a node without a role does nothing".to_owned())
    }

    pub(super) fn routing(&mut self, written: &RoutingFile) -> Option<RoutingConfig> {
        let prefer = self.present("routing.prefer", written.prefer);
        let remote = self.present("routing.remote", written.remote);
        let within = |at: f64| at > 0.5 && at < 1.0;
        let hedge_percentile = self.number(
            "routing.hedge_percentile",
            written.hedge_percentile,
            within,
            "above 0.5 and below 1",
        );
        let hedge_after_min =
            self.time("routing.hedge_after_min", written.hedge_after_min, Duration::ZERO..=SECOND * 600);
        let budget = |share: f64| (0.0..=1.0).contains(&share);
        let hedge_budget =
            self.number("routing.hedge_budget", written.hedge_budget, budget, "within 0 and 1");
        let retry_budget =
            self.number("routing.retry_budget", written.retry_budget, budget, "within 0 and 1");
        let ocean_rtt = self.time("routing.ocean_rtt", written.ocean_rtt, SECOND / 1000..=SECOND * 10);
        let in_flight =
            self.within("routing.remote_in_flight_max", written.remote_in_flight_max, 1..=1_000_000);
        let replay_from = self.replay_from(written.replay_from);
        Some(RoutingConfig {
            prefer: prefer?,
            remote: remote?,
            hedge_percentile: hedge_percentile?,
            hedge_after_min: hedge_after_min?,
            hedge_budget: hedge_budget?,
            retry_budget: retry_budget?,
            ocean_rtt: ocean_rtt?,
            remote_in_flight_max: in_flight?,
            replay_from: replay_from?,
        })
    }

    /// `None` inside: no body is.
    fn replay_from(&mut self, written: Option<WrittenSize>) -> Option<Option<usize>> {
        const KEY: &str = "routing.replay_from";
        let WrittenSize(bytes) = self.present(KEY, written)?;
        self.require((bytes <= BODY_BYTES_MAX).then_some(()), KEY, || {
            format!("{bytes} is more than the {BODY_BYTES_MAX} bytes that Fly's proxy replays")
        })?;
        Some((bytes > 0).then_some(bytes))
    }

    pub(super) fn regions(
        &mut self,
        written: BTreeMap<String, RegionFile>,
    ) -> Option<BTreeMap<Region, RegionConfig>> {
        let mut regions = BTreeMap::new();
        let mut whole = true;
        for (name, region) in written {
            let key = |key: &str| key_of(&["regions", &name, key]);
            let id = self.named(Region::new(&name), &key_of(&["regions", &name]));
            let in_flight_max = match region.in_flight_max {
                None => Some(None),
                max => self.within(&key("in_flight_max"), max, 1..=1_000_000).map(Some),
            };
            let priced = |cost: f64| cost >= 0.0 && cost.is_finite();
            let cost_per_hour = match region.cost_per_hour {
                None => Some(None),
                cost => self.number(&key("cost_per_hour"), cost, priced, "a number from 0 up").map(Some),
            };
            let standby = self.region_or_none(&key("standby"), region.standby.as_deref());
            if let (Some(id), Some(Some(standby))) = (&id, &standby)
                && id == standby
            {
                self.mistake(&key("standby"), format!("`{id}` cannot take over from itself"));
            }
            let Some(((id, in_flight_max), (cost_per_hour, standby))) =
                id.zip(in_flight_max).zip(cost_per_hour.zip(standby))
            else {
                whole = false;
                continue;
            };
            regions.insert(id, RegionConfig { in_flight_max, cost_per_hour, standby });
        }
        whole.then_some(regions)
    }

    pub(super) fn placement(
        &mut self,
        written: BTreeMap<String, PlacementFile>,
    ) -> Option<BTreeMap<String, PlacementConfig>> {
        let mut placement = BTreeMap::new();
        let mut whole = true;
        for (model, placed) in written {
            let key = |key: &str| key_of(&["placement", &model, key]);
            let regions = match placed.regions {
                None => Some(None),
                Some(names) => self.region_set(&key("regions"), &names).map(Some),
            };
            let standby = self.region_set(&key("standby"), &placed.standby.unwrap_or_default());
            let remote = match placed.remote.as_deref().unwrap_or_default() {
                "" => Some(None),
                text => match text.strip_prefix("remote:") {
                    Some(name) => self.named(Region::new(name), &key("remote")).map(Some),
                    None => self.require(None, &key("remote"), || format!("`{text}` is not remote:<region>")),
                },
            };
            let Some(((regions, standby), remote)) = regions.zip(standby).zip(remote) else {
                whole = false;
                continue;
            };
            if regions.as_ref().is_some_and(BTreeSet::is_empty) && standby.is_empty() {
                self.mistake(&key("regions"), "leaves the model nowhere".to_owned());
            }
            if let Some(both) = regions.iter().flatten().find(|region| standby.contains(*region)) {
                self.mistake(&key("standby"), format!("`{both}` is among the regions already"));
            }
            let device = placed.device.unwrap_or(DeviceChoice::Any);
            placement.insert(model, PlacementConfig { regions, standby, device, remote });
        }
        whole.then_some(placement)
    }

    pub(super) fn nodes(
        &mut self,
        written: Numbered<NodeEntryFile>,
        roles: &[RoleChoice],
        backend: BackendChoice,
    ) -> Option<Vec<NodeEntry>> {
        let mut nodes: Vec<(usize, NodeEntry)> = Vec::new();
        let mut whole = true;
        for (at, entry) in written.0 {
            match self.node_entry(at, entry, roles, backend) {
                Some(entry) => nodes.push((at, entry)),
                None => whole = false,
            }
            if nodes.len() > NODES_MAX {
                self.mistake("nodes", format!("there are more than {NODES_MAX}"));
                return None;
            }
        }
        self.unique(&nodes);
        whole.then(|| nodes.into_iter().map(|(_, entry)| entry).collect())
    }

    fn node_entry(
        &mut self,
        at: usize,
        written: NodeEntryFile,
        roles: &[RoleChoice],
        backend: BackendChoice,
    ) -> Option<NodeEntry> {
        let key = |key: &str| format!("nodes.{at}.{key}");
        let name = self.present(&key("name"), written.name);
        let name = name.and_then(|name| self.named(NodeId::new(&name), &key("name")));
        let region = self.present(&key("region"), written.region);
        let region = region.and_then(|region| self.named(Region::new(&region), &key("region")));
        let roles = self.roles(&key("roles"), Some(written.roles.unwrap_or_else(|| roles.to_vec())));
        let listen = self.present(&key("listen"), written.listen);
        let listen = listen.and_then(|text| self.socket(&key("listen"), &text));
        let own = self.present(&key("cluster_listen"), written.cluster_listen);
        let own = own.and_then(|text| self.socket(&key("cluster_listen"), &text)).and_then(|addr| {
            let dialled = !addr.ip().is_unspecified() && addr.port() != 0;
            self.require(dialled.then_some(addr), &key("cluster_listen"), || {
                format!("`{addr}` is nowhere that the others could dial: name an address and a port")
            })
        });
        Some(NodeEntry {
            name: name?,
            region: region?,
            roles: roles?,
            listen: listen?,
            cluster_listen: own?,
            backend: written.backend.unwrap_or(backend),
            models: written.models.map(BTreeSet::from_iter),
        })
    }

    fn unique(&mut self, nodes: &[(usize, NodeEntry)]) {
        for (later, (at, entry)) in nodes.iter().enumerate() {
            for (first, other) in &nodes[..later] {
                let place = format!("nodes.{first}, `{}`", other.name);
                if entry.name == other.name {
                    self.mistake(&format!("nodes.{at}.name"), format!("is the name of {place}"));
                }
                if clash(entry.listen, other.listen) {
                    self.mistake(&format!("nodes.{at}.listen"), format!("is the address of {place}"));
                }
                if clash(entry.cluster_listen, other.cluster_listen) {
                    self.mistake(&format!("nodes.{at}.cluster_listen"), format!("is the address of {place}"));
                }
            }
        }
    }

    /// Whether the parts fit: every region that is named has a node, every model a place.
    pub(super) fn topology(&mut self, config: &Config) {
        let known: BTreeSet<&Region> = config.nodes.iter().map(|entry| &entry.region).collect();
        self.known_regions(config, &known);
        if config.routing.prefer == PreferChoice::Cost {
            let priced = |region: &Region| {
                config.regions.get(region).is_some_and(|region| region.cost_per_hour.is_some())
            };
            let without: Vec<String> =
                known.iter().filter(|region| !priced(region)).map(|region| format!("`{region}`")).collect();
            if !without.is_empty() {
                self.mistake("routing.prefer", format!("cost_per_hour is missing of {}", without.join(", ")));
            } else if config.regions.values().all(|region| region.cost_per_hour.is_none()) {
                self.mistake("routing.prefer", "no region has a cost_per_hour".to_owned());
            }
        }
        let computes = |entry: &&NodeEntry| entry.roles.contains(&RoleChoice::Inference);
        if let Some(first) = config.nodes.first()
            && !config.nodes.iter().any(|entry| computes(&entry))
        {
            let message =
                format!("no node has the role inference, `{}` neither: no model is held", first.name);
            self.mistake("nodes.0.roles", message);
            return;
        }
        for (model, placed) in &config.placement {
            let held =
                config.nodes.iter().any(|entry| entry.holding(model, &config.placement) != Holding::No);
            if !config.nodes.is_empty() && !held {
                let key = if placed.regions.is_some() { "regions" } else { "standby" };
                let key = key_of(&["placement", model, key]);
                self.mistake(
                    &key,
                    "no node of these regions has the role inference and the model".to_owned(),
                );
            }
        }
        self.models_exist(config);
    }

    fn known_regions(&mut self, config: &Config, known: &BTreeSet<&Region>) {
        if known.is_empty() {
            return;
        }
        let mut named: Vec<(String, &Region)> = Vec::new();
        if config.cluster.is_some() {
            named.push(("node.region".to_owned(), &config.node.region));
        }
        for (name, region) in &config.regions {
            named.push((key_of(&["regions", name.as_str()]), name));
            let standby = region.standby.iter();
            named.extend(standby.map(|other| (key_of(&["regions", name.as_str(), "standby"]), other)));
        }
        for (model, placed) in &config.placement {
            let keyed = |key| move |region| (key_of(&["placement", model, key]), region);
            named.extend(placed.regions.iter().flatten().map(keyed("regions")));
            named.extend(placed.standby.iter().map(keyed("standby")));
            named.extend(placed.remote.iter().map(keyed("remote")));
        }
        for (key, region) in named {
            if !known.contains(region) {
                self.mistake(&key, format!("no node of [[nodes]] is in the region `{region}`"));
            }
        }
    }

    /// Names of models that this machine should hold: with a topology all, else those placed here.
    fn models_exist(&mut self, config: &Config) {
        let topology = !config.nodes.is_empty();
        let exists =
            |model: &str| config.models.repositories.iter().any(|folder| folder.join(model).is_dir());
        let placed = config.placement.keys().filter(|model| topology || config.holding(model) != Holding::No);
        let placed = placed.map(|model| (key_of(&["placement", model]), model));
        let listed = config.nodes.iter().enumerate().flat_map(|(at, entry)| {
            entry.models.iter().flatten().map(move |model| (format!("nodes.{at}.models"), model))
        });
        let gone: Vec<(String, &String)> = placed.chain(listed).filter(|(_, model)| !exists(model)).collect();
        for (key, model) in gone {
            self.mistake(&key, format!("no repository holds a model `{model}`"));
        }
    }

    fn region_set(&mut self, key: &str, names: &[String]) -> Option<BTreeSet<Region>> {
        let regions: Vec<Option<Region>> =
            names.iter().map(|name| self.named(Region::new(name), key)).collect();
        regions.into_iter().collect()
    }

    fn region_or_none(&mut self, key: &str, written: Option<&str>) -> Option<Option<Region>> {
        match written.unwrap_or_default() {
            "" => Some(None),
            name => self.named(Region::new(name), key).map(Some),
        }
    }

    /// Empty: none.
    fn socket_or_none(&mut self, key: &str, written: Option<String>) -> Option<Option<SocketAddr>> {
        match self.present(key, written)?.as_str() {
            "" => Some(None),
            text => self.socket(key, text).map(Some),
        }
    }
}

/// `host:port`, `1.2.3.4:5` or `[::1]:5`.
fn seed(text: &str) -> Result<Seed, String> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        let dialled = !addr.ip().is_unspecified() && addr.port() != 0;
        return dialled
            .then_some(Seed::Addr(addr))
            .ok_or_else(|| format!("`{text}` is nowhere that could be dialled"));
    }
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parts {
        Some((host, port)) if port != 0 && is_host(host) => Ok(Seed::Name { host: host.to_owned(), port }),
        _ => Err(format!("`{text}` is not host:port, e.g. iad.peregrine.internal:7946")),
    }
}

/// A DNS name: labels of letters, digits, `-` and `_`. One of digits alone would be half an address.
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let dotted = host.strip_suffix('.').unwrap_or(host);
    (1..=253).contains(&dotted.len())
        && dotted.split('.').all(label)
        && dotted.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Would one of two listeners find its address taken?
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    // `[::]` takes IPv4 as well; `0.0.0.0` takes nothing else.
    let takes = |one: SocketAddr, other: SocketAddr| {
        one.ip().is_unspecified() && (one.is_ipv6() || other.ip().to_canonical().is_ipv4())
    };
    let same = a.ip().to_canonical() == b.ip().to_canonical() || takes(a, b) || takes(b, a);
    a.port() != 0 && a.port() == b.port() && same
}
