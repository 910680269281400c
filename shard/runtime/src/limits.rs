//! Limits of the process that a server wants higher than a shell has them.

use std::io;

/// Raises the soft limit of open files to the hard limit, and answers it. Each connection and each sstable is one.
pub fn raise_open_files_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live struct of the right type, which the call fills in.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a live struct of the right type, which the call only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// Descriptors that are kept for files of the `limit` that the process has: a quarter, and enough for a small node.
fn descriptors_for_files(limit: u64) -> u64 {
    (limit / 4).max(FILES_MIN).min(limit)
}

/// Connections that the `limit` leaves room for.
pub fn connections_within(limit: u64) -> usize {
    usize::try_from(limit - descriptors_for_files(limit)).unwrap_or(usize::MAX)
}

/// Least descriptors for files: segments of the commitlog, and a few tables' sstables with flushes and compactions.
const FILES_MIN: u64 = 128;

#[cfg(test)]
mod tests {
    #[test]
    fn connections_leave_descriptors_for_files() {
        let within = [0, 100, 256, 1024, 1 << 20].map(super::connections_within);
        assert_eq!(within, [0, 0, 128, 768, 3 << 18]);
    }

    #[test]
    fn the_limit_can_be_raised_and_is_not_small() {
        let limit = super::raise_open_files_limit().expect("raising to the hard limit is always allowed");
        assert!(limit >= 1024, "{limit}");
    }
}
