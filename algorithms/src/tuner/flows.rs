//! Messages that pass a rank's ports at once and share them, max-min fairly, as `fluid` has it.

/// The messages of one turn over links of one level: as many flows, which begin and end together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flows {
    /// How long a port takes for them if nothing else passes it.
    pub(super) port_ps: f64,
    /// How many they are.
    pub(super) count: f64,
    /// The most of a port that they take, as a part of it: each is no faster than a link lets it be.
    pub(super) most: f64,
    /// What they pass, all at once: the number of a port, and of another one.
    pub(super) passes: [Option<usize>; 2],
}

/// All flows under way.
#[derive(Debug)]
pub(super) struct UnderWay<T> {
    now_ps: f64,
    flows: Vec<Active<T>>,
    /// Of each port, while it is shared out: what is left of it, and how many flows want some.
    ports: Vec<(f64, f64)>,
    /// Whether some began or ended since ports were shared out last, and when the next ones end.
    is_changed: bool,
    next_ps: Option<f64>,
}

#[derive(Debug)]
struct Active<T> {
    name: T,
    flows: Flows,
    left_ps: f64,
    /// What part of a port they get; negative until that is found.
    rate: f64,
    /// What each could get of what is left.
    most: f64,
}

/// What is through when so little is left: times are sums of parts.
const NOTHING_PS: f64 = 1e-3;

impl<T: Copy> UnderWay<T> {
    /// None yet; so many ports.
    pub(super) fn new(ports: usize) -> Self {
        let (flows, ports) = (Vec::new(), vec![(0.0, 0.0); ports]);
        UnderWay { now_ps: 0.0, flows, ports, is_changed: false, next_ps: None }
    }

    /// Some more, whose end is told by this name.
    pub(super) fn begin(&mut self, now_ps: f64, name: T, flows: Flows) {
        self.move_to(now_ps);
        self.flows.push(Active { name, flows, left_ps: flows.port_ps, rate: 0.0, most: 0.0 });
        self.is_changed = true;
    }

    /// When the next ones end.
    pub(super) fn next_ps(&mut self) -> Option<f64> {
        if self.is_changed {
            if self.flows.iter().any(|active| active.left_ps <= NOTHING_PS) {
                // That ends before anything passes on.
                return Some(self.now_ps);
            }
            self.share();
        }
        self.next_ps
    }

    /// Ends one that is through by now, if there is any; the earliest begun first.
    pub(super) fn end(&mut self, now_ps: f64) -> Option<T> {
        self.move_to(now_ps);
        let through = self.flows.iter().position(|active| active.left_ps <= NOTHING_PS)?;
        self.is_changed = true;
        Some(self.flows.remove(through).name)
    }

    fn move_to(&mut self, now_ps: f64) {
        let passed_ps = now_ps - self.now_ps;
        if passed_ps == 0.0 {
            return;
        }
        if self.is_changed {
            self.share();
        }
        for active in &mut self.flows {
            active.left_ps -= passed_ps * active.rate;
        }
        self.now_ps = now_ps;
    }

    /// Shares the ports out: all flows get as much, until a port has no more or they can take no more; then the others
    /// get more.
    fn share(&mut self) {
        self.is_changed = false;
        self.ports.fill((1.0, 0.0));
        for active in &mut self.flows {
            active.rate = -1.0;
            for port in active.flows.passes.into_iter().flatten() {
                self.ports[port].1 += active.flows.count;
            }
        }
        let mut open = self.flows.len();
        while open > 0 {
            let ports = &self.ports;
            let of_port = |port: usize| match ports[port] {
                (left, flows) if flows > 0.0 => left.max(0.0) / flows,
                _ => f64::MAX,
            };
            let mut level = f64::MAX;
            for active in self.flows.iter_mut().filter(|active| active.rate < 0.0) {
                let ports = active.flows.passes.into_iter().flatten().map(of_port);
                active.most = ports.fold(active.flows.most / active.flows.count, f64::min);
                level = level.min(active.most);
            }
            let is_full =
                |active: &&mut Active<T>| active.rate < 0.0 && active.most <= level * (1.0 + f64::EPSILON);
            for active in self.flows.iter_mut().filter(is_full) {
                open -= 1;
                active.rate = level * active.flows.count;
                for port in active.flows.passes.into_iter().flatten() {
                    self.ports[port].0 -= active.rate;
                    self.ports[port].1 -= active.flows.count;
                }
            }
        }
        let ends = self.flows.iter().map(|active| self.now_ps + active.left_ps.max(0.0) / active.rate);
        self.next_ps = ends.reduce(f64::min);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows(port_ps: f64, count: f64, most: f64, passes: [Option<usize>; 2]) -> Flows {
        Flows { port_ps, count, most, passes }
    }

    /// Each end with its time.
    fn ends(under_way: &mut UnderWay<char>) -> Vec<(f64, char)> {
        let mut ends = Vec::new();
        while let Some(now_ps) = under_way.next_ps() {
            while let Some(name) = under_way.end(now_ps) {
                ends.push((now_ps, name));
            }
        }
        ends
    }

    #[test]
    fn every_flow_gets_as_much_and_what_others_leave() {
        let mut under_way = UnderWay::new(1);
        // Three flows against one: it gets a quarter, and all of the port once they are through.
        under_way.begin(0.0, 'a', flows(30.0, 3.0, 1.0, [Some(0), None]));
        under_way.begin(0.0, 'b', flows(20.0, 1.0, 1.0, [Some(0), None]));
        assert_eq!(ends(&mut under_way), [(40.0, 'a'), (50.0, 'b')]);
        // One that takes a tenth at most leaves the others the rest.
        under_way.begin(50.0, 'a', flows(10.0, 1.0, 0.1, [Some(0), None]));
        under_way.begin(50.0, 'b', flows(45.0, 1.0, 1.0, [Some(0), None]));
        assert_eq!(ends(&mut under_way), [(100.0, 'b'), (150.0, 'a')]);
    }

    #[test]
    fn what_passes_two_ports_is_held_up_by_the_fuller_one() {
        let mut under_way = UnderWay::new(2);
        under_way.begin(0.0, 'a', flows(10.0, 1.0, 1.0, [Some(0), Some(1)]));
        under_way.begin(0.0, 'b', flows(30.0, 3.0, 1.0, [Some(0), None]));
        under_way.begin(0.0, 'c', flows(75.0, 1.0, 1.0, [None, Some(1)]));
        assert_eq!(ends(&mut under_way), [(40.0, 'a'), (40.0, 'b'), (85.0, 'c')]);
    }

    #[test]
    fn what_begins_later_slows_down_what_is_under_way() {
        let mut under_way = UnderWay::new(1);
        under_way.begin(0.0, 'a', flows(10.0, 1.0, 1.0, [Some(0), None]));
        assert_eq!(under_way.end(5.0), None);
        under_way.begin(5.0, 'b', flows(10.0, 1.0, 1.0, [Some(0), None]));
        assert_eq!(ends(&mut under_way), [(15.0, 'a'), (20.0, 'b')]);
        assert_eq!(under_way.next_ps(), None);
    }
}
