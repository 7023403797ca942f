//! `weft delete`: takes one object out of the configuration.

use std::process::ExitCode;

use proto::v1::{DeleteRequest, ObjectName};

use crate::Outcome;
use crate::apply::path_of;
use crate::connection::{ConnectionArgs, refused};
use crate::get::kind;

#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// HTTPRoute, GRPCRoute, Service, ...
    #[arg(value_parser = kind)]
    kind: String,
    name: String,
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    connection: ConnectionArgs,
}

impl Delete {
    pub(crate) async fn run(self) -> Outcome {
        let mut operator = self.connection.connect().await?;
        let name = ObjectName {
            kind: self.kind,
            namespace: self.namespace,
            name: self.name,
        };
        let request = DeleteRequest { names: vec![name] };
        let answer = operator.delete(request).await.map_err(refused)?.into_inner();
        for name in &answer.deleted {
            println!("{} deleted", path_of(name));
        }
        for name in &answer.not_found {
            eprintln!("weft: {} not found", path_of(name));
        }
        Ok(if answer.not_found.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
