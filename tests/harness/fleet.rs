//! Several real processes as one cluster, on the loopback interface or each on a host of its own, with the failures
//! that such a cluster meets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Client, Hosts, NodeProcess, Proxy, Response};

/// What a node of a fleet is.
pub(crate) struct Post<'a> {
    pub(crate) name: &'a str,
    pub(crate) region: &'a str,
    /// `gateway`, `inference`
    pub(crate) roles: &'a [&'a str],
}

/// Processes of one cluster; killed when dropped.
pub(crate) struct Fleet<'h> {
    hosts: Option<&'h Hosts>,
    keys: Vec<(String, String)>,
    posts: BTreeMap<String, (String, Vec<String>)>,
    cluster_addrs: BTreeMap<String, SocketAddr>,
    proxies: BTreeMap<String, Proxy>,
    running: BTreeMap<String, NodeProcess>,
}

impl<'h> Fleet<'h> {
    /// Starts every post on loopback, or on the host of its name, with these keys (and variables of Fly's) set for all
    /// (`{node}` in a value is the node's name), and waits until all see all.
    pub(crate) fn start(hosts: Option<&'h Hosts>, posts: &[Post<'_>], keys: &[(&str, &str)]) -> Self {
        Self::new(hosts, posts, keys).all_started()
    }

    /// The same on loopback, with a stretch of network before each node.
    pub(crate) fn apart(posts: &[Post<'_>], keys: &[(&str, &str)]) -> Self {
        let mut fleet = Self::new(None, posts, keys);
        let proxies = fleet.cluster_addrs.iter().map(|(name, addr)| (name.clone(), Proxy::before(*addr)));
        fleet.proxies = proxies.collect();
        fleet.all_started()
    }

    fn new(hosts: Option<&'h Hosts>, posts: &[Post<'_>], keys: &[(&str, &str)]) -> Self {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let roles = |post: &Post<'_>| post.roles.iter().map(|role| (*role).to_owned()).collect();
        let posts = posts.iter().map(|post| (post.name.to_owned(), (post.region.to_owned(), roles(post))));
        let posts: BTreeMap<String, (String, Vec<String>)> = posts.collect();
        let cluster_addrs = posts.keys().map(|name| (name.clone(), cluster_addr(hosts, name))).collect();
        let (proxies, running) = (BTreeMap::new(), BTreeMap::new());
        Self { hosts, keys: keys.iter().map(own).collect(), posts, cluster_addrs, proxies, running }
    }

    fn all_started(mut self) -> Self {
        let names: Vec<String> = self.posts.keys().cloned().collect();
        for name in &names {
            self.launch(name);
        }
        for name in &names {
            self.awaits(name, names.len());
        }
        self
    }

    /// What lies before a node that was started [`Fleet::apart`].
    pub(crate) fn proxy(&self, name: &str) -> &Proxy {
        &self.proxies[name]
    }

    /// Where the others dial a node.
    fn advertised(&self, name: &str) -> SocketAddr {
        self.proxies.get(name).map_or(self.cluster_addrs[name], |proxy| proxy.addr)
    }

    /// Starts a node that is not running, and waits for its `ready` line.
    pub(crate) fn launch(&mut self, name: &str) {
        let child = self.spawn(name, &[]);
        let running = NodeProcess::ready(child);
        assert!(self.running.insert(name.to_owned(), running).is_none(), "{name} runs already");
    }

    /// The process of a node, with some keys set differently.
    pub(crate) fn spawn(&self, name: &str, keys: &[(&str, &str)]) -> Child {
        let (region, roles) = &self.posts[name];
        let own = self.cluster_addrs[name];
        let others = self.posts.keys().filter(|other| *other != name);
        let seeds: Vec<String> = others.map(|other| self.advertised(other).to_string()).collect();
        let listen =
            self.hosts.map_or("127.0.0.1:0".to_owned(), |hosts| format!("[{}]:8080", hosts.ip(name)));
        let mut command = match self.hosts {
            Some(hosts) => hosts.command(name, env!("CARGO_BIN_EXE_peregrine")),
            None => Command::new(env!("CARGO_BIN_EXE_peregrine")),
        };
        command.arg("serve").current_dir(env!("CARGO_MANIFEST_DIR"));
        let settings = [
            ("LOG__FILTER", "error".to_owned()),
            ("NODE__NAME", name.to_owned()),
            ("NODE__REGION", region.clone()),
            ("SERVER__LISTEN", listen),
            ("SERVER__DRAIN", "10s".to_owned()),
            ("BACKEND__CHOICE", "cpu".to_owned()),
            ("CLUSTER__LISTEN", own.to_string()),
            ("CLUSTER__ADVERTISE", self.advertised(name).to_string()),
            ("CLUSTER__ROLES", format!("{roles:?}")),
            ("CLUSTER__SEEDS", format!("{seeds:?}")),
            ("CLUSTER__SECRET", "of the test's own nodes alone".to_owned()),
            ("CLUSTER__SIZE", self.posts.len().to_string()),
        ];
        let settings = settings
            .into_iter()
            .chain(self.keys.iter().map(|(key, value)| (key.as_str(), value.replace("{node}", name))));
        let settings = settings.chain(keys.iter().map(|(key, value)| (*key, (*value).to_owned())));
        // What a platform says goes by its own name.
        let name_of =
            |key: &str| if key.starts_with("FLY_") { key.to_owned() } else { format!("PEREGRINE_{key}") };
        command.envs(settings.map(|(key, value)| (name_of(key), value)));
        command.stdout(Stdio::piped()).spawn().expect("the binary starts")
    }

    /// Where a node answers callers.
    pub(crate) fn addr(&self, name: &str) -> SocketAddr {
        self.running[name].addr
    }

    #[track_caller]
    pub(crate) fn get(&self, name: &str, path: &str) -> Response {
        super::request(self.addr(name), "GET", path, &[], b"")
    }

    #[track_caller]
    pub(crate) fn post(&self, name: &str, path: &str, body: &str) -> Response {
        super::request(self.addr(name), "POST", path, &[], body.as_bytes())
    }

    /// The members as a node sees them, by name.
    #[track_caller]
    pub(crate) fn members(&self, name: &str) -> BTreeMap<String, Value> {
        let answer = self.get(name, "/v1/cluster").json();
        let members = answer["members"].as_array().expect("members").clone();
        members
            .into_iter()
            .map(|member| (member["node"].as_str().expect("a name").to_owned(), member))
            .collect()
    }

    /// A number of `/metrics`, added up over its labels.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, metric: &str) -> f64 {
        let page = self.get(name, "/metrics");
        let page = String::from_utf8(page.body).expect("text");
        let values =
            page.lines().filter(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with('{')));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Until a node sees so many members and has a link to each.
    #[track_caller]
    pub(crate) fn awaits(&self, name: &str, members: usize) -> Duration {
        took(&format!("{name} sees {members} nodes"), || {
            let seen = self.members(name);
            seen.len() == members && seen.values().all(|member| member["connected"] == true)
        })
    }

    /// `kill -9`, `-STOP`, `-CONT`, `-TERM`.
    pub(crate) fn signal(&self, name: &str, signal: i32) {
        let pid = i32::try_from(self.running[name].child.id()).expect("a pid");
        // SAFETY: no memory is involved; the child has not been waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "{name} lives");
    }

    /// Waits until a node that was told to stop has ended.
    #[track_caller]
    pub(crate) fn ended(&mut self, name: &str) -> std::process::ExitStatus {
        let mut running = self.running.remove(name).expect("it runs");
        let until = Instant::now() + PATIENCE;
        loop {
            match running.child.try_wait().expect("it can be waited for") {
                Some(status) => return status,
                None => assert!(Instant::now() < until, "{name} does not end"),
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// On loopback a port that was free a moment ago; nothing else on this machine asks for UDP ports meanwhile.
fn cluster_addr(hosts: Option<&Hosts>, name: &str) -> SocketAddr {
    match hosts {
        Some(hosts) => SocketAddr::new(hosts.ip(name).into(), 7946),
        None => {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
            socket.local_addr().expect("it is bound")
        }
    }
}

/// Longest wait for something that must come; reaching it is a failure, never a pass.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long it takes until `condition` holds.
#[track_caller]
pub(crate) fn took(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(LOOK_EVERY);
    }
    start.elapsed()
}

/// Clients that ask one node for forecasts until told to stop, and what came of it.
pub(crate) struct Load {
    addr: SocketAddr,
    path: String,
    body: String,
    ended: AtomicBool,
    seen: Mutex<Seen>,
}

/// Answers by label: `remote:iad`, `cpu`, or the status and the words of a refusal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) by_label: BTreeMap<String, usize>,
    pub(crate) slowest: Duration,
}

impl Seen {
    pub(crate) fn count(&self, label: &str) -> usize {
        self.by_label.get(label).copied().unwrap_or(0)
    }

    /// Answers that are no forecast.
    pub(crate) fn refusals(&self) -> BTreeMap<String, usize> {
        let refusal = |label: &str| label.starts_with(|first: char| first.is_ascii_digit());
        self.by_label
            .iter()
            .filter(|(label, _)| refusal(label))
            .map(|(label, count)| (label.clone(), *count))
            .collect()
    }
}

impl Load {
    /// Requests of one model, with a deadline each.
    pub(crate) fn of(addr: SocketAddr, model: &str, window: usize, deadline: Duration) -> Self {
        Self::of_many(addr, model, window, 1, deadline)
    }

    /// The same with so many series in each request.
    pub(crate) fn of_many(
        addr: SocketAddr,
        model: &str,
        window: usize,
        series: usize,
        deadline: Duration,
    ) -> Self {
        let values: Vec<String> = (0..window).map(|at| format!("{}", 1.0 + (at % 7) as f32 / 10.0)).collect();
        let values = values.join(",");
        let series = (0..series).map(|at| format!(r#"{{"id":"{at}","values":[{values}]}}"#));
        let body = format!(
            r#"{{"model":"{model}","deadline_ms":{},"series":[{}]}}"#,
            deadline.as_millis(),
            series.collect::<Vec<_>>().join(",")
        );
        let seen = Mutex::default();
        Self { addr, path: "/v1/forecast".to_owned(), body, ended: AtomicBool::new(false), seen }
    }

    /// Runs `clients` while `story` goes on.
    pub(crate) fn during<R>(&self, clients: usize, story: impl FnOnce(&Self) -> R) -> R {
        thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| self.ask_until_ended());
            }
            // Ended whatever happens in the story, or the scope would wait for ever.
            let _end = End(&self.ended);
            story(self)
        })
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().expect("no holder panics").clone()
    }

    /// Forgets what was seen and waits for `count` more answers.
    #[track_caller]
    pub(crate) fn next(&self, count: usize) -> Seen {
        *self.seen.lock().expect("no holder panics") = Seen::default();
        took("answers go on", || self.seen().by_label.values().sum::<usize>() >= count);
        self.seen()
    }

    fn ask_until_ended(&self) {
        let mut connection = Client::connect(self.addr).expect("connects");
        while !self.ended.load(Ordering::SeqCst) {
            let start = Instant::now();
            let answer = connection.send("POST", &self.path, &[], self.body.as_bytes()).expect("an answer");
            let took = start.elapsed();
            let label = match answer.status {
                200 => answer.json()["forecasts"][0]["backend"].as_str().expect("a backend").to_owned(),
                status => format!("{status} {}", String::from_utf8_lossy(&answer.body)),
            };
            let mut seen = self.seen.lock().expect("no holder panics");
            *seen.by_label.entry(label).or_default() += 1;
            seen.slowest = seen.slowest.max(took);
        }
    }
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
