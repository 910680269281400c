//! One process per engine, so that processor time and bytes are each engine's own. Between two commands it sleeps.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command as Program, Stdio};

use crate::cost::pin;
use crate::protocol::{Answer, Command, Engine, Report, Setup};

/// An engine's process.
pub(crate) struct EngineProcess {
    pub(crate) engine: Engine,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl EngineProcess {
    /// Starts it; its folder is made, and must be empty.
    pub(crate) fn start(setup: &Setup) -> Result<EngineProcess, String> {
        std::fs::create_dir_all(&setup.folder)
            .map_err(|error| format!("cannot make {}: {error}", setup.folder.display()))?;
        let program =
            std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let mut child = Program::new(program)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start an engine: {error}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else {
            return Err("an engine without pipes".to_owned());
        };
        let mut process = EngineProcess {
            engine: setup.engine,
            child,
            input,
            output: BufReader::new(output),
        };
        process.send(&serde_json::to_string(setup).map_err(|error| error.to_string())?)?;
        Ok(process)
    }

    /// Carries a command out.
    pub(crate) fn run(&mut self, command: &Command) -> Result<Report, String> {
        let engine = self.engine.name();
        self.send(&serde_json::to_string(command).map_err(|error| error.to_string())?)?;
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        read.map_err(|error| format!("{engine} does not answer: {error}"))?;
        match serde_json::from_str(&line) {
            Ok(Answer::Done(report)) => Ok(report),
            Ok(Answer::Failed(error)) => Err(format!("{engine}: {error} ({command:?})")),
            Err(error) => Err(format!(
                "{engine} has ended or speaks in riddles: {error} ({command:?})"
            )),
        }
    }

    fn send(&mut self, line: &str) -> Result<(), String> {
        let sent = self
            .input
            .write_all(line.as_bytes())
            .and_then(|()| self.input.write_all(b"\n"));
        sent.map_err(|error| format!("{} has ended: {error}", self.engine.name()))
    }

    /// Ends it.
    pub(crate) fn end(self) -> Result<(), String> {
        let EngineProcess {
            engine,
            mut child,
            input,
            ..
        } = self;
        drop(input);
        let status = child.wait().map_err(|error| error.to_string())?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("{} ended with {status}", engine.name())),
        }
    }
}

/// The process: takes a setup and commands from stdin, answers on stdout.
pub(crate) fn serve() -> Result<(), String> {
    let mut lines = std::io::stdin().lines().map_while(Result::ok);
    let setup = lines.next().ok_or("no setup came")?;
    let setup: Setup = serde_json::from_str(&setup).map_err(|error| error.to_string())?;
    if let Some(core) = setup.core {
        pin(core)?;
    }
    let answer = |perform: &mut dyn FnMut(Command) -> Answer| {
        for line in lines {
            let answer = match serde_json::from_str(&line) {
                Ok(command) => perform(command),
                Err(error) => Answer::Failed(error.to_string()),
            };
            let text = serde_json::to_string(&answer).unwrap_or_default();
            println!("{text}");
        }
    };
    perform_all(setup, answer)
}

/// Runs an engine in this process.
pub(crate) fn perform_all(
    setup: Setup,
    answer: impl FnOnce(&mut dyn FnMut(Command) -> Answer),
) -> Result<(), String> {
    match setup.engine {
        Engine::Ceto => crate::ceto::serve(setup, answer),
        #[cfg(any(feature = "rocksdb", feature = "fjall"))]
        Engine::Rocksdb | Engine::Fjall => {
            crate::blocking::serve(&setup, answer);
            Ok(())
        }
        #[cfg(not(any(feature = "rocksdb", feature = "fjall")))]
        Engine::Rocksdb | Engine::Fjall => Err("built without the peers".to_owned()),
    }
}
