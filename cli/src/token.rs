//! `weft token create`: makes the token by which one new sidecar proves who it is.

use std::process::ExitCode;
use std::time::Duration;

use proto::v1::CreateTokenRequest;

use crate::Outcome;
use crate::connection::{ConnectionArgs, refused};
use crate::table::{between, rough, unix_now};

/// The longest that a token may wait to be used.
const MAX_TTL: Duration = Duration::from_secs(86_400);

#[derive(Debug, clap::Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prints a new token: for one sidecar, usable once, for a short time.
    Create(Create),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The service account that the sidecar will be.
    #[arg(long)]
    service_account: String,
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// How long it can wait to be used; at most 24h.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = ttl)]
    ttl: Duration,
    #[command(flatten)]
    connection: ConnectionArgs,
}

impl Token {
    pub(crate) async fn run(self) -> Outcome {
        let Command::Create(create) = self.command;
        let mut operator = create.connection.connect().await?;
        let request = CreateTokenRequest {
            namespace: create.namespace,
            service_account: create.service_account,
            ttl_seconds: u32::try_from(create.ttl.as_secs()).unwrap_or(u32::MAX),
        };
        let answer = operator
            .create_token(request)
            .await
            .map_err(refused)?
            .into_inner();
        // Alone on standard output, so that it can go straight into a file.
        println!("{}", answer.token);
        eprintln!(
            "usable once, for {}",
            rough(between(unix_now(), answer.expires_at))
        );
        Ok(ExitCode::SUCCESS)
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match ttl {
        ttl if ttl > MAX_TTL => Err("at most 24h".to_owned()),
        ttl if ttl < Duration::from_secs(1) => Err("at least 1s".to_owned()),
        ttl => Ok(ttl),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_has_bounds() {
        assert_eq!(ttl("10m"), Ok(Duration::from_secs(600)));
        for text in ["0s", "500ms", "25h", "soon"] {
            assert!(ttl(text).is_err(), "{text}");
        }
    }
}
