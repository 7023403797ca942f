//! frontend: `GET /` shows the visitor's cart, `/checkout` buys what is in it.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;

use crate::call::Caller;
use crate::cart::Contents;
use crate::serve::{Handler, json, problem, typed};
use crate::{ShopError, trace};

/// The one visitor this shop has.
const VISITOR: u64 = 42;
/// Which release of checkout took the order.
const VERSION_HEADER: &str = "shop-version";

#[derive(Debug, clap::Args)]
pub(crate) struct Settings {
    /// Where the cart service is called.
    #[arg(long, env = "CART_URL", default_value = "http://cart", value_name = "URL")]
    cart: String,
    /// Where the checkout service is called.
    #[arg(
        long,
        env = "CHECKOUT_URL",
        default_value = "http://checkout",
        value_name = "URL"
    )]
    checkout: String,
}

pub(crate) struct Frontend {
    cart: Uri,
    orders: Uri,
    caller: Caller,
}

impl Frontend {
    pub(crate) fn new(settings: Settings) -> Result<Self, ShopError> {
        Ok(Self {
            cart: uri(&settings.cart, &format!("/cart/{VISITOR}"))?,
            orders: uri(&settings.checkout, "/orders")?,
            caller: Caller::new(),
        })
    }

    async fn home(&self, headers: &HeaderMap) -> Result<Response<Full<Bytes>>, String> {
        let cart = self.read_cart(headers).await?;
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .unwrap_or_default();
        if accept.contains("application/json") {
            return Ok(json(StatusCode::OK, &cart));
        }
        Ok(typed(StatusCode::OK, "text/html; charset=utf-8", page(&cart)))
    }

    async fn buy(&self, headers: &HeaderMap) -> Result<Response<Full<Bytes>>, String> {
        let cart = self.read_cart(headers).await?;
        let cart = serde_json::to_vec(&cart).map_err(|error| error.to_string())?;
        let order = self
            .caller
            .call(Method::POST, &self.orders, trace::onward(headers), Some(cart))
            .await?;
        let (head, body) = order.into_parts();
        if !head.status.is_success() {
            return Err(format!(
                "checkout answered {}: {}",
                head.status,
                String::from_utf8_lossy(&body)
            ));
        }
        let mut response = typed(StatusCode::OK, "application/json", body);
        if let Some(version) = head.headers.get(VERSION_HEADER) {
            response.headers_mut().insert(VERSION_HEADER, version.clone());
        }
        Ok(response)
    }

    async fn read_cart(&self, headers: &HeaderMap) -> Result<Contents, String> {
        let answer = self
            .caller
            .call(Method::GET, &self.cart, trace::onward(headers), None)
            .await?;
        if answer.status() != StatusCode::OK {
            return Err(format!("cart answered {}", answer.status()));
        }
        serde_json::from_slice(answer.body())
            .map_err(|error| format!("cart answered something else: {error}"))
    }
}

impl Handler for Frontend {
    async fn handle(&self, request: Request<Bytes>) -> Response<Full<Bytes>> {
        let answer = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/") => self.home(request.headers()).await,
            (&Method::GET | &Method::POST, "/checkout") => self.buy(request.headers()).await,
            (_, "/" | "/checkout") => {
                return problem(StatusCode::METHOD_NOT_ALLOWED, "GET / or POST /checkout");
            }
            _ => return problem(StatusCode::NOT_FOUND, "there is / and /checkout"),
        };
        answer.unwrap_or_else(|why| problem(StatusCode::BAD_GATEWAY, why))
    }
}

fn uri(base: &str, path: &str) -> Result<Uri, ShopError> {
    let whole = format!("{}{path}", base.trim_end_matches('/'));
    whole
        .parse()
        .map_err(|error: http::uri::InvalidUri| ShopError::Address(whole.clone(), error.to_string()))
}

/// Nothing here came from the visitor, so nothing needs escaping.
fn page(cart: &Contents) -> String {
    let rows = cart
        .items
        .iter()
        .map(|item| format!("<li>{} × {}</li>", item.quantity, item.name));
    let (rows, total) = (rows.collect::<String>(), cart.total as f64 / 100.0);
    format!(
        "<!doctype html><title>Shop</title><h1>Your cart</h1><ul>{rows}</ul><p>{total:.2} EUR</p>\
         <form method=post action=/checkout><button>Buy</button></form>\n"
    )
}
