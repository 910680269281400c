//! Starts the shards of a node: one thread each, pinned where there are cores enough.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ceto_env::{Env, LocalFuture, Mailbox, Network, TaskQueue};

use crate::disk::{BlockingPool, BlockingThreads, Freeing, FreeingThread, LinuxDisk};
use crate::env::LinuxEnv;
use crate::error::Error;
use crate::executor::Executor;
use crate::handle::ShardHandle;
use crate::mailbox::{ControlHandle, MailboxPort, Port, Receiver, Seat, mesh};
use crate::metrics::RuntimeMetrics;
use crate::network::{Listeners, NetworkRing};
use crate::ring::Ring;
use crate::watchdog;

/// Most shards of a node.
pub const MAX_SHARDS: u16 = 1024;
/// Helper threads for file system calls, whatever the number of shards.
const DISK_THREADS: usize = 4;

/// How to run the shards.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// Number of shards, 1 to [`MAX_SHARDS`]. May exceed the cores; then nothing is pinned.
    pub shards: u16,
    /// Pin each shard to a core of its own. Off, or when there are fewer cores than shards, the kernel places the threads.
    pub pin: bool,
    /// Messages in the lane of each pair of shards and in the control door of each shard; rounded up to a power of two.
    pub mailbox_capacity: usize,
    /// Messages that may wait at their sender when a lane is full, per lane.
    pub mailbox_overflow: usize,
    /// Output bytes that may wait on one connection before it is cut.
    pub output_bound: usize,
    /// Connections of all shards together; more are closed as they come, so that there are descriptors left for files.
    pub max_connections: usize,
    /// Longest time a shard looks for work before it sleeps, when work tends to come that soon. Zero: it sleeps at once.
    pub spin: Duration,
    /// A shard that takes no turn for so long ends the process. None: no watchdog.
    pub watchdog: Option<Duration>,
    /// End the process when a shard panics. Off, [`Runtime::join`] reports it; for tests.
    pub abort_on_panic: bool,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            shards: 1,
            pin: true,
            mailbox_capacity: 1024,
            mailbox_overflow: 64 << 10,
            output_bound: 256 << 20,
            max_connections: 1 << 20,
            spin: Duration::ZERO,
            watchdog: Some(Duration::from_secs(10)),
            abort_on_panic: true,
        }
    }
}

/// What a shard's main future gets.
pub struct ShardContext<M> {
    /// This shard, from 0.
    pub shard: u16,
    /// Clock, files, tasks.
    pub env: Rc<dyn Env>,
    /// Sockets.
    pub network: Rc<dyn Network>,
    /// The way to the other shards.
    pub mailbox: Rc<dyn Mailbox<M>>,
    /// This shard's counters.
    pub metrics: Arc<RuntimeMetrics>,
    port: Rc<Port<M>>,
}

impl<M> ShardContext<M> {
    /// Sets who takes this shard's messages. Messages that came before wait; a second call replaces the receiver.
    pub fn receive(&self, receiver: Receiver<M>) {
        self.port.set_receiver(receiver);
    }
}

/// The running shards.
pub struct Runtime<M> {
    control: ControlHandle<M>,
    shards: Vec<JoinHandle<Result<(), Error>>>,
    disk_threads: BlockingThreads,
    freeing_thread: FreeingThread,
    watchdog: Option<(Sender<()>, JoinHandle<()>)>,
}

impl<M: Send> Runtime<M> {
    /// The door for other threads.
    pub fn control(&self) -> ControlHandle<M> {
        self.control.clone()
    }

    /// Waits until the main future of every shard has returned and everything is closed.
    pub fn join(self) -> Result<(), Error> {
        let mut outcome = Ok(());
        for (shard, thread) in self.shards.into_iter().enumerate() {
            let ended = thread.join().unwrap_or(Err(Error::ShardPanicked(shard as u16)));
            if outcome.is_ok() {
                outcome = ended;
            }
        }
        if let Some((end, thread)) = self.watchdog {
            drop(end);
            let _ = thread.join();
        }
        self.disk_threads.join();
        self.freeing_thread.join();
        outcome
    }
}

