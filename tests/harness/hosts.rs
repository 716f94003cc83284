//! Hosts of one private IPv6 network on this machine: a network namespace each, joined by a bridge.
//!
//! Needs root and `ip` of iproute2. A way is cut by giving the sender a neighbour that does not exist: its packets
//! vanish on the wire, nothing is reset, no carrier is lost, and the other direction is untouched.

use std::net::Ipv6Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

/// Namespaces and a bridge; taken down when dropped.
pub(crate) struct Hosts {
    /// Unique on this machine: of this process and this test.
    tag: String,
    net: [u16; 4],
    names: Vec<String>,
}

static COUNT: AtomicU16 = AtomicU16::new(0);

impl Hosts {
    /// One host for each name, all on one link.
    #[track_caller]
    pub(crate) fn new(names: &[&str]) -> Self {
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let tag = format!("pg{:x}{count:x}", process & 0xf_ffff);
        let net = [0xfd70 | (count & 0xf), (process >> 16) as u16, process as u16, 0];
        let hosts = Self { tag, net, names: names.iter().map(|name| (*name).to_owned()).collect() };
        let bridge = hosts.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"]);
        ip(&["link", "set", &bridge, "up"]);
        ip(&["-6", "addr", "add", &format!("{}/64", hosts.address(0xffff)), "dev", &bridge, "nodad"]);
        for (at, name) in names.iter().enumerate() {
            let (space, port) = (hosts.space(name), format!("{}p{at}", hosts.tag));
            ip(&["netns", "add", &space]);
            ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space]);
            ip(&["link", "set", &port, "master", &bridge, "up"]);
            ip(&["-n", &space, "link", "set", "lo", "up"]);
            ip(&["-n", &space, "link", "set", "eth0", "address", &mac(at), "up"]);
            ip(&[
                "-n",
                &space,
                "-6",
                "addr",
                "add",
                &format!("{}/64", hosts.ip(name)),
                "dev",
                "eth0",
                "nodad",
            ]);
        }
        hosts
    }

    /// The address of a host.
    pub(crate) fn ip(&self, name: &str) -> Ipv6Addr {
        self.address(1 + self.at(name) as u16)
    }

    /// A program on a host.
    pub(crate) fn command(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(name), program]);
        command
    }

    /// From now on what `from` sends to `to` vanishes.
    #[track_caller]
    pub(crate) fn cut(&self, from: &str, to: &str) {
        self.neighbour(from, to, "02:00:00:00:ff:ff");
    }

    /// It arrives again.
    #[track_caller]
    pub(crate) fn heal(&self, from: &str, to: &str) {
        self.neighbour(from, to, &mac(self.at(to)));
    }

    /// From now on no packet of more bytes gets to a host or leaves it. The others do not know, and nothing tells them.
    #[track_caller]
    pub(crate) fn narrow(&self, name: &str, packet_bytes_max: u16) {
        ip(&["-n", &self.space(name), "link", "set", "eth0", "mtu", &packet_bytes_max.to_string()]);
    }

    fn neighbour(&self, from: &str, to: &str, mac: &str) {
        let (space, to) = (self.space(from), self.ip(to).to_string());
        ip(&["-n", &space, "neigh", "replace", &to, "lladdr", mac, "dev", "eth0", "nud", "permanent"]);
    }

    fn at(&self, name: &str) -> usize {
        self.names.iter().position(|known| known == name).expect("a host of this network")
    }

    fn address(&self, host: u16) -> Ipv6Addr {
        let [a, b, c, d] = self.net;
        Ipv6Addr::new(a, b, c, d, 0, 0, 0, host)
    }

    fn bridge(&self) -> String {
        format!("{}br", self.tag)
    }

    fn space(&self, name: &str) -> String {
        format!("{}-{name}", self.tag)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            // Its end of the cable goes with it. What is left over says so below, in the next test that wants it.
            let _ = Command::new("ip").args(["netns", "del", &self.space(name)]).status();
        }
        let _ = Command::new("ip").args(["link", "del", &self.bridge()]).status();
    }
}

fn mac(at: usize) -> String {
    format!("02:00:00:00:00:{:02x}", at + 1)
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let ran =
        Command::new("ip").args(arguments).output().expect("`ip` is installed: apt-get install iproute2");
    let words = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "needs root and network namespaces: ip {}: {words}", arguments.join(" "));
}
