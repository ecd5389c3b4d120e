//! Places for connections: so many at all, so many for one peer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::gauge::Gauge;

use crate::identity::network;

/// Most connections at the same time, agents included. Each may cost some tens of KiB.
pub(super) const CONNECTIONS_MAX: usize = 4096;
/// Most of one address (IPv6: one /64), so that no single peer keeps out all the others. Half of all: the agents of a whole
/// site may come from behind one address.
const OF_PEER_MAX: usize = CONNECTIONS_MAX / 2;

/// Counts connections. Clones count together.
#[derive(Clone)]
pub(super) struct Places {
    taken: Arc<Mutex<Taken>>,
    /// Shows how many are taken.
    gauge: Gauge,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// A place that is taken, until it is dropped.
pub(super) struct Place {
    places: Places,
    peer: IpAddr,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Everything is taken.
    All,
    /// By that peer.
    OfPeer,
}

impl Places {
    /// All free; `gauge` shows how many are not.
    pub(super) fn new(gauge: Gauge) -> Self {
        Self { taken: Arc::default(), gauge }
    }

    /// A place for a connection from `address`.
    pub(super) fn take(&self, address: IpAddr) -> Result<Place, NoPlace> {
        let peer = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= CONNECTIONS_MAX {
            return Err(NoPlace::All);
        }
        if taken.by_peer.get(&peer).is_some_and(|count| *count >= OF_PEER_MAX) {
            return Err(NoPlace::OfPeer);
        }
        taken.all += 1;
        *taken.by_peer.entry(peer).or_default() += 1;
        drop(taken);
        self.gauge.inc();
        Ok(Place { places: self.clone(), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(count) = taken.by_peer.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.by_peer.remove(&self.peer);
            }
        }
        self.places.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    #[test]
    fn one_peer_does_not_keep_out_the_others() {
        let places = Places::new(Gauge::default());
        let mut of_one: Vec<_> = (0..OF_PEER_MAX).map(|_| places.take(peer(1)).ok().unwrap()).collect();
        assert_eq!(places.take(peer(1)).err(), Some(NoPlace::OfPeer));
        let of_other = places.take(peer(2)).ok();
        assert!(of_other.is_some());
        of_one.pop();
        assert!(places.take(peer(1)).is_ok(), "a place that is left is free again");
    }

    #[test]
    fn no_more_than_all_are_taken_and_nothing_is_kept_of_who_has_left() {
        let places = Places::new(Gauge::default());
        let all: Vec<_> =
            (0..CONNECTIONS_MAX).map(|number| places.take(peer(u8::from(number % 2 == 0))).ok()).collect();
        assert!(all.iter().all(Option::is_some));
        let shown = i64::try_from(CONNECTIONS_MAX).unwrap();
        assert_eq!((places.take(peer(3)).err(), places.gauge.get()), (Some(NoPlace::All), shown));
        drop(all);
        assert_eq!(places.gauge.get(), 0);
        assert!(places.taken.lock().unwrap().by_peer.is_empty());
    }
}
