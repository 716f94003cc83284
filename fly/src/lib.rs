//! Place: what the platform tells a node about itself. The only crate that knows Fly.
//!
//! Knows no actor and no forecast. Outside Fly every reading is absent and a node runs as the configuration says.

pub mod discovery;
pub mod machines;
pub mod passage;
pub mod replay;

use std::net::Ipv6Addr;

/// What a Fly Machine is told in its environment.
///
/// Source: Fly's "Machine Runtime Environment". The private address changes on migration and sometimes on start, so
/// it is read at boot and never used as an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `FLY_APP_NAME`.
    pub app: String,
    /// `FLY_MACHINE_ID`: stable for the life of the Machine.
    pub machine: String,
    /// `FLY_REGION`, three letters.
    pub region: String,
    /// `FLY_PRIVATE_IP`, the address on the private network.
    pub private_ip: Option<Ipv6Addr>,
    /// `FLY_PROCESS_GROUP`.
    pub process_group: Option<String>,
    /// `FLY_IMAGE_REF`: the image that runs, which a rollback names.
    pub image: Option<String>,
    /// `FLY_MACHINE_VERSION`: changes with each new configuration of the Machine, the id does not.
    pub version: Option<String>,
    /// `FLY_VM_MEMORY_MB`, in MiB.
    pub memory_mb: Option<u32>,
}

/// The environment claims to be a Fly Machine but contradicts itself; the platform or the image is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Part of the set is there and part is not.
    #[error("FLY_MACHINE_ID is set but `{0}` is missing")]
    Missing(&'static str),
    /// Not an IPv6 address.
    #[error("FLY_PRIVATE_IP is not an IPv6 address: `{0}`")]
    BadAddress(String),
    /// Not a number of MiB.
    #[error("FLY_VM_MEMORY_MB is not a number of MiB: `{0}`")]
    BadMemory(String),
}

impl Identity {
    /// Reads the identity through `get`, the process's environment in production. `Ok(None)`: not on Fly.
    ///
    /// # Errors
    /// When the machine id is there but something it always comes with is missing or malformed.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, IdentityError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let Some(machine) = get("FLY_MACHINE_ID") else { return Ok(None) };
        let private_ip = match get("FLY_PRIVATE_IP") {
            Some(text) => Some(text.parse().map_err(|_| IdentityError::BadAddress(text))?),
            None => None,
        };
        let memory_mb = match get("FLY_VM_MEMORY_MB") {
            Some(text) => match text.parse() {
                Ok(mb) if mb > 0 => Some(mb),
                _ => return Err(IdentityError::BadMemory(text)),
            },
            None => None,
        };
        Ok(Some(Self {
            app: get("FLY_APP_NAME").ok_or(IdentityError::Missing("FLY_APP_NAME"))?,
            machine,
            region: get("FLY_REGION").ok_or(IdentityError::Missing("FLY_REGION"))?,
            private_ip,
            process_group: get("FLY_PROCESS_GROUP"),
            image: get("FLY_IMAGE_REF"),
            version: get("FLY_MACHINE_VERSION"),
            memory_mb,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(environment: &[(&str, &str)]) -> Result<Option<Identity>, IdentityError> {
        Identity::read(|name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[track_caller]
    fn check(environment: &[(&str, &str)], expected: Result<Option<(&str, &str)>, IdentityError>) {
        let read = read(environment).map(|identity| identity.map(|i| (i.machine, i.region)));
        assert_eq!(read, expected.map(|found| found.map(|(m, r)| (m.to_owned(), r.to_owned()))));
    }

    const WHOLE: [(&str, &str); 4] = [
        ("FLY_APP_NAME", "peregrine"),
        ("FLY_MACHINE_ID", "148e4d2b"),
        ("FLY_REGION", "ord"),
        ("FLY_PRIVATE_IP", "fdaa:0:1::2"),
    ];

    #[test]
    fn a_machine_knows_its_region() {
        check(&WHOLE, Ok(Some(("148e4d2b", "ord"))));
    }

    #[test]
    fn elsewhere_there_is_no_identity() {
        check(&[], Ok(None));
        check(&[("FLY_MACHINE_ID", "")], Ok(None));
    }

    #[test]
    fn a_partial_environment_is_an_error() {
        check(&WHOLE[..2], Err(IdentityError::Missing("FLY_REGION")));
    }

    #[test]
    fn it_knows_its_image_its_version_and_its_memory() {
        let more = [
            ("FLY_IMAGE_REF", "registry.fly.io/peregrine:deployment-1"),
            ("FLY_MACHINE_VERSION", "01K"),
            ("FLY_VM_MEMORY_MB", "8192"),
        ];
        let identity = read(&[&WHOLE[..], &more[..]].concat()).unwrap().unwrap();
        assert_eq!(identity.image.as_deref(), Some("registry.fly.io/peregrine:deployment-1"));
        assert_eq!((identity.version.as_deref(), identity.memory_mb), (Some("01K"), Some(8192)));
        let bare = read(&WHOLE).unwrap().unwrap();
        assert_eq!((bare.image, bare.version, bare.memory_mb), (None, None, None));
        for odd in ["0", "-1", "8gb", "4294967296"] {
            let environment = [&WHOLE[..], &[("FLY_VM_MEMORY_MB", odd)][..]].concat();
            check(&environment, Err(IdentityError::BadMemory(odd.to_owned())));
        }
    }

    #[test]
    fn an_address_must_be_ipv6() {
        let mut environment = WHOLE;
        environment[3].1 = "10.0.0.1";
        check(&environment, Err(IdentityError::BadAddress("10.0.0.1".to_owned())));
    }
}
