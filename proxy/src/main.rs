//! `weft-proxy`: one sidecar, as its own process.

use std::process::ExitCode;

use clap::Parser;
use proxy::{Proxy, flags::Flags};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = Flags::parse();
    telemetry::logs_to_stderr("info", flags.log_format());
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Result<(), Box<dyn std::error::Error>> {
    let settings = flags.into_settings()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut stop = proxy::flags::StopSignals::listen()?;
        let running = tokio::select! {
            running = Proxy::start(settings) => running?,
            () = stop.recv() => return Ok(()),
        };
        // For whoever started this process with port 0.
        if let Some(outbound) = running.outbound {
            println!("outbound {outbound}");
        }
        if let Some(inbound) = running.inbound {
            println!("inbound {inbound}");
        }
        println!("admin {}", running.admin);
        println!("metrics {}", running.metrics);
        for local in &running.locals {
            println!("local {}:{} {}", local.service, local.port, local.listen);
        }
        println!("ready");
        stop.recv().await;
        tracing::info!("stopping: requests that have begun are finished");
        tokio::select! {
            () = running.stop() => {}
            () = stop.recv() => tracing::warn!("stopped at once, by a second signal"),
        }
        Ok(())
    })
}
