//! Who is in a cluster: names, incarnations, attributes, and one consistent picture of all of them.
//!
//! Plain values. Knows no gossip, socket or clock.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name of a node or region, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// A name that no node or region can have. Whoever wrote it acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no name: 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`")]
pub struct NameError {
    name: String,
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl $name {
            /// Checks a name.
            ///
            /// # Errors
            /// Unless it is 1 to 64 characters of `a-z A-Z 0-9 - _ .`.
            pub fn new(name: &str) -> Result<Self, NameError> {
                checked(name).map(Self)
            }

            /// As written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_name! {
    /// Name of a node: chosen by its operator, unique in the cluster, kept over restarts.
    NodeId
}

checked_name! {
    /// A place whose nodes are near each other.
    Region
}

fn checked(name: &str) -> Result<Arc<str>, NameError> {
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if fits && name.bytes().all(known) {
        Ok(name.into())
    } else {
        Err(NameError { name: name.chars().take(NAME_BYTES_MAX).collect() })
    }
}

/// Which life of a node this is; a later life has a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// What a member is willing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Takes part in everything.
    Active,
    /// Leaves soon: finishes what it has, is given nothing new.
    Draining,
}

/// One live member and what it says of itself, as one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its name.
    pub id: NodeId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// Where peers dial it now; may change from life to life.
    pub addr: SocketAddr,
    /// Where it is.
    pub region: Region,
    /// What it is for, e.g. `gateway`, `inference`; sorted, no name twice.
    pub roles: Vec<String>,
    /// Version of the program it runs.
    pub version: String,
    /// How busy it says it is: 0 idle, 1 full.
    pub load: f32,
    /// Whether it takes part.
    pub standing: Standing,
    /// Services it offers, by name, with what each says of itself; the same names find them at the receptionist.
    pub services: BTreeMap<String, String>,
    /// Live members that it cannot reach itself.
    pub cut_from: Vec<NodeId>,
}

/// All live members as this node sees them, itself included, by name. Never two lives of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// By name.
    pub members: BTreeMap<NodeId, Member>,
    /// Rises with every change of this view; says nothing about those of other nodes.
    pub revision: u64,
}

impl View {
    /// One member.
    #[must_use]
    pub fn get(&self, id: &NodeId) -> Option<&Member> {
        self.members.get(id)
    }

    /// Names the members and their lives: two nodes that see the same ones have the same value.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Fnv::default();
        for member in self.members.values() {
            hash.write(member.id.as_str().as_bytes());
            hash.write(&[0]);
            hash.write(&member.incarnation.0.to_le_bytes());
        }
        hash.0
    }
}

/// FNV-1a, 64 bit (Fowler, Noll, Vo): the same everywhere and for ever, as what crosses nodes must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fnv(pub(crate) u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::default();
        hash.write(bytes);
        hash.0
    }
}
