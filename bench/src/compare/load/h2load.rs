//! HTTP/2 without TLS at full load, by h2load.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::latency::Latencies;
use super::{Load, LoadError};
use crate::compare::peers::Door;
use crate::compare::process;

/// How h2load shall call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct H2load<'a> {
    pub(crate) path: &'a str,
    pub(crate) connections: u32,
    pub(crate) streams: u32,
    pub(crate) seconds: u64,
    /// A file with a gRPC message that is posted.
    pub(crate) grpc: Option<&'a Path>,
    /// Takes the times of all requests; it is overwritten.
    pub(crate) log: &'a Path,
}

impl H2load<'_> {
    pub(crate) fn run(&self, door: &Door) -> Result<Load, LoadError> {
        // It would append.
        let _ = fs::remove_file(self.log);
        let mut command = Command::new("h2load");
        command
            .args(["-t", "1", "-c", &self.connections.to_string()])
            .args(["-m", &self.streams.to_string()])
            .args(["-D", &format!("{}s", self.seconds)])
            .arg(format!("--connect-to={}", door.address))
            .arg("--log-file")
            .arg(self.log);
        if let Some(message) = self.grpc {
            command.arg("-d").arg(message).args([
                "-H",
                "content-type: application/grpc",
                "-H",
                "te: trailers",
            ]);
        }
        command.arg(format!("http://{}{}", door.host, self.path));
        let text = process::output(command)?;
        let times = fs::read_to_string(self.log).map_err(LoadError::io("h2load's log"))?;
        read(&text, &times).ok_or(LoadError::Unreadable {
            program: "h2load",
            text,
        })
    }
}

fn read(text: &str, times: &str) -> Option<Load> {
    // `finished in 1.00s, 30102.00 req/s, 4.02MB/s`
    let line = text.lines().find_map(|line| line.strip_prefix("finished in "))?;
    let time: f64 = line.split("s,").next()?.parse().ok()?;
    // `status codes: 30102 2xx, 0 3xx, 0 4xx, 0 5xx`
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("status codes: "))?;
    let mut codes = line
        .split(", ")
        .filter_map(|part| part.split_whitespace().next()?.parse::<u64>().ok());
    let answers = codes.next()?;
    let mut latencies = Latencies::new().ok()?;
    for line in times.lines() {
        // start, status, microseconds
        let time = line.split('\t').nth(2).and_then(|word| word.parse().ok());
        latencies.note(Duration::from_micros(time?));
    }
    Some(Load {
        answers,
        failures: codes.sum::<u64>() + errored(text),
        time: Duration::from_secs_f64(time),
        p50: latencies.percentile(50.0),
        p99: latencies.percentile(99.0),
        p999: latencies.percentile(99.9),
        ..Load::default()
    })
}

/// `requests: 100 total, 100 started, 98 done, 98 succeeded, 2 failed, 2 errored, 0 timeout`; requests that the end
/// of the time cut off are not among the failed.
fn errored(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("requests: "));
    let parts = line.into_iter().flat_map(|line| line.split(", "));
    let words = parts.filter_map(|part| part.strip_suffix(" errored"));
    words.filter_map(|word| word.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read() {
        let text = "finished in 1.02s, 30102.00 req/s, 4.02MB/s\n\
                    requests: 30102 total, 30202 started, 30102 done, 30100 succeeded, 2 failed, 2 errored, 0 timeout\n\
                    status codes: 30095 2xx, 0 3xx, 0 4xx, 5 5xx\n";
        let load = read(text, "1\t200\t100\n2\t200\t300\n").expect("a report");
        assert_eq!((load.answers, load.failures), (30_095, 7));
        assert_eq!(load.time, Duration::from_millis(1020));
        let near = Duration::from_micros(99)..Duration::from_micros(101);
        assert!(load.p50.is_some_and(|p50| near.contains(&p50)), "{load:?}");
    }
}
