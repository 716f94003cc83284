//! Pools as they are configured.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use peregrine_scaler::pool::MachinePool;
use peregrine_scaler::pool::simulated::{Delays, SimulatedPool};
use rand::rngs::StdRng;

use super::command::CommandPool;
use super::folder::FolderError;
use super::local::{LocalPool, LocalSpec, Program, Setting};
use crate::config::{Config, FlyPoolConfig, LocalPoolConfig, PoolConfig, Secret};

/// What a node that is started on this machine is told of this one.
#[derive(Clone, Debug, PartialEq)]
pub struct Meeting {
    /// The configuration files of this node.
    pub files: Vec<PathBuf>,
    /// Its further model repositories.
    pub models: Vec<PathBuf>,
    /// Where nodes of the cluster are.
    pub seeds: Vec<String>,
    /// What they show each other, where that is a secret.
    pub secret: Option<Secret>,
}

/// A pool cannot be opened. The operator acts.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Where this program lies cannot be found out.
    #[error("this program cannot be found: {0}")]
    Program(io::Error),
    /// Machines that are started could not meet the others.
    #[error(
        "its machines show `cluster.secret`, and none is configured: name the configuration of the cluster's nodes with \
         --config; a node that is alone and starts machines (scaler.enabled) keeps a secret of its own and has to do it itself"
    )]
    NoSecret,
    /// The pool of a platform was refused.
    #[error("{0}")]
    Platform(String),
}

/// Opens the pool `name` of the configuration. `fly` makes a pool of Fly's Machines API.
///
/// # Errors
/// See [`OpenError`].
pub fn open(
    pool: &PoolConfig,
    config: &Config,
    meeting: &Meeting,
    chance: StdRng,
    fly: impl FnOnce(&FlyPoolConfig) -> Result<Box<dyn MachinePool>, OpenError>,
) -> Result<Box<dyn MachinePool>, OpenError> {
    Ok(match pool {
        PoolConfig::Local(local) => Box::new(LocalPool::open(local_spec(local, config, meeting)?, chance)?),
        PoolConfig::Command(commands) => Box::new(CommandPool::open(commands.as_ref().clone(), chance)?),
        PoolConfig::Fly(part) => fly(part)?,
        PoolConfig::Simulated(part) => {
            Box::new(SimulatedPool::new(Delays { create: part.create, start: part.start, stop: part.stop }))
        }
    })
}

/// Machines run this program, as a node beside this one, unless another is named.
fn local_spec(local: &LocalPoolConfig, config: &Config, meeting: &Meeting) -> Result<LocalSpec, OpenError> {
    let mut programs = BTreeMap::new();
    for (group, drain) in &local.drains {
        let mut program = match &local.program {
            Some(path) => other_program(path.clone(), &local.arguments, *drain),
            None => node_program(config, meeting, *drain)?,
        };
        let own = local.environment.iter();
        program
            .environment
            .extend(own.map(|(name, value)| (name.clone(), Setting::Text(value.expose().into()))));
        programs.insert(group.clone(), program);
    }
    Ok(LocalSpec { dir: local.dir.clone(), programs, running_max: local.running_max })
}

fn node_program(config: &Config, meeting: &Meeting, drain: Duration) -> Result<Program, OpenError> {
    let path = std::env::current_exe().map_err(OpenError::Program)?;
    let secret = meeting.secret.as_ref().map(Secret::expose);
    let mut program = Program::node(path, &meeting.files, &meeting.models, &meeting.seeds, secret, drain);
    // One folder has one writer.
    if let Some(journal) = &config.journal {
        program = program.with_folder("PEREGRINE_JOURNAL__DIR", journal.dir.join("machines"));
    }
    if let Some(audit) = &config.audit {
        program = program.with_folder("PEREGRINE_AUDIT__DIR", audit.dir.join("machines"));
    }
    Ok(program)
}