/// Starts the shards and runs `main` on each, in its thread. Returns when every shard has its ring.
pub fn start<M, F>(options: &RuntimeOptions, main: F) -> Result<Runtime<M>, Error>
where
    M: Send + 'static,
    F: Fn(ShardContext<M>) -> LocalFuture<'static, ()> + Clone + Send + 'static,
{
    if !(1..=MAX_SHARDS).contains(&options.shards) {
        return Err(Error::Option("the number of shards must be 1 to 1024"));
    }
    let handles = (0..options.shards)
        .map(|shard| ShardHandle::new(shard).map(Arc::new))
        .collect::<Result<Arc<[_]>, _>>()
        .map_err(|source| Error::System {
            what: "make an eventfd",
            source,
        })?;
    let seats = mesh(options.shards, options.mailbox_capacity);
    let control = ControlHandle::new(&seats, Arc::clone(&handles));
    let no_thread = |source| Error::System {
        what: "start a thread",
        source,
    };
    let (pool, disk_threads) = BlockingPool::start("disk", DISK_THREADS).map_err(no_thread)?;
    let (freeing, freeing_thread) = Freeing::start().map_err(no_thread)?;
    let cores = cores_to_pin(options);
    let listeners = Arc::new(Listeners::default());
    let (ready, readiness) = sync_channel(usize::from(options.shards));
    let (mut shards, mut starts) = (Vec::new(), Vec::new());
    for (number, seat) in seats.into_iter().enumerate() {
        let setup = ShardSetup {
            shard: number as u16,
            core: cores.as_ref().map(|cores| cores[number]),
            seat,
            options: options.clone(),
            handles: Arc::clone(&handles),
            pool: pool.clone(),
            freeing: freeing.clone(),
            listeners: Arc::clone(&listeners),
        };
        let (main, ready) = (main.clone(), ready.clone());
        let (start, started) = channel();
        starts.push(start);
        let ready = move |outcome| {
            // Without a start (another shard failed) this one ends as well.
            ready.send(outcome).is_ok() && started.recv().is_ok()
        };
        let thread = std::thread::Builder::new()
            .name(format!("ceto-shard-{number}"))
            .spawn(move || run_shard(setup, &main, ready))
            .map_err(|source| Error::System {
                what: "start a thread",
                source,
            })?;
        shards.push(thread);
    }
    drop((ready, pool, freeing));
    for _ in 0..options.shards {
        match readiness.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(Error::Option("a shard ended before it started")),
        }
    }
    for start in starts {
        let _ = start.send(());
    }
    let watchdog = match options.watchdog {
        Some(limit) => Some(start_watchdog(&handles, limit)?),
        None => None,
    };
    Ok(Runtime {
        control,
        shards,
        disk_threads,
        freeing_thread,
        watchdog,
    })
}

fn start_watchdog(
    handles: &Arc<[Arc<ShardHandle>]>,
    limit: Duration,
) -> Result<(Sender<()>, JoinHandle<()>), Error> {
    let (end, ended) = channel();
    let handles = Arc::clone(handles);
    let thread = std::thread::Builder::new()
        .name("ceto-watchdog".to_owned())
        .spawn(move || watchdog::watch(&handles, limit, &ended))
        .map_err(|source| Error::System {
            what: "start a thread",
            source,
        })?;
    Ok((end, thread))
}

/// What a shard's thread is given.
struct ShardSetup<M> {
    shard: u16,
    core: Option<usize>,
    seat: Seat<M>,
    options: RuntimeOptions,
    handles: Arc<[Arc<ShardHandle>]>,
    pool: BlockingPool,
    freeing: Freeing,
    listeners: Arc<Listeners>,
}

