//! The binary `peregrine`: hands the command line to [`peregrine::cli`].

use std::env;
use std::path::Path;
use std::process::ExitCode;

/// Gives back what lies free, whichever thread it was of: a node that serves for weeks stays as large as what it holds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    name_no_display();
    peregrine::cli::run(env::args_os())
}

/// A Vulkan layer of Mesa asks a Wayland display which device it is on, and its library complains on stderr where no
/// folder for its socket is known. A display that is named whole needs no folder; nobody listens at this one.
fn name_no_display() {
    let is_whole = |name| env::var_os(name).is_some_and(|path| Path::new(&path).is_absolute());
    if !is_whole("XDG_RUNTIME_DIR") && !is_whole("WAYLAND_DISPLAY") {
        // SAFETY: no other thread has been started yet.
        unsafe { env::set_var("WAYLAND_DISPLAY", "/dev/null") };
    }
}
