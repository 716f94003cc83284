//! What is kept of a machine between two scalers: one small file, of which nothing is believed unread.

use jiff::Timestamp;
use peregrine_scaler::fleet::{MachineId, Slot};
use peregrine_scaler::pool::Hold;
use serde::{Deserialize, Serialize};

use super::super::hold::HoldFile;

/// Another number is another layout.
const FORMAT: u32 = 1;
/// Of a region or a release.
const WORD_BYTES_MAX: usize = 256;

/// A machine, but for its process.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::scaler) struct Record {
    pub(in crate::scaler) id: MachineId,
    pub(in crate::scaler) slot: Slot,
    pub(in crate::scaler) region: String,
    pub(in crate::scaler) release: String,
    pub(in crate::scaler) created_at: Timestamp,
    pub(in crate::scaler) cordoned: bool,
    pub(in crate::scaler) aim: Aim,
    /// The boot of the machine in which its process was started last.
    pub(in crate::scaler) boot: String,
    pub(in crate::scaler) hold: Option<Hold>,
}

/// What its process was last asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scaler) enum Aim {
    /// To run.
    Run,
    /// To end; whatever of it is there at that time is ended.
    End {
        /// When.
        by: Timestamp,
        /// Was it? If not, whoever decided that died before it could say so.
        asked: bool,
    },
}

/// A record that is none. The operator acts: what it was a record of may run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::scaler) enum BadRecord {
    #[error("{0}")]
    Json(String),
    #[error("format {0}, and this build reads {FORMAT}")]
    Format(u32),
    #[error("`{0}` is not what it can say there")]
    Value(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordFile {
    format: u32,
    id: String,
    slot: String,
    region: String,
    release: String,
    created_at: String,
    cordoned: bool,
    /// Left out: it is to run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    end_by: Option<String>,
    /// Left out: it was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    asked: Option<bool>,
    boot: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    hold: Option<HoldFile>,
}

impl Record {
    pub(in crate::scaler) fn encode(&self) -> Vec<u8> {
        let file = RecordFile {
            format: FORMAT,
            id: self.id.0.clone(),
            slot: self.slot.to_string(),
            region: self.region.clone(),
            release: self.release.clone(),
            created_at: self.created_at.to_string(),
            cordoned: self.cordoned,
            end_by: match self.aim {
                Aim::Run => None,
                Aim::End { by, .. } => Some(by.to_string()),
            },
            asked: matches!(self.aim, Aim::End { asked: false, .. }).then_some(false),
            boot: self.boot.clone(),
            hold: self.hold.as_ref().map(HoldFile::from),
        };
        let mut text = serde_json::to_vec_pretty(&file).expect("plain texts and numbers");
        text.push(b'\n');
        text
    }

    pub(in crate::scaler) fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let file: RecordFile =
            serde_json::from_slice(bytes).map_err(|error| BadRecord::Json(error.to_string()))?;
        if file.format != FORMAT {
            return Err(BadRecord::Format(file.format));
        }
        let slot: Slot = file.slot.parse().map_err(|_| BadRecord::Value(file.slot.clone()))?;
        if !file.id.strip_prefix(&file.slot).is_some_and(|rest| rest.starts_with('.')) || !is_word(&file.id) {
            return Err(BadRecord::Value(file.id));
        }
        if let Some(word) = [&file.region, &file.release, &file.boot].into_iter().find(|word| !is_word(word))
        {
            return Err(BadRecord::Value(word.clone()));
        }
        let time = |text: String| text.parse::<Timestamp>().map_err(|_| BadRecord::Value(text));
        let aim = match file.end_by.map(time).transpose()? {
            Some(by) => Aim::End { by, asked: file.asked.unwrap_or(true) },
            None => Aim::Run,
        };
        let hold = file.hold.map(|hold| hold.clone().hold().ok_or(BadRecord::Value(format!("{hold:?}"))));
        Ok(Self {
            id: MachineId(file.id),
            slot,
            region: file.region,
            release: file.release,
            created_at: time(file.created_at)?,
            cordoned: file.cordoned,
            aim,
            boot: file.boot,
            hold: hold.transpose()?,
        })
    }
}

/// Can it be a region's name, or a release's?
pub(in crate::scaler) fn is_word(text: &str) -> bool {
    (1..=WORD_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        Record {
            id: MachineId("gpu-worker-3.00ff".to_owned()),
            slot: "gpu-worker-3".parse().unwrap(),
            region: "fra".to_owned(),
            release: "v1".to_owned(),
            created_at: now,
            cordoned: true,
            aim: Aim::End { by: now, asked: false },
            boot: "b".to_owned(),
            hold: Some(Hold { nonce: "n".to_owned(), until: now }),
        }
    }

    #[test]
    fn a_record_is_read_as_it_is_written() {
        let asked = Aim::End { by: Timestamp::UNIX_EPOCH, asked: true };
        for record in [
            record(),
            Record { aim: asked, ..record() },
            Record { aim: Aim::Run, hold: None, cordoned: false, ..record() },
        ] {
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn what_is_no_record_is_not_believed() {
        let text = String::from_utf8(record().encode()).unwrap();
        for (this, that) in [
            ("\"format\": 1", "\"format\": 2"),
            ("\"gpu-worker-3\"", "\"gpu-worker\""),
            ("gpu-worker-3.00ff", "inference-3.00ff"),
            ("gpu-worker-3.00ff", "gpu-worker-30.00ff"),
            ("\"fra\"", "\"\""),
            ("\"fra\"", "\"f\\u0000a\""),
            ("\"fra\"", "7"),
            ("\"created_at\": \"2027", "\"created_at\": \"never"),
            ("\"end_by\": \"2027", "\"end_by\": \"99999"),
            ("\"nonce\"", "\"nonse\""),
            ("\"cordoned\": true", "\"cordoned\": true, \"pid\": 1"),
            ("}\n", ""),
        ] {
            let changed = text.replacen(this, that, 1);
            assert_ne!(changed, text, "{this}");
            assert!(Record::decode(changed.as_bytes()).is_err(), "{changed}");
        }
        let long = text.replace("\"fra\"", &format!("\"{}\"", "f".repeat(257)));
        assert!(Record::decode(long.as_bytes()).is_err());
        for bytes in [&b""[..], b"\0", b"[]", b"null", b"\xff\xfe"] {
            assert!(Record::decode(bytes).is_err());
        }
        let deep = "[".repeat(10_000);
        assert!(Record::decode(deep.as_bytes()).is_err());
    }
}
