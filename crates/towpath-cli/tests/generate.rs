//! Manual pages and completions, as `towpath man` and `towpath completions` make them.

mod common;

use std::process::Command;
use std::{env, fs, process};

use common::{Running, TOWPATH, run, shell};

/// The subcommands that --help lists.
fn subcommands() -> Vec<String> {
    let help = run(["-h"]).stdout;
    let list = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn every_subcommand_has_a_page_with_all_of_its_options() {
    let names = subcommands();
    assert!(names.iter().any(|name| name == "serve"), "{names:?}");
    for name in names {
        let page = run(["man", &name]).stdout;
        assert!(page.contains(&format!("towpath\\-{name}")), "{page}");
        let help = run([name.as_str(), "-h"]).stdout;
        for option in help.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
            let option = option.trim_end_matches([',', '.', ';', ']']).replace('-', "\\-");
            assert!(page.contains(&format!("\\-\\-{option}")), "{name}: no --{option} in {page}");
        }
    }
}

#[test]
fn all_pages_go_into_a_folder_and_groff_takes_them() {
    let folder = env::temp_dir().join(format!("towpath-man-{}", process::id()));
    let done = run(["man", "--out", folder.to_str().unwrap()]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let written: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(written.len(), subcommands().len() + 1);
    match Command::new("groff").args(["-man", "-ww", "-Wbreak", "-z", "-Tutf8"]).args(&written).output() {
        Ok(read) => assert!(read.status.success() && read.stderr.is_empty(), "{read:?}"),
        Err(e) => println!("skipped: groff: {e}"),
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_page_that_is_not_there_and_a_folder_that_cannot_be() {
    let unknown = run(["man", "nothing"]);
    assert_eq!(unknown.code, Some(2));
    assert!(
        unknown.stderr.starts_with("man nothing: there is no such subcommand. There are serve, dial"),
        "{unknown:?}"
    );
    let nowhere = run(["man", "--out", "/dev/null/man"]);
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.stderr.starts_with("write /dev/null/man: not a directory"), "{nowhere:?}");
}

#[test]
fn a_shell_reads_its_completions_and_completes() {
    let mut script = shell(
        r#"bash -c 'source <("$TOWPATH" completions bash); COMP_WORDS=(towpath se); COMP_CWORD=1; _towpath towpath se towpath; echo "${COMPREPLY[@]}"'"#,
    );
    script.env("TOWPATH", TOWPATH);
    let mut running = Running::start(script);
    running.end_input();
    let done = running.finish();
    assert_eq!((done.code, done.stdout.trim()), (Some(0), "serve"), "{done:?}");
    for name in ["elvish", "fish", "powershell", "zsh"] {
        assert!(run(["completions", name]).stdout.contains("towpath"), "{name}");
    }
}
