//! May this caller do that? Plain values in, a verdict out; knows no HTTP, file or clock.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::key::KeyHash;
use super::keys::Key;
use super::scopes::Scopes;
use super::token::{BadToken, Issuer, LEEWAY, Token};
use crate::config::{Rate, Scope, SecurityConfig};

const ALL: Scopes = Scopes::of(&Scope::ALL);
const ALL_BUT_ADMIN: Scopes = Scopes::of(&[Scope::Predict, Scope::Ingest, Scope::Observe]);

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) bearer: Bearer,
    /// Of the socket; no header has a say in it.
    pub(crate) address: Option<IpAddr>,
    /// On this machine, and not sent by a web page from elsewhere.
    pub(crate) is_local: bool,
    /// On this machine, and asks for a name that is not known to be this node's: a browser there may have been told that
    /// the name of a page's server is this machine.
    pub(crate) is_misled: bool,
}

/// What a caller shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bearer {
    Nobody,
    Key(KeyHash),
    /// Its signature is good.
    Token(Arc<Token>),
    /// A token, and no good.
    BadToken(BadToken),
}

/// Why a caller may not; the caller acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// 401.
    #[error(
        "this needs an API key or token with scope {needed}: `Authorization: Bearer KEY` or `x-api-key: KEY`"
    )]
    NoKey { needed: Scopes },
    /// 401.
    #[error("this API key is not known here, or was revoked")]
    Unknown,
    /// 401.
    #[error("this API key or token has expired")]
    Expired,
    /// 401.
    #[error("this token is not taken: {0}")]
    Token(BadToken),
    /// 403.
    #[error("this API key or token lacks scope {needed}")]
    Scope { needed: Scopes },
    /// 403.
    #[error(
        "pages of this origin may open no websocket and send nothing here: `security.cors_origins` names those that may"
    )]
    Origin,
    /// 403.
    #[error(
        "without a key, a caller on the node's own machine names it by address, as `localhost`, or by the host name that \
         `/etc/hosts` leads here, since any page can have its name lead here: `security.cors_origins` makes other names known"
    )]
    Host,
}

impl Denied {
    pub(crate) const KINDS: [&str; 7] =
        ["no_key", "unknown_key", "expired", "scope", "origin", "token", "host"];

    /// In [`Denied::KINDS`].
    pub(crate) const fn kind(self) -> usize {
        match self {
            Self::NoKey { .. } => 0,
            Self::Unknown => 1,
            Self::Expired => 2,
            Self::Scope { .. } => 3,
            Self::Origin => 4,
            Self::Token(_) => 5,
            Self::Host => 6,
        }
    }
}

/// What the configuration and the file of keys say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    required: bool,
    anonymous: Scopes,
    rate: Option<Rate>,
    origins: Vec<String>,
    /// Of this machine; see [`super::own_name`].
    names: Vec<String>,
    keys: Vec<Key>,
    /// `None`: no tokens are taken.
    issuer: Option<Arc<Issuer>>,
}

impl Rules {
    pub(crate) fn new(config: &SecurityConfig, keys: Vec<Key>, issuer: Option<Arc<Issuer>>) -> Self {
        let anonymous = Scopes::of(&config.anonymous);
        let (rate, origins) = (config.rate, config.cors_origins.clone());
        Self { required: config.required, anonymous, rate, origins, names: Vec::new(), keys, issuer }
    }

    /// The same on a machine that has these names.
    pub(super) fn on_machine(self, names: Vec<String>) -> Self {
        Self { names, ..self }
    }

    /// Whose tokens are taken.
    pub(super) fn issuer(&self) -> Option<&Arc<Issuer>> {
        self.issuer.as_ref()
    }

    pub(crate) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Every key is compared, so that time tells nothing of which one it is.
    fn find(&self, hash: &KeyHash) -> Option<&Key> {
        self.keys.iter().fold(None, |found, key| if key.hash.is(hash) { Some(key) } else { found })
    }

    /// Is it one of the keys?
    pub(super) fn knows(&self, hash: &KeyHash) -> bool {
        self.find(hash).is_some()
    }

    /// The name of the caller's key, or of whom its token is for; empty if it shows none that is known.
    pub(crate) fn name(&self, bearer: &Bearer) -> Arc<str> {
        match bearer {
            Bearer::Nobody | Bearer::BadToken(_) => Arc::default(),
            Bearer::Token(token) => Arc::clone(&token.name),
            Bearer::Key(hash) => self.find(hash).map(|key| Arc::clone(&key.name)).unwrap_or_default(),
        }
    }

