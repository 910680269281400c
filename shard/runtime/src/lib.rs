//! Executors pinned to cores, the network ring, timers, task queues, the mailbox mesh. All unsafe code lives here.
