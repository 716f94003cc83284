//! A release as requests meet it: never changed, only replaced; what is counted lives on in its successor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::canary::{Evidence, Seen, Waiting};
use super::mirror::{Leave, Mirror, ShadowStats};
use super::split::{Split, VERSIONS_MAX};
use super::state::Release;
use super::track::{Reading, Track};

/// Versions that are counted, some of which have no part any more.
const TRACKS_MAX: usize = 4 * VERSIONS_MAX;

pub(crate) struct Live {
    pub(crate) release: Release,
    split: Split,
    turns: AtomicU64,
    tracks: Vec<(u32, Arc<Track>)>,
    /// What the tracks said when the canary's step began, and when the canary began.
    marks: Option<Marks>,
    mirror: Option<Arc<Mirror>>,
}

#[derive(Clone)]
struct Marks {
    canary: Reading,
    stable: Reading,
}

/// Part of the traffic of a model that one version gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Portion {
    /// The version.
    pub version: u32,
    /// Its part, 0 to 1.
    pub share: f64,
    /// What was seen of it since the model has a release.
    pub seen: Seen,
}

/// A release at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ReleaseStatus {
    /// Name of the model.
    pub model: String,
    /// Where it stands.
    pub release: Release,
    /// Every version that has, or had, a part.
    pub portions: Vec<Portion>,
    /// Of the canary, since its step began.
    pub step: Option<Seen>,
    /// What the canary's step waits for, as far as is known without the scorecard.
    pub waiting: Option<Waiting>,
    /// What the shadow has done.
    pub shadow: Option<ShadowStats>,
}

impl Live {
    /// The successor of a release, or the first.
    pub(crate) fn after(before: Option<&Self>, release: Release) -> Self {
        let weights = release.weights();
        let mut tracks = before.map_or_else(Vec::new, |before| before.tracks.clone());
        for version in weights.iter().map(|(version, _)| *version).chain([release.stable]) {
            if !tracks.iter().any(|(known, _)| *known == version) {
                tracks.push((version, Arc::default()));
            }
        }
        if tracks.len() > TRACKS_MAX {
            let stays =
                |version: u32| release.stable == version || weights.iter().any(|(one, _)| *one == version);
            tracks.retain(|(version, _)| stays(*version));
        }
        tracks.sort_by_key(|(version, _)| *version);
        let read = |version: u32| {
            let track = tracks.iter().find(|(known, _)| *known == version);
            track.map_or_else(|| Track::default().read(), |(_, track)| track.read())
        };
        let canary_before =
            before.and_then(|before| Some((before.release.canary()?, before.marks.as_ref()?)));
        let marks = release.canary().map(|canary| match canary_before {
            Some((was, marks)) if was == canary => marks.clone(),
            // Its next step: the stable version is known since the first.
            Some((was, marks)) if was.spec == canary.spec && was.step < canary.step => {
                Marks { canary: read(canary.spec.version), stable: marks.stable.clone() }
            }
            _ => Marks { canary: read(canary.spec.version), stable: read(release.stable) },
        });
        let mirror_before = before.and_then(|before| before.mirror.clone());
        let mirror = release.shadow.map(|spec| match mirror_before {
            Some(mirror) if *mirror.spec() == spec => mirror,
            _ => Arc::new(Mirror::new(spec)),
        });
        let turns = AtomicU64::new(before.map_or(0, |before| before.turns.load(Relaxed)));
        Self { split: Split::new(weights), release, turns, tracks, marks, mirror }
    }

    /// Who answers a request with this key, or with none.
    pub(crate) fn choose(&self, key: Option<u64>) -> u32 {
        match key {
            Some(key) => self.split.by_key(key),
            None => self.split.by_turn(self.turns.fetch_add(1, Relaxed)),
        }
    }

    pub(crate) fn track(&self, version: u32) -> Option<&Track> {
        self.tracks.iter().find(|(known, _)| *known == version).map(|(_, track)| &**track)
    }

    /// Leave to ask the shadow too.
    pub(crate) fn shadow(&self) -> Option<Leave> {
        self.mirror.as_ref()?.turn()
    }

    /// What there is to judge the canary by, but for scores.
    pub(crate) fn evidence(&self) -> Option<Evidence> {
        let (canary, marks) = (self.release.canary()?, self.marks.as_ref()?);
        let seen = |version: u32, mark: &Reading| {
            self.track(version).map_or_else(Seen::default, |track| track.read().since(Some(mark)))
        };
        Some(Evidence {
            canary: seen(canary.spec.version, &marks.canary),
            stable: seen(self.release.stable, &marks.stable),
            scores: None,
        })
    }

    pub(crate) fn status(&self, model: &str, now: Instant) -> ReleaseStatus {
        let portion = |(version, track): &(u32, Arc<Track>)| Portion {
            version: *version,
            share: self.split.share(*version),
            seen: track.read().since(None),
        };
        let evidence = self.evidence();
        ReleaseStatus {
            model: model.to_owned(),
            portions: self.tracks.iter().map(portion).collect(),
            step: evidence.map(|evidence| evidence.canary),
            waiting: evidence.and_then(|evidence| self.release.reviewed(&evidence, now).err()),
            shadow: self.mirror.as_ref().map(|mirror| mirror.stats()),
            release: self.release.clone(),
        }
    }
}
