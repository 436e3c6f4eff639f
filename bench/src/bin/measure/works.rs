//! What is measured: each of these becomes a table.

/// One thing that servers do under load.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    /// What to ask for on the command line, and the file of its results.
    pub(crate) name: &'static str,
    pub(crate) title: String,
    /// The servers' service.
    pub(crate) service: &'static str,
    pub(crate) connections: u32,
    /// What else the load is told.
    pub(crate) load: String,
    /// With one, the server and the load have a CPU each; with more, both run on all of them.
    pub(crate) workers: usize,
    /// Figures are per request divided by this.
    pub(crate) units: f64,
    /// How many requests are counted under callgrind, if any.
    pub(crate) wrapped: Option<u64>,
}

/// Bytes of a request to sink or source, and how many MiB that is.
const BULK: u64 = 16 << 20;
const BULK_MIB: f64 = 16.0;

fn work(name: &'static str, connections: u32, load: &str, title: &str) -> Work {
    Work {
        name,
        title: title.into(),
        service: "echo",
        connections,
        load: load.into(),
        workers: 1,
        units: 1.0,
        wrapped: None,
    }
}

/// Everything, in the order of the tables. `rate` is the open loop's.
pub(crate) fn all(rate: f64) -> Vec<Work> {
    let echo = |connections: u32| {
        let s = if connections == 1 { "" } else { "s" };
        let mut echo = work("echo", connections, "", &format!("echo of 64 B × {connections} connection{s}"));
        echo.wrapped = (connections <= 1_000).then_some(10_000);
        echo
    };
    let two = |connections: u32| Work { workers: 2, wrapped: None, ..echo(connections) };
    let bulk = |kind: &'static str, title: &str| Work {
        service: kind,
        units: BULK_MIB,
        ..work("bulk", 4, &format!("--kind {kind} --size {BULK}"), title)
    };
    vec![
        echo(1),
        echo(64),
        echo(1_000),
        echo(10_000),
        two(64),
        two(1_000),
        Work { service: "echo16k", ..work("large", 64, "--size 16384", "echo of 16 KiB × 64 connections") },
        work("open", 64, &format!("--rate {rate}"), &format!("echo of 64 B × 64 connections, {rate} a second")),
        Work {
            wrapped: Some(20_000),
            ..work("pipeline", 64, "--pipeline 16", "echo of 64 B × 64 connections, 16 under way on each")
        },
        Work {
            service: "shared",
            workers: 2,
            ..work(
                "shared",
                1,
                "--pipeline 16",
                "one connection, one task reads and another writes, 16 × 64 B under way",
            )
        },
        Work { wrapped: Some(2_000), ..work("churn", 64, "--churn", "connect, one echo of 64 B, close: 64 at once") },
        bulk("sink", "4 connections to the server, 64 KiB at a time"),
        bulk("source", "4 connections from the server, 64 KiB at a time"),
        Work {
            service: "proxy",
            wrapped: Some(5_000),
            ..work("proxy", 64, "", "proxy to an echo server: 64 B × 64 connections")
        },
        work("idle", 10_000, "--idle", "10000 idle connections: bytes of the server's process for each"),
        work("idle", 19_000, "--idle", "19000 idle connections: bytes of the server's process for each"),
    ]
}

impl Work {
    /// What the load is told, besides where to go and for how long.
    pub(crate) fn load_arguments(&self) -> Vec<String> {
        let connections = self.connections.to_string();
        let own = ["--conns".to_string(), connections];
        own.into_iter().chain(self.load.split_whitespace().map(String::from)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_and_workers_tell_tables_apart() {
        let mut seen = std::collections::HashSet::new();
        assert!(all(1.0).iter().all(|work| seen.insert((work.title.clone(), work.workers))));
    }

    #[test]
    fn works_come_in_the_order_of_the_tables() {
        let mut names: Vec<_> = all(1.0).iter().map(|work| work.name).collect();
        names.dedup();
        assert_eq!(names, towpath_bench::figures::WORKS);
    }
}
