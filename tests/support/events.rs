//! Whether events can be had: where they can, that they cannot be had is a failure.

use std::fs;
use std::path::Path;

use rustix::system::uname;

/// Why not even root is told of births and exits here; `None` where whoever has CAP_NET_ADMIN must be.
pub fn why_no_events() -> Option<String> {
    // linux/proc_ns.h: in others the kernel is silent.
    for (name, first) in [("user", "user:[4026531837]"), ("pid", "pid:[4026531836]")] {
        if !fs::read_link(format!("/proc/self/ns/{name}")).is_ok_and(|link| link.as_os_str() == first) {
            return Some(format!("this is not the first {name} namespace"));
        }
    }
    // It is in the first network namespace only (drivers/connector/connector.c).
    if !Path::new("/proc/net/connector").exists() {
        return Some("this is not the first network namespace, or a kernel without CONFIG_PROC_EVENTS".into());
    }
    let release = uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (version < (5, 19)).then(|| format!("Linux {release} is older than 5.19"))
}
