//! `weft get`: shows configuration objects with the conditions that the control plane computed.

use std::process::ExitCode;

use clap::ValueEnum;
use control_plane::sources::Kind;
use proto::v1::{Condition, GetRequest, Object};

use crate::Outcome;
use crate::connection::{ConnectionArgs, refused};
use crate::table::{table, text};

#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// Gateway, HTTPRoute, Service, ..., also in lower case, in the plural or short; every kind unless given.
    #[arg(value_parser = kind)]
    kind: Option<String>,
    /// One object; all unless given.
    name: Option<String>,
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Every namespace.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Shows what Secrets hold, which is left out of YAML otherwise.
    #[arg(long)]
    show_secrets: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Yaml,
}

impl Get {
    pub(crate) async fn run(self) -> Outcome {
        let mut operator = self.connection.connect().await?;
        let request = GetRequest {
            kind: self.kind.clone().unwrap_or_default(),
            namespace: if self.all_namespaces {
                String::new()
            } else {
                self.namespace.clone()
            },
            name: self.name.clone().unwrap_or_default(),
            secrets: self.show_secrets,
        };
        let answer = operator.get(request).await.map_err(refused)?.into_inner();
        if answer.objects.is_empty() {
            let place = if self.all_namespaces {
                "any namespace".to_owned()
            } else {
                format!("namespace {}", self.namespace)
            };
            let what = [
                self.kind.as_deref().unwrap_or("object"),
                self.name.as_deref().unwrap_or_default(),
            ]
            .join(" ");
            eprintln!("weft: no {} in {place}", what.trim_end());
            // A name that was asked for is missing; an empty list is an answer.
            return Ok(if self.name.is_some() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            });
        }
        match self.output {
            Format::Table => print_table(&answer.objects),
            Format::Yaml => print_yaml(&answer.objects),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The kind as configuration spells it; a kind nobody knows passes as it is, for the control plane to judge.
pub(crate) fn kind(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(Kind::spoken(text).map_or_else(|| text.to_owned(), |kind| kind.to_string()))
}

fn print_table(objects: &[Object]) {
    let mut table = table(&["KIND", "NAMESPACE", "NAME", "SOURCE", "CONDITIONS"]);
    for object in objects {
        let name = object.name.clone().unwrap_or_default();
        let conditions = conditions(&object.conditions);
        table.add_row([
            name.kind,
            name.namespace,
            name.name,
            object.source.clone(),
            conditions,
        ]);
    }
    println!("{}", text(table));
}

fn print_yaml(objects: &[Object]) {
    for (position, object) in objects.iter().enumerate() {
        if position > 0 {
            println!("---");
        }
        println!("{}", object.yaml.trim_end());
    }
}

/// Conditions that say by being true that something is amiss.
const AMISS_WHERE_TRUE: [&str; 2] = ["PartiallyInvalid", "InsecureFrontendValidationMode"];

/// `Accepted, ResolvedRefs=False (BackendNotFound: no Service default/x)`.
pub(crate) fn conditions(conditions: &[Condition]) -> String {
    let text = |condition: &Condition| match condition.status {
        true if AMISS_WHERE_TRUE.contains(&condition.r#type.as_str()) => {
            format!(
                "{} ({}: {})",
                condition.r#type, condition.reason, condition.message
            )
        }
        true => condition.r#type.clone(),
        false => format!(
            "{}=False ({}: {})",
            condition.r#type, condition.reason, condition.message
        ),
    };
    conditions.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_may_be_written_as_people_write_them() {
        for (text, expected) in [
            ("httproutes", "HTTPRoute"),
            ("SVC", "Service"),
            ("gtw", "Gateway"),
            ("endpointslices", "EndpointSlice"),
            ("GRPCRoute", "GRPCRoute"),
            ("Other", "Other"),
        ] {
            assert_eq!(kind(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn only_a_condition_that_is_false_explains_itself() {
        let condition = |status, name: &str| Condition {
            r#type: name.to_owned(),
            status,
            reason: "BackendNotFound".to_owned(),
            message: "no Service default/x".to_owned(),
        };
        let shown = conditions(&[condition(true, "Accepted"), condition(false, "ResolvedRefs")]);
        assert_eq!(
            shown,
            "Accepted, ResolvedRefs=False (BackendNotFound: no Service default/x)"
        );
    }
}
