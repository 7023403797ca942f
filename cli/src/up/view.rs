//! What `weft up` shows: the live page, the line for logs, and the summary at the end.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crossterm::{cursor, queue, terminal};

use super::counts::MeshCounts;
use super::measure::Seen;
use crate::table::{millis, percent, rough, table, text};

/// Requests that visitors make must succeed at least this often, of 10,000; strictly more is wanted.
const WANTED_SUCCESS: u64 = 9_990;

/// Everything there is to show at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub name: String,
    pub running_for: Duration,
    pub lately: Seen,
    pub ever: Seen,
    pub counts_lately: MeshCounts,
    pub counts_ever: MeshCounts,
    /// `namespace/name` of the service whose split is shown.
    pub split_of: Option<String>,
    pub certificates: Vec<Certificate>,
    /// Applications that ended while they should run, and how.
    pub ended: Vec<String>,
    /// What can be done meanwhile: a word, and what to type.
    pub hints: Vec<(&'static str, String)>,
}

/// One workload's certificate.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub workload: String,
    /// `None` before the first one.
    pub identity: Option<Identity>,
}

#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub spiffe_id: String,
    pub age: Duration,
    pub expires_in: Duration,
}

impl Report {
    /// Whether the mesh kept its promise: almost every request well answered, every hop over mTLS.
    pub(crate) fn kept_promise(&self) -> bool {
        let (requests, successes) = (u128::from(self.ever.requests), u128::from(self.ever.successes));
        requests > 0
            && successes * 10_000 > requests * u128::from(WANTED_SUCCESS)
            && self.counts_ever.all_over_mtls()
    }

    /// The live page.
    pub(crate) fn page(&self) -> String {
        let mut rates = table(&["", "REQUESTS/S", "SUCCESS", "BEFORE RETRIES", "P50", "P99"]);
        rates.add_row(rate_row("last 10 s", &self.lately, &self.counts_lately));
        rates.add_row(rate_row("since start", &self.ever, &self.counts_ever));
        let mut page = format!(
            "weft up {}: {} workloads, running for {}\n\n{}\n\n",
            self.name,
            self.certificates.len(),
            rough(self.running_for),
            text(rates)
        );
        if let Some(split) = self.split(&self.counts_lately) {
            page += &format!("split of {split} (last 10 s)\n\n");
        }
        // What can be typed stands above what a small terminal cuts off.
        for (word, what) in &self.hints {
            page += &format!("{word:<8}{what}\n");
        }
        page += &self.troubles();
        page + &format!("\n{}\n\n{}\n", self.services(), self.certificates())
    }

    /// Applications that ended, and why the last failing request failed.
    fn troubles(&self) -> String {
        let mut text = String::new();
        for ended in &self.ended {
            text += &format!("! {ended}\n");
        }
        if let Some(failure) = &self.ever.last_failure {
            text += &format!("last failure: {}\n", failure.replace(char::is_control, " "));
        }
        text
    }

    /// One line for where there is no terminal.
    pub(crate) fn line(&self) -> String {
        let (attempts, failed) = self.counts_lately.attempts();
        let split = self
            .split(&self.counts_lately)
            .map(|split| format!(", {split}"))
            .unwrap_or_default();
        format!(
            "{:>4}  {:.1} requests/s, {} ok, {} before retries{split}, p50 {}, p99 {}",
            rough(self.running_for),
            self.lately.per_second,
            percent(self.lately.successes, self.lately.requests),
            percent(attempts.saturating_sub(failed), attempts),
            millis(self.lately.p50),
            millis(self.lately.p99),
        )
    }

    /// What is printed at the end.
    pub(crate) fn summary(&self) -> String {
        let counts = &self.counts_ever;
        let (attempts, failed) = counts.attempts();
        let mut text = format!(
            "\n{} ran for {}\n\n\
             requests         {} ({:.1}/s), p50 {}, p99 {}\n\
             success          {} after retries, {} before\n",
            self.name,
            rough(self.running_for),
            self.ever.requests,
            self.ever.per_second,
            millis(self.ever.p50),
            millis(self.ever.p99),
            percent(self.ever.successes, self.ever.requests),
            percent(attempts.saturating_sub(failed), attempts),
        );
        if let Some(split) = self.split(counts) {
            text += &format!("split            {split}\n");
        }
        text += &format!(
            "hops             {}, {} of them over mTLS\n\n{}\n\n{}\n\n",
            counts.hops,
            if counts.all_over_mtls() {
                "all".to_owned()
            } else {
                counts.hops_over_mtls.to_string()
            },
            self.services(),
            self.certificates()
        );
        text += &self.troubles();
        text += match self.kept_promise() {
            true => "ok: over 99.9 % of the requests succeeded, every hop over mTLS\n",
            false => "NOT ok: wanted are over 99.9 % of the requests to succeed, and every hop over mTLS\n",
        };
        text
    }

