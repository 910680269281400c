//! Figures of the process as the kernel keeps them.

/// Resident memory, processor time, open files and threads.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ProcessFigures {
    /// Bytes resident.
    pub resident_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Seconds of processor time, user and system.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub open_files: u64,
    /// Threads.
    pub threads: u64,
    /// Bytes read from storage devices.
    pub read_bytes: u64,
    /// Bytes written to storage devices.
    pub write_bytes: u64,
}

/// Clock ticks per second in /proc, fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Page size for statm.
const PAGE_SIZE: u64 = 4096;

/// Bytes resident, by the shortest way.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|field| field.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE_SIZE
}

/// Reads /proc/self; what cannot be read is zero.
pub fn figures() -> ProcessFigures {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let statm = read("statm");
    let mut pages = statm.split(' ').map(|field| field.parse::<u64>().unwrap_or(0));
    let virtual_bytes = pages.next().unwrap_or(0) * PAGE_SIZE;
    let resident_bytes = pages.next().unwrap_or(0) * PAGE_SIZE;
    let stat = read("stat");
    // The command name may hold spaces; fields are counted after its closing parenthesis.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let field = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let io = read("io");
    let counter = |name: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    };
    ProcessFigures {
        resident_bytes,
        virtual_bytes,
        cpu_seconds: (field(11) + field(12)) as f64 / TICKS_PER_SECOND,
        open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        threads: field(17),
        read_bytes: counter("read_bytes:"),
        write_bytes: counter("write_bytes:"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_figures_of_a_live_process_are_not_zero() {
        let figures = super::figures();
        assert!(figures.resident_bytes > 1 << 20, "{figures:?}");
        assert!(super::resident_bytes() > 1 << 20);
        assert!(figures.threads >= 1 && figures.open_files >= 3, "{figures:?}");
    }
}
