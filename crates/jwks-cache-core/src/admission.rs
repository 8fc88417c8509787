//! Which fetch may start next: bounded in all, an origin, for flights that follow a failed one, and a
//! tenant; fair among tenants.
//!
//! Whoever wants to fetch [asks](Admission::ask) for a ticket, starts when [`Admission::grant`] names it,
//! and [leaves](Admission::leave) in the end, started or not. Every step costs the logarithm of what
//! waits, whether ten thousand tickets wait for one origin or for ten thousand.
//!
//! This room does not know what a fetch is, how long one takes or may take, or how to wake anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many fetches may run at once. Zero counts as one: a gate that never opens would hang its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all; default 64, what a small machine's sockets and memory carry. One tenant may take half of
    /// them (rounded up), and the rest only as long as no other tenant waits for something that could start.
    pub total: usize,
    /// To one origin; default 8, so that one that hangs leaves room for the others.
    pub per_origin: usize,
    /// For flights that follow a failed one; default 16, so that many dead origins leave room too.
    pub after_failure: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: 64, per_origin: 8, after_failure: 16 }
    }
}

impl Limits {
    /// What one tenant may run while others wait. Rounded up, so that while there is room at all, at most
    /// one tenant has reached it.
    const fn per_tenant(self) -> usize {
        self.total.div_ceil(2)
    }
}

/// How much depends on a fetch; the earlier go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// Its callers have nothing that could be served.
    Waited,
    /// A refresh is due.
    Due,
    /// A token named a kid that is not held.
    MissingKid,
}

/// What a ticket is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The tenant that pays for it.
    pub tenant: Arc<str>,
    /// Scheme, host and port.
    pub origin: Arc<str>,
    /// Its priority.
    pub urgency: Urgency,
    /// Whether the provider's last flight failed.
    pub after_failure: bool,
}

/// Names one request from [`Admission::ask`] to [`Admission::leave`]; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// The gate. Among equally urgent tickets the tenants take turns (start-time fair queuing): each ticket is
/// stamped when it is asked for, a tenant's next ticket one later than its last, and the earliest stamp goes
/// first. So a tenant that comes with one ticket waits for no other tenant's queue.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    tickets: BTreeMap<Ticket, Entry>,
    tenants: BTreeMap<Arc<str>, Tenant>,
    origins: BTreeMap<Arc<str>, Origin>,
    /// Those that reached [`Limits::per_tenant`]: two when all places are taken, else one or none.
    crowding: BTreeSet<Arc<str>>,
    /// What waits: ordinary flights, and those that follow a failed one.
    lanes: [Lane; 2],
    /// What runs, by lane.
    running: [usize; 2],
    /// The latest stamp that was granted, by urgency.
    clocks: [u64; 3],
    next: u64,
}

