//! In which folder what a driver made of kernels is kept.

use std::ffi::OsString;
use std::path::PathBuf;

use peregrine_shaders::gpu::AdapterChoice;

use crate::config::KernelCache;

/// `None`: nowhere. The user's folder of caches is where the XDG base directory specification has it.
pub(crate) fn kernel_folder(
    cache: &KernelCache,
    adapter: AdapterChoice,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    match cache {
        KernelCache::None => None,
        KernelCache::Folder(folder) => Some(folder.clone()),
        KernelCache::Auto if adapter == AdapterChoice::Software => None,
        KernelCache::Auto => {
            let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
            Some(caches.join("peregrine").join("kernels"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cache: KernelCache, adapter: AdapterChoice, variables: &[(&str, &str)], expected: Option<&str>) {
        let variable = |wanted: &str| {
            variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| OsString::from(value))
        };
        assert_eq!(
            kernel_folder(&cache, adapter, variable),
            expected.map(PathBuf::from),
            "{cache:?}, {variables:?}"
        );
    }

    #[test]
    fn kernels_are_kept_where_the_user_keeps_caches_or_where_it_is_said() {
        use AdapterChoice::{Hardware, Software};
        let home = ("HOME", "/home/ana");
        check(KernelCache::Auto, Hardware, &[home], Some("/home/ana/.cache/peregrine/kernels"));
        check(KernelCache::Auto, Hardware, &[home, ("XDG_CACHE_HOME", "/c")], Some("/c/peregrine/kernels"));
        check(
            KernelCache::Auto,
            Hardware,
            &[home, ("XDG_CACHE_HOME", "")],
            Some("/home/ana/.cache/peregrine/kernels"),
        );
        check(KernelCache::Auto, Hardware, &[], None);
        check(KernelCache::Auto, Software, &[home], None);
        check(KernelCache::None, Hardware, &[home], None);
        let folder = || KernelCache::Folder(PathBuf::from("/data/kernels"));
        check(folder(), Hardware, &[], Some("/data/kernels"));
        check(folder(), Software, &[home], Some("/data/kernels"));
    }
}
