//! Which endpoint gets an attempt.
//!
//! Without a policy it is [`pick`]: the better of two at random, by peak EWMA. With one it is a [`Balancer`]: [`spread`]
//! says how much of the load each group of endpoints gets, by where they are and how many of them can be used, and within
//! a group the policy's algorithm chooses, by load, in turn, or by a [`HashTable`] from the key that [`key`] takes of a
//! request.

mod balancer;
mod hash;
pub mod key;
mod peak_ewma;
#[cfg(test)]
mod simulations;
mod tiers;

pub use balancer::{Ask, Balancer, slow_start};
pub use hash::HashTable;
pub use peak_ewma::{DEFAULT_DECAY, DEFAULT_RTT, FAILED_RTT, PeakEwma, pick};
pub use tiers::{Standing, Tier, distance, spread};
