//! `weft status`: every sidecar the control plane knows, and whether it uses the newest configuration.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::ValueEnum;
use proto::v1::{ProxyStatus, StatusRequest, StatusResponse};
use serde::Serialize;

use crate::apply::behind;
use crate::connection::{ConnectionArgs, refused};
use crate::table::{between, rough, table, text, unix_now};
use crate::{Outcome, diagnostic};

#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl Status {
    pub(crate) async fn run(self) -> Outcome {
        let mut operator = self.connection.connect().await?;
        let status = operator
            .status(StatusRequest {})
            .await
            .map_err(refused)?
            .into_inner();
        match self.output {
            Format::Json => println!("{}", serde_json::to_string_pretty(&Mesh::from(&status))?),
            Format::Table => print!("{}", page(&status, unix_now())),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The table, what is wrong with the sources, and one line on whether all are in sync.
fn page(status: &StatusResponse, now: i64) -> String {
    let mut table = table(&[
        "WORKLOAD",
        "IDENTITY",
        "ENDPOINT OF",
        "GENERATION",
        "STATE",
        "CERTIFICATE",
        "CONNECTED",
    ]);
    for proxy in &status.proxies {
        let connected = match proxy.connected {
            true => format!("for {}", rough(between(proxy.connected_since, now))),
            false => "no".to_owned(),
        };
        table.add_row([
            proxy.workload_id.clone(),
            proxy.spiffe_id.clone(),
            if proxy.serves.is_empty() {
                "-".to_owned()
            } else {
                proxy.serves.join(", ")
            },
            proxy.generation.to_string(),
            state(proxy).to_owned(),
            certificate(proxy, now),
            connected,
        ]);
    }
    let mut page = String::new();
    if !status.proxies.is_empty() {
        page += &format!("{}\n\n", text(table));
    }
    page += &format!(
        "trust domain {}, generation {}, authority expires in {}\n",
        status.trust_domain,
        status.generation,
        rough(between(now, status.authority_not_after))
    );
    for error in &status.source_errors {
        page += &format!("{}\n", diagnostic::render(error, None, false));
    }
    page + &sync_line(&status.proxies)
}

fn sync_line(proxies: &[ProxyStatus]) -> String {
    let late: Vec<&ProxyStatus> = proxies.iter().filter(|proxy| !proxy.in_sync).collect();
    if proxies.is_empty() {
        return "no sidecar is known\n".to_owned();
    }
    if late.is_empty() {
        return "all in sync\n".to_owned();
    }
    let mut text = format!("{} of {} not in sync:\n", late.len(), proxies.len());
    for proxy in late {
        text += &format!("  {}: {}\n", proxy.workload_id, behind(proxy));
    }
    text
}

fn state(proxy: &ProxyStatus) -> &'static str {
    match proxy {
        ProxyStatus { refusal: Some(_), .. } => "refused",
        ProxyStatus { connected: false, .. } => "disconnected",
        ProxyStatus { in_sync: false, .. } => "behind",
        ProxyStatus { ready: false, .. } => "in sync, not ready",
        _ => "in sync",
    }
}

/// `age 2m, expires in 23h 57m`.
fn certificate(proxy: &ProxyStatus, now: i64) -> String {
    let (from, until) = (proxy.certificate_not_before, proxy.certificate_not_after);
    match until {
        0 => "-".to_owned(),
        until if until <= now => format!("expired {} ago", rough(between(until, now))),
        until => format!(
            "age {}, expires in {}",
            rough(between(from, now).saturating_sub(certs::CLOCK_SKEW)),
            rough(between(now, until))
        ),
    }
}

/// `-o json`: the fields of the gRPC answer, under names that stay.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Mesh<'a> {
    generation: u64,
    trust_domain: &'a str,
    authority_not_after: i64,
    all_in_sync: bool,
    source_errors: Vec<String>,
    sidecars: Vec<Sidecar<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sidecar<'a> {
    workload: &'a str,
    identity: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    inbound: &'a str,
    endpoint_of: &'a [String],
    connected: bool,
    ready: bool,
    in_sync: bool,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<String>,
    connected_since: i64,
    certificate_not_before: i64,
    certificate_not_after: i64,
    version: &'a str,
}

impl<'a> From<&'a StatusResponse> for Mesh<'a> {
    fn from(status: &'a StatusResponse) -> Self {
        Self {
            generation: status.generation,
            trust_domain: &status.trust_domain,
            authority_not_after: status.authority_not_after,
            all_in_sync: status.proxies.iter().all(|proxy| proxy.in_sync),
            source_errors: status
                .source_errors
                .iter()
                .map(|error| diagnostic::render(error, None, false))
                .collect(),
            sidecars: status.proxies.iter().map(Sidecar::from).collect(),
        }
    }
}

impl<'a> From<&'a ProxyStatus> for Sidecar<'a> {
    fn from(proxy: &'a ProxyStatus) -> Self {
        Self {
            workload: &proxy.workload_id,
            identity: &proxy.spiffe_id,
            labels: proxy
                .labels
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
            inbound: &proxy.inbound,
            endpoint_of: &proxy.serves,
            connected: proxy.connected,
            ready: proxy.ready,
            in_sync: proxy.in_sync,
            generation: proxy.generation,
            behind: (!proxy.in_sync).then(|| behind(proxy)),
            connected_since: proxy.connected_since,
            certificate_not_before: proxy.certificate_not_before,
            certificate_not_after: proxy.certificate_not_after,
            version: &proxy.proxy_version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::Refusal;

    fn proxy(id: &str) -> ProxyStatus {
        ProxyStatus {
            workload_id: id.to_owned(),
            spiffe_id: "spiffe://cluster.local/ns/default/sa/checkout".to_owned(),
            connected: true,
            ready: true,
            in_sync: true,
            generation: 7,
            connected_since: 940,
            certificate_not_before: 760,
            certificate_not_after: 4_600,
            serves: vec!["default/checkout".to_owned()],
            ..Default::default()
        }
    }

    fn status(proxies: Vec<ProxyStatus>) -> StatusResponse {
        StatusResponse {
            generation: 7,
            proxies,
            trust_domain: "cluster.local".to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn a_mesh_in_sync_says_so() {
        let page = page(&status(vec![proxy("checkout-v1")]), 1_000);
        assert!(page.ends_with("all in sync\n"), "{page}");
        assert!(page.contains("age 2m, expires in 1h"), "{page}");
        assert!(page.contains("for 1m"), "{page}");
    }

    #[test]
    fn a_refusal_is_named_with_its_field() {
        let refusal = Refusal {
            generation: 8,
            resource: "destination/default/checkout".to_owned(),
            field: "ports[0]".to_owned(),
            why: "no such protocol".to_owned(),
        };
        let late = ProxyStatus {
            in_sync: false,
            refusal: Some(refusal),
            ..proxy("checkout-v2")
        };
        let page = page(&status(vec![proxy("checkout-v1"), late]), 1_000);
        assert!(
            page.contains("1 of 2 not in sync:\n  checkout-v2: refused destination/default/checkout"),
            "{page}"
        );
        assert!(page.contains("(field ports[0])"), "{page}");
    }

    #[test]
    fn json_tells_what_the_table_tells() {
        let late = ProxyStatus {
            in_sync: false,
            generation: 6,
            ..proxy("a")
        };
        let json = serde_json::to_value(Mesh::from(&status(vec![late]))).expect("serialises");
        assert_eq!(json["allInSync"], false);
        assert_eq!(json["sidecars"][0]["behind"], "still uses generation 6");
    }
}
