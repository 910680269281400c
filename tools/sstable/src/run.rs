//! Carrying out a command line.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ceto_env::Env;
use ceto_model::{TableId, UnixSeconds};
use ceto_storage::offline::{self, SstableFiles};
use ceto_storage::{Descriptor, Error};
use clap::Parser;
use uuid::Uuid;

use crate::arguments::{Arguments, Command, Paths};
use crate::dump::{DumpError, DumpOptions, dump};
use crate::files::FileEnv;
use crate::lock::HeldFolders;
use crate::stats::{AsOf, stats};

/// Something is damaged, or lost.
const EXIT_DAMAGED: u8 = 1;
/// The command was used wrongly.
const EXIT_USAGE: u8 = 2;

/// Runs `ceto sstable` with these arguments (without the program's name); the exit status.
pub fn run(arguments: Vec<OsString>) -> u8 {
    let mut out = BufWriter::new(io::stdout().lock());
    run_with(arguments, &mut out, &mut io::stderr())
}

/// The same with other places for the output and for what went wrong.
pub fn run_with(arguments: Vec<OsString>, out: &mut dyn Write, errors: &mut dyn Write) -> u8 {
    let name = OsString::from("ceto sstable");
    let result = match Arguments::try_parse_from(std::iter::once(name).chain(arguments)) {
        Ok(arguments) => {
            let env = FileEnv::new();
            FileEnv::block_on(carry_out(&env, arguments.command, out))
        }
        Err(error) if !error.use_stderr() => write!(out, "{error}").map(|()| 0).map_err(Failure::Output),
        Err(error) => Err(Failure::Usage(usage_line(&error))),
    };
    let result = result.and_then(|status| Ok(out.flush().map(|()| status)?));
    let (status, text) = match result {
        Ok(status) => return status,
        // Nobody reads on: as for other tools in a pipe.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return 0,
        Err(Failure::Output(error)) => (EXIT_DAMAGED, format!("cannot write the output: {error}")),
        Err(Failure::Usage(text)) => (EXIT_USAGE, format!("{text} (see `ceto sstable --help`)")),
        Err(Failure::Storage(error)) => match &error {
            // A path that is not there, or is no sstable of this version.
            Error::Layout(_) => (EXIT_USAGE, error.to_string()),
            missing if is_missing(missing) => (EXIT_USAGE, error.to_string()),
            _ => (EXIT_DAMAGED, error.to_string()),
        },
    };
    // Where the errors cannot be written there is nobody to tell.
    let _ = writeln!(errors, "ceto sstable: {text}");
    status
}

/// A mistake in one line.
fn usage_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim);
    let first = lines.next().unwrap_or_default().trim_start_matches("error: ");
    if !first.ends_with(':') {
        return first.to_owned();
    }
    // What is missing stands in the lines behind the first.
    let more: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    format!("{first} {}", more.join(" "))
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Disk(error) if error.is_not_found() || error.source.kind() == io::ErrorKind::NotADirectory)
}

