//! Who answers requests that name no version, and what became of them.

use std::fmt::Display;

use peregrine_actors::release::{Portion, ReleaseStatus, ShadowStats};

use super::Page;

pub(super) fn all(page: &mut Page, releases: &[ReleaseStatus]) {
    if releases.is_empty() {
        return;
    }
    let mut of_versions = |name, kind, help, value: fn(&Portion) -> f64| {
        page.family(name, kind, help);
        for release in releases {
            for one in &release.portions {
                let labels: [(&str, &dyn Display); 2] =
                    [("model", &release.model), ("version", &one.version)];
                page.sample("", &labels, value(one));
            }
        }
    };
    let help = "Part of the requests that name no version, 0 to 1.";
    of_versions("peregrine_release_share", "gauge", help, |one| one.share);
    let help = "Of those, the ones a release sent to a version.";
    of_versions("peregrine_release_requests_total", "counter", help, |one| one.seen.requests as f64);
    let help = "Of those, the ones that failed.";
    of_versions("peregrine_release_failed_total", "counter", help, |one| one.seen.failed as f64);
    let help = "95 of 100 were answered within, since the model has a release.";
    of_versions("peregrine_release_p95_seconds", "gauge", help, |one| one.seen.p95.as_secs_f64());
    page.family("peregrine_release_stable", "gauge", "The stable version.");
    for release in releases {
        page.sample("", &[("model", &release.model)], release.release.stable);
    }
    page.family("peregrine_release_changes_total", "counter", "Changes of a release, by kind.");
    for release in releases {
        let counts = release.release.counts;
        for (kind, count) in [
            ("advanced", counts.advanced),
            ("promoted", counts.promoted),
            ("rolled_back", counts.rolled_back),
        ] {
            page.sample("", &[("model", &release.model), ("kind", &kind)], count);
        }
    }
    shadows(page, releases);
}

fn shadows(page: &mut Page, releases: &[ReleaseStatus]) {
    let shadows = || {
        let with = |one: &'_ ReleaseStatus| one.shadow.map(|shadow| (one.model.clone(), shadow));
        releases.iter().filter_map(with)
    };
    if shadows().next().is_none() {
        return;
    }
    page.family(
        "peregrine_release_shadow_total",
        "counter",
        "Requests for a shadow, by what became of them.",
    );
    for (model, shadow) in shadows() {
        let outcomes = [
            ("same", shadow.compared - shadow.differing),
            ("differing", shadow.differing),
            ("failed", shadow.seen.failed),
            ("dropped", shadow.dropped),
        ];
        for (outcome, count) in outcomes {
            let labels: [(&str, &dyn Display); 3] =
                [("model", &model), ("version", &shadow.spec.version), ("outcome", &outcome)];
            page.sample("", &labels, count);
        }
    }
    let mut gauge = |name, help, value: fn(&ShadowStats) -> f64| {
        page.family(name, "gauge", help);
        for (model, shadow) in shadows() {
            page.sample("", &[("model", &model), ("version", &shadow.spec.version)], value(&shadow));
        }
    };
    let help = "Largest difference of a shadow's answers so far, as a part of the largest value.";
    gauge("peregrine_release_shadow_difference_max_ratio", help, |shadow| shadow.difference_max);
    let help = "The mean over answers of their largest difference.";
    gauge("peregrine_release_shadow_difference_mean_ratio", help, |shadow| shadow.difference_mean);
    gauge("peregrine_release_shadow_p95_seconds", "95 of 100 of its answers took at most.", |shadow| {
        shadow.seen.p95.as_secs_f64()
    });
}
