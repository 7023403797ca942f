//! Where a request goes, when it is tried again, and when it is given up.
//!
//! In the order in which a request meets them: [`route`] chooses the rule ([`stream`] that of what is no HTTP); [`cors`] says
//! what other origins may see, [`auth`] whether the request may go on, and [`redirect`] sends the client elsewhere; [`split`]
//! chooses the backend unless a [`session`] did before; [`fault`] says what is done to the request on purpose; [`path`],
//! [`filter`] and [`forwarded`] change it; [`lineage`] says what it inherits from the request that it is made for, [`deadline`]
//! how long it may take, and [`quickest`] what time an attempt needs at least; [`hop`] chooses the version of HTTP; and
//! [`balance`] picks the endpoint, among those that [`outlier`] and [`health`] have not left out, as far as [`concurrency`]
//! lets it. [`hedge`] sends one more attempt beside another. After an attempt [`retry`] judges it, asking [`backoff`] for the
//! pause; [`budget`] has the last word on a retry.
//!
//! [`outside`] judges calls to hosts that are no service of the mesh.
//!
//! [`shadow`] says what routes that are only tried out would have done. [`grpc`] reads what gRPC says of itself in HTTP fields.

pub mod auth;
pub mod backoff;
pub mod balance;
pub mod budget;
pub mod concurrency;
pub mod cors;
pub mod deadline;
pub mod fault;
pub mod filter;
pub mod forwarded;
pub mod grpc;
pub mod health;
pub mod hedge;
pub mod hop;
pub mod lineage;
pub mod outlier;
pub mod outside;
pub mod path;
pub mod quickest;
pub mod redirect;
pub mod retry;
pub mod route;
pub mod session;
pub mod shadow;
pub mod split;
pub mod stream;

/// Gateway API's reading of a list of named entries: of those with an equal name, only the first counts.
fn first_of_each_name<N: PartialEq, V>(entries: &[(N, V)]) -> impl Iterator<Item = &(N, V)> {
    entries
        .iter()
        .enumerate()
        .filter(|(position, (name, _))| entries.iter().take(*position).all(|(earlier, _)| earlier != name))
        .map(|(_, entry)| entry)
}