/// Life of a shard's thread.
fn run_shard<M, F>(
    setup: ShardSetup<M>,
    main: &F,
    ready: impl FnOnce(Result<(), Error>) -> bool,
) -> Result<(), Error>
where
    M: Send + 'static,
    F: Fn(ShardContext<M>) -> LocalFuture<'static, ()>,
{
    let (shard, abort) = (setup.shard, setup.options.abort_on_panic);
    let handle = Arc::clone(&setup.handles[usize::from(shard)]);
    let life = AssertUnwindSafe(|| {
        let (executor, context) = match build(setup) {
            Ok(built) => built,
            Err(error) => {
                ready(Err(error));
                return;
            }
        };
        if ready(Ok(())) {
            serve(&executor, context, main);
        }
    });
    if catch_unwind(life).is_err() {
        handle.ended.store(true, std::sync::atomic::Ordering::Relaxed);
        if abort {
            // Where panics unwind, as in tests. The panic's own text is out already.
            std::process::abort();
        }
        return Err(Error::ShardPanicked(shard));
    }
    Ok(())
}

fn build<M: Send + 'static>(setup: ShardSetup<M>) -> Result<(Rc<Executor>, ShardContext<M>), Error> {
    let ShardSetup {
        shard,
        core,
        seat,
        options,
        handles,
        pool,
        freeing,
        listeners,
    } = setup;
    if let Some(core) = core {
        pin(core);
    }
    let ring = Rc::new(Ring::new()?);
    let executor = Executor::new(Arc::clone(&handles), shard, Rc::clone(&ring), options.spin);
    let network = NetworkRing::new(
        &executor,
        listeners,
        options.output_bound,
        options.max_connections,
    )?;
    let handle = Arc::clone(&executor.handle);
    let metrics = Arc::clone(&handle.metrics);
    let disk = LinuxDisk::new(ring, pool, freeing, handle);
    let port = Rc::new(Port::new(seat, shard, options.mailbox_overflow, handles));
    executor.attach(Rc::clone(&network), Rc::clone(&port) as Rc<dyn MailboxPort>);
    let context = ShardContext {
        shard,
        env: Rc::new(LinuxEnv::new(Rc::clone(&executor), disk)),
        network,
        mailbox: Rc::clone(&port) as Rc<dyn Mailbox<M>>,
        metrics,
        port,
    };
    Ok((executor, context))
}

/// Runs the main future to its end.
fn serve<M: 'static, F>(executor: &Rc<Executor>, context: ShardContext<M>, main: &F)
where
    F: Fn(ShardContext<M>) -> LocalFuture<'static, ()>,
{
    executor.enter_thread();
    let port = Rc::clone(&context.port);
    let done = Rc::new(Cell::new(false));
    let (main, finished) = (main(context), Rc::clone(&done));
    executor.spawn(
        TaskQueue::Control,
        Box::pin(async move {
            main.await;
            finished.set(true);
        }),
    );
    executor.run(&done);
    port.close();
    executor.leave_thread();
}

/// One core per shard, when that is wanted and possible.
fn cores_to_pin(options: &RuntimeOptions) -> Option<Vec<usize>> {
    if !options.pin {
        return None;
    }
    let cores = allowed_cores();
    if cores.len() < usize::from(options.shards) {
        tracing::warn!(
            "{} shards on {} cores: not pinned, and slower than one shard per core",
            options.shards,
            cores.len()
        );
        return None;
    }
    Some(cores)
}

/// Cores this process may run on.
fn allowed_cores() -> Vec<usize> {
    // SAFETY: a cpu_set_t is plain bits, for which all zeros is a value; the kernel fills at most its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Vec::new();
        }
        set
    };
    // SAFETY: the index stays below the set's size.
    (0..libc::CPU_SETSIZE as usize)
        .filter(|core| unsafe { libc::CPU_ISSET(*core, &set) })
        .collect()
}

/// Keeps this thread on one core. A refusal costs speed only.
fn pin(core: usize) {
    // SAFETY: a cpu_set_t is plain bits, for which all zeros is a value; the core is below its size.
    let outcome = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if outcome != 0 {
        tracing::warn!(
            "cannot pin a shard to core {core}: {}",
            std::io::Error::last_os_error()
        );
    }
}
