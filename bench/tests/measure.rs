//! A short run of `measure` becomes a table, a line of results, and from that the same table and a plot.

use std::path::Path;
use std::process::{Command, Output};
use std::{env, fs, process};

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn a_table_is_printed_recorded_and_printed_again() {
    let results = env::temp_dir().join(format!("towpath-bench-test.{}", process::id()));
    let plots = results.join("plots");
    let shown = |path: &Path| path.display().to_string();
    let options = "echo --conns 1 --server towpath=towpath_echo --seconds 0.05 --rounds 2 --no-wrappers --results";
    let results_name = shown(&results);
    let arguments: Vec<_> = options.split(' ').chain([results_name.as_str()]).collect();
    let output = run(env!("CARGO_BIN_EXE_measure"), &arguments);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("CPU µs"), "{printed}");

    let recorded = fs::read_to_string(results.join("echo.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(&recorded).unwrap();
    assert!(line["rounds"].as_array().unwrap().len() >= 2);
    assert!(line["best"]["cpu_us"].as_f64().unwrap() > 0.0);
    assert!(line["best"]["p99_9_us"].as_f64().unwrap() > 0.0);

    let output = run(env!("CARGO_BIN_EXE_tables"), &[&results_name, "--plots", &shown(&plots)]);
    let again = String::from_utf8(output.stdout).unwrap();
    let table = |text: &str| text.lines().take(3).map(String::from).collect::<Vec<_>>();
    assert_eq!(table(&again), table(&printed));
    for plot in ["request.svg", "idle.svg"] {
        assert!(fs::read_to_string(plots.join(plot)).unwrap().starts_with("<svg"), "{plot}");
    }
    fs::remove_dir_all(results).unwrap();
}

#[test]
fn a_work_that_there_is_not_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_measure")).arg("ecko").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no work ecko"));
}
