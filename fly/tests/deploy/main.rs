//! fly/deploy.sh and fly/entrypoint.sh against stubs of what they call. Nothing here reaches Fly.

mod entrypoint;
mod stage;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use stage::{Played, Stage, machines};

const DEPLOY: &str = "deploy.sh";
/// What every verb asks first.
const PREFLIGHT: [&str; 2] = ["flyctl auth whoami", "flyctl apps list --json"];
const VERBS: [&str; 7] = ["deploy", "status", "logs", "shell", "rollback", "destroy", "worker"];

/// Runs `line` on the stage; the exit status, the calls that are no preflight's, and what is said must be these.
#[track_caller]
fn check(stage: &Stage, line: &str, code: i32, calls: &[&str], says: &[&str]) -> Played {
    let words: Vec<&str> = line.split_whitespace().collect();
    let played = stage.play(DEPLOY, &words, "");
    let said = format!("{}{}", played.stdout, played.stderr);
    assert_eq!(played.code, Some(code), "{line}: {said}");
    let made: Vec<String> = played
        .calls
        .iter()
        .filter(|call| !PREFLIGHT.contains(&call.as_str()))
        .map(|call| plain(call))
        .collect();
    assert_eq!(made, calls, "{line}: {said}");
    for text in says {
        assert!(said.contains(text), "{line} does not say `{text}`: {said}");
    }
    played
}

/// Without this checkout's folder.
fn plain(text: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("fly/ is in the repository");
    text.replace(&format!("{}/", root.display()), "")
}

const SECRETS: &str = "flyctl secrets list --app peregrine --json";
const RELEASE: &str = "flyctl deploy --config fly/fly.toml --app peregrine --dockerfile fly/Dockerfile \
                       --ignorefile .dockerignore --yes";
const MACHINES: &str = "flyctl machine list --app peregrine --json";
const READY: &str =
    "curl --silent --fail --max-time 10 --output /dev/null https://peregrine.fly.dev/health/ready";

#[test]
fn a_deploy_ends_when_all_is_well_and_can_be_said_twice() {
    let stage = Stage::new();
    for _ in 0..2 {
        check(&stage, "deploy", 0, &[SECRETS, RELEASE, MACHINES, READY], &["peregrine is well: 4 Machines"]);
    }
    // What is there already is not created again.
    check(
        &stage,
        "deploy --create --org acme",
        0,
        &["flyctl orgs list --json", SECRETS, RELEASE, MACHINES, READY],
        &[],
    );
}

