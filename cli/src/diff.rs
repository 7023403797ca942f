//! `weft diff`: what applying files would change in the mesh that runs, and which requests it would move; or which live
//! requests would fare differently if what is in shadow were in force.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use control_plane::rehearsal::{self, Change, Difference, Outcome as End, Rehearsed};

use crate::paint::Paint;
use crate::rehearse::{Asking, Format};
use crate::{Outcome, explain, files, live, rehearse, trouble};

/// Exits with 0 where nothing is different, with 1 where something is, and with 2 on trouble, as diff(1) does.
#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// A YAML file, a folder of them (not its subfolders), or - for standard input. May be repeated. What once came
    /// from a file of the same name and is no longer in it counts as removed.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required_unless_present = "live", num_args = 1..)]
    files: Vec<PathBuf>,
    /// Instead of files: what routes and policies with the annotation weft.dev/shadow: "true" would have done with the
    /// requests that sidecars and gateways have had since these are as they are, by caller.
    #[arg(long, conflicts_with_all = ["files", "whole"])]
    live: bool,
    /// The files are the whole mesh: everything that is in none of them counts as removed.
    #[arg(long)]
    whole: bool,
    /// Exits with 0 also where something is different.
    #[arg(long)]
    exit_zero: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Diff {
    pub(crate) async fn run(self) -> Outcome {
        Ok(self.compare().await.unwrap_or_else(trouble))
    }

    async fn compare(self) -> Outcome {
        if self.live {
            let live = live::ask(&self.asking.connection).await?;
            match self.asking.output {
                Format::Json => println!("{}", serde_json::to_string_pretty(&live)?),
                Format::Text => print!("{}", live.page()),
            }
            return Ok(live.outcome(self.exit_zero));
        }
        let configuration = files::configuration(&self.files, "the configuration is not valid")?;
        let live = rehearse::live(&self.asking.connection).await?;
        let next = live.with(&configuration, self.whole);
        let of = |state| Rehearsed {
            state,
            domain: &self.asking.domain,
            serving: None,
        };
        let difference = rehearsal::diff(&of(&live.state), &of(&next));
        match self.asking.output {
            Format::Json => println!("{}", serde_json::to_string_pretty(&difference)?),
            Format::Text => print!("{}", told(&difference, Paint::stdout())),
        }
        let is_same = difference.is_nothing() || self.exit_zero;
        Ok(if is_same {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn told(difference: &Difference, paint: Paint) -> String {
    let Difference {
        objects,
        rules,
        uses,
        moved,
        untried,
    } = difference;
    let mut out = String::new();
    let mark = |change: Change, text: &str| match change {
        Change::Added => paint.good(&format!("+ {text}")),
        Change::Removed => paint.bad(&format!("- {text}")),
        Change::Changed => format!("~ {text}"),
    };
    for object in objects {
        let _ = writeln!(out, "{}", mark(object.change, &object.object));
    }
    let mut destination = "";
    for rule in rules {
        if destination != rule.destination {
            destination = &rule.destination;
            let _ = writeln!(out, "\nrules of {destination}");
        }
        let _ = writeln!(out, "  {}", mark(rule.change, &rule.rule));
        for what in &rule.what {
            let _ = writeln!(out, "      {what}");
        }
    }
    if !uses.is_empty() {
        out.push_str("\npolicies\n");
    }
    for of_service in uses {
        let _ = writeln!(out, "  {}", mark(of_service.change, &of_service.service));
        for what in &of_service.what {
            let _ = writeln!(out, "      {what}");
        }
    }
    if !moved.is_empty() {
        out.push_str("\nrequests that go elsewhere\n");
    }
    for moved in moved {
        let fields: String = moved
            .headers
            .iter()
            .map(|field| format!(" -H '{field}'"))
            .collect();
        let _ = writeln!(out, "  {}{}{fields}", moved.request, moved.by);
        let _ = writeln!(out, "      before: {}", paint.bad(&of_end(&moved.before)));
        let _ = writeln!(out, "      after:  {}", paint.good(&of_end(&moved.after)));
    }
    if *untried > 0 {
        let _ = writeln!(
            out,
            "\n{untried} matches were not tried: no request was found that fits them"
        );
    }
    out
}

/// `default/a:80 90 %, default/b:80 10 %`, or `404 no_route`.
pub(crate) fn of_end(end: &End) -> String {
    match end {
        End::Backends(shares) => {
            let words = shares.iter().filter(|share| share.weight > 0).map(|share| {
                let fails = if share.unresolved.is_some() {
                    " (does not resolve: 500)"
                } else {
                    ""
                };
                format!("{} {}{fails}", share.backend, explain::percent(share.percent))
            });
            words.collect::<Vec<_>>().join(", ")
        }
        End::NoConnection { why } => format!("no connection: {why}"),
        End::Answer {
            status,
            reason,
            location,
            why: _,
        } => {
            let words = [
                Some(status.to_string()),
                Some((*reason).to_owned()),
                location.clone(),
            ];
            let some = words.into_iter().flatten().filter(|word| !word.is_empty());
            some.collect::<Vec<_>>().join(" ")
        }
    }
}