/// A program that knows nothing of peregrine is told in words of its own.
fn other_program(path: PathBuf, arguments: &[String], drain: Duration) -> Program {
    let environment = [
        ("SCALER_SLOT", Setting::Slot),
        ("SCALER_REGION", Setting::Region),
        ("SCALER_RELEASE", Setting::Release),
    ];
    Program {
        path,
        arguments: arguments.iter().map(OsString::from).collect(),
        environment: environment.map(|(name, setting)| (name.to_owned(), setting)).into(),
        drain,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use jiff::Timestamp;
    use peregrine_scaler::fleet::Slot;
    use peregrine_scaler::pool::{Order, PoolError};
    use rand::SeedableRng as _;

    use super::*;
    use crate::config::{Sources, resolve};

    fn config(text: &str) -> Config {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let sources = Sources { files: vec![file.path().to_owned()], ..Sources::default() };
        resolve(&sources).unwrap_or_else(|error| panic!("{error}")).config
    }

    fn meeting() -> Meeting {
        Meeting {
            files: vec!["a.toml".into()],
            models: vec!["m".into()],
            seeds: vec!["127.0.0.1:7946".to_owned()],
            secret: Some("0123456789abcdef".to_owned().into()),
        }
    }

    fn no_fly(_: &FlyPoolConfig) -> Result<Box<dyn MachinePool>, OpenError> {
        Err(OpenError::Platform("not here".to_owned()))
    }

    #[test]
    fn a_machine_is_this_program_as_a_node_with_folders_of_its_own() {
        let config =
            config("[journal]\ndir = \"/data/journal\"\n[scaler.pools.local]\nenvironment = { A = \"b\" }\n");
        let PoolConfig::Local(local) = &config.scaler.pools["local"] else { panic!("it is local") };
        let spec = local_spec(local, &config, &meeting()).unwrap();
        assert_eq!(spec.dir, PathBuf::from(".scaler/pools/local"));
        let program = &spec.programs["inference"];
        assert_eq!(program.arguments, ["serve", "--config", "a.toml", "--models", "m"]);
        assert_eq!(program.drain, Duration::from_secs(15));
        let of =
            |name: &str| program.environment.iter().rfind(|(key, _)| key == name).map(|(_, value)| value);
        let text = |text: &str| Some(Setting::Text(text.into()));
        assert_eq!(of("PEREGRINE_NODE__NAME"), Some(&Setting::Slot));
        assert_eq!(of("PEREGRINE_CLUSTER__SEEDS"), text(r#"["127.0.0.1:7946"]"#).as_ref());
        assert_eq!(of("PEREGRINE_SCALER__ENABLED"), text("false").as_ref(), "one scaler is enough");
        assert_eq!(of("PEREGRINE_CLUSTER__SECRET"), text("0123456789abcdef").as_ref());
        assert_eq!(of("PEREGRINE_JOURNAL__DIR"), Some(&Setting::FolderIn("/data/journal/machines".into())));
        assert_eq!(of("PEREGRINE_AUDIT__DIR"), None);
        assert_eq!(of("A"), text("b").as_ref());
    }

    #[test]
    fn another_program_is_run_as_it_is() {
        let dir = tempfile::TempDir::new().unwrap();
        let text = format!(
            "[scaler]\ndir = \"{}\"\n[scaler.pools.local]\nprogram = \"/bin/sh\"\narguments = [\"-c\", \"exit 0\"]\n",
            dir.path().display()
        );
        let config = config(&text);
        let pool = &config.scaler.pools["local"];
        let mut pool = open(pool, &config, &meeting(), StdRng::seed_from_u64(1), no_fly).unwrap();
        let slot = Slot { group: "inference".to_owned(), number: 0 };
        let order = Order { slot, region: "local".to_owned(), release: "v".to_owned(), launch: true };
        pool.create(&order, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(pool.create(&order, Timestamp::UNIX_EPOCH), Err(PoolError::SlotTaken));
        assert!(dir.path().join("pools/local/inference-0.json").is_file());
    }

    #[test]
    fn each_kind_is_what_it_says() {
        let dir = tempfile::TempDir::new().unwrap();
        let text = format!(
            "[scaler]\ndir = \"{}\"\n[scaler.pools.own]\nkind = \"command\"\nlist = [\"echo\", '{{\"machines\":[]}}']\n\
             create = [\"false\"]\nstart = [\"false\"]\nstop = [\"false\"]\ndestroy = [\"false\"]\n\
             [scaler.pools.none]\nkind = \"simulated\"\n\
             [scaler.pools.fly]\nkind = \"fly\"\napp = \"a\"\ntoken = \"t\"\ntemplates = {{}}\n",
            dir.path().display()
        );
        let config = config(&text);
        let open = |name: &str| {
            open(&config.scaler.pools[name], &config, &meeting(), StdRng::seed_from_u64(1), no_fly)
        };
        for name in ["own", "none"] {
            assert_eq!(open(name).unwrap().list(Timestamp::UNIX_EPOCH), Ok(vec![]), "{name}");
        }
        assert!(matches!(open("fly"), Err(OpenError::Platform(_))));
    }
}
