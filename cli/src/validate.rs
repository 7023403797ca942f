//! `weft validate`: says what is wrong with configuration files, without a mesh.

use std::path::PathBuf;
use std::process::ExitCode;

use control_plane::rehearsal::{self, Severity};
use proto::v1::Diagnostic;

use crate::table::counted;
use crate::{Outcome, diagnostic, files};

#[derive(Debug, clap::Args)]
pub(crate) struct Validate {
    /// A YAML file, a folder of them (not its subfolders), or - for standard input. May be repeated: all together
    /// are one mesh.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Warnings are errors.
    #[arg(long)]
    strict: bool,
}

impl Validate {
    pub(crate) async fn run(self) -> Outcome {
        let configuration = files::configuration(&self.files, "the configuration is not valid")?;
        let findings = rehearsal::review(&configuration);
        for finding in &findings {
            let diagnostic = Diagnostic {
                file: finding.file.clone(),
                line: finding.line,
                column: finding.column,
                field: finding.field.clone(),
                message: finding.message.clone(),
            };
            eprintln!("{}", diagnostic::head(&diagnostic, &finding.severity.to_string()));
        }
        let count = |severity| {
            findings
                .iter()
                .filter(|finding| finding.severity == severity)
                .count()
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        println!(
            "{}, {}, {}",
            counted(configuration.len(), "object"),
            counted(errors, "error"),
            counted(warnings, "warning")
        );
        let is_bad = errors > 0 || (self.strict && warnings > 0);
        Ok(if is_bad {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}
