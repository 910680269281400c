//! What only shows in a process of its own: death, exhaustion, refusal, a stuck shard.
//!
//! Each child is this test program again, told by an environment variable which part to play.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, unsafe_code)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ceto_env::{Placement, Protocol, Socket};
use ceto_runtime::{RuntimeOptions, WATCHDOG_EXIT_STATUS, start};
use support::{Event, options, run};

const PART: &str = "CETO_RUNTIME_TEST_PART";
const FOLDER: &str = "CETO_RUNTIME_TEST_FOLDER";

/// This program, to play `part`.
fn child(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "part", "--nocapture", "--test-threads=1"])
        .env(PART, part);
    command
}

/// The test that children run; of no effect elsewhere.
#[test]
fn part() {
    match std::env::var(PART).as_deref() {
        Ok("write-segment") => write_segment(Path::new(&std::env::var(FOLDER).unwrap())),
        Ok("stuck") => stuck(),
        Ok("serve") => serve(),
        Ok("start") => match start::<u64, _>(&options(1), |_| Box::pin(async {})) {
            Ok(_) => println!("\nstarted"),
            Err(error) => println!("\nrefused: {error}"),
        },
        _ => {}
    }
}

/// Fills a segment with numbers for ever, and says each number after it was written.
fn write_segment(folder: &Path) {
    let path = folder.join("segment");
    run(move |context| {
        let path = path.clone();
        async move {
            let segment = context.env.disk().create_segment(&path, 1 << 20).await.unwrap();
            println!();
            for number in 1.. {
                segment.write(number % (1 << 17) * 8, &number.to_le_bytes());
                println!("{number}");
            }
        }
    });
}

#[test]
fn what_a_segment_was_told_survives_sigkill() {
    for round in 0..3 {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut child = child("write-segment")
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut last = 0_u64;
        while last < 500 + round * 1000 {
            last = lines.next().unwrap().unwrap().parse().unwrap_or(last);
        }
        child.kill().unwrap();
        // What was in the pipe was said as well.
        for line in lines.map_while(Result::ok) {
            // (The last may be cut off, and so too small.)
            last = last.max(line.parse().unwrap_or(0));
        }
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        let content = std::fs::read(folder.path().join("segment")).unwrap();
        let number = |place: u64| {
            let start = (place % (1 << 17) * 8) as usize;
            u64::from_le_bytes(content[start..start + 8].try_into().unwrap())
        };
        for said in 1..=last {
            assert!(number(said) >= said, "{said} of {last} is lost");
        }
    }
}

/// A shard whose task never gives its turn away.
fn stuck() {
    let options = RuntimeOptions {
        watchdog: Some(Duration::from_secs(2)),
        ..options(2)
    };
    let runtime = start::<u64, _>(&options, |context| {
        Box::pin(async move {
            if context.shard == 1 {
                loop {
                    std::hint::spin_loop();
                }
            }
            context.env.tasks().sleep(Duration::from_secs(3600)).await;
        })
    });
    runtime.unwrap().join().unwrap();
}

#[test]
fn the_watchdog_ends_a_process_with_a_stuck_shard() {
    let output = child("stuck").output().unwrap();
    assert_eq!(output.status.code(), Some(WATCHDOG_EXIT_STATUS));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("shard 1 has not taken a turn"), "{text}");
}

struct Echo(Rc<dyn Socket>);

impl Protocol for Echo {
    fn received(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn closed(&mut self) {}
}

/// Echoes until its standard input ends.
fn serve() {
    let runtime = start::<u64, _>(&options(1), |context| {
        Box::pin(async move {
            let acceptor = Rc::new(|socket| Box::new(Echo(socket)) as Box<dyn Protocol>);
            let address = "127.0.0.1:0".parse().unwrap();
            let bound = context
                .network
                .listen(address, Placement::LeastConnected, acceptor)
                .unwrap();
            println!("\n{bound}");
            let done = Event::default();
            let finished = done.clone();
            context.receive(Rc::new(move |_, _| finished.set()));
            done.wait().await;
        })
    })
    .unwrap();
    let control = runtime.control();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    control.send(0, 0).unwrap();
    runtime.join().unwrap();
    println!("errors {}", control.metrics(0).accept_errors.get());
}

fn read_address(child: &mut Child) -> (SocketAddr, BufReader<std::process::ChildStdout>) {
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the child ended");
        if let Ok(address) = line.trim().parse() {
            return (address, lines);
        }
    }
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let mut command = child("serve");
    // SAFETY: setrlimit is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit {
                rlim_cur: 64,
                rlim_max: 64,
            };
            match libc::setrlimit(libc::RLIMIT_NOFILE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (address, mut output) = read_address(&mut child);
    let mut streams: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(300));
    let mut answer = [0; 4];
    streams[0].write_all(b"ping").unwrap();
    streams[0].read_exact(&mut answer).unwrap();
    // Those that were accepted leave: the others are accepted.
    let mut last = streams.pop().unwrap();
    streams.clear();
    last.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    last.write_all(b"pong").unwrap();
    last.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let errors = rest
        .split_once("errors ")
        .unwrap()
        .1
        .split_whitespace()
        .next()
        .unwrap();
    assert!(
        (1..100).contains(&errors.parse::<u64>().unwrap()),
        "{errors} failed accepts"
    );
}

/// Makes `io_uring_setup` of the process fail with `code`, as a container's filter does.
fn forbid_rings(command: &mut Command, code: i32) {
    let load = |offset| libc::sock_filter {
        code: 0x20,
        jt: 0,
        jf: 0,
        k: offset,
    };
    let answer = |value| libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: value,
    };
    let filter = [
        load(0),
        libc::sock_filter {
            code: 0x15,
            jt: 0,
            jf: 1,
            k: libc::SYS_io_uring_setup as u32,
        },
        answer(libc::SECCOMP_RET_ERRNO | code as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    // SAFETY: prctl is allowed between fork and exec, and the program's array lives in the closure.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog {
                len: filter.len() as u16,
                filter: filter.as_ptr().cast_mut(),
            };
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
            {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

#[test]
fn a_refused_ring_is_one_line_that_says_what_to_change() {
    for (code, advice) in [
        (libc::EPERM, "seccomp"),
        (libc::ENOSYS, "Linux 6.1"),
        (libc::ENOMEM, "ulimit -l"),
    ] {
        let mut command = child("start");
        forbid_rings(&mut command, code);
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let line = output
            .lines()
            .find(|line| line.contains("refused: "))
            .unwrap_or(&output);
        assert!(line.contains("io_uring") && line.contains(advice), "{output}");
    }
    let output = String::from_utf8(child("start").output().unwrap().stdout).unwrap();
    assert!(output.contains("started"), "{output}");
}

#[test]
fn an_idle_server_uses_no_processor_time() {
    let mut child = child("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (address, _output) = read_address(&mut child);
    let mut streams: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &mut streams {
        stream.write_all(b"ping").unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
    }
    let cpu = || processor_time(child.id());
    let (before, started) = (cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let used = (cpu() - before).as_secs_f64() / started.elapsed().as_secs_f64();
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(used < 0.01, "{:.2} % of a core, idle", used * 100.0);
}

/// User and system time of a process.
fn processor_time(process: u32) -> Duration {
    let mut total = 0;
    for thread in std::fs::read_dir(PathBuf::from(format!("/proc/{process}/task"))).unwrap() {
        let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        total += text.split(' ').next().unwrap().parse::<u64>().unwrap();
    }
    Duration::from_nanos(total)
}
