//! The platform's names for Machines on its private network: how they are formed, and what the text records say.
//!
//! Pure text; nothing is looked up here. Only started Machines have names, well or not, and an address may be another's
//! by the time it is dialled: who answers is proven by credentials, never by a name. Source: Fly's "Private Networking".

use std::fmt;
use std::net::Ipv6Addr;

/// Most Machines that are read of one answer; a resolver that says more is wrong, or hostile.
pub const INSTANCES_MAX: usize = 4096;
/// Most bytes that are read of one answer: a DNS message over TCP has no more.
pub const ANSWER_BYTES_MAX: usize = 65_535;
/// Largest N of the N nearest; the platform has no more regions than fit twice.
pub const NEAREST_MAX: u8 = 36;
/// Longest label of a name (RFC 1035).
const LABEL_BYTES_MAX: usize = 63;

/// The private network's resolver, on every Machine. A WireGuard peer has [`peer_resolver`].
pub const RESOLVER: Ipv6Addr = Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 3);

/// Some of an application's started Machines. `Display` is the name that has their addresses (AAAA).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machines<'a> {
    app: &'a str,
    which: Which<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Which<'a> {
    All,
    Region(&'a str),
    Nearest(u8),
    Group(&'a str),
    Machine(&'a str),
    Tagged { key: &'a str, value: &'a str },
}

/// A name that cannot be. The program or the operator acts: whoever wrote the part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It would be another name, or none.
    #[error("`{0}` is no part of a name: 1 to 63 letters, digits, `-` and `_`")]
    Label(String),
    /// None, or more than there are.
    #[error("the {0} nearest: 1 to {NEAREST_MAX} can be asked for")]
    Nearest(u8),
}

impl<'a> Machines<'a> {
    /// All of an application.
    ///
    /// # Errors
    /// When `app` is no label of a name.
    pub fn of(app: &'a str) -> Result<Self, NameError> {
        Ok(Self { app: label(app)?, which: Which::All })
    }

    /// Those in a region.
    ///
    /// # Errors
    /// When `region` is no label of a name.
    pub fn in_region(self, region: &'a str) -> Result<Self, NameError> {
        Ok(Self { which: Which::Region(label(region)?), ..self })
    }

    /// So many, the nearest by round trip.
    ///
    /// # Errors
    /// When there cannot be so many.
    pub fn nearest(self, count: u8) -> Result<Self, NameError> {
        if !(1..=NEAREST_MAX).contains(&count) {
            return Err(NameError::Nearest(count));
        }
        Ok(Self { which: Which::Nearest(count), ..self })
    }

    /// Those of a process group.
    ///
    /// # Errors
    /// When `group` is no label of a name.
    pub fn in_group(self, group: &'a str) -> Result<Self, NameError> {
        Ok(Self { which: Which::Group(label(group)?), ..self })
    }

    /// One, by its id.
    ///
    /// # Errors
    /// When `id` is no label of a name.
    pub fn one(self, id: &'a str) -> Result<Self, NameError> {
        Ok(Self { which: Which::Machine(label(id)?), ..self })
    }

    /// Those whose metadata has the pair.
    ///
    /// # Errors
    /// When either is no label of a name.
    pub fn tagged(self, key: &'a str, value: &'a str) -> Result<Self, NameError> {
        Ok(Self { which: Which::Tagged { key: label(key)?, value: label(value)? }, ..self })
    }

    /// The name whose text record lists the ids and regions, see [`machines`].
    #[must_use]
    pub fn listing(&self) -> String {
        format!("vms.{}.internal", self.app)
    }

    /// As `cluster.seeds` writes a name to look for nodes at.
    #[must_use]
    pub fn seed(&self, port: u16) -> String {
        format!("{self}:{port}")
    }
}

impl fmt::Display for Machines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.which {
            Which::All => {}
            Which::Region(region) => write!(f, "{region}.")?,
            Which::Nearest(count) => write!(f, "top{count}.nearest.of.")?,
            Which::Group(group) => write!(f, "{group}.process.")?,
            Which::Machine(id) => write!(f, "{id}.vm.")?,
            Which::Tagged { key, value } => write!(f, "{value}.{key}.kv._metadata.")?,
        }
        write!(f, "{}.internal", self.app)
    }
}

/// The resolver of a WireGuard peer's network, from the peer's own address: `fdaa:<network>::3`. `None`: not an address
/// of a private network.
#[must_use]
pub fn peer_resolver(own: Ipv6Addr) -> Option<Ipv6Addr> {
    let [fly, high, low, ..] = own.segments();
    (fly == RESOLVER.segments()[0]).then(|| Ipv6Addr::new(fly, high, low, 0, 0, 0, 0, 3))
}

