//! CPU time and memory of a process, from /proc; and the limit of open files.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Ticks per second in /proc/PID/stat: fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Memory {
    /// Resident pages.
    pub(super) rss: u64,
    /// Resident pages, shared ones divided by the number of processes.
    pub(super) pss: u64,
}

/// CPU seconds (user and system) of a process so far; `None` if it is gone.
pub(super) fn cpu_seconds(pid: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    cpu_of_stat(&stat)
}

fn cpu_of_stat(stat: &str) -> Option<f64> {
    // The program name may contain anything, even spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// Memory of a process; `None` if it is gone or belongs to another user.
pub(super) fn memory(pid: &str) -> Option<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(Memory { rss: field_kib(&rollup, "Rss:")?, pss: field_kib(&rollup, "Pss:")? })
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The number of files that this process may open, after raising the limit as far as allowed;
/// `None`: no limit.
pub(super) fn open_files_max() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_stand_behind_a_name_that_may_hold_anything() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(cpu_of_stat(stat), Some(2.0));
        assert_eq!(cpu_of_stat("7"), None);
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let memory = memory("self").expect("Linux");
        assert!(memory.rss >= memory.pss && memory.pss > 0);
        assert!(cpu_seconds("self").is_some());
        assert!(open_files_max().is_none_or(|files| files > 0));
    }
}
