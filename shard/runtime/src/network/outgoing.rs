//! Connections that this shard makes: a socket, a source port, and a connect on the ring.
//!
//! Where the other end places connections by source port, the port is chosen here: ports are tried until one of the right
//! class is free. A connect that takes too long is given up through the ring, so nothing is left waiting with the kernel.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::pin::pin;
use std::rc::Weak;
use std::time::Duration;

use ceto_env::Route;
use io_uring::{opcode, types};

use super::listener::set_option;
use super::{NetworkRing, PORT_STEP};
use crate::disk::Held;

/// Source ports: Linux's range of ephemeral ones.
const PORTS: std::ops::Range<u32> = 32_768..61_000;
/// Ports tried for one connection.
const PORT_TRIES: u32 = 256;
/// Sent bytes that nobody acknowledges for so long end the connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// A socket that is being connected, with the address the kernel reads meanwhile.
pub(crate) struct OutgoingSocket {
    pub(super) stream: TcpStream,
    address: Box<Address>,
}

/// A socket address as the kernel takes it.
struct Address {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

impl Address {
    fn new(address: SocketAddr) -> Address {
        // SAFETY: all-zero bytes are a valid sockaddr_storage.
        let mut storage: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
        let length = match address {
            SocketAddr::V4(v4) => {
                let own = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(v4.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                // SAFETY: a sockaddr_storage has room for, and the alignment of, every kind of address.
                unsafe {
                    std::ptr::from_mut(&mut storage)
                        .cast::<libc::sockaddr_in>()
                        .write(own)
                };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                let own = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: v6.ip().octets(),
                    },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe {
                    std::ptr::from_mut(&mut storage)
                        .cast::<libc::sockaddr_in6>()
                        .write(own)
                };
                size_of::<libc::sockaddr_in6>()
            }
        };
        Address {
            storage,
            length: length as libc::socklen_t,
        }
    }

    fn as_ptr(&self) -> *const libc::sockaddr {
        std::ptr::from_ref(&self.storage).cast()
    }
}

impl OutgoingSocket {
    /// A socket for a connection to `remote`, bound to what is asked for. `first_port` says where the search of a source
    /// port begins.
    pub(super) fn open(
        remote: SocketAddr,
        local: Option<IpAddr>,
        shard: Option<(u16, u16)>,
        first_port: u32,
    ) -> io::Result<OutgoingSocket> {
        let family = if remote.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        // SAFETY: a plain call.
        let descriptor = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us and nothing else owns it.
        let stream = unsafe { TcpStream::from_raw_fd(descriptor) };
        set_option(&stream, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        set_option(&stream, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        let patience = UNACKNOWLEDGED_MAX.as_millis() as i32;
        set_option(&stream, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, patience)?;
        let any: IpAddr = if remote.is_ipv4() {
            [0; 4].into()
        } else {
            [0u16; 8].into()
        };
        match shard {
            Some((wanted, count)) if count > 1 => {
                bind_to_class(descriptor, local.unwrap_or(any), (wanted, count), first_port)?;
            }
            _ => {
                if let Some(local) = local {
                    bind(descriptor, SocketAddr::new(local, 0))?;
                }
            }
        }
        Ok(OutgoingSocket {
            stream,
            address: Box::new(Address::new(remote)),
        })
    }

    /// The entry that connects it. It points into this socket's heap memory.
    pub(super) fn connect(&self) -> io_uring::squeue::Entry {
        let descriptor = types::Fd(self.stream.as_raw_fd());
        opcode::Connect::new(descriptor, self.address.as_ptr(), self.address.length).build()
    }
}

/// Binds to a free port with `port % count == wanted`.
fn bind_to_class(descriptor: RawFd, local: IpAddr, shard: (u16, u16), first_port: u32) -> io::Result<()> {
    let (wanted, count) = (u32::from(shard.0), u32::from(shard.1));
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in ports(wanted, count, first_port).take(PORT_TRIES as usize) {
        match bind(descriptor, SocketAddr::new(local, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            outcome => return outcome,
        }
    }
    Err(last)
}

/// Ports of the class, each once, beginning somewhere that `first` says.
fn ports(wanted: u32, count: u32, first: u32) -> impl Iterator<Item = u16> {
    let start = PORTS.start.next_multiple_of(count) + wanted;
    let members = PORTS.end.saturating_sub(start).div_ceil(count);
    (0..members).filter_map(move |step| {
        let place = (first % members.max(1) + step) % members.max(1);
        u16::try_from(start + place * count).ok()
    })
}

fn bind(descriptor: RawFd, address: SocketAddr) -> io::Result<()> {
    let address = Address::new(address);
    // SAFETY: the address is live and as long as it says; the descriptor is open.
    let outcome = unsafe { libc::bind(descriptor, address.as_ptr(), address.length) };
    if outcome < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

impl NetworkRing {
    /// Connects, within the route's time.
    pub(super) async fn open(this: Weak<Self>, route: Route) -> io::Result<TcpStream> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let (operation, time) = {
            let network = this.upgrade().ok_or_else(gone)?;
            let executor = network.executor.upgrade().ok_or_else(gone)?;
            let first_port = network.next_port.get();
            network.next_port.set(first_port.wrapping_add(PORT_STEP));
            let socket = OutgoingSocket::open(route.remote, route.local, route.shard, first_port)?;
            let entry = socket.connect();
            // SAFETY: the entry points to the socket's address, which is on the heap and owned by what is held.
            let operation = unsafe { network.ring.start(entry, Held::Socket(socket)) };
            (operation, executor.sleep(route.timeout))
        };
        let mut operation = pin!(operation);
        let mut time = pin!(time);
        let mut is_late = false;
        let (result, held) = poll_fn(|context| {
            let outcome = operation.as_mut().poll(context);
            if outcome.is_pending() && !is_late && time.as_mut().poll(context).is_ready() {
                is_late = true;
                operation.cancel();
            }
            outcome
        })
        .await;
        match held {
            Held::Socket(socket) if result >= 0 => Ok(socket.stream),
            _ if is_late => Err(io::ErrorKind::TimedOut.into()),
            _ => Err(io::Error::from_raw_os_error(-result)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_of_their_class_and_each_comes_once() {
        for (wanted, count) in [(0, 1), (0, 2), (1, 2), (6, 7), (63, 64), (999, 1000)] {
            let mut all: Vec<u16> = ports(wanted, count, 12_345).collect();
            assert!(all.iter().all(|port| u32::from(*port) % count == wanted));
            assert!(all.iter().all(|port| PORTS.contains(&u32::from(*port))));
            let length = all.len();
            assert!(length >= 28, "{length}");
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), length);
        }
    }
}
