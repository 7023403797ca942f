//! Finds the control plane and the operator's credential, and connects with mTLS.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use certs::{CertError, Identity, IdentityCell, TrustBundle};
use hyper_util::rt::TokioIo;
use model::SpiffeId;
use proto::v1::operator_client::OperatorClient;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::pointer::{self, Pointer};

/// Reaching the control plane, TLS included, takes at most this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read: the whole configuration of a large mesh.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The operator's end of the control plane.
pub(crate) type Operator = OperatorClient<Channel>;

/// Which control plane, and as whom. Without any of these: the environment (`WEFT_DATA`, or `WEFT_CONTROL_PLANE`
/// with `WEFT_CREDENTIAL` and `WEFT_BUNDLE`), then the running `weft up`.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Control plane")]
pub(crate) struct ConnectionArgs {
    /// Data folder of a control plane on this machine [env: WEFT_DATA].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Its gRPC address, host:port [env: WEFT_CONTROL_PLANE].
    #[arg(long, value_name = "ADDR")]
    pub control_plane: Option<String>,
    /// The operator's key and certificates, PEM [env: WEFT_CREDENTIAL].
    #[arg(long, value_name = "FILE")]
    pub credential: Option<PathBuf>,
    /// The root certificates of the mesh, PEM [env: WEFT_BUNDLE].
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
}

/// Where the address and the credential come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// `None`: in the data folder's `address`.
    pub address: Option<String>,
    pub address_file: PathBuf,
    pub credential: PathBuf,
    pub bundle: PathBuf,
}