impl Admission {
    /// A gate with nothing in it.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: Limits {
                total: limits.total.max(1),
                per_origin: limits.per_origin.max(1),
                after_failure: limits.after_failure.max(1),
            },
            tickets: BTreeMap::new(),
            tenants: BTreeMap::new(),
            origins: BTreeMap::new(),
            crowding: BTreeSet::new(),
            lanes: Default::default(),
            running: [0; 2],
            clocks: [0; 3],
            next: 0,
        }
    }

    /// Queues a request. It may start when [`Admission::grant`] returns its ticket.
    pub fn ask(&mut self, request: Request) -> Ticket {
        let ticket = Ticket(self.next);
        self.next = self.next.saturating_add(1);
        self.tenants.entry(request.tenant.clone()).or_default().tickets += 1;
        self.origins.entry(request.origin.clone()).or_default().tickets += 1;
        self.queue(ticket, request);
        ticket
    }

    /// Lets the next one start, if any may. Call it after every other call, until it returns `None`.
    pub fn grant(&mut self) -> Option<Ticket> {
        if self.running() >= self.limits.total {
            return None;
        }
        let crowding = self.crowding.first().cloned();
        let key = self.best(crowding.as_ref()).or_else(|| self.best(None))?;
        let entry = self.tickets.get_mut(&key.ticket)?;
        entry.running = true;
        let request = entry.request.clone();
        self.lanes[lane(&request)].remove(&request, key);
        self.running[lane(&request)] += 1;
        let clock = &mut self.clocks[key.urgency as usize];
        *clock = key.stamp.max(*clock);
        self.count_running(&request, |running| running.saturating_add(1));
        Some(key.ticket)
    }

    /// A ticket is done with: its fetch ended, or it gave up waiting. Does nothing the second time.
    pub fn leave(&mut self, ticket: Ticket) {
        let Some(Entry { request, key, running }) = self.tickets.remove(&ticket) else { return };
        if running {
            self.running[lane(&request)] -= 1;
            self.count_running(&request, |running| running.saturating_sub(1));
        } else {
            self.lanes[lane(&request)].remove(&request, key);
            self.reopen(&request.origin);
        }
        if let Some(tenant) = self.tenants.get_mut(&request.tenant) {
            tenant.tickets -= 1;
            if tenant.tickets == 0 {
                self.tenants.remove(&request.tenant);
            }
        }
        if let Some(origin) = self.origins.get_mut(&request.origin) {
            origin.tickets -= 1;
            if origin.tickets == 0 {
                self.origins.remove(&request.origin);
            }
        }
    }

    /// Raises a waiting ticket, as when a caller joined who has nothing: it queues anew among the more
    /// urgent ones. Does nothing to one that runs, left, or is that urgent already.
    pub fn promote(&mut self, ticket: Ticket, urgency: Urgency) {
        let Some(entry) = self.tickets.get(&ticket) else { return };
        if entry.running || entry.request.urgency <= urgency {
            return;
        }
        let (before, key) = (entry.request.clone(), entry.key);
        self.lanes[lane(&before)].remove(&before, key);
        self.queue(ticket, Request { urgency, ..before });
    }

    /// How many tickets wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.tickets.len().saturating_sub(self.running())
    }

    /// How many tickets were granted and have not left.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.iter().sum()
    }

    fn queue(&mut self, ticket: Ticket, request: Request) {
        let urgency = request.urgency;
        let clock = self.clocks[urgency as usize];
        // By lane too: retries that may not start yet must not put off the tenant's other fetches.
        let tenant = self.tenants.entry(request.tenant.clone()).or_default();
        let due = &mut tenant.next_stamp[lane(&request)][urgency as usize];
        let stamp = clock.max(*due);
        *due = stamp.saturating_add(1);
        let key = Key { urgency, stamp, ticket };
        self.lanes[lane(&request)].insert(&request, key);
        self.reopen(&request.origin);
        self.tickets.insert(ticket, Entry { request, key, running: false });
    }

    /// The first of those that may start, leaving out one tenant's.
    fn best(&self, except: Option<&Arc<str>>) -> Option<Key> {
        let [ordinary, retries] = &self.lanes;
        let retry = (self.running[1] < self.limits.after_failure).then(|| retries.best(except)).flatten();
        ordinary.best(except).into_iter().chain(retry).min()
    }

    fn count_running(&mut self, request: &Request, change: impl Fn(usize) -> usize) {
        if let Some(tenant) = self.tenants.get_mut(&request.tenant) {
            tenant.running = change(tenant.running);
            if tenant.running >= self.limits.per_tenant() {
                self.crowding.insert(request.tenant.clone());
            } else {
                self.crowding.remove(&request.tenant);
            }
        }
        if let Some(origin) = self.origins.get_mut(&request.origin) {
            origin.running = change(origin.running);
        }
        self.reopen(&request.origin);
    }

    /// Shows an origin's waiting tickets while it has room, and hides them while it has none.
    fn reopen(&mut self, origin: &Arc<str>) {
        let has_room = self.origins.get(origin).is_some_and(|it| it.running < self.limits.per_origin);
        for lane in &mut self.lanes {
            if has_room {
                lane.show(origin);
            } else {
                lane.hide(origin);
            }
        }
    }
}

fn lane(request: &Request) -> usize {
    usize::from(request.after_failure)
}

#[derive(Debug)]
struct Entry {
    request: Request,
    key: Key,
    running: bool,
}

