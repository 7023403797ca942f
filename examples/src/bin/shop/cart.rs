//! cart: `GET /cart/<visitor>` is what that visitor wants to buy.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::{Deserialize, Serialize};

use crate::serve::{Handler, json, problem};

/// What a visitor wants to buy.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub visitor: u64,
    pub items: Vec<Item>,
    /// In cents.
    pub total: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Item {
    pub name: String,
    pub quantity: u64,
    /// Of one, in cents.
    pub price: u64,
}

/// What the shop sells, with prices in cents.
const GOODS: [(&str, u64); 4] = [
    ("shuttle", 1290),
    ("reed", 450),
    ("warp yarn", 825),
    ("weft yarn", 795),
];

pub(crate) struct Cart;

impl Handler for Cart {
    async fn handle(&self, request: Request<Bytes>) -> Response<Full<Bytes>> {
        let visitor = request
            .uri()
            .path()
            .strip_prefix("/cart/")
            .and_then(|id| id.parse().ok());
        match (request.method(), visitor) {
            (&Method::GET | &Method::HEAD, Some(visitor)) => json(StatusCode::OK, &contents(visitor)),
            (_, Some(_)) => problem(StatusCode::METHOD_NOT_ALLOWED, "a cart can only be read"),
            (_, None) => problem(StatusCode::NOT_FOUND, "try /cart/42"),
        }
    }
}

/// Every visitor has a cart of their own that stays the same.
fn contents(visitor: u64) -> Contents {
    let wanted = GOODS.iter().zip(1..).map(|((name, price), position)| Item {
        name: (*name).to_owned(),
        quantity: (visitor % 4 + position) % 4,
        price: *price,
    });
    let items: Vec<_> = wanted.filter(|item| item.quantity > 0).collect();
    let total = items.iter().map(|item| item.quantity * item.price).sum();
    Contents {
        visitor,
        items,
        total,
    }
}