enum Failure {
    Usage(String),
    Storage(Error),
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Storage(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

async fn carry_out(env: &Rc<FileEnv>, command: Command, out: &mut dyn Write) -> Result<u8, Failure> {
    let now = UnixSeconds(ceto_env::Clock::unix_seconds(&**env));
    match command {
        Command::Dump {
            paths,
            enumerate_keys,
            key,
            exclude,
            raw_timestamps,
            json_lines: _,
        } => {
            let options = DumpOptions {
                keys_only: enumerate_keys,
                keys: key,
                excluded: exclude,
                raw_times: raw_timestamps,
            };
            for descriptor in all(env, &paths).await? {
                let files = SstableFiles::open(env.clone(), descriptor).await?;
                match dump(&files, &options, now, out).await {
                    Ok(()) => {}
                    Err(DumpError::Storage(error)) => {
                        // The line that was begun ends here; what is before it stands.
                        writeln!(out)?;
                        out.flush()?;
                        return Err(error.into());
                    }
                    Err(DumpError::Output(error)) => return Err(error.into()),
                }
            }
            Ok(0)
        }
        Command::Verify { paths } => verify(env, &paths, out).await,
        Command::Scrub { paths } => scrub(env, &paths, out).await,
        Command::Stats {
            paths,
            gc_grace_seconds,
        } => {
            let as_of = AsOf {
                now,
                gc_grace_seconds,
            };
            for (number, descriptor) in all(env, &paths).await?.into_iter().enumerate() {
                let files = SstableFiles::open(env.clone(), descriptor.clone()).await?;
                let sizes = files.sizes(&*env.disk()).await?;
                if number > 0 {
                    writeln!(out)?;
                }
                out.write_all(stats(&descriptor, files.statistics(), &sizes, as_of).as_bytes())?;
            }
            Ok(0)
        }
    }
}

/// The sstables that the paths mean, each once.
async fn all(env: &Rc<FileEnv>, paths: &Paths) -> Result<Vec<Descriptor>, Error> {
    let mut all = Vec::new();
    for path in &paths.paths {
        for descriptor in offline::find(&*env.disk(), path).await? {
            if !all.contains(&descriptor) {
                all.push(descriptor);
            }
        }
    }
    Ok(all)
}

fn name(descriptor: &Descriptor) -> String {
    descriptor.dir.join(descriptor.prefix()).display().to_string()
}

async fn verify(env: &Rc<FileEnv>, paths: &Paths, out: &mut dyn Write) -> Result<u8, Failure> {
    let mut status = 0;
    for descriptor in all(env, paths).await? {
        let faults = offline::verify(env.clone(), &descriptor).await;
        if faults.is_empty() {
            writeln!(out, "{}: ok", name(&descriptor))?;
            continue;
        }
        status = EXIT_DAMAGED;
        for fault in faults {
            writeln!(out, "{fault}")?;
        }
    }
    for path in &paths.paths {
        if let Err(fault) = offline::verify_notes(&*env.disk(), path).await
            && !is_missing(&fault)
        {
            status = EXIT_DAMAGED;
            writeln!(out, "{fault}")?;
        }
    }
    Ok(status)
}

async fn scrub(env: &Rc<FileEnv>, paths: &Paths, out: &mut dyn Write) -> Result<u8, Failure> {
    let mut status = 0;
    let descriptors = all(env, paths).await?;
    let mut held = HeldFolders::default();
    for descriptor in &descriptors {
        held.hold(&descriptor.dir).map_err(Failure::Usage)?;
    }
    for descriptor in descriptors {
        let table = table_of(&descriptor.dir);
        let scrubbed = offline::scrub(env.clone(), &descriptor, table).await?;
        let (from, kept) = (name(&descriptor), scrubbed.kept_in.display());
        let had = scrubbed.had.map_or(String::new(), |(partitions, rows)| {
            format!(" of {partitions} partitions and {rows} rows")
        });
        match &scrubbed.output {
            Some(output) => writeln!(
                out,
                "{from}: saved {} partitions and {} rows{had} as {}; the old files are in {kept}",
                scrubbed.partitions,
                scrubbed.rows,
                output.prefix()
            )?,
            None => writeln!(
                out,
                "{from}: nothing could be saved{had}; the old files are in {kept}"
            )?,
        }
        for loss in &scrubbed.lost {
            let (file, offset, length) = (loss.file.display(), loss.offset, loss.length);
            writeln!(
                out,
                "lost: {file} at offset {offset}, {length} bytes: {}",
                loss.what
            )?;
        }
        if !scrubbed.is_whole() {
            status = EXIT_DAMAGED;
        }
    }
    Ok(status)
}

/// The table's id from its folder's name, `<table>-<id>`; nil when the folder is called otherwise.
fn table_of(dir: &Path) -> TableId {
    let dir: PathBuf = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let id = name.rsplit_once('-').and_then(|(_, id)| Uuid::try_parse(id).ok());
    TableId(id.unwrap_or_default())
}
