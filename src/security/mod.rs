//! Who may do what, and how often: API keys, tokens, scopes, rates. Knows no HTTP; `gateway/guard` reads headers for it.
//!
//! Keys are kept as hashes and never logged. The rules are replaced whole when the configuration or the file of keys
//! is read again; a file that cannot be used leaves them as they are.

mod calendar;
mod jwks;
mod key;
pub(crate) mod keys;
mod limit;
mod own_name;
mod rules;
mod scopes;
mod signature;
pub(crate) mod token;

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use peregrine_runtime::Clock;

use crate::config::{Config, SecurityConfig};
use crate::reload::{Room, Staged};
pub(crate) use calendar::{Civil, rfc3339};
pub(crate) use key::{KeyHash, NewKey};
use keys::Key;
pub(crate) use keys::{BadKeys, expiry, is_name, parse as parse_keys};
use limit::Table;
use own_name::own_names;
pub(crate) use rules::{Bearer, Caller, Denied, Rules, name_of};
pub(crate) use scopes::Scopes;
use token::{Issuer, Token, is_token};

/// Callers whose requests are counted at once; more, and whoever asked longest ago begins anew.
const CALLERS_MAX: usize = 65_536;
/// Tokens that are known by their hash. Full, those that have ended are forgotten, or else all: they are verified again.
const TOKENS_MAX: usize = 8192;
/// Of the file of keys.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The rules in use, and what is counted of them. Shared by all workers.
pub(crate) struct Security {
    rules: RwLock<Arc<Rules>>,
    keys: Mutex<Table<KeyHash>>,
    addresses: Mutex<Table<IpAddr>>,
    /// Whose signatures were good.
    tokens: Mutex<HashMap<KeyHash, Arc<Token>>>,
    limited: [AtomicU64; 2],
    denied: [AtomicU64; Denied::KINDS.len()],
}

/// Kinds of callers whose requests were too many.
const LIMITED: [&str; 2] = ["key", "address"];

/// Why a request is not let in; the caller acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Denied(Denied),
    /// Too many requests; there is room for one after so long.
    Limited(Duration),
}

/// A file of keys, or of an identity provider's, that cannot be used; the operator acts.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("{}: {source}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no list of keys.
    #[error("{}: {reason}", file.display())]
    Bad {
        /// Which.
        file: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}

impl Security {
    /// By the configuration and the file of keys that it names.
    pub(crate) fn start(config: &SecurityConfig) -> Result<Arc<Self>, KeysError> {
        let rules = read(config)?;
        Ok(Arc::new(Self {
            rules: RwLock::new(Arc::new(rules)),
            keys: Mutex::new(Table::new(CALLERS_MAX)),
            addresses: Mutex::new(Table::new(CALLERS_MAX)),
            tokens: Mutex::default(),
            limited: Default::default(),
            denied: Default::default(),
        }))
    }

    /// As of now; later changes do not reach it.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    /// Who shows this. Whether that is enough, and not too late, is asked later.
    pub(crate) fn bearer(&self, shown: &[u8], clock: &dyn Clock) -> Bearer {
        let hash = KeyHash::of(shown);
        let rules = self.rules();
        let Some(issuer) = rules.issuer().filter(|_| is_token(shown) && !rules.knows(&hash)) else {
            return Bearer::Key(hash);
        };
        if let Some(known) = self.tokens.lock().get(&hash) {
            return Bearer::Token(Arc::clone(known));
        }
        // Without the lock: a signature takes a while.
        match issuer.verify(shown) {
            Ok(token) => {
                let token = Arc::new(token);
                self.remember(hash, &token, clock);
                Bearer::Token(token)
            }
            Err(why) => Bearer::BadToken(why),
        }
    }

    fn remember(&self, hash: KeyHash, token: &Arc<Token>, clock: &dyn Clock) {
        let mut tokens = self.tokens.lock();
        if tokens.len() >= TOKENS_MAX {
            let now = clock.wall();
            tokens.retain(|_, token| token.expires > now);
        }
        if tokens.len() >= TOKENS_MAX {
            tokens.clear();
        }
        tokens.insert(hash, Arc::clone(token));
    }

    /// Lets a request in, or says why not. Who is refused has asked nevertheless.
    pub(crate) fn admit(&self, caller: &Caller, needed: Scopes, clock: &dyn Clock) -> Result<(), Refused> {
        if needed == Scopes::NONE {
            return Ok(());
        }
        let rules = self.rules();
        let verdict = rules.check(caller, needed, clock.wall());
        // A key that is no good is nobody's: its bearer is counted by address.
        let bearer = match verdict {
            Err(Denied::Unknown | Denied::Expired | Denied::Token(_)) => &Bearer::Nobody,
            _ => &caller.bearer,
        };
        self.count(&rules, bearer, caller.address, clock)?;
        verdict.map_err(|denied| self.deny(denied))
    }

    /// One more request, or message, of somebody who was let in.
    pub(crate) fn again(&self, caller: &Caller, clock: &dyn Clock) -> Result<(), Refused> {
        self.count(&self.rules(), &caller.bearer, caller.address, clock)
    }

    /// Tells a caller from others, as its requests are counted.
    pub(crate) fn number_of(caller: &Caller) -> u64 {
        let mut hasher = DefaultHasher::new();
        match (&caller.bearer, caller.address) {
            (Bearer::Key(hash), _) => hash.hash(&mut hasher),
            (Bearer::Token(token), _) => KeyHash::of(token.name.as_bytes()).hash(&mut hasher),
            (_, address) => address.map(household).hash(&mut hasher),
        }
        hasher.finish()
    }