    /// What the caller may do. A key adds to what can be done without one and takes nothing away.
    pub(crate) fn scopes(&self, caller: &Caller, now: SystemTime) -> Result<Scopes, Denied> {
        let free = match (self.required, caller.is_local) {
            (true, _) => self.anonymous,
            (false, true) => ALL,
            (false, false) => ALL_BUT_ADMIN,
        };
        match &caller.bearer {
            // What everybody may do, the operator has said; else being here is what counts.
            Bearer::Nobody if caller.is_misled && !self.required => Err(Denied::Host),
            Bearer::Nobody => Ok(free),
            Bearer::Key(hash) => {
                let key = self.find(hash).ok_or(Denied::Unknown)?;
                if key.expires.is_some_and(|expires| expires <= now) {
                    return Err(Denied::Expired);
                }
                Ok(free.and(key.scopes))
            }
            Bearer::Token(token) => {
                if !self.issuer.as_ref().is_some_and(|issuer| issuer.trusts(&token.key)) {
                    return Err(Denied::Token(BadToken::Key));
                }
                if token.expires + LEEWAY <= now {
                    return Err(Denied::Expired);
                }
                if now + LEEWAY < token.not_before {
                    return Err(Denied::Token(BadToken::Early));
                }
                Ok(free.and(token.scopes))
            }
            Bearer::BadToken(why) => Err(Denied::Token(*why)),
        }
    }

    /// May the caller do what needs one of these scopes? What needs none is free, whatever key is shown.
    pub(crate) fn check(&self, caller: &Caller, needed: Scopes, now: SystemTime) -> Result<(), Denied> {
        if needed == Scopes::NONE || self.scopes(caller, now)?.suffice(needed) {
            return Ok(());
        }
        Err(match caller.bearer {
            Bearer::Nobody => Denied::NoKey { needed },
            _ => Denied::Scope { needed },
        })
    }

    /// How often this caller may ask.
    pub(crate) fn rate(&self, bearer: &Bearer) -> Option<Rate> {
        match bearer {
            Bearer::Nobody | Bearer::Token(_) | Bearer::BadToken(_) => self.rate,
            Bearer::Key(hash) => self.find(hash).and_then(|key| key.rate).unwrap_or(self.rate),
        }
    }

    /// Is there any limit at all?
    pub(crate) fn limits(&self) -> bool {
        self.rate.is_some() || self.keys.iter().any(|key| key.rate.flatten().is_some())
    }

    /// May pages of any other origin read answers?
    pub(crate) fn shares(&self) -> bool {
        !self.origins.is_empty()
    }

    /// May pages of this origin?
    pub(crate) fn shares_with(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|known| known.as_bytes() == origin)
    }

    /// Is that, with or without a port, a name that no stranger can have lead to this machine?
    pub(crate) fn knows_name(&self, authority: &str) -> bool {
        let name = name_of(authority);
        let is_listed = |origin: &String| {
            origin.split_once("://").is_some_and(|(_, known)| name_of(known).eq_ignore_ascii_case(name))
        };
        let is_own = || self.names.iter().any(|own| own.eq_ignore_ascii_case(name));
        name.parse::<IpAddr>().is_ok() || is_localhost(name) || is_own() || self.origins.iter().any(is_listed)
    }
}

/// An authority without its port, and without the dot that ends a full name.
pub(crate) fn name_of(authority: &str) -> &str {
    let name = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => authority.split(':').next(),
    };
    let name = name.unwrap_or_default();
    name.strip_suffix('.').unwrap_or(name)
}