#[derive(Debug, Default)]
struct Tenant {
    tickets: usize,
    running: usize,
    /// The least stamp of its next ticket, by lane and urgency.
    next_stamp: [[u64; 3]; 2],
}

#[derive(Debug, Default)]
struct Origin {
    tickets: usize,
    running: usize,
}

/// A ticket's place, fixed while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    urgency: Urgency,
    stamp: u64,
    ticket: Ticket,
}

/// Waiting tickets, indexed to find the first whose origin has room, with or without a given tenant's.
#[derive(Debug, Default)]
struct Lane {
    /// By origin and tenant.
    queues: BTreeMap<(Arc<str>, Arc<str>), BTreeSet<Key>>,
    /// Each origin's queues, by their first ticket: as all are of different tenants, the second entry is
    /// the best that is not of the first one's tenant.
    heads: BTreeMap<Arc<str>, BTreeMap<Key, Arc<str>>>,
    /// The origins with room, by the tenant of their first ticket.
    shown: BTreeMap<Arc<str>, Led>,
    /// The tenants in `shown`, by the first ticket of each.
    leaders: BTreeMap<Key, Arc<str>>,
}

/// Of the origins whose first ticket is one tenant's: those tickets, and the best other tenant's.
#[derive(Debug, Default)]
struct Led {
    own: BTreeSet<Key>,
    next: BTreeSet<Key>,
}

impl Lane {
    fn best(&self, except: Option<&Arc<str>>) -> Option<Key> {
        // At most one step past the first: a tenant leads once.
        let leader = self.leaders.iter().find(|(_, tenant)| Some(*tenant) != except);
        let behind = except.and_then(|tenant| self.shown.get(tenant)).and_then(|led| led.next.first());
        leader.map(|(key, _)| key).into_iter().chain(behind).min().copied()
    }

    /// The origin stays hidden until [`Lane::show`].
    fn insert(&mut self, request: &Request, key: Key) {
        self.change(request, |queue| queue.insert(key));
    }

    /// The origin stays hidden until [`Lane::show`].
    fn remove(&mut self, request: &Request, key: Key) {
        self.change(request, |queue| queue.remove(&key));
    }

    fn change(&mut self, request: &Request, change: impl FnOnce(&mut BTreeSet<Key>) -> bool) {
        self.hide(&request.origin);
        let place = (request.origin.clone(), request.tenant.clone());
        let queue = self.queues.entry(place.clone()).or_default();
        let heads = self.heads.entry(request.origin.clone()).or_default();
        if let Some(head) = queue.first() {
            heads.remove(head);
        }
        change(queue);
        match queue.first() {
            Some(head) => {
                heads.insert(*head, request.tenant.clone());
            }
            None => {
                self.queues.remove(&place);
            }
        }
        if heads.is_empty() {
            self.heads.remove(&request.origin);
        }
    }

    fn show(&mut self, origin: &Arc<str>) {
        self.lead(origin, |led, own, next| {
            led.own.insert(own);
            led.next.extend(next);
        });
    }

    fn hide(&mut self, origin: &Arc<str>) {
        self.lead(origin, |led, own, next| {
            led.own.remove(&own);
            if let Some(next) = next {
                led.next.remove(&next);
            }
        });
    }