/// Why the control plane cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error(
        "no control plane: give --data DIR, or --control-plane ADDR with --credential and --bundle, \
         or their WEFT_ variables; and no `weft up` is running here"
    )]
    Nowhere,
    #[error(
        "{missing} is missing: a control plane elsewhere needs --control-plane, --credential and --bundle"
    )]
    Incomplete { missing: &'static str },
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is not usable", path.display())]
    Credential { path: PathBuf, source: Box<CertError> },
    #[error("the credential cannot be used for TLS")]
    Tls(#[source] Box<CertError>),
    #[error("cannot reach the control plane at {address}")]
    Unreachable {
        address: String,
        source: tonic::transport::Error,
    },
    #[error("{0}")]
    Refused(String),
}

impl ConnectionArgs {
    /// Connects to the control plane that the flags, the environment or the running `weft up` name.
    pub(crate) async fn connect(&self) -> Result<Operator, ConnectionError> {
        connect(&self.target()?).await
    }

    /// Where the control plane and the credential are.
    pub(crate) fn target(&self) -> Result<Target, ConnectionError> {
        let env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        resolve(self, env, || pointer::find(env))
    }
}

impl Target {
    /// A control plane by its data folder.
    pub(crate) fn data(folder: &Path) -> Self {
        Self {
            address: None,
            address_file: folder.join("address"),
            credential: folder.join("operator.pem"),
            bundle: folder.join("bundle.pem"),
        }
    }

    /// The control plane's gRPC address, host:port.
    pub(crate) fn address(&self) -> Result<String, ConnectionError> {
        match &self.address {
            Some(address) => Ok(address.clone()),
            None => Ok(read(&self.address_file)?.trim().to_owned()),
        }
    }
}

/// Flags before environment before the running `weft up`; a data folder before its parts.
fn resolve(
    flags: &ConnectionArgs,
    env: impl Fn(&str) -> Option<OsString>,
    running: impl FnOnce() -> Option<Pointer>,
) -> Result<Target, ConnectionError> {
    let path = |name: &str| env(name).map(PathBuf::from);
    let from_env = ConnectionArgs {
        data: path("WEFT_DATA"),
        control_plane: env("WEFT_CONTROL_PLANE").map(|value| value.to_string_lossy().into_owned()),
        credential: path("WEFT_CREDENTIAL"),
        bundle: path("WEFT_BUNDLE"),
    };
    let nothing = ConnectionArgs::default();
    // Flags that name parts only are completed from the environment's parts, but not by its data folder.
    let (first, second) = if *flags == nothing {
        (&from_env, &nothing)
    } else {
        (flags, &from_env)
    };
    if *first == nothing {
        return running()
            .map(|up| Target::data(&up.data))
            .ok_or(ConnectionError::Nowhere);
    }
    let address = first
        .control_plane
        .clone()
        .or_else(|| second.control_plane.clone());
    let credential = first.credential.clone().or_else(|| second.credential.clone());
    let bundle = first.bundle.clone().or_else(|| second.bundle.clone());
    if let Some(folder) = &first.data {
        let whole = Target::data(folder);
        return Ok(Target {
            address: first.control_plane.clone(),
            credential: first.credential.clone().unwrap_or(whole.credential),
            bundle: first.bundle.clone().unwrap_or(whole.bundle),
            ..whole
        });
    }
    let missing = |missing| ConnectionError::Incomplete { missing };
    Ok(Target {
        address: Some(address.ok_or(missing("--control-plane"))?),
        address_file: PathBuf::new(),
        credential: credential.ok_or(missing("--credential"))?,
        bundle: bundle.ok_or(missing("--bundle"))?,
    })
}

/// Connects as the operator; only the mesh's control plane is accepted as the other side.
pub(crate) async fn connect(target: &Target) -> Result<Operator, ConnectionError> {
    let address = target.address()?;
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source: CertError| ConnectionError::Credential {
            path,
            source: source.into(),
        }
    };
    let bundle = TrustBundle::from_pem(&read(&target.bundle)?).map_err(unusable(&target.bundle))?;
    let identity = Identity::from_pem(&read(&target.credential)?, &bundle, SystemTime::now())
        .map_err(unusable(&target.credential))?;
    let expected = control_plane_of(identity.id());
    let cell = IdentityCell::with(identity, bundle);
    let tls = certs::client_config(&cell, &[b"h2"], &expected)
        .map_err(|error| ConnectionError::Tls(error.into()))?;
    let connector = TlsConnector::from(tls);
    let dial = {
        let address = address.clone();
        tower::service_fn(move |_| {
            let (connector, address) = (connector.clone(), address.clone());
            async move {
                let tcp = TcpStream::connect(&address).await?;
                tcp.set_nodelay(true)?;
                // The other side is judged by its SPIFFE identity; the name is only what TLS wants to be told.
                let name = ServerName::IpAddress(tcp.peer_addr()?.ip().into());
                connector.connect(name, tcp).await.map(TokioIo::new)
            }
        })
    };
    let channel = Endpoint::from_static("http://control-plane")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector(dial)
        .await
        .map_err(|source| ConnectionError::Unreachable { address, source })?;
    Ok(OperatorClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
}

/// What the control plane said no to, as a sentence rather than as a gRPC status.
pub(crate) fn refused(status: tonic::Status) -> ConnectionError {
    let message = status.message();
    ConnectionError::Refused(match status.code() {
        tonic::Code::Unavailable => format!("the control plane went away: {message}"),
        tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => format!("not allowed: {message}"),
        code if message.is_empty() => code.description().to_owned(),
        _ => message.to_owned(),
    })
}

/// The control plane's identity in the operator's trust domain.
fn control_plane_of(operator: &SpiffeId) -> SpiffeId {
    SpiffeId::control_plane(&operator.trust_domain)
}

fn read(path: &Path) -> Result<String, ConnectionError> {
    std::fs::read_to_string(path).map_err(|source| ConnectionError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up() -> Option<Pointer> {
        Some(Pointer {
            pid: 1,
            name: "shop".to_owned(),
            data: "/up".into(),
            traces: "127.0.0.1:1".parse().expect("an address"),
            key: String::new(),
        })
    }

    fn no_env(_: &str) -> Option<OsString> {
        None
    }

    fn remote() -> ConnectionArgs {
        ConnectionArgs {
            data: None,
            control_plane: Some("mesh:15012".to_owned()),
            credential: Some("/c.pem".into()),
            bundle: Some("/b.pem".into()),
        }
    }

    #[test]
    fn flags_come_before_environment_before_the_running_demo() {
        let env = |name: &str| (name == "WEFT_DATA").then(|| "/env".into());
        let flags = ConnectionArgs {
            data: Some("/flag".into()),
            ..Default::default()
        };
        let credential = |target: Result<Target, _>| target.map(|target: Target| target.credential).ok();
        assert_eq!(
            credential(resolve(&flags, env, up)),
            Some("/flag/operator.pem".into())
        );
        assert_eq!(
            credential(resolve(&Default::default(), env, up)),
            Some("/env/operator.pem".into())
        );
        assert_eq!(
            credential(resolve(&Default::default(), no_env, up)),
            Some("/up/operator.pem".into())
        );
        assert!(matches!(
            resolve(&Default::default(), no_env, || None),
            Err(ConnectionError::Nowhere)
        ));
    }

    #[test]
    fn a_control_plane_elsewhere_needs_all_three() {
        let target = resolve(&remote(), no_env, up).expect("complete");
        assert_eq!(target.address.as_deref(), Some("mesh:15012"));
        let flags = ConnectionArgs {
            bundle: None,
            ..remote()
        };
        assert!(matches!(
            resolve(&flags, no_env, up),
            Err(ConnectionError::Incomplete { missing: "--bundle" })
        ));
    }

    #[test]
    fn parts_given_as_flags_are_completed_from_the_environment_but_not_mixed_with_its_data_folder() {
        let env = |name: &str| match name {
            "WEFT_DATA" => Some("/env".into()),
            "WEFT_CREDENTIAL" => Some("/env.pem".into()),
            _ => None,
        };
        let flags = ConnectionArgs {
            credential: None,
            ..remote()
        };
        let target = resolve(&flags, env, up).expect("complete");
        assert_eq!(target.credential, PathBuf::from("/env.pem"));
        assert_eq!(target.address.as_deref(), Some("mesh:15012"));
    }
}
