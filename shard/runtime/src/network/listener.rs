//! Listening sockets of the node.
//!
//! A listening socket belongs to all shards: the first shard to call binds it, shard 0 accepts on it, and accepted
//! sockets go to the shard their placement names. The table is behind a lock that is taken at boot and at the end
//! only, never while requests run.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, PoisonError};

use ceto_env::Placement;

/// Connections that wait to be accepted; the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

struct Listener {
    requested: SocketAddr,
    placement: Placement,
    bound: Result<Bound, i32>,
}

struct Bound {
    /// None once accepting was stopped.
    socket: Option<TcpListener>,
    address: SocketAddr,
}

/// The node's listening sockets, in the order of the calls.
#[derive(Default)]
pub(crate) struct Listeners {
    table: Mutex<Vec<Listener>>,
}

impl Listeners {
    /// The bound address of the `place`th listener, bound now if no shard did before.
    pub(super) fn listen(
        &self,
        place: usize,
        address: SocketAddr,
        placement: Placement,
    ) -> io::Result<SocketAddr> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if place == table.len() {
            let bound = bind(address).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
            table.push(Listener {
                requested: address,
                placement,
                bound,
            });
        }
        match table.get(place) {
            Some(listener) if listener.requested == address && listener.placement == placement => {
                match &listener.bound {
                    Ok(bound) => Ok(bound.address),
                    Err(code) => Err(io::Error::from_raw_os_error(*code)),
                }
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "shards listen on different addresses",
            )),
        }
    }

    /// Descriptor and placement of a listener that still accepts.
    pub(super) fn get(&self, place: usize) -> Option<(RawFd, Placement)> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = table.get(place)?;
        let socket = listener.bound.as_ref().ok()?.socket.as_ref()?;
        Some((socket.as_raw_fd(), listener.placement))
    }

    /// Closes every listening socket.
    pub(super) fn close(&self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        for listener in table.iter_mut() {
            if let Ok(bound) = &mut listener.bound {
                bound.socket = None;
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<Bound> {
    let socket = TcpListener::bind(address)?;
    // Accepted sockets inherit both: answers leave at once, and dead peers are found in the end.
    set_option(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    // SAFETY: a plain call on a descriptor that is open.
    if unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let address = socket.local_addr()?;
    Ok(Bound {
        socket: Some(socket),
        address,
    })
}

/// Sets an option that is an int.
pub(super) fn set_option(socket: &impl AsRawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value is an int, as its length says, and the descriptor is open.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if outcome < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
