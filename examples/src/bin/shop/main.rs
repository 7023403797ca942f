//! The example shop: four small services that know nothing of a mesh. They call each other by plain names, honour
//! `http_proxy`, and pass on trace headers; everything else is the sidecars' work.

mod call;
mod cart;
mod checkout;
mod frontend;
mod payments;
mod serve;
mod trace;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::net::TcpListener;

/// The example shop's services, one per process.
#[derive(Debug, Parser)]
#[command(name = "shop", version)]
struct Arguments {
    /// Where to listen; port 0 takes a free one. The line that is printed at the start tells which.
    #[arg(
        long,
        env = "LISTEN",
        default_value = "127.0.0.1:0",
        global = true,
        value_name = "IP:PORT"
    )]
    listen: SocketAddr,
    #[command(subcommand)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Service {
    /// The page that visitors see; calls cart and checkout.
    Frontend(frontend::Settings),
    /// What is in a visitor's cart.
    Cart,
    /// Turns a cart into an order; calls payments over gRPC.
    Checkout(checkout::Settings),
    /// Charges orders over gRPC, and fails often.
    Payments(payments::Settings),
}

/// Why a service ends before it was told to.
#[derive(Debug, thiserror::Error)]
enum ShopError {
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    #[error("{0:?} is no address to call: {1}")]
    Address(String, String),
    #[error("cannot go on: {0}")]
    Serve(String),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shop: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), ShopError> {
    die_with_parent();
    let stop = serve::stop_on_signals()?;
    let cannot_listen = |error| ShopError::Listen(arguments.listen, error);
    let listener = TcpListener::bind(arguments.listen).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let announce = |name: &str| println!("shop {name} listens on {address}");
    match arguments.service {
        Service::Frontend(settings) => {
            let frontend = frontend::Frontend::new(settings)?;
            announce("frontend");
            serve::http(listener, stop, frontend).await;
        }
        Service::Cart => {
            announce("cart");
            serve::http(listener, stop, cart::Cart).await;
        }
        Service::Checkout(settings) => {
            let checkout = checkout::Checkout::new(settings)?;
            announce("checkout");
            serve::http(listener, stop, checkout).await;
        }
        Service::Payments(settings) => {
            announce("payments");
            serve::grpc(listener, stop, payments::service(settings)).await?;
        }
    }
    Ok(())
}

/// Nobody who tries the shop should have to look for left-over processes.
fn die_with_parent() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        // Refused only where the kernel does not know it; the service works all the same.
        let _ = set_parent_process_death_signal(Some(Signal::TERM));
    }
}
