//! payments: charges orders over gRPC and fails a share of the calls, so that there is something to retry.

use tonic::{Request, Response, Status};

use wire::payments_server::{self, PaymentsServer};
use wire::{ChargeRequest, ChargeResponse};

/// Generated from `proto/shop/v1/payments.proto`.
pub mod wire {
    #![allow(clippy::all, unreachable_pub)]
    tonic::include_proto!("shop.v1");
}

#[derive(Debug, clap::Args)]
pub(crate) struct Settings {
    /// How many of a hundred calls fail with UNAVAILABLE, before anything is charged.
    #[arg(long, env = "FAIL_PERCENT", default_value_t = 30, value_name = "0-100",
        value_parser = clap::value_parser!(u8).range(0..=100))]
    fail_percent: u8,
}

/// The service, ready to be served.
pub(crate) fn service(settings: Settings) -> PaymentsServer<Payments> {
    PaymentsServer::new(Payments {
        fail_percent: settings.fail_percent,
    })
}

pub(crate) struct Payments {
    fail_percent: u8,
}

#[tonic::async_trait]
impl payments_server::Payments for Payments {
    async fn charge(&self, request: Request<ChargeRequest>) -> Result<Response<ChargeResponse>, Status> {
        let charge = request.into_inner();
        if charge.order.is_empty() || charge.currency.len() != 3 {
            return Err(Status::invalid_argument(
                "a charge needs an order and a currency of three letters",
            ));
        }
        if rand::random_range(0..100) < self.fail_percent {
            return Err(Status::unavailable("the card network does not answer"));
        }
        // The same order is the same payment, however often it is sent.
        Ok(Response::new(ChargeResponse {
            payment: format!("pay-{}", charge.order),
        }))
    }
}
