//! What the control groups of this process let it have of the machine's memory: in a container the kernel ends it at
//! their limit, however much the machine has left.
//!
//! Reads both kinds. Of Linux' version 1 the memory controller has a tree of its own, in version 2 all share one.

use std::fs;
use std::path::{Component, Path, PathBuf};

use peregrine_actors::MemoryRoom;

/// The group that this process is in and those around it, as far as they can be seen from here; the outermost last.
#[derive(Debug, PartialEq)]
pub(super) struct Groups {
    files: &'static Files,
    folders: Vec<PathBuf>,
}

/// How a kind of group names what it says.
#[derive(Debug, PartialEq)]
struct Files {
    limit: &'static str,
    usage: &'static str,
    /// In `memory.stat`: pages of files that the kernel takes back before it ends anybody. With those of groups inside.
    inactive: &'static str,
}

const V1: Files =
    Files { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", inactive: "total_inactive_file" };
const V2: Files = Files { limit: "memory.max", usage: "memory.current", inactive: "inactive_file" };

impl Groups {
    /// Of this process; `None` where there are no such groups.
    pub(super) fn own() -> Option<Self> {
        let read = |path| fs::read_to_string(path).ok();
        Self::of(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
    }

    /// `groups` is a process' `/proc/PID/cgroup`, `mounts` its `/proc/PID/mountinfo`.
    fn of(groups: &str, mounts: &str) -> Option<Self> {
        // Where the memory controller has a tree of its own, the common one says nothing of memory.
        let own_tree = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|controller| controller == "memory").then_some(path)
        });
        let (files, path) = match own_tree {
            Some(path) => (&V1, path),
            None => (&V2, groups.lines().find_map(|line| line.strip_prefix("0::"))?),
        };
        let (root, mount) = mounts.lines().find_map(|line| mount(line, files))?;
        // A path that is not below what is mounted here is told from outside: this process is at its root.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        let is_below = below.components().all(|part| matches!(part, Component::Normal(_)));
        let own: PathBuf = mount.components().chain(below.components().filter(|_| is_below)).collect();
        let inside = |folder: &&Path| folder.starts_with(mount);
        Some(Self { files, folders: own.ancestors().take_while(inside).map(Path::to_owned).collect() })
    }

    /// What the smallest limit leaves, if it is smaller than the machine.
    pub(super) fn room(&self, machine_bytes: u64) -> Option<MemoryRoom> {
        let said = |folder: &PathBuf| {
            let read = |file| fs::read_to_string(folder.join(file)).unwrap_or_default();
            [read(self.files.limit), read(self.files.usage), read("memory.stat")]
        };
        room(self.files, self.folders.iter().map(said), machine_bytes)
    }
}

/// Of one line of `mountinfo`: which part of the tree is mounted, and where.
fn mount<'a>(line: &'a str, files: &Files) -> Option<(&'a str, &'a Path)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let is_it = match kind.next()? {
        "cgroup" => *files == V1 && kind.nth(1)?.split(',').any(|option| option == "memory"),
        "cgroup2" => *files == V2,
        _ => false,
    };
    let mut place = place.split(' ').skip(3);
    is_it.then(|| Some((place.next()?, Path::new(place.next()?))))?
}

