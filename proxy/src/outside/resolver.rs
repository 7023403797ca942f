//! Host names to addresses, as this machine is set up: `/etc/hosts`, and the servers and domains of `/etc/resolv.conf`.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use decision::Reason;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use smallvec::SmallVec;
use tokio::time::timeout;

use super::MAX_ADDRESSES;

const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// How often these files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Made at the first question; answers are kept for their time to live.
#[derive(Default)]
pub(super) struct Resolver {
    current: RefCell<Option<Current>>,
}

struct Current {
    resolver: TokioResolver,
    looked: Instant,
    /// When the files were changed that it was made from.
    changed: [Option<SystemTime>; 2],
}

impl Resolver {
    /// The addresses of a host. At most `kept` answers are remembered.
    pub(super) async fn look_up(
        &self,
        name: &str,
        kept: usize,
        within: Duration,
    ) -> Result<SmallVec<[IpAddr; MAX_ADDRESSES]>, Reason> {
        let resolver = self.resolver(kept)?;
        match timeout(within, resolver.lookup_ip(name)).await {
            Ok(Ok(found)) => {
                let found: SmallVec<[IpAddr; MAX_ADDRESSES]> = found.iter().collect();
                match found.is_empty() {
                    true => Err(Reason::UnknownService),
                    false => Ok(found),
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(name, %error, "a host was not found");
                Err(reason(&error))
            }
            Err(_) => Err(Reason::DnsTimeout),
        }
    }

    /// The resolver, made anew where the machine's settings have changed.
    fn resolver(&self, kept: usize) -> Result<TokioResolver, Reason> {
        let mut current = self.current.borrow_mut();
        let now = Instant::now();
        if let Some(current) = &mut *current {
            let is_fresh = now.saturating_duration_since(current.looked) < LOOK_EVERY;
            if is_fresh || current.changed == changed() {
                if !is_fresh {
                    current.looked = now;
                }
                return Ok(current.resolver.clone());
            }
        }
        let changed = changed();
        let resolver = build(kept)?;
        *current = Some(Current {
            resolver: resolver.clone(),
            looked: now,
            changed,
        });
        Ok(resolver)
    }
}

fn build(kept: usize) -> Result<TokioResolver, Reason> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
        tracing::warn!(%error, "/etc/resolv.conf names no server; only /etc/hosts is looked at");
        let nobody = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
        TokioResolver::builder_with_config(nobody, TokioRuntimeProvider::default())
    });
    let options = builder.options_mut();
    options.cache_size = kept as u64;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build().map_err(|error| {
        tracing::error!(%error, "there is no resolver");
        Reason::Internal
    })
}

fn changed() -> [Option<SystemTime>; 2] {
    FILES.map(|file| {
        std::fs::metadata(file)
            .and_then(|of_file| of_file.modified())
            .ok()
    })
}

fn reason(error: &NetError) -> Reason {
    match error {
        NetError::Timeout => Reason::DnsTimeout,
        error if error.is_no_records_found() => Reason::UnknownService,
        _ => Reason::DnsFailed,
    }
}
