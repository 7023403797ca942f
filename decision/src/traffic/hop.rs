//! Which version of HTTP carries a request from one sidecar to another.
//!
//! Many small messages are cheapest on one HTTP/2 connection, where a write carries several of them. Where few are
//! on their way at a time there is nothing to share, and HTTP/1.1 costs less; and bulk bodies are better off on a
//! connection of their own, where no window of HTTP/2 stands between two copies.

/// Requests on their way to an endpoint from which on they share a connection. A few would be cheaper apart, but each
/// connection that a burst needs and a lull does not is a handshake in somebody's way.
pub const MANY_IN_FLIGHT: usize = 2;
/// Bytes of a usual answer from which on it is bulk.
pub const BULK_BYTES: u64 = 128 * 1024;

/// The version spoken on a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopVersion {
    Http1,
    Http2,
}

/// What a caller sees of the way to an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HopLoad {
    /// Requests without an answer yet, per endpoint.
    pub in_flight: usize,
    /// Of the answers that said their length, the moving average of it, in bytes.
    pub usual_bytes: u64,
}

impl HopLoad {
    /// Another answer has this length.
    pub fn answered(&mut self, bytes: u64) {
        self.usual_bytes = self.usual_bytes - self.usual_bytes / 8 + bytes / 8;
    }

    /// The version for one more request. What came as HTTP/2 goes on as HTTP/2: its client may send and receive at the
    /// same time, and ends its messages with trailers.
    pub fn version(&self, came_as_http2: bool) -> HopVersion {
        let is_bulk = self.usual_bytes >= BULK_BYTES;
        if came_as_http2 || (self.in_flight >= MANY_IN_FLIGHT && !is_bulk) {
            HopVersion::Http2
        } else {
            HopVersion::Http1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn few_requests_take_http1_and_many_share_http2() {
        let load = |in_flight| HopLoad {
            in_flight,
            usual_bytes: 0,
        };
        assert_eq!(load(0).version(false), HopVersion::Http1);
        assert_eq!(load(MANY_IN_FLIGHT - 1).version(false), HopVersion::Http1);
        assert_eq!(load(MANY_IN_FLIGHT).version(false), HopVersion::Http2);
        assert_eq!(load(0).version(true), HopVersion::Http2);
    }

    #[test]
    fn bulk_answers_get_connections_of_their_own() {
        let mut load = HopLoad {
            in_flight: 100,
            usual_bytes: 0,
        };
        for _ in 0..8 {
            load.answered(1024 * 1024);
        }
        assert_eq!(load.version(false), HopVersion::Http1);
        for _ in 0..32 {
            load.answered(100);
        }
        assert_eq!(load.version(false), HopVersion::Http2);
    }

    proptest! {
        #[test]
        fn the_average_stays_among_what_was_seen(lengths in proptest::collection::vec(any::<u64>(), 1..100)) {
            let mut load = HopLoad::default();
            for length in &lengths {
                load.answered(*length);
            }
            prop_assert!(load.usual_bytes <= lengths.iter().copied().max().unwrap_or(0).saturating_add(8));
        }
    }
}
