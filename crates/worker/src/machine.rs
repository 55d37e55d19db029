//! What the machine has to offer, as its system tells.
//!
//! In:     `/proc`, `/sys`, where there are any.
//! Out:    memory, cores, room on disks, links, the address one speaks from, and whether large pages are given.
//! Touches: reads only; no packet is sent.
//! Absent: instructions and vector widths. `kernels` detects those.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    num::NonZeroUsize,
    path::Path,
    thread,
};

/// Bytes of memory that a new process could use: the system's, or its control group's if that is less.
/// `None` where the system does not tell.
pub fn available_memory_bytes() -> Option<u64> {
    let system = meminfo(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let group = || {
        let read = |name| fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok();
        let limit: u64 = read("max")?.trim().parse().ok()?;
        let used: u64 = read("current")?.trim().parse().ok()?;
        Some(limit.saturating_sub(used))
    };
    Some(group().map_or(system, |group| group.min(system)))
}

/// Bytes that may still be written to the disk that a path is on. `None` where there is no such path.
pub fn free_disk_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes of memory in the machine. `None` where the system does not tell.
pub fn total_memory_bytes() -> Option<u64> {
    meminfo(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// The address from which this machine would speak to another: the system's choice, without a word being said.
/// `None` where there is no way.
pub fn speaks_from(towards: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match towards {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(towards).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

/// Megabits per second of the fastest link that is up. `None` where the system does not tell.
pub fn link_mbit() -> Option<u64> {
    let links = fs::read_dir("/sys/class/net").ok()?;
    let speed = |link: fs::DirEntry| -> Option<u64> {
        let path = link.path();
        if link.file_name() == "lo" || fs::read_to_string(path.join("operstate")).ok()?.trim() != "up" {
            return None;
        }
        fs::read_to_string(path.join("speed")).ok()?.trim().parse().ok()
    };
    links.filter_map(|link| speed(link.ok()?)).max()
}

/// Whether the system gives large pages to those who ask: `always`, `madvise` or `never`.
pub fn huge_pages() -> Option<String> {
    let modes = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    let chosen = modes.split_once('[')?.1.split_once(']')?.0;
    Some(chosen.to_owned())
}

/// Hardware threads this process may use.
pub fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_speaks_to_oneself_from_loopback() {
        assert_eq!(speaks_from("127.0.0.1:9".parse().unwrap()), Some(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:       24576 kB\nMemAvailable:      12 kB\nOdd: x kB\n";
        assert_eq!(meminfo(text, "MemTotal:"), Some(24576 * 1024));
        assert_eq!(meminfo(text, "MemAvailable:"), Some(12 * 1024));
        assert_eq!(meminfo(text, "Odd:"), None);
        assert_eq!(meminfo(text, "SwapTotal:"), None);
    }
}
