//! What can be wrong with a fly.toml, by name.

use std::fmt;

macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident => $says:literal,)*) => {
        /// What a fly.toml must not do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Rule {
            $($(#[$doc])* $rule,)*
        }

        impl Rule {
            /// Each of them.
            pub(crate) const ALL: &[Self] = &[$(Self::$rule),*];

            const fn says(self) -> &'static str {
                match self {
                    $(Self::$rule => $says,)*
                }
            }
        }
    };
}

rules! {
    // Its form.
    UnknownKey => "flyctl would pass over this key",
    LegacyAlias => "an old name that flyctl rewrites; write the new one",
    WrongType => "of the wrong type",
    TableForm => "flyctl does not read this form of a table",
    NoUnit => "a duration is a text with a unit: a number is seconds, milliseconds or nanoseconds, as the key has it",
    NotOneOf => "not one of the values that exist",
    OutOfRange => "out of range",
    ShellWords => "cannot be split into words as a shell does",
    // What it names.
    UnknownProcess => "names a process group that is not in [processes]",
    NoProcess => "a service beside [processes] must name its groups",
    UnknownRegion => "not a region",
    UnknownSize => "not a size of Machine",
    NoFile => "there is no such file",
    PlatformEnv => "variables of the name FLY_ are the platform's",
    // GPUs.
    GpuNotOffered => "not offered: Fly took GPUs out of service on 2026-08-01 and its API refuses them since \
        2026-08-11; use an external worker, see fly/worker.md",
    // Machines.
    Memory => "memory that this size cannot have",
    MountStrategy => "volumes cannot be deployed so",
    OncePerGroup => "a process group can have one only",
    CheckMissing => "blue-green waits for checks, and there is none",
    MachineChecks => "checks by Machines run only under rolling and canary",
    SharedPort => "the proxy knows no groups: it would spread this port over all of them",
    PortForm => "a port of a service is `port`, or `start_port` and `end_port`",
    UdpHandlers => "udp has no handlers",
    // Files.
    FileSource => "a file has one of local_path and secret_name",
    RawValue => "flyctl and its documents disagree on what raw_value is: use local_path or secret_name",
    // Ours.
    KillBeforeDrain => "the node would be killed before it has drained",
    Signal => "a node does not stop cleanly at this signal",
    Command => "not a command of peregrine",
    PortNotListened => "nothing listens there",
    OverConnections => "the proxy would send more than the node takes",
    Http2 => "a node speaks HTTP/1.1: the proxy may speak HTTP/2 to callers only",
    UnknownSetting => "no key of the configuration",
    SecretInFile => "a secret: give it by `fly secrets`",
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The key, dotted.
    pub(crate) at: String,
    pub(crate) rule: Rule,
    /// The value, or what it should be.
    pub(crate) detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, rule, detail } = self;
        write!(f, "{at}: {} ({rule:?}): {detail}", rule.says())
    }
}

/// All that was found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
    /// What costs or surprises and is no mistake.
    pub(crate) notes: Vec<String>,
}

impl Report {
    pub(crate) fn add(&mut self, rule: Rule, at: &str, detail: impl Into<String>) {
        self.findings.push(Finding { at: at.to_owned(), rule, detail: detail.into() });
    }

    pub(crate) fn require(&mut self, holds: bool, rule: Rule, at: &str, detail: impl Into<String>) {
        if !holds {
            self.add(rule, at, detail);
        }
    }
}
