//! What a configuration names, beside what lies on this machine: one judgement for `check` and for a node that starts.

use std::fmt::Display;
use std::path::Path;
use std::time::SystemTime;

use peregrine_shaders::ModelSpec;

use crate::catalog::{self, CatalogError, Entry, Overlooked};
use crate::config::{Config, ConfigError, Holding, Mistake, Resolved, key_of as key_of_path};
use crate::demo::{Replay, ReplayError};
use crate::gateway::tls;
use crate::series_store::SeriesStore;
use crate::{alerts, cluster, scaler, security};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// Of all repositories.
    pub(crate) entries: Vec<Entry>,
    /// Empty without a file.
    pub(crate) data: SeriesStore,
    /// Where there is a demo.
    pub(crate) replay: Option<Replay>,
    /// Models, and versions of them, that no repository holds yet: they may be put there while the node runs.
    pub(crate) unknown_models: Vec<Mistake>,
    /// Models that this node holds and, being alone, serves to nobody.
    pub(crate) unplaced: Vec<Mistake>,
    /// Folders that serve nobody.
    pub(crate) overlooked: Vec<Overlooked>,
}

/// It does not fit; the operator acts.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// A repository cannot be listed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// What the configuration says is not so.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Reads the data and lists the repositories; loads no model. In a cluster models may lie on other nodes alone.
/// Certificates must be good at `now`.
///
/// # Errors
/// See [`SurveyError`].
pub(crate) fn survey(resolved: &Resolved, now: SystemTime) -> Result<Surroundings, SurveyError> {
    let config = &resolved.config;
    let mut mistakes = no_folders(resolved);
    mistakes.extend(bad_files(resolved, now));
    let mut found = Surroundings::default();
    if let Some(file) = &config.data.file {
        let columns = [&config.data.column].into_iter().chain(config.data.columns.values());
        let columns = columns.chain(config.demo.as_ref().map(|demo| &demo.column));
        match SeriesStore::load(file, &columns.map(String::as_str).collect::<Vec<_>>()) {
            Ok(data) => {
                mistakes.extend(resolved.unknown_columns(data.columns()));
                found.data = data;
            }
            Err(error) => mistakes.push(resolved.mistake("data.file", error.to_string())),
        }
    }
    if mistakes.is_empty() {
        match replay(config, &found.data) {
            Ok(replay) => found.replay = replay,
            Err(error) => mistakes.push(resolved.mistake(key_of(resolved, &error), error.to_string())),
        }
    }
    if !mistakes.is_empty() {
        return Err(ConfigError { mistakes }.into());
    }
    found.entries = catalog::scan(&config.models.repositories)?;
    found.overlooked = catalog::overlooked(&config.models.repositories)?;
    if config.cluster.is_none() {
        let names = catalog::names(&found.entries);
        found.unknown_models = resolved.unknown_models(&names);
        let held = found.entries.iter().map(|entry| (entry.name.as_str(), entry.version));
        found.unknown_models.extend(resolved.unknown_versions(held));
        // Where the nodes of a cluster are named, this is one of them that has not been told which.
        let unplaced = names.iter().filter(|_| config.nodes.is_empty());
        let unplaced = unplaced.filter(|name| config.holding(name) == Holding::No);
        found.unplaced = unplaced
            .map(|name| {
                let region = &config.node.region;
                let message = format!("this node is alone, in region `{region}`: nobody serves the model");
                resolved.mistake(&key_of_path(&["placement", name]), message)
            })
            .collect();
    }
    Ok(found)
}

/// Keys by which less of a series is kept than a model needs to follow it, which may answer requests alone.
///
/// # Errors
/// Where the model is one that the configuration has follow series.
pub(crate) fn short_series<'a>(
    resolved: &Resolved,
    models: impl Iterator<Item = &'a ModelSpec> + Clone,
) -> Result<Vec<Mistake>, ConfigError> {
    let follows =
        |spec: &&ModelSpec| resolved.config.series.always.iter().any(|(name, _)| *name == spec.name);
    let mistakes = resolved.too_short(models.clone().filter(follows));
    if mistakes.is_empty() { Ok(resolved.too_short(models)) } else { Err(ConfigError { mistakes }) }
}

fn replay(config: &Config, data: &SeriesStore) -> Result<Option<Replay>, ReplayError> {
    let Some(demo) = &config.demo else { return Ok(None) };
    Replay::new(data, &demo.prefix, &demo.column).map(Some)
}

