//! Whether events can be had: where they can, that they cannot be had is a failure.

use std::fs;

use rustix::system::uname;

/// Why not even root is told of births and exits here; `None` where whoever has CAP_NET_ADMIN must be.
pub fn why_no_events() -> Option<String> {
    // linux/proc_ns.h: the first namespaces, but for the network's, which is pid 1's. In others the kernel is silent.
    let namespace = |path: &str| fs::read_link(path).ok();
    for (name, first) in [("user", "user:[4026531837]"), ("pid", "pid:[4026531836]")] {
        if namespace(&format!("/proc/self/ns/{name}")).is_none_or(|link| link.as_os_str() != first) {
            return Some(format!("this is not the first {name} namespace"));
        }
    }
    // Root with few capabilities may not look.
    let network = [namespace("/proc/self/ns/net"), namespace("/proc/1/ns/net")];
    if let [Some(own), Some(first)] = network
        && own != first
    {
        return Some("this is not the first network namespace".into());
    }
    let release = uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (version < (5, 19)).then(|| format!("Linux {release} is older than 5.19"))
}