#[test]
fn the_edge_is_deployed_from_its_own_file_under_its_own_name() {
    let stage = Stage::new().answer("apps-list", r#"[{"Name":"peregrine-edge"}]"#);
    let edge = concat!(env!("CARGO_MANIFEST_DIR"), "/fly.edge.toml");
    // It has no nodes: gateways alone are well.
    let played = stage.play(DEPLOY, &["deploy", "--config", edge, "--image", "registry.fly.io/a:1"], "");
    assert_eq!(played.code, Some(0), "{}", played.stderr);
    let release =
        "flyctl deploy --config fly/fly.edge.toml --app peregrine-edge --image registry.fly.io/a:1 --yes";
    assert!(played.calls.iter().any(|call| plain(call) == release), "{:?}", played.calls);
}

#[test]
fn a_new_application_gets_its_secrets_by_stdin_and_nobody_sees_them() {
    let stage = Stage::new().answer("apps-list", "[]").answer("secrets-list", "[]");
    let stage =
        stage.with("PEREGRINE_CLUSTER__SECRET", "very-secret").with("API_KEYS", "[[keys]]\nname = \"a\"");
    let played = check(
        &stage,
        "deploy --create --org acme",
        0,
        &[
            "flyctl orgs list --json",
            "flyctl apps create peregrine --org acme",
            "flyctl secrets set --stage --app peregrine PEREGRINE_CLUSTER__SECRET=-",
            "flyctl secrets set --stage --app peregrine API_KEYS=-",
            RELEASE,
            MACHINES,
            READY,
        ],
        &[],
    );
    assert_eq!(stage.stdin(1), "very-secret");
    assert_eq!(stage.stdin(2), "[[keys]]\nname = \"a\"");
    assert!(!format!("{}{}{:?}", played.stdout, played.stderr, played.calls).contains("very-secret"));
}

#[test]
fn a_name_that_is_taken_ends_it_before_anything_is_deployed() {
    let stage = Stage::new().answer("apps-list", "[]").answer("secrets-list", "[]").exit("apps-create", 1);
    let stage = stage.with("PEREGRINE_CLUSTER__SECRET", "a").with("API_KEYS", "b");
    check(
        &stage,
        "deploy --create --org acme",
        1,
        &["flyctl orgs list --json", "flyctl apps create peregrine --org acme"],
        &["names are unique among all users of Fly"],
    );
}

#[test]
fn all_that_is_missing_is_named_at_once() {
    let stage = Stage::new().answer("apps-list", "[]").answer("secrets-list", "[]");
    check(
        &stage,
        "deploy --org acmee",
        3,
        &["flyctl orgs list --json"],
        &[
            "the organisation acmee: you are in acme, personal",
            "the application peregrine: fly/deploy.sh deploy --create --org ORG --app peregrine",
            "the secret PEREGRINE_CLUSTER__SECRET: openssl rand -hex 32 |",
            "the secret API_KEYS: a file of `peregrine keys new`",
        ],
    );
    check(
        &stage,
        "deploy --create",
        3,
        &[],
        &[
            "an organisation for the new application: --org",
            "the secret PEREGRINE_CLUSTER__SECRET",
            "or give the variable API_KEYS",
        ],
    );
    let one = Stage::new().answer("secrets-list", r#"[{"Name":"API_KEYS"}]"#);
    let played = check(&one, "deploy", 3, &[SECRETS], &["the secret PEREGRINE_CLUSTER__SECRET"]);
    assert!(!played.stderr.contains("secret API_KEYS"), "{}", played.stderr);
    check(
        &Stage::bare().without("jq"),
        "deploy",
        3,
        &[],
        &["jq: ", "curl: ", "flyctl: curl -L https://fly.io/install.sh", "not looked for", "API_KEYS"],
    );
    for verb in ["status", "logs", "shell", "rollback"] {
        check(&stage, verb, 3, &[], &["the application peregrine"]);
    }
}

#[test]
fn without_a_login_nothing_is_tried() {
    for verb in VERBS.iter().filter(|verb| **verb != "worker").copied().chain(["worker gpu1"]) {
        let stage = Stage::new().exit("auth-whoami", 1);
        let played = check(&stage, verb, 3, &[], &["a login: flyctl auth login, or FLY_API_TOKEN"]);
        assert_eq!(played.calls, ["flyctl auth whoami"]);
    }
}

#[test]
fn a_list_that_cannot_be_had_or_read_ends_it() {
    for (call, line) in [
        ("apps-list", "deploy"),
        ("secrets-list", "deploy"),
        ("orgs-list", "deploy --org acme"),
        ("releases---app", "rollback"),
        ("wireguard-list", "worker gpu1"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        // Nothing that is not understood is taken for a list, of none least of all.
        for (stage, says) in [
            (Stage::new().exit(call, 1), "cannot be listed"),
            (Stage::new().answer(call, "Error: unauthorised"), "is not what was expected"),
        ] {
            let played = stage.play(DEPLOY, &words, "");
            assert_eq!(played.code, Some(1), "{call}: {}", played.stderr);
            assert!(played.stderr.contains(says), "{call}: {}", played.stderr);
            let changes = ["flyctl deploy", "create"];
            let changed = played.calls.iter().any(|made| changes.iter().any(|word| made.contains(word)));
            assert!(!changed, "{:?}", played.calls);
        }
    }
}

#[test]
fn a_list_of_none_may_be_null() {
    let stage = Stage::new().answer("secrets-list", "null");
    check(&stage, "deploy", 3, &[SECRETS], &["the secret PEREGRINE_CLUSTER__SECRET", "the secret API_KEYS"]);
    let stage = Stage::new().answer("apps-list", "null");
    check(&stage, "status", 3, &[], &["the application peregrine"]);
    check_rollback("null", None);
    let stage = Stage::new().answer("machine-list", "null");
    let played = stage.play(DEPLOY, &["deploy", "--wait", "0"], "");
    assert_eq!(played.code, Some(4), "{}", played.stderr);
    assert!(played.stderr.contains("there is no Machine of gateway"), "{}", played.stderr);
}

#[test]
fn a_deploy_that_fails_says_how_to_go_back() {
    let stage = Stage::new().exit("deploy---config", 1);
    check(
        &stage,
        "deploy",
        1,
        &[SECRETS, RELEASE],
        &["the deploy failed", "fly/deploy.sh rollback --app peregrine --config "],
    );
}

#[test]
fn health_is_waited_for_until_it_comes() {
    let stage = Stage::new()
        .answer("machine-list.1", &machines("critical", "started"))
        .exit("machine-list.2", 1)
        .answer("machine-list.3", &machines("passing", "starting"))
        .exit("curl.1", 22);
    check(
        &stage,
        "deploy",
        0,
        &[SECRETS, RELEASE, MACHINES, MACHINES, MACHINES, MACHINES, READY, MACHINES, READY],
        &["peregrine is well"],
    );
}

#[test]
fn health_that_never_comes_ends_with_what_is_not_well_and_the_way_back() {
    let sick = |stage: Stage, says: &str| {
        let played = stage.play(DEPLOY, &["deploy", "--wait", "0"], "");
        assert_eq!(played.code, Some(4), "{}", played.stderr);
        for text in ["not well after 0 s", says, "fly/deploy.sh rollback --app peregrine --config "] {
            assert!(played.stderr.contains(text), "`{text}` is not in {}", played.stderr);
        }
    };
    let new = Stage::new;
    sick(
        new().answer("machine-list", &machines("critical", "started")),
        "2a in iad: check ready is critical",
    );
    sick(new().answer("machine-list", &machines("passing", "stopped")), "2a in iad is stopped");
    sick(new().answer("machine-list", "[]"), "there is no Machine of node");
    sick(new().answer("machine-list", "{"), "the Machines cannot be listed");
    sick(new().exit("machine-list", 1), "the Machines cannot be listed");
    sick(new().exit("curl", 22), "https://peregrine.fly.dev/health/ready does not answer with 200");
}

const RELEASES: &str = "flyctl releases --app peregrine --image --json";

#[track_caller]
fn check_rollback(releases: &str, image: Option<&str>) {
    let stage = Stage::new().answer("releases---app", releases);
    let release = image
        .map(|image| format!("flyctl deploy --config fly/fly.toml --app peregrine --image {image} --yes"));
    match &release {
        Some(release) => check(&stage, "rollback", 0, &[RELEASES, release, MACHINES, READY], &["is well"]),
        None => check(&stage, "rollback", 1, &[RELEASES], &["no release before this one"]),
    };
}

#[test]
fn a_rollback_deploys_the_last_other_image_that_was_deployed_whole() {
    let release = |version: u32, status: &str, image: &str| {
        format!(r#"{{"Version":{version},"Status":"{status}","ImageRef":"{image}"}}"#)
    };
    let list = |releases: &[String]| format!("[{}]", releases.join(","));
    let good = [release(3, "complete", "r/a:3"), release(2, "complete", "r/a:2")];
    check_rollback(&list(&good), Some("r/a:2"));
    let reversed = [good[1].clone(), good[0].clone()];
    check_rollback(&list(&reversed), Some("r/a:2"));
    let same_and_failed = [
        release(5, "failed", "r/a:5"),
        release(4, "failed", "r/a:4"),
        release(3, "complete", "r/a:5"),
        release(2, "complete", "r/a:2"),
        release(1, "complete", "r/a:1"),
    ];
    check_rollback(&list(&same_and_failed), Some("r/a:2"));
    check_rollback(
        r#"[{"version":2,"status":"complete","image_ref":"b"},{"version":1,"status":"complete","image_ref":"a"}]"#,
        Some("a"),
    );
    check_rollback(&list(&good[..1]), None);
    check_rollback("[]", None);
}

#[test]
fn releases_that_cannot_be_read_are_no_ground_to_deploy_anything() {
    let stage = Stage::new().answer("releases---app", "VERSION STATUS");
    check(&stage, "rollback", 1, &[RELEASES], &["is not what was expected"]);
}

#[test]
fn only_its_own_name_destroys_an_application() {
    let stage = Stage::new();
    for typed in ["", "peregrin\n", "yes\n"] {
        let played = stage.play(DEPLOY, &["destroy"], typed);
        assert_eq!(played.code, Some(1), "{}", played.stderr);
        assert_eq!(played.calls, PREFLIGHT, "{typed:?}");
    }
    check(&stage, "destroy --confirm other", 1, &[], &["nothing was destroyed"]);
    let destroyed = ["flyctl apps destroy peregrine --yes"];
    check(&stage, "destroy --confirm peregrine", 0, &destroyed, &[]);
    let played = stage.play(DEPLOY, &["destroy"], "peregrine\n");
    assert_eq!((played.code, played.calls.last().map(String::as_str)), (Some(0), Some(destroyed[0])));
    let gone = Stage::new().answer("apps-list", "[]");
    check(&gone, "destroy --confirm peregrine", 0, &[], &["nothing to destroy"]);
}

#[test]
fn a_worker_gets_two_peers_in_two_regions_and_keys_that_only_it_can_read() {
    let stage = Stage::new();
    let (list, iad, ewr) = (
        "flyctl wireguard list acme --json",
        "flyctl wireguard create acme iad gpu1-iad peregrine0.conf",
        "flyctl wireguard create acme ewr gpu1-ewr peregrine1.conf",
    );
    check(&stage, "worker gpu1", 0, &[list, iad, ewr], &["fly/worker.md", "peregrine0.conf"]);
    for file in ["peregrine0.conf", "peregrine1.conf"] {
        let mode = stage.file(file).metadata().expect("the peer's file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    // Another peer's key is not written over.
    check(&stage, "worker gpu2", 1, &[list], &["peregrine0.conf is here already"]);
    // What is there is left as it is.
    let stage = Stage::new().answer("wireguard-list", r#"[{"Name":"gpu1-iad"}]"#);
    check(&stage, "worker gpu1", 0, &[list, ewr], &["there is a peer gpu1-iad already"]);
    let stage = Stage::new().exit("wireguard-create", 1);
    check(&stage, "worker gpu1", 1, &[list, iad], &["gpu1-iad was not created"]);
    let stage = Stage::new().answer("apps-list", "[]");
    check(&stage, "worker gpu1", 3, &[], &["the organisation whose network it joins: --org"]);
}

#[test]
fn a_worker_is_not_sent_where_no_gateway_is() {
    let stage = Stage::new();
    for (line, says) in [
        ("worker gpu1 --regions iad,gru", "no WireGuard gateway in gru"),
        ("worker gpu1 --regions jnb,iad", "no WireGuard gateway in jnb"),
        ("worker gpu1 --regions iad,iad", "two different ones"),
        ("worker gpu1 --regions iad", "two, as iad,ewr"),
        ("worker interactive-1", "are not in DNS"),
        ("worker", "its name"),
        ("worker GPU", "its name"),
    ] {
        let played = check(&stage, line, 2, &[], &[says]);
        assert_eq!(played.calls, Vec::<String>::new(), "{line}");
    }
}

#[test]
fn the_small_verbs_pass_on_what_they_are_told() {
    let stage = Stage::new();
    check(
        &stage,
        "status",
        0,
        &[
            "flyctl status --app peregrine",
            "flyctl checks list --app peregrine",
            "flyctl releases --app peregrine --image",
        ],
        &[],
    );
    check(&stage, "logs", 0, &["flyctl logs --app peregrine"], &[]);
    check(&stage, "logs --machine 1a", 0, &["flyctl logs --app peregrine --machine 1a"], &[]);
    check(&stage, "shell --machine 1a", 0, &["flyctl ssh console --app peregrine --machine 1a"], &[]);
}

#[test]
fn a_dry_run_prints_every_command_and_runs_none() {
    for verb in VERBS {
        let stage =
            Stage::new().with("PEREGRINE_CLUSTER__SECRET", "very-secret").with("API_KEYS", "very-secret");
        let mut words = vec![verb, "--dry-run", "--create", "--org", "acme"];
        words.extend((verb == "worker").then_some("gpu1"));
        let dry = stage.play(DEPLOY, &words, "");
        assert_eq!(dry.code, Some(0), "{verb}: {}", dry.stderr);
        assert_eq!(dry.calls, Vec::<String>::new(), "{verb}");
        assert!(!dry.stdout.contains("very-secret"), "{}", dry.stdout);
        // As a real run calls, in order, but that nobody knows how often health is asked for.
        let printed: Vec<&str> = dry.stdout.lines().map(|line| line.trim_start_matches("+ ")).collect();
        let stage = stage.answer("apps-list", "[]").answer("secrets-list", "[]").answer(
            "releases---app",
            r#"[{"Version":2,"Status":"complete","ImageRef":"b"},{"Version":1,"Status":"complete","ImageRef":"a"}]"#,
        );
        let has_app = r#"[{"Name":"peregrine","Organization":{"Slug":"acme"}}]"#;
        let stage = if verb == "deploy" { stage } else { stage.answer("apps-list", has_app) };
        let words: Vec<&str> = words.into_iter().filter(|word| *word != "--dry-run").collect();
        let real = stage.play(DEPLOY, &[&words[..], &["--confirm", "peregrine"]].concat(), "");
        assert_eq!(real.code, Some(0), "{verb}: {}", real.stderr);
        let real: Vec<String> = real
            .calls
            .iter()
            .map(|call| call.replace("--image a", "--image IMAGE-OF-THE-RELEASE-BEFORE"))
            .collect();
        assert_eq!(printed, real, "{verb}");
    }
}

#[test]
fn a_dry_run_needs_nothing_installed() {
    let played = Stage::bare().without("jq").play(DEPLOY, &["deploy", "--dry-run"], "");
    assert_eq!(played.code, Some(0), "{}", played.stderr);
    assert!(played.stdout.contains("+ fly deploy --config "), "{}", played.stdout);
}

#[test]
fn what_is_no_name_gets_into_no_command() {
    let stage = Stage::new();
    for words in [
        &["deploy", "--app", "a; id"][..],
        &["deploy", "--app", "$(id)"],
        &["deploy", "--app", "-a"],
        &["deploy", "--app", ""],
        &["deploy", "--org", "a b"],
        &["logs", "--machine", "--help"],
        &["deploy", "--wait", "1e9"],
        &["deploy", "--wait", "-1"],
        &["deploy", "--config", "/no/such.toml"],
        &["deploy", "--config"],
        &["deploy", "--verbose"],
        &["deploy", "now"],
        &["worker", "a", "b"],
        &["undeploy"],
        &[],
    ] {
        let played = stage.play(DEPLOY, words, "");
        assert_eq!(played.code, Some(2), "{words:?}: {}", played.stderr);
        assert_eq!(played.calls, Vec::<String>::new(), "{words:?}");
    }
}

#[test]
fn help_names_every_verb() {
    let played = Stage::bare().play(DEPLOY, &["--help"], "");
    assert_eq!(played.code, Some(0));
    for verb in VERBS {
        assert!(played.stdout.contains(&format!("\n  {verb} ")), "{verb}");
    }
}

#[test]
fn shellcheck_finds_nothing() {
    let scripts = ["deploy.sh", "entrypoint.sh"].map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join(name));
    let output = Command::new("shellcheck").args(scripts).output();
    let output = output.unwrap_or_else(|error| {
        panic!("shellcheck does not run ({error}): apt-get install shellcheck, as tests/run does")
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
