//! x
mod common;
#[test]
fn t() { common::on_tasks_and_threads(|| { let _ = common::pair(); let _ = common::refused(); }); }
