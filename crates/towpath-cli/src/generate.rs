//! Manual pages and completions, made of the arguments as `args` describes them, so that they say what `--help` says.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use clap::Command;

use crate::args::{self, Generate};
use crate::exit::{Exit, Failure, reason};

/// Prints or writes what was asked for.
pub(crate) fn run(what: &Generate) -> Result<Exit, Failure> {
    let mut whole = args::description();
    let mut text = Vec::new();
    match what {
        Generate::Pages(folder) => return write_pages(&whole, folder),
        Generate::Page(None) => render(&whole, &mut text),
        Generate::Page(Some(name)) => {
            render(whole.find_subcommand(name).expect("`args` has looked it up"), &mut text);
        }
        Generate::Completions(shell) => clap_complete::generate(*shell, &mut whole, "towpath", &mut text),
    }
    match io::stdout().lock().write_all(&text) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Other, format!("write to stdout: {}", reason(&e))))
        }
        _ => Ok(Exit::Done),
    }
}

fn render(command: &Command, page: &mut Vec<u8>) {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text).expect("writing to memory cannot fail");
    // What follows the options in --help begins with examples, and the generator has no name for it.
    let text = String::from_utf8(text).expect("help is text");
    page.extend(text.replace(".SH EXTRA", ".SH EXAMPLES AND NOTES").into_bytes());
}

fn write_pages(whole: &Command, folder: &Path) -> Result<Exit, Failure> {
    let failed = |path: &Path, e: io::Error| {
        let exit = if e.kind() == io::ErrorKind::PermissionDenied { Exit::NoPermission } else { Exit::Other };
        Failure::new(exit, format!("write {}: {}", path.display(), reason(&e)))
            .hint("Name a folder that you may write to")
    };
    fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
    for command in std::iter::once(whole).chain(whole.get_subcommands()) {
        let mut page = Vec::new();
        render(command, &mut page);
        let path = folder.join(format!("{}.1", command.get_display_name().unwrap_or(command.get_name())));
        fs::write(&path, page).map_err(|e| failed(&path, e))?;
    }
    Ok(Exit::Done)
}
