//! `weft apply`: sends YAML to the control plane and, when asked, waits until every sidecar concerned uses it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use proto::v1::applied_object::Change;
use proto::v1::{ApplyRequest, AwaitRequest, ObjectName, ProxyStatus};

use crate::connection::{ConnectionArgs, Operator, refused};
use crate::get::conditions;
use crate::{Outcome, diagnostic, files};

/// The longest that `--wait` waits; the control plane does not hold a call longer.
const MAX_WAIT: Duration = Duration::from_secs(600);

#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    /// A YAML file, a folder of them (not its subfolders), or - for standard input. May be repeated.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true)]
    files: Vec<PathBuf>,
    /// Waits until every sidecar that the change concerns uses it; 30s unless told, at most 10m.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "30s", value_parser = wait)]
    pub(crate) wait: Option<Duration>,
    /// Takes routes without those of their rules that cannot be followed, which their status then says
    /// (`PartiallyInvalid`), instead of refusing everything.
    #[arg(long)]
    in_part: bool,
    /// Checks only; changes nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

impl Apply {
    pub(crate) async fn run(self) -> Outcome {
        let files = files::read_all(&self.files)?;
        let mut operator = self.connection.connect().await?;
        let started = Instant::now();
        let request = ApplyRequest {
            files: files.clone(),
            dry_run: self.dry_run,
            in_part: self.in_part,
        };
        let answer = operator.apply(request).await.map_err(refused)?.into_inner();
        if !answer.errors.is_empty() {
            files::show(&answer.errors, &files);
            eprintln!("weft: nothing was applied");
            return Ok(ExitCode::FAILURE);
        }
        let note = if self.dry_run { " (dry run)" } else { "" };
        for object in &answer.applied {
            let name = object.name.as_ref().map(path_of).unwrap_or_default();
            println!("{name} {}{note}", word(object.change()));
            // Applied, but not yet as somebody will have meant it.
            if object.conditions.iter().any(|condition| !condition.status) {
                eprintln!("  {}", conditions(&object.conditions));
            }
        }
        for warning in &answer.warnings {
            eprintln!("{}", diagnostic::head(warning, "warning"));
        }
        match self.wait {
            Some(wait) if !self.dry_run => arrive(&mut operator, answer.generation, wait, started).await,
            _ => Ok(ExitCode::SUCCESS),
        }
    }
}

/// `HTTPRoute/default/checkout`, or `GatewayClass/weft` where the kind has no namespaces.
pub(crate) fn path_of(name: &ObjectName) -> String {
    match name.namespace.as_str() {
        "" => format!("{}/{}", name.kind, name.name),
        namespace => format!("{}/{namespace}/{}", name.kind, name.name),
    }
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Created => "created",
        Change::Configured => "configured",
        Change::Unchanged => "unchanged",
        Change::Unspecified => "applied",
    }
}

/// Waits until the generation has arrived everywhere, or says where it has not, and why.
async fn arrive(operator: &mut Operator, generation: u64, wait: Duration, started: Instant) -> Outcome {
    let timeout_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let mut request = tonic::Request::new(AwaitRequest {
        generation,
        timeout_ms,
    });
    // The control plane answers by then with who is behind; the margin is for a control plane that does not.
    request.set_timeout(wait.saturating_add(Duration::from_secs(5)));
    let answer = operator.r#await(request).await.map_err(refused)?.into_inner();
    if answer.reached {
        let sidecars = if answer.proxies == 1 {
            "1 sidecar uses".to_owned()
        } else {
            format!("{} sidecars use", answer.proxies)
        };
        println!(
            "{sidecars} generation {generation} after {} ms",
            started.elapsed().as_millis()
        );
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "weft: generation {generation} is not in use everywhere after {} ms:",
        started.elapsed().as_millis()
    );
    for proxy in &answer.behind {
        eprintln!("  {}: {}", proxy.workload_id, behind(proxy));
    }
    Ok(ExitCode::FAILURE)
}

/// Why a sidecar does not use the newest configuration.
pub(crate) fn behind(proxy: &ProxyStatus) -> String {
    if let Some(refusal) = &proxy.refusal {
        let field = if refusal.field.is_empty() {
            String::new()
        } else {
            format!(" (field {})", refusal.field)
        };
        return format!("refused {}: {}{field}", refusal.resource, refusal.why);
    }
    if !proxy.connected {
        return format!("not connected, last used generation {}", proxy.generation);
    }
    format!("still uses generation {}", proxy.generation)
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if wait > MAX_WAIT {
        Err("at most 10m".to_owned())
    } else {
        Ok(wait)
    }
}
