//! checkout: `POST /orders` charges a cart and makes an order of it. Releases differ in what they call themselves.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use crate::call::grpc_channel;
use crate::cart::Contents;
use crate::payments::wire::ChargeRequest;
use crate::payments::wire::payments_client::PaymentsClient;
use crate::serve::{Handler, json, problem};
use crate::{ShopError, trace};

#[derive(Debug, clap::Args)]
pub(crate) struct Settings {
    /// Which release this is; every answer says it.
    #[arg(
        long = "version",
        env = "SHOP_VERSION",
        default_value = "v1",
        value_name = "NAME"
    )]
    release: String,
    /// Where the payments service is called.
    #[arg(
        long,
        env = "PAYMENTS_ADDR",
        default_value = "http://payments:50051",
        value_name = "URL"
    )]
    payments: String,
}

pub(crate) struct Checkout {
    release: String,
    release_header: HeaderValue,
    payments: PaymentsClient<Channel>,
}

impl Checkout {
    pub(crate) fn new(settings: Settings) -> Result<Self, ShopError> {
        let release_header = HeaderValue::from_str(&settings.release)
            .map_err(|_| ShopError::Serve(format!("{:?} does not fit into a header", settings.release)))?;
        let payments = PaymentsClient::new(grpc_channel(&settings.payments)?);
        Ok(Self {
            release: settings.release,
            release_header,
            payments,
        })
    }

    async fn order(&self, headers: &HeaderMap, body: &[u8]) -> Response<Full<Bytes>> {
        let cart: Contents = match serde_json::from_slice(body) {
            Ok(cart) => cart,
            Err(error) => return problem(StatusCode::BAD_REQUEST, format!("that is no cart: {error}")),
        };
        let order = format!("{:016x}", rand::random::<u64>());
        let charge = ChargeRequest {
            order: order.clone(),
            amount: cart.total,
            currency: "EUR".to_owned(),
        };
        let mut request = tonic::Request::new(charge);
        *request.metadata_mut() = MetadataMap::from_headers(trace::onward(headers));
        match self.payments.clone().charge(request).await {
            Ok(charged) => {
                let payment = charged.into_inner().payment;
                let placed = serde_json::json!({
                    "order": order, "version": self.release, "payment": payment, "total": cart.total,
                });
                json(StatusCode::CREATED, &placed)
            }
            Err(status) => problem(
                StatusCode::BAD_GATEWAY,
                format!("payments answered {:?}: {}", status.code(), status.message()),
            ),
        }
    }
}

impl Handler for Checkout {
    async fn handle(&self, request: Request<Bytes>) -> Response<Full<Bytes>> {
        let mut response = match (request.method(), request.uri().path()) {
            (&Method::POST, "/orders") => self.order(request.headers(), request.body()).await,
            (_, "/orders") => problem(StatusCode::METHOD_NOT_ALLOWED, "POST a cart"),
            _ => problem(StatusCode::NOT_FOUND, "there is only /orders"),
        };
        response
            .headers_mut()
            .insert("shop-version", self.release_header.clone());
        response
    }
}