    /// `checkout: checkout-v1 90.12 %, checkout-v2 9.88 %`.
    fn split(&self, counts: &MeshCounts) -> Option<String> {
        let service = self.split_of.as_ref()?;
        let backends = &counts.services.get(service)?.backends;
        let total = backends.values().sum();
        if total == 0 {
            return None;
        }
        let shares: Vec<String> = backends
            .iter()
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, requests)| format!("{} {}", short(name), percent(*requests, total)))
            .collect();
        Some(format!("{}: {}", short(service), shares.join(", ")))
    }

    fn services(&self) -> String {
        let mut table = table(&["SERVICE", "CALLS", "SUCCESS", "ATTEMPTS", "FAILED ATTEMPTS"]);
        for (name, service) in &self.counts_ever.services {
            table.add_row([
                short(name).to_owned(),
                service.requests.to_string(),
                percent(service.successes, service.requests),
                service.attempts.to_string(),
                percent(service.attempt_failures, service.attempts),
            ]);
        }
        text(table)
    }

    fn certificates(&self) -> String {
        let mut table = table(&["WORKLOAD", "IDENTITY", "CERTIFICATE"]);
        for Certificate { workload, identity } in &self.certificates {
            let (id, certificate) = match identity {
                Some(identity) => (
                    identity.spiffe_id.clone(),
                    format!(
                        "age {}, expires in {}",
                        rough(identity.age),
                        rough(identity.expires_in)
                    ),
                ),
                None => ("-".to_owned(), "none".to_owned()),
            };
            table.add_row([workload.clone(), id, certificate]);
        }
        text(table)
    }
}

fn rate_row(label: &str, seen: &Seen, counts: &MeshCounts) -> [String; 6] {
    let (attempts, failed) = counts.attempts();
    [
        label.to_owned(),
        format!("{:.1}", seen.per_second),
        percent(seen.successes, seen.requests),
        percent(attempts.saturating_sub(failed), attempts),
        millis(seen.p50),
        millis(seen.p99),
    ]
}

/// Without the namespace that everything is in unless it says otherwise.
fn short(service: &str) -> &str {
    match service {
        "" => "(no service)",
        name => name.strip_prefix("default/").unwrap_or(name),
    }
}

/// Draws pages over each other on a terminal; where there is none, prints lines.
#[derive(Debug)]
pub(crate) struct Screen {
    is_terminal: bool,
    /// Rows of the page that is on the terminal.
    rows: u16,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            is_terminal: io::stdout().is_terminal(),
            rows: 0,
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Replaces the page that is there by this one, cut to the terminal's size.
    pub(crate) fn draw(&mut self, page: &str) -> io::Result<()> {
        let (columns, rows) = terminal::size().unwrap_or((80, 24));
        // One row stays free: a line end in the last one would scroll the page.
        let fitting: Vec<String> = page
            .lines()
            .take(usize::from(rows.saturating_sub(1)))
            .map(|line| line.chars().take(usize::from(columns)).collect())
            .collect();
        let mut out = io::stdout().lock();
        queue!(out, cursor::Hide)?;
        if self.rows > 0 {
            queue!(out, cursor::MoveToPreviousLine(self.rows))?;
        }
        for line in &fitting {
            queue!(out, terminal::Clear(terminal::ClearType::CurrentLine))?;
            writeln!(out, "{line}")?;
        }
        queue!(out, terminal::Clear(terminal::ClearType::FromCursorDown))?;
        self.rows = u16::try_from(fitting.len()).unwrap_or(rows);
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.rows > 0 {
            let mut out = io::stdout().lock();
            let _ = queue!(out, cursor::Show);
            let _ = out.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::counts::ServiceCounts;

    fn report(requests: u64, successes: u64) -> Report {
        let service = ServiceCounts {
            requests: 100,
            successes: 100,
            attempts: 143,
            attempt_failures: 43,
            backends: [
                ("default/checkout-v1".to_owned(), 90),
                ("default/checkout-v2".to_owned(), 10),
            ]
            .into(),
        };
        let counts = MeshCounts {
            services: [("default/checkout".to_owned(), service)].into(),
            hops: 143,
            hops_over_mtls: 143,
            received: 143,
            received_over_mtls: 143,
        };
        Report {
            name: "shop".to_owned(),
            ever: Seen {
                requests,
                successes,
                ..Seen::default()
            },
            counts_ever: counts.clone(),
            counts_lately: counts,
            split_of: Some("default/checkout".to_owned()),
            ..Report::default()
        }
    }

    #[test]
    fn the_promise_needs_more_than_999_of_1000_and_mtls_everywhere() {
        assert!(report(1_000, 1_000).kept_promise());
        assert!(report(10_000, 9_991).kept_promise());
        assert!(!report(10_000, 9_990).kept_promise());
        assert!(!report(0, 0).kept_promise());
        let mut plain = report(1_000, 1_000);
        plain.counts_ever.hops_over_mtls -= 1;
        assert!(!plain.kept_promise());
    }

    #[test]
    fn the_summary_tells_success_before_and_after_retries_and_the_split() {
        let summary = report(1_000, 1_000).summary();
        for part in [
            "100.00 % after retries, 69.93 % before",
            "checkout: checkout-v1 90.00 %, checkout-v2 10.00 %",
            "143, all of them over mTLS",
            "30.06 %",
            "\nok: ",
        ] {
            assert!(summary.contains(part), "{part}: {summary}");
        }
        assert!(report(1_000, 998).summary().contains("NOT ok"));
    }

    #[test]
    fn nothing_yet_is_shown_without_panic() {
        let empty = Report::default();
        assert!(empty.page().contains("since start"));
        assert!(empty.line().contains('-'));
    }
}