/// RFC 6761 section 6.3: it and all names below it are this machine, whatever a name server says.
fn is_localhost(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const OBSERVE: Scopes = Scopes::of(&[Scope::Observe]);
    const PREDICT: Scopes = Scopes::of(&[Scope::Predict]);
    const ADMIN: Scopes = Scopes::of(&[Scope::Admin]);

    #[test]
    fn nobody_must_show_a_key_unless_it_is_required() {
        check(false, "", true, ADMIN, Ok(()));
        check(false, "", false, PREDICT, Ok(()));
        check(true, "", true, PREDICT, Err(Denied::NoKey { needed: PREDICT }));
        check(true, "", true, OBSERVE, Ok(()));
        check(true, "", false, Scopes::NONE, Ok(()));
    }

    #[test]
    fn from_afar_only_an_admin_key_changes_a_node() {
        check(false, "", false, ADMIN, Err(Denied::NoKey { needed: ADMIN }));
        check(false, "desk", false, ADMIN, Err(Denied::Scope { needed: ADMIN }));
        check(false, "boss", false, ADMIN, Ok(()));
        check(true, "", true, ADMIN, Err(Denied::NoKey { needed: ADMIN }));
        check(true, "boss", false, ADMIN, Ok(()));
    }

    #[test]
    fn a_key_does_what_its_scopes_say_until_it_expires() {
        check(true, "desk", false, PREDICT, Ok(()));
        check(true, "boss", false, PREDICT, Err(Denied::Scope { needed: PREDICT }));
        check(true, "boss", false, PREDICT.and(ADMIN), Ok(()));
        check(true, "old", false, PREDICT, Err(Denied::Expired));
        check(false, "stranger", true, PREDICT, Err(Denied::Unknown));
        check(false, "stranger", true, Scopes::NONE, Ok(()));
    }

    #[track_caller]
    fn check(required: bool, shown: &str, is_local: bool, needed: Scopes, want: Result<(), Denied>) {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let key = |name: &str, scopes, expires: Option<u64>| Key {
            name: name.into(),
            hash: KeyHash::of(name.as_bytes()),
            scopes,
            expires: expires.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
            rate: None,
        };
        let keys =
            vec![key("desk", PREDICT, Some(1001)), key("boss", ADMIN, None), key("old", PREDICT, Some(1000))];
        let anonymous = vec![Scope::Observe];
        let config = SecurityConfig { required, anonymous, ..SecurityConfig::default() };
        let rules = Rules::new(&config, keys, None);
        let bearer =
            if shown.is_empty() { Bearer::Nobody } else { Bearer::Key(KeyHash::of(shown.as_bytes())) };
        let caller = Caller { bearer, address: None, is_local, is_misled: false };
        assert_eq!(rules.check(&caller, needed, now), want);
    }

    #[test]
    fn who_was_led_here_may_only_what_everybody_may() {
        let boss = KeyHash::of(b"boss");
        let key = Key { name: "boss".into(), hash: boss, scopes: ADMIN, expires: None, rate: None };
        let check = |required, bearer, needed: Scopes, want: Result<(), Denied>| {
            let config =
                SecurityConfig { required, anonymous: vec![Scope::Observe], ..SecurityConfig::default() };
            let rules = Rules::new(&config, vec![key.clone()], None);
            let caller = Caller { bearer, address: None, is_local: true, is_misled: true };
            assert_eq!(rules.check(&caller, needed, UNIX_EPOCH), want, "{required} {needed}");
        };
        for needed in [OBSERVE, PREDICT, ADMIN] {
            check(false, Bearer::Nobody, needed, Err(Denied::Host));
            check(false, Bearer::Key(boss), needed, Ok(()));
        }
        check(false, Bearer::Nobody, Scopes::NONE, Ok(()));
        check(true, Bearer::Nobody, OBSERVE, Ok(()));
        check(true, Bearer::Nobody, PREDICT, Err(Denied::NoKey { needed: PREDICT }));
    }

    #[test]
    fn names_that_strangers_cannot_have_lead_here_are_known() {
        let cors_origins = vec!["https://desk.example".to_owned(), "http://[::1]:3000".to_owned()];
        let rules = Rules::new(&SecurityConfig { cors_origins, ..SecurityConfig::default() }, vec![], None)
            .on_machine(vec!["node-7".to_owned()]);
        for (authority, is_known) in [
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("192.0.2.1", true),
            ("localhost", true),
            ("LocalHost.:8080", true),
            ("desk.localhost:8080", true),
            ("Desk.example:8080", true),
            ("desk.example.", true),
            ("evil.example:8080", false),
            ("desk.example.evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:8080", false),
            ("evillocalhost", false),
            ("desk", false),
            ("node-7:8080", true),
            ("Node-7.", true),
            ("node-7.evil.example", false),
            ("node-77", false),
            ("", false),
        ] {
            assert_eq!(rules.knows_name(authority), is_known, "{authority}");
        }
    }
}
