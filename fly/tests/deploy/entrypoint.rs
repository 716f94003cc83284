//! What the image's entry point makes of what a Machine is told.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::stage::{Played, Stage};

/// A Machine, whose node prints its environment instead of serving.
fn machine() -> Stage {
    elsewhere().with("FLY_MACHINE_ID", "148e4d2b").with("FLY_REGION", "fra").with("FLY_APP_NAME", "peregrine")
}

fn elsewhere() -> Stage {
    let stage = Stage::bare();
    let work = stage.file("").display().to_string();
    stage.with("PEREGRINE", "printenv").with("STATE_DIR", &work)
}

fn enter(stage: &Stage) -> Played {
    stage.play("entrypoint.sh", &[], "")
}

/// What the node was given of `name`.
fn given<'a>(played: &'a Played, name: &str) -> Option<&'a str> {
    played.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[test]
fn a_machine_has_the_name_region_and_application_that_it_was_told() {
    let played = enter(&machine());
    assert_eq!(played.code, Some(0), "{}", played.stderr);
    assert_eq!(given(&played, "PEREGRINE_NODE__NAME"), Some("148e4d2b"));
    assert_eq!(given(&played, "PEREGRINE_NODE__REGION"), Some("fra"));
    assert_eq!(given(&played, "PEREGRINE_CLUSTER__SEEDS"), Some(r#"["peregrine.internal:7946"]"#));
    assert_eq!(given(&played, "PEREGRINE_SECURITY__KEYS"), None);
}

#[test]
fn what_is_set_already_stays() {
    let stage = machine().with("PEREGRINE_NODE__NAME", "a").with("PEREGRINE_CLUSTER__SEEDS", "[]");
    let played = enter(&stage.with("PEREGRINE_SECURITY__KEYS", "/k").with("API_KEYS", "x"));
    assert_eq!(given(&played, "PEREGRINE_NODE__NAME"), Some("a"));
    assert_eq!(given(&played, "PEREGRINE_CLUSTER__SEEDS"), Some("[]"));
    assert_eq!(given(&played, "PEREGRINE_SECURITY__KEYS"), Some("/k"));
}

#[test]
fn elsewhere_than_on_fly_nothing_is_added() {
    let played = enter(&elsewhere());
    assert_eq!(played.code, Some(0), "{}", played.stderr);
    for name in ["PEREGRINE_NODE__NAME", "PEREGRINE_NODE__REGION", "PEREGRINE_CLUSTER__SEEDS"] {
        assert_eq!(given(&played, name), None, "{name}");
    }
}

#[test]
fn keys_become_a_file_that_only_the_node_can_read_and_leave_the_environment() {
    let stage = machine().with("API_KEYS", "[[keys]]\nname = \"desk\"");
    let played = enter(&stage);
    assert_eq!(given(&played, "API_KEYS"), None);
    let path = given(&played, "PEREGRINE_SECURITY__KEYS").expect("the file is named");
    assert_eq!(fs::read_to_string(path).expect("the file"), "[[keys]]\nname = \"desk\"\n");
    assert_eq!(fs::metadata(path).expect("the file").permissions().mode() & 0o777, 0o600);
    // A Machine that starts again writes it again.
    assert_eq!(enter(&stage).code, Some(0));
}

#[test]
fn half_an_identity_starts_nothing() {
    for lacks in ["FLY_REGION", "FLY_APP_NAME"] {
        let played = enter(&machine().with(lacks, ""));
        assert_ne!(played.code, Some(0), "{lacks}");
        assert!(played.stderr.contains(lacks), "{}", played.stderr);
        assert_eq!(played.stdout, "");
    }
}

#[test]
fn the_node_takes_the_place_of_the_entry_point_with_its_words() {
    let stage = elsewhere().with("PEREGRINE", "sh");
    let played = stage.play("entrypoint.sh", &["-c", "echo $0 $1; exit 7", "a b", "c"], "");
    assert_eq!((played.code, played.stdout.as_str()), (Some(7), "a b c\n"));
}