/// Of what groups say: their limit, their usage and `memory.stat`. What cannot be read limits nothing.
fn room(files: &Files, groups: impl Iterator<Item = [String; 3]>, machine_bytes: u64) -> Option<MemoryRoom> {
    let limited = groups.filter_map(|[limit, usage, stat]| {
        let limit: u64 = limit.trim().parse().ok()?; // `max` is no number
        let usage: u64 = usage.trim().parse().ok()?;
        let inactive = stat.lines().find_map(|line| line.strip_prefix(files.inactive)?.trim().parse().ok());
        let used_bytes = usage.saturating_sub(inactive.unwrap_or(0));
        (limit < machine_bytes).then_some(MemoryRoom { used_bytes, total_bytes: limit })
    });
    // Of equal limits the one that is met first.
    limited.min_by_key(|room| (room.total_bytes, std::cmp::Reverse(room.used_bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[track_caller]
    fn check_folders(groups: &str, mounts: &str, expected: (&str, &[&str])) {
        let found = Groups::of(groups, mounts).expect("groups");
        let folders: Vec<&str> = found.folders.iter().filter_map(|folder| folder.to_str()).collect();
        assert_eq!((found.files.limit, &folders[..]), expected);
    }

    const UNIFIED: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn a_container_with_a_namespace_is_at_the_root() {
        check_folders("0::/\n", UNIFIED, ("memory.max", &["/sys/fs/cgroup"]));
    }

    #[test]
    fn a_service_has_groups_around_it() {
        let expected =
            ["/sys/fs/cgroup/system.slice/a.service", "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup"];
        check_folders("0::/system.slice/a.service\n", UNIFIED, ("memory.max", &expected));
    }

    #[test]
    fn a_container_of_version_1_sees_its_own_group_alone() {
        let mounts = "30 25 0:27 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n\
                      31 25 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
                      32 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let groups = "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n";
        check_folders(groups, mounts, ("memory.limit_in_bytes", &["/sys/fs/cgroup/memory"]));
        check_folders(
            "4:memory:/docker/abc/inner\n",
            mounts,
            ("memory.limit_in_bytes", &["/sys/fs/cgroup/memory/inner", "/sys/fs/cgroup/memory"]),
        );
    }

    #[test]
    fn a_path_from_outside_is_the_root_of_what_is_mounted() {
        check_folders("0::/../other\n", UNIFIED, ("memory.max", &["/sys/fs/cgroup"]));
        let mounts = UNIFIED.replace(" / ", " /kubepods/pod1 ");
        check_folders("0::/elsewhere\n", &mounts, ("memory.max", &["/sys/fs/cgroup"]));
    }

    #[test]
    fn where_nothing_is_mounted_there_are_no_groups() {
        assert_eq!(Groups::of("0::/\n", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"), None);
        assert_eq!(Groups::of("", UNIFIED), None);
    }

    /// `groups`: limit, usage and statistics of each, the innermost first.
    #[track_caller]
    fn check(files: &Files, groups: &[[&str; 3]], expected: Option<(u64, u64)>) {
        let said = groups.iter().map(|group| group.map(str::to_owned));
        let found = room(files, said, 64 * GIB);
        assert_eq!(found.map(|room| (room.used_bytes, room.total_bytes)), expected);
    }

    #[test]
    fn cached_files_are_not_in_use() {
        let stat = "anon 400\nfile 600\ninactive_anon 7\ninactive_file 250\nactive_file 350\n";
        check(&V2, &[["2000\n", "1000\n", stat]], Some((750, 2000)));
        check(&V2, &[["2000\n", "1000\n", ""]], Some((1000, 2000)));
        check(&V2, &[["2000\n", "100\n", stat]], Some((0, 2000)));
    }

    #[test]
    fn version_1_counts_the_groups_inside() {
        let stat = "inactive_file 1\ntotal_inactive_file 300\n";
        check(&V1, &[["2000\n", "1000\n", stat]], Some((700, 2000)));
    }

    #[test]
    fn without_a_limit_the_machine_is_all_there_is() {
        check(&V2, &[["max\n", "1000\n", ""]], None);
        check(&V2, &[["", "", ""]], None);
        check(&V1, &[["9223372036854771712\n", "1000\n", ""]], None);
        check(&V2, &[["68719476736\n", "1000\n", ""]], None);
    }

    #[test]
    fn the_smallest_limit_counts_with_what_its_group_uses() {
        check(
            &V2,
            &[["max\n", "10\n", ""], ["3000\n", "900\n", ""], ["5000\n", "4000\n", ""]],
            Some((900, 3000)),
        );
        check(&V2, &[["3000\n", "10\n", ""], ["3000\n", "900\n", ""]], Some((900, 3000)));
    }
}
