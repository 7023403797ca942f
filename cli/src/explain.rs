//! `weft explain`: tells what becomes of a request, and why, in files or in the mesh that runs.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use control_plane::rehearsal::{
    self, Call, Caller, Chosen, Explanation, HeaderChange, Outcome as End, Share, Verdict,
};
use model::FieldError;

use crate::Outcome;
use crate::paint::Paint;
use crate::rehearse::{Asking, Format, Mesh};
use crate::table::{table, text};

#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    #[arg(value_name = "METHOD")]
    method: String,
    /// http://checkout/orders?x=1, with the host as the application would write it.
    #[arg(value_name = "URL")]
    url: String,
    /// A header field of the request, 'name: value'. May be repeated.
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// Who sends it: NAMESPACE/SERVICE, NAMESPACE/, or SERVICE, which is one of the namespace default.
    #[arg(long, value_name = "CALLER", default_value = "default/")]
    from: Caller,
    /// It comes from outside, through a gateway: NAME or NAMESPACE/NAME of the Gateway. The URL's scheme says whether by
    /// TLS, and its port which listeners it meets.
    #[arg(long, value_name = "GATEWAY", conflicts_with = "from")]
    gateway: Option<String>,
    /// In the mesh of these files alone, instead of the one that runs: a YAML file, a folder of them, or - for standard
    /// input. May be repeated.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    asking: Asking,
}

