//! What the programs print, and what their exit codes mean. The operator wrote them: nothing is believed unread.

use std::collections::{BTreeMap, BTreeSet};

use peregrine_scaler::fleet::{GroupSpec, Machine, MachineId, MachineState, Slot};
use serde::Deserialize;

/// Machines of one list.
const MACHINES_MAX: usize = 4096;
/// Of a machine's name, a region or a release.
const WORD_BYTES_MAX: usize = 128;

/// Not what was documented. The operator acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::scaler) enum BadOutput {
    #[error("what it printed is not what it should: {0}")]
    Json(String),
    #[error("it lists more than {MACHINES_MAX} machines")]
    TooMany,
    #[error("`{0}` is not what it can say there")]
    Word(String),
    #[error("it lists `{0}` twice")]
    Twice(String),
}

/// What an exit code says; those of `sysexits.h` where one fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scaler) enum Meaning {
    Done,
    /// 65: the machine's state does not allow it.
    WrongState,
    /// 68: there is no such machine.
    Gone,
    /// 69: the region has none left.
    NoCapacity,
    /// 71: the machine's host has no room to start it.
    HostFull,
    /// 73: there is a machine of that slot.
    SlotTaken,
    /// 75: nothing was done; come back later.
    Later,
    /// 77 and 78: it will be refused again.
    Refused,
    /// Any other: it may have happened or not.
    Failed,
}

