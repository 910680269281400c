//! Signals to other processes.

/// Asks the process `id` to end (SIGTERM). Does nothing when there is none, or it is somebody else's.
pub fn terminate(id: u32) {
    if let Ok(id) = libc::pid_t::try_from(id)
        && id > 0
    {
        // SAFETY: the call takes two numbers; a positive id names one process.
        unsafe {
            libc::kill(id, libc::SIGTERM);
        }
    }
}