impl Explain {
    pub(crate) async fn run(self) -> Outcome {
        let mut call = call(&self.method, &self.url, &self.headers, self.from)?;
        if let Some(gateway) = &self.gateway {
            call.through(gateway).map_err(|error| error.within("gateway"))?;
        }
        let mesh = Mesh::of(&self.files, &self.asking).await?;
        let explanation = rehearsal::explain(&mesh.rehearsed(), &call);
        match self.asking.output {
            Format::Json => println!("{}", serde_json::to_string_pretty(&explanation)?),
            Format::Text => print!("{}", told(&explanation, Paint::stdout())),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn call(method: &str, url: &str, headers: &[String], from: Caller) -> Result<Call, FieldError> {
    let mut call = Call::new(method, url, from)?;
    for field in headers {
        let (name, value) = field
            .split_once(':')
            .ok_or_else(|| FieldError::at("header", format!("{field:?} is not 'name: value'")))?;
        call.add_header(name.trim(), value.trim())
            .map_err(|error| error.within("header"))?;
    }
    Ok(call)
}

/// The whole explanation as people read it.
fn told(explanation: &Explanation, paint: Paint) -> String {
    let Explanation {
        request,
        destination,
        listener,
        matches,
        rule,
        outcome,
    } = explanation;
    let by = match (&request.from, &request.gateway) {
        (_, Some(gateway)) => format!("through Gateway {gateway}"),
        (Some(from), None) => match from.strip_suffix('/') {
            Some(namespace) => format!("from any workload of {namespace}"),
            None => format!("from {from}"),
        },
        (None, None) => String::new(),
    };
    let mut out = format!("{} {} {by}\n\n", request.method, request.url);
    if let Some(destination) = destination {
        let at = format!("{}:{}", destination.service, destination.port);
        let note = format!(
            "({}; port because {})",
            destination.protocol, destination.port_because
        );
        line(&mut out, "destination", &format!("{at} {note}"));
    }
    if let Some(listener) = listener {
        let name = &listener.name;
        let words = format!(
            "{name} (port {}, host {}, {})",
            listener.port, listener.hostname, listener.serves
        );
        line(&mut out, "listener", &words);
    }
    if !matches.is_empty() {
        out.push_str("matches, by precedence\n");
        let mut lines = table(&["", "RULE", "MATCH", ""]);
        for candidate in matches {
            let (mark, verdict) = match candidate.verdict {
                Verdict::Chosen => (">", "chosen"),
                Verdict::Hidden => ("", "fits, but hidden"),
                Verdict::Misses => ("", "no"),
            };
            let why = candidate.why.join("; ");
            let verdict = if why.is_empty() {
                verdict.to_owned()
            } else {
                format!("{verdict}: {why}")
            };
            let host = candidate.hostname.as_ref().map(|name| format!("{name}, "));
            let wants = host.unwrap_or_default() + &candidate.wants;
            lines.add_row([mark, &candidate.rule, &wants, &verdict]);
        }
        for (at, row) in text(lines).lines().enumerate() {
            let row = match at
                .checked_sub(1)
                .and_then(|at| matches.get(at))
                .map(|candidate| candidate.verdict)
            {
                Some(Verdict::Chosen) => paint.good(row),
                Some(Verdict::Hidden | Verdict::Misses) => paint.quiet(row),
                None => row.to_owned(),
            };
            let _ = writeln!(out, "{row}");
        }
    } else if destination.is_some() {
        line(&mut out, "rule", "none: no route governs the destination");
    }
    if let Some(rule) = rule {
        of_rule(&mut out, rule);
    }
    match outcome {
        End::Backends(shares) => of_backends(&mut out, shares, paint),
        End::NoConnection { why } => line(&mut out, "connection", &paint.bad(&format!("none: {why}"))),
        End::Answer {
            status,
            reason,
            why,
            location,
        } => {
            let reason = if reason.is_empty() {
                String::new()
            } else {
                format!(" {reason}")
            };
            let why = if why.is_empty() {
                String::new()
            } else {
                format!(": {why}")
            };
            line(&mut out, "answer", &paint.bad(&format!("{status}{reason}{why}")));
            if let Some(location) = location {
                line(&mut out, "location", location);
            }
        }
    }
    out
}

fn of_rule(out: &mut String, rule: &Chosen) {
    let Chosen {
        name,
        filters,
        timeouts,
        retry,
        session,
    } = rule;
    line(out, "rule", name);
    for filter in filters {
        line(out, "filter", filter);
    }
    if let Some(timeouts) = timeouts {
        let named = |name: &str, time: &Option<String>| time.as_ref().map(|time| format!("{name} {time}"));
        let times = [
            named("request", &timeouts.request),
            named("backendRequest", &timeouts.backend_request),
        ];
        line(
            out,
            "timeouts",
            &times.into_iter().flatten().collect::<Vec<_>>().join(", "),
        );
    }
    if let Some(retry) = retry {
        let of_grpc = retry.grpc_codes.iter().map(|code| format!("gRPC status {code}"));
        let codes = retry.codes.iter().map(u16::to_string).chain(of_grpc);
        let codes: Vec<String> = codes.collect();
        let codes = if codes.is_empty() {
            "nothing but connection errors".to_owned()
        } else {
            codes.join(", ")
        };
        let words = format!(
            "{} more attempts on {codes}; backoff {}",
            retry.attempts, retry.backoff
        );
        line(out, "retry", &words);
    }
    if let Some(session) = session {
        line(out, "session", session);
    }
}

fn of_backends(out: &mut String, shares: &[Share], paint: Paint) {
    out.push_str("backends\n");
    let mut lines = table(&["", "BACKEND", "WEIGHT", "SHARE", "ENDPOINTS"]);
    for share in shares {
        let endpoints = match (&share.unresolved, &share.endpoints) {
            (Some(why), _) => format!("answered with 500: {why}"),
            (None, None) => "not known without a mesh".to_owned(),
            (None, Some(endpoints)) if endpoints.is_empty() => "none: answered with 503".to_owned(),
            (None, Some(endpoints)) => endpoints.join(", "),
        };
        let (weight, percent) = (share.weight.to_string(), percent(share.percent));
        lines.add_row(["", &share.backend, &weight, &percent, &endpoints]);
    }
    for (at, row) in text(lines).lines().enumerate() {
        let share = at.checked_sub(1).and_then(|at| shares.get(at));
        let row = match share {
            Some(share) if share.unresolved.is_some() => paint.bad(row),
            _ => row.to_owned(),
        };
        let _ = writeln!(out, "{row}");
    }
    for share in shares {
        for filter in &share.filters {
            line(out, "filter", &format!("of {}: {filter}", share.backend));
        }
        for governing in &share.policies {
            line(
                out,
                "policy",
                &format!("{} for {}", governing.policy, share.backend),
            );
            for field in &governing.says {
                line(out, "", field);
            }
        }
        if let Some(fault) = &share.fault {
            line(out, "fault", &format!("{fault} ({})", share.backend));
        }
    }
    // What all backends have in common is said once.
    let headers = |share: &Share| (share.request_headers.clone(), share.response_headers.clone());
    let mut said: Vec<(HeaderChange, HeaderChange)> = Vec::new();
    for share in shares {
        let change = headers(share);
        if said.contains(&change) {
            continue;
        }
        let to = match shares.iter().all(|other| headers(other) == change) {
            true => String::new(),
            false => format!("{}: ", share.backend),
        };
        for (name, change) in [("request", &change.0), ("response", &change.1)] {
            if !change.is_nothing() {
                line(out, name, &format!("{to}{}", of_change(change)));
            }
        }
        said.push(change);
    }
}

/// `x-a: 1 is set, x-b is removed`.
pub(crate) fn of_change(change: &HeaderChange) -> String {
    let set = change
        .set
        .iter()
        .map(|(name, value)| format!("{name}: {value} is set"));
    let removed = change.removed.iter().map(|name| format!("{name} is removed"));
    set.chain(removed).collect::<Vec<_>>().join(", ")
}

/// `90 %`, `33.3 %`, `0.01 %`: with as many digits as a weight in ten thousand needs.
pub(crate) fn percent(percent: f64) -> String {
    let text = format!("{percent:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} %")
}

fn line(out: &mut String, name: &str, words: &str) {
    let _ = writeln!(out, "{name:<12} {words}");
}
