//! `weft apply`: sends YAML to the control plane and, when asked, waits until every sidecar concerned uses it.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use proto::v1::applied_object::Change;
use proto::v1::{ApplyRequest, AwaitRequest, ObjectName, ProxyStatus, SourceFile};

use crate::connection::{ConnectionArgs, Operator, refused};
use crate::get::conditions;
use crate::{Outcome, diagnostic};

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
    /// Checks only; changes nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Why there is nothing to send.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} holds no .yaml or .yml file", .0.display())]
    EmptyFolder(PathBuf),
}

impl Apply {
    pub(crate) async fn run(self) -> Outcome {
        let mut files = Vec::new();
        for path in &self.files {
            files.extend(read(path)?);
        }
        let texts: BTreeMap<String, String> = files
            .iter()
            .map(|file| (file.name.clone(), file.text.clone()))
            .collect();
        let mut operator = self.connection.connect().await?;
        let started = Instant::now();
        let request = ApplyRequest {
            files,
            dry_run: self.dry_run,
        };
        let answer = operator.apply(request).await.map_err(refused)?.into_inner();
        if !answer.errors.is_empty() {
            let styled = io::stderr().is_terminal();
            for error in &answer.errors {
                let text = texts.get(&error.file).map(String::as_str);
                eprintln!("{}", diagnostic::render(error, text, styled));
            }
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

/// A file's text, the texts of a folder's YAML files in the order of their names, or standard input.
fn read(path: &Path) -> Result<Vec<SourceFile>, SourceError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| SourceError::Unreadable { path, source }
    };
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(unreadable(path))?;
        return Ok(vec![SourceFile {
            name: "<stdin>".to_owned(),
            text,
        }]);
    }
    if !path.is_dir() {
        let text = std::fs::read_to_string(path).map_err(unreadable(path))?;
        return Ok(vec![SourceFile {
            name: path.display().to_string(),
            text,
        }]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable(path))? {
        let path = entry.map_err(unreadable(path))?.path();
        let is_yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_yaml && !is_hidden && path.is_file() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(SourceError::EmptyFolder(path.to_owned()));
    }
    paths.sort();
    let mut files = Vec::with_capacity(paths.len());
    for path in &paths {
        files.extend(read(path)?);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_its_yaml_files_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b.yml", "a.yaml", ".hidden.yaml", "notes.md"] {
            std::fs::write(folder.path().join(name), name).expect("written");
        }
        std::fs::create_dir(folder.path().join("c.yaml")).expect("a folder");
        let texts: Vec<String> = read(folder.path())
            .expect("read")
            .into_iter()
            .map(|file| file.text)
            .collect();
        assert_eq!(texts, ["a.yaml", "b.yml"]);
    }

    #[test]
    fn a_folder_without_yaml_and_a_missing_file_are_errors() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(read(folder.path()), Err(SourceError::EmptyFolder(_))));
        assert!(matches!(
            read(&folder.path().join("no")),
            Err(SourceError::Unreadable { .. })
        ));
    }
}
