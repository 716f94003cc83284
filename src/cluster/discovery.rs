//! Where other nodes may be: addresses as configured, and names looked up again whenever the cluster asks.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use peregrine_runtime::Discovery;
use tokio::time::timeout;
use tracing::debug;

use super::ClusterError;
use crate::config::Seed;

/// Longest that a name is waited for: one that is not answered must not hide the others.
const LOOK_UP_MAX: Duration = Duration::from_secs(3);
/// Longest that an address is kept.
const KEPT_MAX: Duration = Duration::from_secs(5);

/// The configured seeds, this node's own addresses left out.
pub(super) struct Seeds {
    seeds: Vec<Seed>,
    own: Vec<SocketAddr>,
    /// Keeps what it learns for as long as the answers allow, and no longer.
    resolver: TokioResolver,
}

impl Seeds {
    /// `server`: asked for names; `None`: as the machine is configured.
    ///
    /// # Errors
    /// When the machine's own configuration of DNS cannot be read.
    pub(super) fn new(
        seeds: Vec<Seed>,
        own: Vec<SocketAddr>,
        server: Option<SocketAddr>,
    ) -> Result<Self, ClusterError> {
        let failed = |error: hickory_resolver::net::NetError| ClusterError::Resolver(error.to_string());
        let mut builder = match server {
            Some(server) => TokioResolver::builder_with_config(only(server), TokioRuntimeProvider::default()),
            None => TokioResolver::builder_tokio().map_err(failed)?,
        };
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // Nodes come and go, whatever a server says: a name has its addresses of now.
        options.positive_max_ttl = Some(KEPT_MAX);
        options.negative_max_ttl = Some(Duration::ZERO);
        Ok(Self { seeds, own, resolver: builder.build().map_err(failed)? })
    }

    async fn look_up(&self, seed: &Seed) -> Vec<SocketAddr> {
        match seed {
            Seed::Addr(addr) => vec![*addr],
            Seed::Name { host, port } => {
                match timeout(LOOK_UP_MAX, self.resolver.lookup_ip(host.as_str())).await {
                    Ok(Ok(found)) => found.iter().map(|ip| SocketAddr::new(ip, *port)).collect(),
                    Ok(Err(error)) => {
                        debug!(host, %error, "no address");
                        Vec::new()
                    }
                    Err(_elapsed) => {
                        debug!(host, "dns does not answer");
                        Vec::new()
                    }
                }
            }
        }
    }
}

fn only(server: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    ResolverConfig::from_name_servers(vec![NameServerConfig::new(server.ip(), true, connections.to_vec())])
}

#[async_trait]
impl Discovery for Seeds {
    async fn addresses(&self) -> Vec<SocketAddr> {
        let found = join_all(self.seeds.iter().map(|seed| self.look_up(seed))).await;
        let mut addresses: Vec<SocketAddr> = found.into_iter().flatten().collect();
        addresses.retain(|addr| !self.own.contains(addr));
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, UdpSocket};
    use std::sync::{Arc, Mutex};
    use std::thread;

    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::{RData, Record, RecordType};

    use super::*;

    /// A DNS server that knows one name.
    struct Server {
        addr: SocketAddr,
        known: Arc<Mutex<Vec<IpAddr>>>,
    }

    impl Server {
        fn start(name: &'static str, known: &[&str]) -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let addr = socket.local_addr().unwrap();
            let known = Arc::new(Mutex::new(ips(known)));
            let answers = Arc::clone(&known);
            thread::spawn(move || {
                let mut bytes = [0; 1500];
                // Ends with the process: nothing else holds the socket.
                while let Ok((len, from)) = socket.recv_from(&mut bytes) {
                    let asked = Message::from_vec(&bytes[..len]).unwrap();
                    let answer = answer(&asked, name, &answers.lock().unwrap());
                    socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
                }
            });
            Self { addr, known }
        }
    }

    fn answer(asked: &Message, name: &str, known: &[IpAddr]) -> Message {
        let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
        let query = asked.queries[0].clone();
        answer.add_query(query.clone());
        if query.name().to_ascii().trim_end_matches('.') != name {
            answer.metadata.response_code = ResponseCode::NXDomain;
            return answer;
        }
        for ip in known {
            let data = match (ip, query.query_type()) {
                (IpAddr::V4(ip), RecordType::A) => RData::A((*ip).into()),
                (IpAddr::V6(ip), RecordType::AAAA) => RData::AAAA((*ip).into()),
                _ => continue,
            };
            answer.add_answer(Record::from_rdata(query.name().clone(), 0, data));
        }
        answer
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn seed(text: &str) -> Seed {
        match text.parse() {
            Ok(addr) => Seed::Addr(addr),
            Err(_) => {
                let (host, port) = text.rsplit_once(':').unwrap();
                Seed::Name { host: host.to_owned(), port: port.parse().unwrap() }
            }
        }
    }

    async fn check(seeds: &Seeds, expected: &[&str]) {
        let expected: Vec<SocketAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
        // A membership waits no longer.
        let found = tokio::time::timeout(Duration::from_secs(5), seeds.addresses()).await;
        assert_eq!(found.unwrap(), expected);
    }

    #[tokio::test]
    async fn names_have_their_addresses_of_now() {
        let server = Server::start("iad.app.internal", &["10.0.0.2", "fdaa::2", "fdaa::3"]);
        let seeds = [seed("iad.app.internal:7946"), seed("fra.app.internal:7946"), seed("[fdaa::9]:1")];
        let own = vec!["[fdaa::3]:7946".parse().unwrap()];
        let seeds = Seeds::new(seeds.to_vec(), own, Some(server.addr)).unwrap();
        check(&seeds, &["10.0.0.2:7946", "[fdaa::2]:7946", "[fdaa::9]:1"]).await;
        *server.known.lock().unwrap() = ips(&["fdaa::7"]);
        check(&seeds, &["[fdaa::7]:7946", "[fdaa::9]:1"]).await;
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_hides_no_address() {
        let seeds = [seed("iad.app.internal:7946"), seed("[fdaa::9]:1")];
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let seeds = Seeds::new(seeds.to_vec(), Vec::new(), Some(nobody)).unwrap();
        check(&seeds, &["[fdaa::9]:1"]).await;
    }
}
