//! Asks, tells and blocks between two processes, by the runtime and by its peers; and within one process, beside
//! plain actix.
//!
//! ```text
//! peer_runtime remote [ROUNDS] [SECONDS] [PEER,…]   alternates the peers and prints a table
//! peer_runtime local [ROUNDS] [SECONDS]             the same within one process
//! peer_runtime server PEER                          one end, by hand
//! peer_runtime client PEER ADDRESS PID SECONDS      the other; PID is the server's, for its memory and time
//! ```

mod driver;
mod grpc;
mod kameos;
mod local;
mod measure;
mod ours;
mod process;
mod ractors;
mod tcp;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use grpc::Tls;

/// A bench gives up on anything: there is nobody to recover.
type Outcome<T> = Result<T, Failed>;
type Failed = Box<dyn std::error::Error + Send + Sync>;

const PEERS: [&str; 7] = ["peregrine", "tcp", "fabric", "tonic", "tonic-tls", "ractor", "kameo"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Outcome<()> {
    match *arguments {
        ["remote", ref rest @ ..] => {
            let peers = rest.get(2).map_or_else(|| PEERS.to_vec(), |list| list.split(',').collect());
            driver::remote(number(rest, 0, 5)?, number(rest, 1, 2)?, &peers)
        }
        ["local", ref rest @ ..] => local::compare(number(rest, 0, 5)?, number(rest, 1, 1)?),
        ["server", peer] => runtime()?.block_on(serve(peer)),
        ["client", peer, address, pid, seconds] => {
            let (server, seconds) = (pid.parse()?, Duration::from_secs(seconds.parse()?));
            runtime()?.block_on(call(peer, address.parse()?, server, seconds))
        }
        _ => Err("remote | local | server | client; see the head of main.rs".into()),
    }
}

fn number(arguments: &[&str], at: usize, default: u32) -> Outcome<u32> {
    arguments.get(at).map_or(Ok(default), |text| Ok(text.parse()?))
}

/// What every peer runs on: `WORKERS` threads, two unless it says otherwise.
fn runtime() -> Outcome<tokio::runtime::Runtime> {
    let workers = std::env::var("WORKERS").map_or(Ok(2), |text| text.parse())?;
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?)
}

async fn serve(peer: &str) -> Outcome<()> {
    match peer {
        "peregrine" => ours::serve().await,
        "tcp" => tcp::serve().await,
        "fabric" => tcp::serve_fabric().await,
        "tonic" => grpc::serve(Tls::Without).await,
        "tonic-tls" => grpc::serve(Tls::Mutual).await,
        "ractor" => ractors::serve().await,
        "kameo" => kameos::serve().await,
        other => Err(format!("no peer `{other}`").into()),
    }
}

async fn call(peer: &str, server: SocketAddr, pid: u32, each: Duration) -> Outcome<()> {
    match peer {
        "peregrine" => measure::all(ours::Client::connect(server).await?, pid, each).await,
        "tcp" => measure::all(tcp::Client::connect(server).await?, pid, each).await,
        "tonic" => measure::all(grpc::Client::connect(server, Tls::Without).await?, pid, each).await,
        "tonic-tls" => measure::all(grpc::Client::connect(server, Tls::Mutual).await?, pid, each).await,
        "ractor" => measure::all(ractors::Client::connect(server).await?, pid, each).await,
        "kameo" => measure::all(kameos::Client::connect(server).await?, pid, each).await,
        "fabric" => measure::all(tcp::Client::connect_fabric(server).await?, pid, each).await,
        other => Err(format!("no peer `{other}`").into()),
    }
}

/// Says where a server listens and keeps it until whoever started it goes away.
async fn ready(address: SocketAddr) -> Outcome<()> {
    println!("ready {address}");
    tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin())).await??;
    Ok(())
}