impl Meaning {
    pub(in crate::scaler) fn of(code: Option<i32>) -> Self {
        match code {
            Some(0) => Self::Done,
            Some(65) => Self::WrongState,
            Some(68) => Self::Gone,
            Some(69) => Self::NoCapacity,
            Some(71) => Self::HostFull,
            Some(73) => Self::SlotTaken,
            Some(75) => Self::Later,
            Some(77 | 78) => Self::Refused,
            _ => Self::Failed,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListFile {
    machines: Vec<MachineFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineFile {
    machine: String,
    slot: String,
    region: String,
    release: String,
    state: StateFile,
    #[serde(default)]
    cordoned: bool,
    created_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateFile {
    Starting,
    Started,
    Stopping,
    Stopped,
    Suspended,
    Failed,
    Unknown,
    Destroying,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreatedFile {
    machine: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomFile {
    regions: BTreeMap<String, u32>,
}

/// What `list` printed: `{"machines":[{"machine":"i-7","slot":"gpu-0","region":"fra","release":"v1",
/// "state":"started","cordoned":false,"created_at":"2027-01-15T08:00:00Z"}]}`.
pub(in crate::scaler) fn machines(stdout: &[u8]) -> Result<Vec<Machine>, BadOutput> {
    let list: ListFile = read(stdout)?;
    if list.machines.len() > MACHINES_MAX {
        return Err(BadOutput::TooMany);
    }
    let (mut ids, mut slots) = (BTreeSet::new(), BTreeSet::new());
    let mut machines = Vec::with_capacity(list.machines.len());
    for file in list.machines {
        // Two machines of one slot would be two where one was asked for.
        for (known, name) in [(&mut ids, &file.machine), (&mut slots, &file.slot)] {
            if !known.insert(name.clone()) {
                return Err(BadOutput::Twice(name.clone()));
            }
        }
        machines.push(machine(file)?);
    }
    Ok(machines)
}

fn machine(file: MachineFile) -> Result<Machine, BadOutput> {
    let word = |text: String| if is_word(&text) { Ok(text) } else { Err(BadOutput::Word(text)) };
    let slot: Slot = word(file.slot)?.parse().map_err(|none| BadOutput::Word(format!("{none}")))?;
    let created_at = file.created_at.parse().map_err(|_| BadOutput::Word(file.created_at))?;
    Ok(Machine {
        id: id(file.machine)?,
        slot,
        region: word(file.region)?,
        state: match file.state {
            StateFile::Starting => MachineState::Starting,
            StateFile::Started => MachineState::Started,
            StateFile::Stopping => MachineState::Stopping,
            StateFile::Stopped => MachineState::Stopped,
            StateFile::Suspended => MachineState::Suspended,
            StateFile::Failed => MachineState::Failed,
            StateFile::Unknown => MachineState::Unknown,
            StateFile::Destroying => MachineState::Destroying,
        },
        cordoned: file.cordoned,
        release: word(file.release)?,
        created_at,
    })
}

/// What `create` printed: `{"machine":"i-7"}`.
pub(in crate::scaler) fn created(stdout: &[u8]) -> Result<MachineId, BadOutput> {
    let created: CreatedFile = read(stdout)?;
    id(created.machine)
}

/// What `room` printed: `{"regions":{"fra":3}}`; what was not asked about is left out.
pub(in crate::scaler) fn room(stdout: &[u8], group: &GroupSpec) -> Result<Vec<(String, u32)>, BadOutput> {
    let room: RoomFile = read(stdout)?;
    Ok(room.regions.into_iter().filter(|(region, _)| group.place(region).is_some()).collect())
}

/// Can a file be called so? A machine's name is one, for what is kept of it here.
pub(in crate::scaler) fn is_id(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits) && !text.starts_with('.')
}

fn id(text: String) -> Result<MachineId, BadOutput> {
    if is_id(&text) { Ok(MachineId(text)) } else { Err(BadOutput::Word(text)) }
}

fn is_word(text: &str) -> bool {
    (1..=WORD_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

fn read<'a, T: Deserialize<'a>>(stdout: &'a [u8]) -> Result<T, BadOutput> {
    serde_json::from_slice(stdout).map_err(|error| BadOutput::Json(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"machine":"i-7","slot":"gpu-0","region":"fra","release":"v1","state":"started","created_at":"2027-01-15T08:00:00Z"}"#;

    fn list(machines: &[String]) -> Result<Vec<Machine>, BadOutput> {
        super::machines(format!("{{\"machines\":[{}]}}", machines.join(",")).as_bytes())
    }

    #[test]
    fn a_list_is_read_whole_or_not_at_all() {
        let other = ONE.replace("i-7", "i-8").replace("gpu-0", "gpu-1");
        let machines = list(&[ONE.to_owned(), other.replace("started", "suspended")]).unwrap();
        assert_eq!(machines[0].slot, Slot { group: "gpu".to_owned(), number: 0 });
        assert_eq!((machines[1].id.0.as_str(), machines[1].state), ("i-8", MachineState::Suspended));
        assert_eq!(
            list(&[ONE.to_owned(), other.replace("i-8", "i-7")]),
            Err(BadOutput::Twice("i-7".to_owned()))
        );
        let twice = Err(BadOutput::Twice("gpu-0".to_owned()));
        assert_eq!(list(&[ONE.to_owned(), other.replace("gpu-1", "gpu-0")]), twice);
        for (this, that) in [
            ("i-7", "../i"),
            ("i-7", ".i"),
            ("i-7", ""),
            ("i-7", "i 7"),
            ("gpu-0", "gpu"),
            ("\"fra\"", "\"f\\na\""),
            ("\"fra\"", "null"),
            ("started", "running"),
            ("2027-01-15T", "15.1.2027 "),
            ("\"v1\"", "\"v1\",\"price\":1"),
        ] {
            let changed = ONE.replacen(this, that, 1);
            assert_ne!(changed, ONE);
            assert!(list(&[other.clone(), changed.clone()]).is_err(), "{changed}");
        }
        for text in ["", "[]", "{}", "{\"machines\":null}", "{\"machines\":[]} {}", "\u{0}"] {
            assert!(super::machines(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(super::machines(b" {\"machines\":[]}\n"), Ok(vec![]));
    }

    #[test]
    fn a_machine_may_be_called_as_its_slot() {
        assert_eq!(list(&[ONE.replace("i-7", "gpu-0")]).map(|machines| machines.len()), Ok(1));
    }

    #[test]
    fn a_list_is_not_endless() {
        let many: Vec<String> = (0..=MACHINES_MAX)
            .map(|at| ONE.replace("i-7", &format!("i-{at}")).replace("gpu-0", &format!("gpu-{at}")))
            .collect();
        assert_eq!(list(&many), Err(BadOutput::TooMany));
        assert_eq!(list(&many[1..]).map(|machines| machines.len()), Ok(MACHINES_MAX));
    }

    #[test]
    fn room_is_of_the_regions_that_were_asked_about() {
        let group = peregrine_scaler::pool::contract::group("fra");
        assert_eq!(room(br#"{"regions":{"fra":3,"iad":9}}"#, &group), Ok(vec![("fra".to_owned(), 3)]));
        assert!(room(br#"{"regions":{"fra":-1}}"#, &group).is_err());
    }
}