    pub(crate) fn deny(&self, denied: Denied) -> Refused {
        self.denied[denied.kind()].fetch_add(1, Ordering::Relaxed);
        Refused::Denied(denied)
    }

    fn count(
        &self,
        rules: &Rules,
        bearer: &Bearer,
        address: Option<IpAddr>,
        clock: &dyn Clock,
    ) -> Result<(), Refused> {
        if !rules.limits() {
            return Ok(());
        }
        let Some(rate) = rules.rate(bearer) else { return Ok(()) };
        let (kind, verdict) = match (bearer, address) {
            (Bearer::Key(hash), _) => (0, self.keys.lock().take(*hash, rate, clock.now())),
            // However many tokens somebody is given.
            (Bearer::Token(token), _) => {
                (0, self.keys.lock().take(KeyHash::of(token.name.as_bytes()), rate, clock.now()))
            }
            (_, Some(ip)) => (1, self.addresses.lock().take(household(ip), rate, clock.now())),
            (_, None) => return Ok(()), // the client is gone already
        };
        verdict.map_err(|after| {
            self.limited[kind].fetch_add(1, Ordering::Relaxed);
            Refused::Limited(after)
        })
    }

    /// Requests that were too many, by kind of caller.
    pub(crate) fn limited(&self) -> impl Iterator<Item = (&'static str, u64)> {
        LIMITED.into_iter().zip(self.limited.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Requests that were denied, by reason.
    pub(crate) fn denied(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Denied::KINDS.into_iter().zip(self.denied.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn household(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// What is wrong with the files that the configuration names, by key.
pub(crate) fn bad_files(config: &SecurityConfig) -> Vec<(&'static str, KeysError)> {
    let keys = keys_of(config).err().map(|error| ("security.keys", error));
    let issuer = issuer_of(config).err().map(|error| ("security.jwks", error));
    keys.into_iter().chain(issuer).collect()
}

fn read(config: &SecurityConfig) -> Result<Rules, KeysError> {
    Ok(Rules::new(config, keys_of(config)?, issuer_of(config)?).on_machine(own_names()))
}

fn keys_of(config: &SecurityConfig) -> Result<Vec<Key>, KeysError> {
    let Some(file) = &config.keys else { return Ok(Vec::new()) };
    let keys = parse_keys(&text(file)?).map_err(|error: BadKeys| bad(file, error.to_string()))?;
    if keys.is_empty() && config.required && config.tokens.is_none() {
        let reason = "there is no key in it, and security.required lets nobody in without one";
        return Err(bad(file, reason.to_owned()));
    }
    Ok(keys)
}

fn issuer_of(config: &SecurityConfig) -> Result<Option<Arc<Issuer>>, KeysError> {
    let Some(tokens) = &config.tokens else { return Ok(None) };
    let issuer = Issuer::new(tokens, &text(&tokens.jwks)?);
    issuer.map(|issuer| Some(Arc::new(issuer))).map_err(|error| bad(&tokens.jwks, error.to_string()))
}

fn bad(file: &Path, reason: String) -> KeysError {
    KeysError::Bad { file: file.to_owned(), reason }
}

fn text(file: &Path) -> Result<String, KeysError> {
    bounded(file).map_err(|source| KeysError::Unreadable { file: file.to_owned(), source })
}

fn bounded(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than a mebibyte"));
    }
    Ok(text)
}

/// Reads the keys again with every reload.
pub(crate) struct SecurityRoom(pub(crate) Arc<Security>);

impl Room for SecurityRoom {
    fn name(&self) -> &'static str {
        "security"
    }

    fn reads_files(&self) -> bool {
        true
    }

    fn prepare(&self, next: &Arc<Config>) -> Result<Staged, String> {
        let rules = Arc::new(read(&next.security).map_err(|error| error.to_string())?);
        let security = Arc::clone(&self.0);
        Ok(Box::new(move || {
            let was = std::mem::replace(&mut *security.rules.write(), Arc::clone(&rules));
            let is_other = was != rules;
            if is_other {
                tracing::info!(keys = rules.keys().len(), "rules of access replaced");
            }
            is_other
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bearer: Bearer, address: &str) -> u64 {
        let address = Some(address.parse().unwrap());
        Security::number_of(&Caller { bearer, address, is_local: false, is_misled: false })
    }

    #[test]
    fn a_key_is_one_caller_wherever_it_comes_from_and_nobody_is_an_address() {
        let key = |text: &[u8]| Bearer::Key(KeyHash::of(text));
        assert_eq!(number(key(b"a"), "192.0.2.1"), number(key(b"a"), "192.0.2.2"));
        assert_ne!(number(key(b"a"), "192.0.2.1"), number(key(b"b"), "192.0.2.1"));
        assert_ne!(number(Bearer::Nobody, "192.0.2.1"), number(Bearer::Nobody, "192.0.2.2"));
        assert_ne!(number(Bearer::Nobody, "192.0.2.1"), number(key(b"a"), "192.0.2.1"));
        assert_eq!(number(Bearer::Nobody, "2001:db8::1"), number(Bearer::Nobody, "2001:db8::2:1"));
        assert_ne!(number(Bearer::Nobody, "2001:db8::1"), number(Bearer::Nobody, "2001:db8:0:1::1"));
    }
}
