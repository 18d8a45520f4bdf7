//! Resources that pass more or less from some time on.

use super::{PS_PER_S, Sharing, UNITS, work};

impl Sharing {
    /// Whether any flow is under way.
    pub(in super::super) fn is_active(&self) -> bool {
        self.active > 0
    }

    /// A resource passes a share of what it was made for, in 2⁻³² parts, from now on. If that is nothing, what is in flight
    /// on it is lost: of each flow, `in_flight` tells its bytes and how long a byte is in flight. How many flows lost some.
    ///
    /// Flows get their new rates when [`Sharing::share`] is called next, at the same time.
    pub(in super::super) fn change(
        &mut self,
        resource: u32,
        share: u64,
        now_ps: u64,
        in_flight: &mut dyn FnMut(u32) -> (u64, u64),
    ) -> u64 {
        let own = &mut self.resources[resource as usize];
        let capacity = ((u128::from(own.whole) * u128::from(share)) >> 32) as u64;
        if capacity == own.capacity {
            return 0;
        }
        own.capacity = capacity;
        self.dirty.push(resource);
        self.changes += 1;
        // At once, whatever it reaches.
        self.due_ps = Some(now_ps);
        let mut hits = 0;
        for k in 0..if share == 0 { self.resources[resource as usize].flows.len() } else { 0 } {
            let (id, _) = self.resources[resource as usize].flows[k];
            let flow = &mut self.flows[id as usize];
            let done = u128::from(flow.rate) * u128::from(now_ps - flow.since_ps);
            (flow.left, flow.since_ps) = (flow.left.saturating_sub(done), now_ps);
            let (bytes, latency_ps) = in_flight(flow.tag);
            let lost = u128::from(flow.rate) * u128::from(latency_ps);
            let lost = lost.min(work(bytes).saturating_sub(flow.left));
            flow.left += lost;
            hits += u64::from(lost > PS_PER_S * u128::from(UNITS));
        }
        hits
    }
}
