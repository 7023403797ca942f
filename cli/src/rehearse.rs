//! The mesh that a command asks: the one of some files, or the one that runs.

use std::error::Error;
use std::path::PathBuf;

use clap::ValueEnum;
use control_plane::rehearsal::{Live, Rehearsed, Serving};
use control_plane::view::MeshState;
use model::MeshDomain;
use proto::v1::{GetRequest, StatusRequest};

use crate::connection::{ConnectionArgs, refused};
use crate::files;

/// How a mesh is asked, and how the answer is shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Asking {
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
    /// The suffix of service names, as the sidecars have it.
    #[arg(long, value_name = "DOMAIN", default_value_t = MeshDomain::default())]
    pub(crate) domain: MeshDomain,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// A mesh to ask.
pub(crate) struct Mesh {
    state: MeshState,
    serving: Option<Serving>,
    domain: MeshDomain,
}

impl Mesh {
    /// The mesh of these files; where there are none, the one that runs.
    pub(crate) async fn of(files: &[PathBuf], asking: &Asking) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let domain = asking.domain.clone();
        if files.is_empty() {
            let live = live(&asking.connection).await?;
            return Ok(Self {
                state: live.state,
                serving: Some(live.serving),
                domain,
            });
        }
        let configuration = files::configuration(files, "the configuration is not valid")?;
        Ok(Self {
            state: configuration.state(),
            serving: None,
            domain,
        })
    }

    pub(crate) fn rehearsed(&self) -> Rehearsed<'_> {
        Rehearsed {
            state: &self.state,
            domain: &self.domain,
            serving: self.serving.as_ref(),
        }
    }
}

/// What the control plane has in force.
pub(crate) async fn live(connection: &ConnectionArgs) -> Result<Live, Box<dyn Error + Send + Sync>> {
    let mut operator = connection.connect().await?;
    // A Secret without what it holds is none.
    let all = GetRequest {
        secrets: true,
        ..GetRequest::default()
    };
    let objects = operator.get(all).await.map_err(refused)?;
    let status = operator.status(StatusRequest {}).await.map_err(refused)?;
    Ok(Live::read(objects.get_ref(), status.get_ref())?)
}
