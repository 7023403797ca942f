//! HTTP/1.1 at full load, by wrk.

use std::process::Command;
use std::time::Duration;

use super::{Load, LoadError};
use crate::compare::peers::Door;
use crate::compare::process;

/// How wrk shall call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrk<'a> {
    pub(crate) path: &'a str,
    pub(crate) connections: u32,
    pub(crate) seconds: u64,
    /// A new connection for every request.
    pub(crate) closes: bool,
}

impl Wrk<'_> {
    pub(crate) fn run(&self, door: &Door) -> Result<Load, LoadError> {
        let mut command = Command::new("wrk");
        command
            .args(["-t", "1", "-c", &self.connections.to_string()])
            .args(["-d", &format!("{}s", self.seconds), "--latency"])
            .args(["-H", &format!("Host: {}", door.host)]);
        if self.closes {
            command.args(["-H", "Connection: close"]);
        }
        command.arg(format!("http://{}{}", door.address, self.path));
        let text = process::output(command)?;
        read(&text).ok_or(LoadError::Unreadable { program: "wrk", text })
    }
}

fn read(text: &str) -> Option<Load> {
    let latency = |percent: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(percent));
        line.and_then(|rest| duration(rest.trim()))
    };
    // `  62094 requests in 1.00s, 14.57MB read`
    let line = text.lines().find(|line| line.contains(" requests in "))?;
    let mut words = line.split_whitespace();
    let requests: u64 = words.next()?.parse().ok()?;
    let time = duration(words.nth(2)?.trim_end_matches(','))?;
    // `  Non-2xx or 3xx responses: 7` and `  Socket errors: connect 0, read 1, write 0, timeout 0`
    let after = |prefix: &str| text.lines().find_map(|line| line.trim().strip_prefix(prefix));
    let bad: u64 = after("Non-2xx or 3xx responses:")
        .and_then(|rest| rest.trim().parse().ok())
        .unwrap_or_default();
    let broken: u64 = after("Socket errors:")
        .map(|rest| numbers(rest).sum())
        .unwrap_or_default();
    Some(Load {
        answers: requests.saturating_sub(bad),
        failures: bad + broken,
        time,
        p50: latency("50%"),
        p99: latency("99%"),
        ..Load::default()
    })
}

fn numbers(text: &str) -> impl Iterator<Item = u64> {
    text.split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|word| word.parse::<u64>().ok())
}

/// `12.34us`, `1.05ms`, `1.00s`, `1.00m`.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read() {
        let text = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n  \
                    Thread Stats   Avg      Stdev     Max   +/- Stdev\n    \
                    Latency     1.05ms  226.39us   5.33ms   89.11%\n  Latency Distribution\n     \
                    50%    0.99ms\n     75%    1.08ms\n     90%    1.23ms\n     99%    2.10ms\n  \
                    62094 requests in 1.01s, 14.57MB read\n  \
                    Socket errors: connect 0, read 3, write 0, timeout 1\n  \
                    Non-2xx or 3xx responses: 94\nRequests/sec:  61900.12\n";
        let load = read(text).expect("a report");
        assert_eq!((load.answers, load.failures), (62_000, 98));
        assert_eq!(load.time, Duration::from_millis(1010));
        assert_eq!(load.p99, Some(Duration::from_micros(2100)));
        assert!(read("unable to connect to 127.0.0.1:1 Connection refused").is_none());
    }
}