/// A text record that does not say what it should: the resolver is wrong, or not the platform's. Never repeats more than
/// a little of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Too long to read.
    #[error("an answer of {0} bytes; {ANSWER_BYTES_MAX} are read")]
    TooLong(usize),
    /// Too many entries to keep.
    #[error("an answer with more than {INSTANCES_MAX} entries")]
    TooMany,
    /// Bytes that are no text.
    #[error("an answer that is no text")]
    NoText,
    /// An entry of another form.
    #[error("entry {position} of an answer is `{entry}`, which is no {what}")]
    Entry {
        /// From 1.
        position: usize,
        /// Its beginning.
        entry: String,
        /// What it should be.
        what: &'static str,
    },
}

/// A Machine as `vms.<app>.internal` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub machine: String,
    /// Where it is.
    pub region: String,
}

/// A Machine as `_instances.internal` lists it, whatever its application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub machine: String,
    /// Its application.
    pub app: String,
    /// Its address at this moment.
    pub private_ip: Ipv6Addr,
    /// Where it is.
    pub region: String,
}

/// Reads the text record of `vms.<app>.internal`: `id region` after commas. `strings` are those of the record, in order.
///
/// # Errors
/// See [`AnswerError`]; half an answer is none.
pub fn machines(strings: &[&[u8]]) -> Result<Vec<Listed>, AnswerError> {
    entries(strings, ',', "id and region", |entry| {
        let (machine, region) = entry.split_once(' ')?;
        Some(Listed { machine: label(machine).ok()?.to_owned(), region: label(region).ok()?.to_owned() })
    })
}

/// Reads the text record of `_instances.internal`: `instance=ID,app=NAME,ip=ADDR,region=REG` after semicolons. A string
/// of the record may end within an entry. Keys that are not known are passed over.
///
/// # Errors
/// See [`AnswerError`]; half an answer is none.
pub fn instances(strings: &[&[u8]]) -> Result<Vec<Instance>, AnswerError> {
    entries(strings, ';', "instance", |entry| {
        let (mut machine, mut app, mut ip, mut region) = (None, None, None, None);
        for pair in entry.split(',') {
            let (key, value) = pair.trim().split_once('=')?;
            // Said twice, one of them is a lie.
            let is_new = match key {
                "instance" => machine.replace(label(value).ok()?.to_owned()).is_none(),
                "app" => app.replace(label(value).ok()?.to_owned()).is_none(),
                "ip" => ip.replace(value.parse().ok()?).is_none(),
                "region" => region.replace(label(value).ok()?.to_owned()).is_none(),
                _ => true,
            };
            if !is_new {
                return None;
            }
        }
        Some(Instance { machine: machine?, app: app?, private_ip: ip?, region: region? })
    })
}

