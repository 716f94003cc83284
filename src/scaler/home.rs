//! Where a node that is alone meets the machines that it starts on its own machine.
//!
//! Machines outlive the node that started them. So the address that they look for and the secret that they show are
//! kept: the node's next life has the same.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use peregrine_scaler::pool::PoolError;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::pools::{Folder, FolderError};
use crate::config::Secret;

const FILE: &str = "home.json";
/// Characters of a cluster's secret, at least.
const SECRET_LEN_MIN: usize = 16;

/// The address and the secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Home {
    /// On the loopback interface, for the cluster of this machine.
    pub listen: SocketAddr,
    /// What its nodes show each other.
    pub secret: Secret,
}

/// There is no home. The operator acts.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Another process has the folder.
    #[error(transparent)]
    Busy(#[from] PoolError),
    /// The file, or the socket.
    #[error("{}: {source}", file.display())]
    Io {
        /// Where.
        file: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// What is written there is none; removed, machines that run do not find their way back.
    #[error("{}: {why}", file.display())]
    Damage {
        /// Where.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HomeFile {
    listen: SocketAddr,
    secret: String,
}

impl Home {
    /// The home that is kept in `dir`; where there is none, one with a port that is free and a secret that is new.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub fn open(dir: &Path, chance: &mut StdRng) -> Result<Self, HomeError> {
        let folder = Folder::open(dir)?;
        let locked = folder.lock()?;
        let failed = |source| HomeError::Io { file: dir.join(FILE), source };
        if let Some(bytes) = locked.read(FILE).map_err(failed)? {
            return read(&bytes).map_err(|why| HomeError::Damage { file: dir.join(FILE), why });
        }
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let listen = socket.local_addr().map_err(failed)?;
        let secret = format!("{:032x}{:032x}", chance.random::<u128>(), chance.random::<u128>());
        let file = HomeFile { listen, secret };
        let bytes = serde_json::to_vec(&file).map_err(|error| failed(error.into()))?;
        locked.create(FILE, &bytes).map_err(failed)?;
        Ok(Self { listen, secret: file.secret.into() })
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<Home, String> {
    let file: HomeFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if !file.listen.ip().is_loopback() || file.listen.port() == 0 {
        return Err(format!("{} is no address of this machine alone", file.listen));
    }
    // Never repeats what is written.
    let is_secret =
        file.secret.len() >= SECRET_LEN_MIN && file.secret.bytes().all(|byte| byte.is_ascii_graphic());
    if is_secret {
        Ok(Home { listen: file.listen, secret: file.secret.into() })
    } else {
        Err("no secret".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn the_next_life_has_the_same_home() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut chance = StdRng::seed_from_u64(1);
        let first = Home::open(&dir.path().join("new"), &mut chance).unwrap();
        assert!(first.listen.ip().is_loopback() && first.listen.port() != 0);
        assert_eq!(first.secret.expose().len(), 64);
        assert_eq!(Home::open(&dir.path().join("new"), &mut chance).unwrap(), first);
        let other = Home::open(&dir.path().join("other"), &mut chance).unwrap();
        assert_ne!(other.secret, first.secret);
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("new"), mode("new/home.json")), (0o700, 0o600), "for its owner alone");
    }

    #[test]
    fn what_is_no_home_is_named_and_its_secret_is_not() {
        let dir = tempfile::TempDir::new().unwrap();
        for text in [
            "",
            "{}",
            r#"{"listen":"0.0.0.0:80","secret":"hush-hush-hush-hush"}"#,
            r#"{"listen":"127.0.0.1:0","secret":"hush-hush-hush-hush"}"#,
            r#"{"listen":"127.0.0.1:80","secret":"hush"}"#,
            r#"{"listen":"127.0.0.1:80","secret":"hush-hush-hush-hush","more":1}"#,
        ] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let error = Home::open(dir.path(), &mut StdRng::seed_from_u64(1)).unwrap_err().to_string();
            assert!(error.contains("home.json: ") && !error.contains("hush"), "{error}");
        }
    }
}