    fn lead(&mut self, origin: &Arc<str>, change: impl FnOnce(&mut Led, Key, Option<Key>)) {
        let Some(heads) = self.heads.get(origin) else { return };
        let mut keys = heads.iter();
        let Some((own, tenant)) = keys.next() else { return };
        let led = self.shown.entry(tenant.clone()).or_default();
        if let Some(first) = led.own.first() {
            self.leaders.remove(first);
        }
        change(led, *own, keys.next().map(|(key, _)| *key));
        match led.own.first() {
            Some(first) => {
                self.leaders.insert(*first, tenant.clone());
            }
            None => {
                self.shown.remove(tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Urgency::{Due, MissingKid, Waited};

    fn request(tenant: &str, origin: &str, urgency: Urgency) -> Request {
        Request { tenant: tenant.into(), origin: origin.into(), urgency, after_failure: false }
    }

    fn retry(tenant: &str, origin: &str, urgency: Urgency) -> Request {
        Request { after_failure: true, ..request(tenant, origin, urgency) }
    }

    fn gate() -> Admission {
        Admission::new(Limits::default())
    }

    fn grant_all(gate: &mut Admission) -> Vec<Ticket> {
        std::iter::from_fn(|| gate.grant()).collect()
    }

    /// Asks for `count` tickets of one tenant, each to an origin of its own.
    fn ask_many(gate: &mut Admission, tenant: &str, urgency: Urgency, count: usize) -> Vec<Ticket> {
        (0..count).map(|n| gate.ask(request(tenant, &format!("{tenant}-{n}"), urgency))).collect()
    }

    #[test]
    fn no_more_run_than_the_limit_in_all() {
        let mut gate = gate();
        let tickets = ask_many(&mut gate, "a", Due, 100);
        assert_eq!(grant_all(&mut gate), tickets[..64]);
        assert_eq!((gate.running(), gate.waiting()), (64, 36));
        gate.leave(tickets[10]);
        assert_eq!(grant_all(&mut gate), tickets[64..65]);
    }

    #[test]
    fn one_origin_gets_its_share_and_delays_no_other() {
        let mut gate = gate();
        let hanging: Vec<_> = (0..1000).map(|n| gate.ask(request(&n.to_string(), "slow", Waited))).collect();
        assert_eq!(grant_all(&mut gate), hanging[..8]);
        let other = gate.ask(request("z", "fast", MissingKid));
        assert_eq!(grant_all(&mut gate), [other]);
        gate.leave(hanging[3]);
        assert_eq!(grant_all(&mut gate), hanging[8..9]);
    }

    #[test]
    fn flights_after_a_failure_get_their_share_and_delay_no_other() {
        let mut gate = gate();
        let hanging: Vec<_> = (0..100).map(|n| gate.ask(retry("a", &n.to_string(), Waited))).collect();
        assert_eq!(grant_all(&mut gate), hanging[..16]);
        // Not even one of the same tenant, whose retries came first.
        let rival = ask_many(&mut gate, "b", Waited, 3);
        let other = gate.ask(request("a", "healthy", Waited));
        let late = ask_many(&mut gate, "b", Waited, 90);
        let granted = grant_all(&mut gate);
        assert!(granted[..4].contains(&other), "{other:?} came after {granted:?}");
        assert_eq!(granted.len(), 48);
        assert!(rival.iter().chain(&late[..40]).all(|ticket| granted.contains(ticket)));
        gate.leave(hanging[0]);
        assert_eq!(gate.grant(), Some(hanging[16]));
    }

    #[test]
    fn one_tenant_gets_half_while_others_wait_and_all_while_none_does() {
        let mut gate = gate();
        let greedy = ask_many(&mut gate, "a", Waited, 200);
        assert_eq!(grant_all(&mut gate).len(), 64);
        // Less urgent, but the other tenant has more than half.
        let patient = ask_many(&mut gate, "b", MissingKid, 100);
        for ticket in &greedy[..40] {
            gate.leave(*ticket);
            let taken =
                gate.tickets.values().filter(|entry| entry.running && &*entry.request.tenant == "a").count();
            let next = gate.grant();
            assert!(next.is_some_and(|next| patient.contains(&next) == (taken >= 32)), "{taken} of a run");
        }
        assert_eq!((gate.running(), gate.grant()), (64, None));
    }

    #[test]
    fn a_tenant_over_its_half_does_not_hide_another_behind_it_in_the_same_queue() {
        let mut gate = Admission::new(Limits { total: 4, per_origin: 3, after_failure: 1 });
        let first = ask_many(&mut gate, "a", Waited, 2);
        assert_eq!(grant_all(&mut gate), first);
        let more: Vec<_> = (0..50).map(|_| gate.ask(request("a", "shared", Waited))).collect();
        let behind = gate.ask(request("b", "shared", MissingKid));
        assert_eq!(grant_all(&mut gate), [behind, more[0]]);
    }

    #[test]
    fn the_more_urgent_go_first_and_equals_in_the_order_they_came() {
        let mut gate = gate();
        let order = [MissingKid, Due, Waited, MissingKid, Due, Waited]
            .map(|urgency| gate.ask(request("a", "b", urgency)));
        assert_eq!(grant_all(&mut gate), [2, 5, 1, 4, 0, 3].map(|n: usize| order[n]));
    }

    #[test]
    fn a_tenant_with_one_ticket_waits_for_no_other_tenants_ten_thousand() {
        for shared_origin in [true, false] {
            let mut gate = Admission::new(Limits { total: 4, per_origin: 4, after_failure: 4 });
            let origin = |n: usize| if shared_origin { "one".to_owned() } else { n.to_string() };
            for n in 0..10_000 {
                gate.ask(request("big", &origin(n), Due));
            }
            let mut running = grant_all(&mut gate);
            for round in 0..5 {
                let small = gate.ask(request("small", &origin(0), Due));
                let mut waited = 0;
                loop {
                    gate.leave(running.remove(0));
                    let next = gate.grant().unwrap();
                    running.push(next);
                    if next == small {
                        break;
                    }
                    waited += 1;
                    assert!(waited <= 2, "round {round}");
                }
            }
        }
    }

    /// Whose tickets come next, one at a time.
    fn turns(gate: &mut Admission, count: usize) -> String {
        let mut turn = || {
            let ticket = gate.grant().unwrap();
            let tenant = gate.tickets[&ticket].request.tenant.clone();
            gate.leave(ticket);
            tenant
        };
        (0..count).map(|_| turn().to_string()).collect()
    }

    #[test]
    fn tenants_take_turns_however_much_each_has_queued() {
        let mut gate = Admission::new(Limits { total: 1, ..Limits::default() });
        for (tenant, count) in [("a", 300), ("b", 30), ("c", 3)] {
            ask_many(&mut gate, tenant, Due, count);
        }
        assert_eq!(turns(&mut gate, 15), "abcabcabcababab");
    }

    #[test]
    fn a_tenant_that_comes_late_does_not_catch_up_on_turns_it_had_no_use_for() {
        let mut gate = Admission::new(Limits { total: 1, ..Limits::default() });
        ask_many(&mut gate, "a", Due, 300);
        turns(&mut gate, 100);
        ask_many(&mut gate, "b", Due, 300);
        assert_eq!(turns(&mut gate, 7), "bababab");
    }

    #[test]
    fn a_promoted_ticket_goes_before_the_less_urgent() {
        let mut gate = Admission::new(Limits { total: 1, ..Limits::default() });
        let order: Vec<_> = (0..4).map(|_| gate.ask(request("a", "b", Due))).collect();
        gate.promote(order[2], Waited);
        gate.promote(order[2], MissingKid);
        assert_eq!(gate.grant(), Some(order[2]));
        // One that runs is where it wanted to be.
        gate.promote(order[2], Waited);
        gate.leave(order[2]);
        gate.promote(order[2], Waited);
        assert_eq!(gate.grant(), Some(order[0]));
        assert_eq!(gate.waiting(), 2);
    }

    #[test]
    fn who_gives_up_waiting_is_never_granted() {
        let mut gate = gate();
        let tickets = ask_many(&mut gate, "a", Due, 3);
        gate.leave(tickets[0]);
        gate.leave(tickets[0]);
        assert_eq!(grant_all(&mut gate), tickets[1..]);
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let mut gate = gate();
        for spread in [1, 7, 10_000] {
            let mut tickets: Vec<_> = (0..10_000)
                .map(|n| {
                    let (tenant, origin) = ((n % spread).to_string(), (n / 3 % spread).to_string());
                    let urgency = [Waited, Due, MissingKid][n % 3];
                    let request = request(&tenant, &origin, urgency);
                    gate.ask(Request { after_failure: n % 5 == 0, ..request })
                })
                .collect();
            assert!(!grant_all(&mut gate).is_empty());
            while let Some(ticket) = tickets.pop() {
                gate.leave(ticket);
                gate.grant();
            }
            assert_eq!((gate.waiting(), gate.running()), (0, 0));
            assert!(gate.tickets.is_empty() && gate.tenants.is_empty() && gate.origins.is_empty());
            assert!(gate.crowding.is_empty());
            for lane in &gate.lanes {
                assert!(lane.queues.is_empty() && lane.heads.is_empty());
                assert!(lane.shown.is_empty() && lane.leaders.is_empty());
            }
        }
    }

    #[test]
    fn a_limit_of_zero_still_lets_one_through() {
        let mut gate = Admission::new(Limits { total: 0, per_origin: 0, after_failure: 0 });
        let ticket = gate.ask(retry("a", "b", Due));
        assert_eq!(grant_all(&mut gate), [ticket]);
    }

    /// What `grant` must return, by the words of the promise and a look at every ticket.
    fn expected(gate: &Admission) -> Option<Ticket> {
        let running = |test: &dyn Fn(&Request) -> bool| {
            gate.tickets.values().filter(|entry| entry.running && test(&entry.request)).count()
        };
        let limits = gate.limits;
        assert!(
            running(&|_| true) <= limits.total && running(&|it| it.after_failure) <= limits.after_failure
        );
        for entry in gate.tickets.values() {
            assert!(running(&|it| it.origin == entry.request.origin) <= limits.per_origin);
        }
        if running(&|_| true) == limits.total {
            return None;
        }
        let eligible = gate.tickets.values().filter(|entry| {
            let request = &entry.request;
            !entry.running
                && running(&|it| it.origin == request.origin) < limits.per_origin
                && (!request.after_failure || running(&|it| it.after_failure) < limits.after_failure)
        });
        let crowding = |entry: &Entry| running(&|it| it.tenant == entry.request.tenant) * 2 >= limits.total;
        eligible.min_by_key(|entry| (crowding(entry), entry.key)).map(|entry| entry.key.ticket)
    }

    #[derive(Clone, Debug)]
    enum Action {
        Ask { tenant: u8, origin: u8, urgency: Urgency, after_failure: bool },
        Grant,
        Leave(prop::sample::Index),
        Promote(prop::sample::Index, Urgency),
    }

    fn action() -> impl Strategy<Value = Action> {
        let urgency = || prop::sample::select(vec![Waited, Due, MissingKid]);
        prop_oneof![
            4 => (0..4u8, 0..4u8, urgency(), any::<bool>()).prop_map(
                |(tenant, origin, urgency, after_failure)| Action::Ask { tenant, origin, urgency, after_failure }
            ),
            4 => Just(Action::Grant),
            2 => any::<prop::sample::Index>().prop_map(Action::Leave),
            1 => (any::<prop::sample::Index>(), urgency()).prop_map(|(which, urgency)| Action::Promote(which, urgency)),
        ]
    }

    proptest! {
        #[test]
        fn the_index_grants_what_a_look_at_every_ticket_would(
            limits in (1..7usize, 1..4usize, 1..4usize),
            actions in prop::collection::vec(action(), 0..120),
        ) {
            let (total, per_origin, after_failure) = limits;
            let mut gate = Admission::new(Limits { total, per_origin, after_failure });
            for action in actions {
                let nth = |which: prop::sample::Index, gate: &Admission| {
                    let tickets: Vec<_> = gate.tickets.keys().copied().collect();
                    (!tickets.is_empty()).then(|| *which.get(&tickets))
                };
                match action {
                    Action::Ask { tenant, origin, urgency, after_failure } => {
                        let request = request(&tenant.to_string(), &origin.to_string(), urgency);
                        gate.ask(Request { after_failure, ..request });
                    }
                    Action::Grant => {
                        let want = expected(&gate);
                        prop_assert_eq!(gate.grant(), want);
                    }
                    Action::Leave(which) => nth(which, &gate).into_iter().for_each(|ticket| gate.leave(ticket)),
                    Action::Promote(which, urgency) => {
                        nth(which, &gate).into_iter().for_each(|ticket| gate.promote(ticket, urgency));
                    }
                }
                let running = gate.tickets.values().filter(|entry| entry.running).count();
                prop_assert_eq!((gate.running(), gate.waiting()), (running, gate.tickets.len() - running));
            }
            while let Some(want) = expected(&gate) {
                prop_assert_eq!(gate.grant(), Some(want));
            }
            prop_assert_eq!(gate.grant(), None);
        }
    }
}
