//! How much memory images may take.

use std::fs;

/// Which part of the free memory images may take: the network needs the rest.
const PART: u64 = 4;

/// Bytes that decoded images may take in this worker unless told.
pub fn cache_budget() -> u64 {
    free() / PART
}

/// Bytes that this worker may still use.
pub fn free() -> u64 {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let free = [
        available(&text("/proc/meminfo")),
        left(
            &text("/sys/fs/cgroup/memory.max"),
            &text("/sys/fs/cgroup/memory.current"),
        ),
        left(
            &text("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
            &text("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        ),
    ];
    free.into_iter().flatten().min().unwrap_or(0)
}

fn available(meminfo: &str) -> Option<u64> {
    kilobytes(meminfo, "MemAvailable:")
}

/// The bytes in the line `field` of a table of the kernel's.
pub fn kilobytes(table: &str, field: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// What a limit leaves; a limit of `max` means none.
fn left(limit: &str, used: &str) -> Option<u64> {
    let limit: u64 = limit.trim().parse().ok()?;
    Some(limit.saturating_sub(used.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_their_absence_is_none() {
        assert_eq!(
            Some(2048),
            available("MemTotal: 9 kB\nMemAvailable:       2 kB\n")
        );
        assert_eq!(Some(30), left("100\n", "70\n"));
        assert_eq!(None, left("max\n", "70\n"));
        assert_eq!(None, left("", ""));
    }
}
