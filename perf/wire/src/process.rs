//! Processes: pinning to cores, processor time, servers as children.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Clock ticks per second in /proc; the same on every architecture that Linux has.
const TICKS_PER_SECOND: u32 = 100;

/// Lets this thread, and what it starts from now on, run on one core only.
pub(crate) fn pin(core: usize) -> Result<(), String> {
    // SAFETY: a cpu_set_t is plain bits, for which zero is valid.
    let mut cores: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if core >= libc::CPU_SETSIZE as usize {
        return Err(format!("there is no core {core}"));
    }
    // SAFETY: the core is within the set (checked above).
    unsafe { libc::CPU_SET(core, &mut cores) };
    // SAFETY: the set is as long as said; 0 is the calling thread.
    let outcome = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const cores) };
    match outcome {
        0 => Ok(()),
        _ => Err(format!(
            "cannot run on core {core}: {}",
            std::io::Error::last_os_error()
        )),
    }
}

/// Processor time of a process and all its threads so far, user and system. In steps of 10 ms.
pub(crate) fn cpu_time(process: u32) -> Result<Duration, String> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    ticks(&text)
        .map(|ticks| Duration::from_secs(ticks) / TICKS_PER_SECOND)
        .ok_or_else(|| format!("{path} is not understood: {text}"))
}

/// `utime` and `stime`: the 14th and 15th field. The second, in brackets, may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// A server that this process has started; killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Held open: the server may write more lines.
    _stdout: BufReader<ChildStdout>,
    /// The line that it printed when it was ready.
    pub(crate) ready: String,
}

impl Server {
    /// Starts a server on `core` and waits for the line it prints when ready. The caller must pin itself anew.
    pub(crate) fn start(program: &Path, arguments: &[String], core: usize) -> Result<Server, String> {
        pin(core)?;
        let name = program.display();
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe was asked for"));
        let mut ready = String::new();
        let read = stdout.read_line(&mut ready);
        let server = Server {
            child,
            _stdout: stdout,
            ready,
        };
        match read {
            Ok(_) if server.ready.starts_with("ready:") => Ok(server),
            _ => Err(format!("{name} did not become ready: {:?}", server.ready)),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 31 11 0 0 20 0 1 0 100 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("12 (short) S 1 2 3"), None);
    }

    #[test]
    fn own_time_passes() {
        let began = std::time::Instant::now();
        while cpu_time(std::process::id()).unwrap() < Duration::from_millis(50) {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "busy, and no time passes"
            );
        }
    }
}
