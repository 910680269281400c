//! Writes the seeds of every target into a corpus folder: `write_seeds FOLDER`.

#![allow(clippy::disallowed_methods)] // a tool of the build: it has no `env`

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).expect("usage: write_seeds FOLDER"));
    for target in ceto_fuzz::TARGETS {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (index, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{index:03}")), seed)?;
        }
    }
    Ok(())
}
