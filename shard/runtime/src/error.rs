//! What can keep the runtime from starting, or end it.

use std::fmt;
use std::io;

/// A failed start or an unhappy end.
#[derive(Debug)]
pub enum Error {
    /// The kernel refused to set io_uring up.
    RingRefused(io::Error),
    /// The kernel's io_uring lacks what the named use needs.
    RingTooOld {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A thread or another resource of the operating system was refused.
    System {
        /// What was tried.
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// An option outside its range.
    Option(&'static str),
    /// A shard's thread panicked. Only where panics unwind.
    ShardPanicked(u16),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RingRefused(source) => {
                write!(f, "io_uring is not available ({source}): {}", advice(source))
            }
            Self::RingTooOld { what, source } => write!(
                f,
                "io_uring of this kernel cannot {what} ({source}): run Linux 6.1 or later"
            ),
            Self::System { what, source } => write!(f, "cannot {what}: {source}"),
            Self::Option(text) => f.write_str(text),
            Self::ShardPanicked(shard) => write!(f, "shard {shard} panicked"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::RingRefused(source) | Self::RingTooOld { source, .. } | Self::System { source, .. } => {
                Some(source)
            }
            Self::Option(_) | Self::ShardPanicked(_) => None,
        }
    }
}

/// One line that says what to change.
fn advice(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => match disabled_sysctl() {
            Some(b'1') => {
                "run `sysctl -w kernel.io_uring_disabled=0`, or add the user's group to kernel.io_uring_group"
            }
            Some(b'2') => "run `sysctl -w kernel.io_uring_disabled=0`",
            _ => {
                "a seccomp filter forbids it; in a container allow io_uring_setup, io_uring_enter and \
                 io_uring_register (docker: --security-opt seccomp=unconfined or a profile with them)"
            }
        },
        Some(libc::ENOSYS) => "this kernel has none; run Linux 6.1 or later with CONFIG_IO_URING",
        Some(libc::ENOMEM) => "raise the locked memory limit (`ulimit -l`, systemd: LimitMEMLOCK=infinity)",
        Some(libc::EMFILE | libc::ENFILE) => {
            "raise the limit of open files (`ulimit -n`, systemd: LimitNOFILE=1048576)"
        }
        Some(libc::EINVAL) => "this kernel is too old; run Linux 6.1 or later",
        _ => "run Linux 6.1 or later and allow io_uring to this process",
    }
}

/// The value of kernel.io_uring_disabled, where the kernel has it.
fn disabled_sysctl() -> Option<u8> {
    std::fs::read("/proc/sys/kernel/io_uring_disabled")
        .ok()?
        .first()
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_change_in_one_line() {
        for code in [
            libc::EPERM,
            libc::ENOSYS,
            libc::ENOMEM,
            libc::EMFILE,
            libc::EINVAL,
            libc::EIO,
        ] {
            let text = Error::RingRefused(io::Error::from_raw_os_error(code)).to_string();
            assert!(!text.contains('\n') && text.len() > 60, "{text}");
        }
        let memory = Error::RingRefused(io::Error::from_raw_os_error(libc::ENOMEM)).to_string();
        assert!(memory.contains("ulimit -l"), "{memory}");
    }
}