/// Which key is to be changed.
fn key_of(resolved: &Resolved, error: &ReplayError) -> &'static str {
    match error {
        ReplayError::NoColumn(_) if resolved.names_demo_column() => "demo.column",
        ReplayError::NoColumn(_) => "data.column",
        ReplayError::Empty | ReplayError::Stamp { .. } | ReplayError::Id { .. } => "data.file",
        ReplayError::Name { .. } => "demo.prefix",
    }
}

/// Folders that are written to and are none. Whether the disk takes what is written shows when it is.
fn no_folders(resolved: &Resolved) -> Vec<Mistake> {
    let config = &resolved.config;
    let journal = config.journal.as_ref().map(|part| ("journal.dir", part.dir.as_path()));
    let audit = config.audit.as_ref().map(|part| ("audit.dir", part.dir.as_path()));
    let is_file = |dir: &Path| {
        let nearest = dir.ancestors().find(|one| one.symlink_metadata().is_ok());
        nearest.filter(|one| !one.is_dir()).map(|one| format!("`{}` is no folder", one.display()))
    };
    let mistake = |(key, dir)| Some(resolved.mistake(key, is_file(dir)?));
    journal.into_iter().chain(audit).filter_map(mistake).collect()
}

/// Files that hold something else than a node needs of them as it starts, read as it reads them.
fn bad_files(resolved: &Resolved, now: SystemTime) -> Vec<Mistake> {
    fn said<K: Into<String>>((key, error): (K, impl Display)) -> (String, String) {
        (key.into(), error.to_string())
    }
    let config = &resolved.config;
    let mut bad: Vec<(String, String)> =
        security::bad_files(&config.security).into_iter().map(said).collect();
    let certificate = config.server.tls.as_ref();
    bad.extend(certificate.and_then(|files| tls::bad_files(files, now)).map(said));
    bad.extend(alerts::bad_files(&config.alerts).map(said));
    let part = config.cluster.as_ref();
    bad.extend(part.and_then(|part| cluster::bad_files(part, &config.node)).map(said));
    bad.extend(scaler::bad_pools(config).into_iter().map(said));
    bad.into_iter().map(|(key, message)| resolved.mistake(&key, message)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use peregrine_runtime::{Clock as _, SystemClock};

    use super::*;
    use crate::config::{Sources, resolve};

    #[test]
    fn what_the_data_cannot_be_replayed_for_is_a_mistake_at_its_key() {
        let good = "A,2026-01-01 00:00:00+00:00,1\nA,2026-01-02 00:00:00+00:00,2\n";
        let rig = |rows: &str, more: &str| Rig::new(rows, more).said();
        assert_eq!(rig(good, "column = \"v\"\n"), [""; 0]);
        assert_eq!(
            rig(good, "column = \"\"\n"),
            ["FILE:4:10: data.column: the data have no column ``: there are `v`"]
        );
        assert_eq!(rig(good, ""), ["BUILT-IN: data.column: the data have no column `logrv5`"]);
        assert_eq!(rig("", "column = \"v\"\n"), ["FILE:3:8: data.file: the data have no rows to replay"]);
        let odd = "series `A`: `soon` is neither a date such as 2026-01-31 or 2026-01-31T15:04:05+01:00 nor a whole number of \
                   seconds, or of what all of the file counts in, since 1970";
        assert_eq!(rig("A,soon,1\n", "column = \"v\"\n"), [format!("FILE:3:8: data.file: {odd}")]);
        let name = "the name of a series has 1 to 128 bytes, no control characters and no `*`";
        assert_eq!(rig("*,1,1\n", "column = \"v\"\n"), [format!("FILE:3:8: data.file: series `*`: {name}")]);
        assert_eq!(rig(",1,1\n", "column = \"v\"\n"), [format!("FILE:3:8: data.file: series ``: {name}")]);
        assert_eq!(
            rig(good, "column = \"v\"\n[demo]\nprefix = \"a*\"\n"),
            [format!("FILE:6:10: demo.prefix: `a*A`: {name}")]
        );
        assert_eq!(
            rig(good, "column = \"v\"\n[demo]\ncolumn = \"w\"\n"),
            ["FILE:6:10: demo.column: the data have no column `w`: there are `v`"]
        );
        // Without a replay the data may be dated as they like.
        assert_eq!(rig("A,soon,1\n", "column = \"v\"\n[demo]\nrate = 0.0\n"), [""; 0]);
        assert_eq!(rig("A,1,x\n", "column = \"v\"\n").len(), 1);
    }

    #[test]
    fn a_folder_that_is_a_file_is_a_mistake() {
        let rig = Rig::new(
            "A,1,1\n",
            "column = \"v\"\n[journal]\ndir = \"DIR/data.csv\"\n[audit]\ndir = \"DIR/data.csv/a\"\n",
        );
        assert_eq!(
            rig.said(),
            [
                "FILE:6:7: journal.dir: `DIR/data.csv` is no folder",
                "FILE:8:7: audit.dir: `DIR/data.csv` is no folder",
            ]
        );
        let rig = Rig::new("A,1,1\n", "column = \"v\"\n[journal]\ndir = \"DIR/new/journal\"\n");
        assert_eq!(rig.said(), [""; 0]);
    }

    #[test]
    fn files_that_hold_something_else_are_mistakes_at_their_keys() {
        let file = "DIR/data.csv";
        let text = format!(
            "column = \"v\"\n[security]\nkeys = \"{file}\"\njwks = \"{file}\"\ntoken_issuer = \"i\"\ntoken_audience = \"a\"\n\
             [server]\ntls_certificate = \"{file}\"\ntls_key = \"{file}\"\n[alerts]\nwebhook_file = \"{file}\"\n\
             [cluster]\nlisten = \"127.0.0.1:7946\"\nca = \"{file}\"\ncertificate = \"{file}\"\nkey = \"{file}\"\n"
        );
        let said = Rig::new("A,1,1\n", &text).said();
        let at = |line: &str| said.iter().filter(|said| said.starts_with(line)).count();
        for place in [
            "FILE:6:8: security.keys: DIR/data.csv: line 1: ",
            "FILE:7:8: security.jwks: DIR/data.csv: ",
            "FILE:11:19: server.tls_certificate: DIR/data.csv: there is no certificate in it",
            "FILE:14:16: alerts.webhook_file: DIR/data.csv holds no URL",
            "FILE:17:6: cluster.ca: DIR/data.csv: ",
        ] {
            assert_eq!(at(place), 1, "{place}: {said:?}");
        }
        assert_eq!(said.len(), 5, "{said:?}");
    }

    #[test]
    fn a_certificate_that_nobody_believes_today_is_a_mistake() {
        let said = |first, last| {
            let text =
                "column = \"v\"\n[server]\ntls_certificate = \"DIR/tls.crt\"\ntls_key = \"DIR/tls.key\"\n";
            let rig = Rig::new("A,1,1\n", text);
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(first, 1, 1);
            params.not_after = rcgen::date_time_ymd(last, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            fs::write(rig.dir.path().join("tls.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
            fs::write(rig.dir.path().join("tls.key"), key.serialize_pem()).unwrap();
            rig.said()
        };
        assert_eq!(said(2001, 2100), [""; 0]);
        let expired =
            "FILE:6:19: server.tls_certificate: DIR/tls.crt: it expired at 2002-01-01T00:00:00.000Z";
        assert_eq!(said(2001, 2002), [expired]);
        let early =
            "FILE:6:19: server.tls_certificate: DIR/tls.crt: it is not valid before 2099-01-01T00:00:00.000Z";
        assert_eq!(said(2099, 2100), [early]);
    }

    #[test]
    fn a_key_that_is_required_must_be_in_the_file() {
        let rig = |required| {
            Rig::new("A,1,1\n", &format!("column = \"v\"\n[security]\nkeys = \"DIR/no.keys\"\n{required}"))
        };
        let said = |required| {
            let rig = rig(required);
            fs::write(rig.dir.path().join("no.keys"), "# none yet\n").unwrap();
            rig.said()
        };
        let reason = "DIR/no.keys: there is no key in it, and security.required lets nobody in without one";
        assert_eq!(said("required = true\n"), [format!("FILE:6:8: security.keys: {reason}")]);
        assert_eq!(said(""), [""; 0]);
    }

    #[test]
    fn a_platform_that_could_make_no_machine_is_a_mistake_where_the_scaler_is_enabled() {
        let text = |enabled| {
            format!(
                "column = \"v\"\n[scaler]\nenabled = {enabled}\n[scaler.groups.inference]\npool = \"fly\"\n\
                 [scaler.pools.fly]\nkind = \"fly\"\napp = \"a\"\ntoken = \"t\"\ntemplates = {{ inference = \"DIR/data.csv\" }}\n"
            )
        };
        let said = Rig::new("A,1,1\n", &text(true)).said();
        assert!(
            said.len() == 1
                && said[0].starts_with("FILE:13:27: scaler.pools.fly.templates: template DIR/data.csv: "),
            "{said:?}"
        );
        assert_eq!(Rig::new("A,1,1\n", &text(false)).said(), [""; 0]);
        let certified = "column = \"v\"\n[scaler]\nenabled = true\n[cluster]\nlisten = \"127.0.0.1:7946\"\nca = \"DIR/data.csv\"\n\
                         certificate = \"DIR/data.csv\"\nkey = \"DIR/data.csv\"\n";
        let said = Rig::new("A,1,1\n", certified).said();
        let is_it = |said: &&String| said.contains("scaler.pools.local: its machines show `cluster.secret`");
        assert_eq!(said.iter().filter(is_it).count(), 1, "{said:?}");
    }

    #[test]
    fn a_model_that_a_lone_node_holds_for_others_is_told() {
        let placed = "column = \"v\"\n[placement.tcn-vol-point]\nregions = [\"fra\"]\n";
        let unplaced = |text: &str| survey(&Rig::new("A,1,1\n", text).resolved(), now()).unwrap().unplaced;
        let told = unplaced(placed);
        assert_eq!(told.len(), 1);
        assert!(told[0].to_string().ends_with(
            ":6:11: placement.tcn-vol-point: this node is alone, in region `local`: nobody serves the model"
        ), "{}", told[0]);
        assert!(unplaced(&format!("{placed}[node]\nregion = \"fra\"\n")).is_empty());
        let secret = "[cluster]\nlisten = \"127.0.0.1:0\"\nsecret = \"0123456789abcdef\"\n";
        assert!(unplaced(&format!("{placed}{secret}")).is_empty());
        let nodes = "[[nodes]]\nname = \"a\"\nregion = \"fra\"\nlisten = \"127.0.0.1:1\"\ncluster_listen = \"127.0.0.1:2\"\n";
        assert!(unplaced(&format!("{placed}{nodes}")).is_empty());
    }

    #[test]
    fn a_model_that_no_repository_holds_yet_is_told_and_no_mistake() {
        let rig = Rig::new("A,1,1\n", "column = \"v\"\n[series.always]\nlater = [\"*\"]\n");
        let found = survey(&rig.resolved(), now()).unwrap();
        let keys: Vec<&str> = found.unknown_models.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(keys, ["series.always.later"]);
        assert!(found.replay.is_some() && !found.entries.is_empty());

        let pinned =
            "column = \"v\"\n[models.versions]\nlater = 2\ntcn-vol-point = 7\nmlp-vol-quantile = 1\n";
        let found = survey(&Rig::new("A,1,1\n", pinned).resolved(), now()).unwrap();
        let said: Vec<String> = found.unknown_models.iter().map(ToString::to_string).collect();
        assert!(
            said[0].contains(":6:9: models.versions.later: no repository holds a model `later`"),
            "{said:?}"
        );
        assert!(
            said[1].ends_with(
                ":7:17: models.versions.tcn-vol-point: no repository holds version 7 of it: there is 1"
            ),
            "{said:?}"
        );
        assert_eq!(said.len(), 2);
    }

    fn now() -> SystemTime {
        SystemClock.wall()
    }

    /// A configuration whose data are these rows of one column `v`.
    struct Rig {
        dir: tempfile::TempDir,
        file: PathBuf,
    }

    impl Rig {
        fn new(rows: &str, more: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let data = dir.path().join("data.csv");
            fs::write(&data, format!("unique_id,ds,v\n{rows}")).unwrap();
            let text = format!("\n[data]\nfile = \"{}\"\n{more}", data.display());
            let file = dir.path().join("t.toml");
            fs::write(&file, text.replace("DIR", &dir.path().display().to_string())).unwrap();
            Self { dir, file }
        }

        fn resolved(&self) -> Resolved {
            resolve(&Sources { files: vec![self.file.clone()], ..Sources::default() }).unwrap()
        }

        fn said(&self) -> Vec<String> {
            let mistakes = match survey(&self.resolved(), now()) {
                Ok(_) => Vec::new(),
                Err(SurveyError::Config(error)) => error.mistakes,
                Err(SurveyError::Catalog(error)) => panic!("{error}"),
            };
            let text = |mistake: &Mistake| match mistake.origin {
                crate::config::Origin::BuiltIn { .. } => {
                    format!("BUILT-IN: {}: {}", mistake.key, mistake.message)
                }
                _ => mistake.to_string(),
            };
            let file = self.file.display().to_string();
            let dir = self.dir.path().display().to_string();
            mistakes.iter().map(|one| text(one).replace(&file, "FILE").replace(&dir, "DIR")).collect()
        }
    }
}
