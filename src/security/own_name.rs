//! The names of this machine that no stranger can have lead here.
//!
//! Not any name that the operating system has for it: a network may give a machine its name, and answer for it as well
//! (DHCP, multicast DNS). One that the machine's own table leads to itself is asked of no network.

use std::ffi::CStr;
use std::net::IpAddr;
use std::path::Path;

use super::bounded;

const HOSTS: &str = "/etc/hosts";

/// Its host name, alone and below `local`, where its table of hosts leads them to a loopback address.
pub(super) fn own_names() -> Vec<String> {
    let Some(name) = host_name().filter(|name| !name.is_empty()) else { return Vec::new() };
    // Without a table nothing is led anywhere by it.
    let hosts = bounded(Path::new(HOSTS)).unwrap_or_default();
    led_here(&hosts, [format!("{name}.local"), name])
}

fn host_name() -> Option<String> {
    let mut name = [0_u8; 256];
    // SAFETY: the buffer is as long as is said.
    let failed = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) };
    // A name that was cut has no end.
    let name = CStr::from_bytes_until_nul(&name).ok().filter(|_| failed == 0)?;
    name.to_str().ok().map(str::to_owned)
}

/// Those of the names that a table of hosts leads to loopback addresses, and nowhere else.
fn led_here(hosts: &str, names: [String; 2]) -> Vec<String> {
    let is_led_here = |name: &String| {
        let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
        let of_name = lines.filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next()?;
            words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
        });
        let mut addresses = of_name.peekable();
        addresses.peek().is_some()
            && addresses.all(|address| address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
    };
    names.into_iter().filter(is_led_here).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_where_the_table_leads_it_here() {
        for (hosts, want) in [
            ("127.0.0.1 localhost\n127.0.1.1 desk.example desk\n", &["desk"][..]),
            ("127.0.0.1\tlocalhost Desk # the desk\n::1 desk desk.local\n", &["desk.local", "desk"][..]),
            ("127.0.0.1 localhost # desk\n#127.0.0.1 desk\n", &[][..]),
            ("127.0.1.1 desk.evil.example desktop\n", &[][..]),
            ("127.0.1.1 desk\n192.0.2.7 desk\n", &[][..]),
            ("192.0.2.7 desk\n", &[][..]),
            ("desk 127.0.0.1\n", &[][..]),
            ("", &[][..]),
        ] {
            let names = ["desk.local".to_owned(), "desk".to_owned()];
            assert_eq!(led_here(hosts, names), want, "{hosts}");
        }
    }

    #[test]
    fn the_operating_system_has_a_name_for_this_machine() {
        let said = std::process::Command::new("uname").arg("-n").output().unwrap();
        assert_eq!(host_name().as_deref(), Some(String::from_utf8_lossy(&said.stdout).trim()));
    }
}