/// Entries of a record, put together from its strings first.
fn entries<T>(
    strings: &[&[u8]],
    separator: char,
    what: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, AnswerError> {
    let bytes = strings.iter().map(|string| string.len()).fold(0, usize::saturating_add);
    if bytes > ANSWER_BYTES_MAX {
        return Err(AnswerError::TooLong(bytes));
    }
    let text = String::from_utf8(strings.concat()).map_err(|_| AnswerError::NoText)?;
    let mut found = Vec::new();
    for entry in text.split(separator).map(str::trim).filter(|entry| !entry.is_empty()) {
        if found.len() == INSTANCES_MAX {
            return Err(AnswerError::TooMany);
        }
        let position = found.len() + 1;
        found.push(read(entry).ok_or_else(|| AnswerError::Entry {
            position,
            entry: entry.chars().take(LABEL_BYTES_MAX).collect(),
            what,
        })?);
    }
    Ok(found)
}

/// One part of a name: nothing in it may end the part or begin another.
fn label(text: &str) -> Result<&str, NameError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=LABEL_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text)
    } else {
        Err(NameError::Label(text.chars().take(LABEL_BYTES_MAX).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> Machines<'static> {
        Machines::of("peregrine").unwrap()
    }

    #[test]
    fn each_set_of_machines_has_its_name() {
        let check = |machines: Result<Machines<'_>, NameError>, name: &str| {
            assert_eq!(machines.unwrap().to_string(), name);
        };
        check(Ok(app()), "peregrine.internal");
        check(app().in_region("fra"), "fra.peregrine.internal");
        check(app().nearest(3), "top3.nearest.of.peregrine.internal");
        check(app().in_group("node"), "node.process.peregrine.internal");
        check(app().one("148e4d2b"), "148e4d2b.vm.peregrine.internal");
        check(app().tagged("role", "gpu"), "gpu.role.kv._metadata.peregrine.internal");
        assert_eq!(app().listing(), "vms.peregrine.internal");
        assert_eq!(app().in_region("fra").unwrap().seed(7946), "fra.peregrine.internal:7946");
    }

    #[test]
    fn a_part_cannot_become_another_name() {
        let long = "a".repeat(64);
        for odd in ["", "a.b", "a b", "a\n", "é", "*", "a:1", &long] {
            let refused = NameError::Label(odd.chars().take(63).collect());
            assert_eq!(Machines::of(odd), Err(refused.clone()), "{odd}");
            for made in [app().in_region(odd), app().in_group(odd), app().one(odd), app().tagged(odd, "a")] {
                assert_eq!(made, Err(refused.clone()), "{odd}");
            }
            assert_eq!(app().tagged("a", odd), Err(refused), "{odd}");
        }
        for count in [0, NEAREST_MAX + 1, u8::MAX] {
            assert_eq!(app().nearest(count), Err(NameError::Nearest(count)));
        }
    }

    #[test]
    fn a_peer_asks_the_resolver_of_its_own_network() {
        let resolver = |own: &str| peer_resolver(own.parse().unwrap()).map(|found| found.to_string());
        assert_eq!(resolver("fdaa:7:b18:a7b:b9e:0:a:102"), Some("fdaa:7:b18::3".to_owned()));
        assert_eq!(resolver("fd00::1"), None);
        assert_eq!(RESOLVER.to_string(), "fdaa::3");
    }

    #[test]
    fn machines_are_listed_with_their_regions() {
        let listed = |machine: &str, region: &str| Listed { machine: machine.into(), region: region.into() };
        let read = machines(&[b"148e4d2b iad,90801d5f ", b"fra"]);
        assert_eq!(read, Ok(vec![listed("148e4d2b", "iad"), listed("90801d5f", "fra")]));
        assert_eq!(machines(&[]), Ok(Vec::new()));
        assert_eq!(machines(&[b""]), Ok(Vec::new()));
    }

    #[test]
    fn an_entry_may_go_over_from_one_string_to_the_next() {
        let whole = "instance=148e4d2b,app=peregrine,ip=fdaa:0:1:a7b::2,region=iad;\
                     instance=90801d5f,app=other,ip=fdaa:0:1:a7b::3,region=fra,new=1";
        let first = Instance {
            machine: "148e4d2b".into(),
            app: "peregrine".into(),
            private_ip: "fdaa:0:1:a7b::2".parse().unwrap(),
            region: "iad".into(),
        };
        for cut in 0..=whole.len() {
            let read = instances(&[&whole.as_bytes()[..cut], &whole.as_bytes()[cut..]]).unwrap();
            assert_eq!(read.len(), 2, "cut at {cut}");
            assert_eq!(read[0], first, "cut at {cut}");
            assert_eq!((&*read[1].app, &*read[1].region), ("other", "fra"), "cut at {cut}");
        }
    }

    #[test]
    fn what_says_something_else_is_refused_whole() {
        let entry = |position: usize, entry: &str, what| AnswerError::Entry {
            position,
            entry: entry.to_owned(),
            what,
        };
        assert_eq!(machines(&[b"148e4d2b iad,none"]), Err(entry(2, "none", "id and region")));
        assert_eq!(machines(&[b"a b c"]), Err(entry(1, "a b c", "id and region")));
        for odd in [
            "instance=a,app=b,region=c",
            "instance=a,app=b,ip=10.0.0.1,region=c",
            "instance=a,app=b,ip=::1,region=c,region=d",
            "instance=a.b,app=b,ip=::1,region=c",
            "instance=,app=b,ip=::1,region=c",
            "instance",
        ] {
            assert_eq!(instances(&[odd.as_bytes()]), Err(entry(1, odd, "instance")), "{odd}");
        }
        assert_eq!(machines(&[&[0xff, 0xfe]]), Err(AnswerError::NoText));
    }

    #[test]
    fn an_answer_is_bounded_in_bytes_and_entries_and_an_error_in_length() {
        let text = "a b,".repeat(INSTANCES_MAX);
        assert_eq!(machines(&[text.as_bytes()]).map(|found| found.len()), Ok(INSTANCES_MAX));
        assert_eq!(machines(&[text.as_bytes(), b"a b"]), Err(AnswerError::TooMany));
        let long = vec![b'a'; ANSWER_BYTES_MAX];
        assert_eq!(machines(&[&long, b"a"]), Err(AnswerError::TooLong(ANSWER_BYTES_MAX + 1)));
        let Err(AnswerError::Entry { entry, .. }) = machines(&[&long]) else {
            panic!("one word is no entry")
        };
        assert_eq!(entry.len(), LABEL_BYTES_MAX);
    }
}
