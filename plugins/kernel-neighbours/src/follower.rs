//! The thread between the kernel's table and the link.

use crate::Shared;
use insane_core::Nanos;
use insane_netstack::{Mac, NEIGHBOURS, Told};
use insane_sys::event::{Epoll, Interest, Ready, Trigger};
use insane_sys::neighbours::{DATAGRAM_BYTES, Message, NeighbourTable, Read, Whereabouts};
use insane_sys::{Errno, OsError};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Until what was lost is asked for again, where the kernel or the link has no room now.
const AGAIN: Nanos = Nanos::from_millis(100);
/// Datagrams that are taken before questions have their turn.
const DATAGRAMS: usize = 1024;

/// Whom the link asked for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    address: IpAddr,
    /// When it was asked for last, counted in questions.
    since: u64,
    /// The number of the question that has no answer yet; 0: it has.
    number: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Follower {
    shared: Arc<Shared>,
    /// `None`: the socket broke, and there is no other yet.
    table: Option<NeighbourTable>,
    epoll: Epoll,
    /// As many as the link has places, at most.
    wanted: Vec<Wanted>,
    questions: u64,
    number: u32,
    /// Something was lost: all that are wanted are to be asked for.
    is_behind: bool,
}

impl Follower {
    pub(crate) fn new(shared: Arc<Shared>, table: NeighbourTable) -> Result<Self, OsError> {
        let epoll = Epoll::new()?;
        epoll.add(&shared.wake, 0, Interest::Read, Trigger::Level)?;
        epoll.add(&table, 1, Interest::Read, Trigger::Level)?;
        let wanted = Vec::with_capacity(NEIGHBOURS);
        Ok(Follower { shared, table: Some(table), epoll, wanted, questions: 0, number: 0, is_behind: false })
    }

    /// Until it is over.
    pub(crate) fn run(mut self) {
        let mut room = vec![0; DATAGRAM_BYTES];
        loop {
            let longest = self.is_behind.then_some(AGAIN);
            if self.epoll.wait(&mut [Ready::NONE; 2], longest).is_err() {
                // It would be a bug; not one that takes a core.
                std::thread::sleep(Duration::from_nanos(AGAIN.0));
            }
            if self.shared.is_over.load(Ordering::Acquire) {
                return;
            }
            let _ = self.shared.wake.clear();
            self.turn(&mut room);
        }
    }

    /// Takes what the kernel and the link have to say.
    fn turn(&mut self, room: &mut [u8]) {
        let was_behind = std::mem::take(&mut self.is_behind);
        if self.table.is_none() {
            self.open();
        }
        let has_lost = self.hear(room);
        if was_behind || has_lost {
            for at in 0..self.wanted.len() {
                self.ask(at);
            }
        }
        for _ in 0..NEIGHBOURS {
            let Some(address) = self.shared.questions.pop() else { break };
            let at = self.place(address);
            self.ask(at);
        }
    }

    fn open(&mut self) {
        let table = NeighbourTable::new();
        let table = table.and_then(|table| self.epoll.add(&table, 1, Interest::Read, Trigger::Level).map(|()| table));
        self.table = table.ok();
        self.is_behind |= self.table.is_none();
    }

    /// Takes datagrams; whether some were lost.
    fn hear(&mut self, room: &mut [u8]) -> bool {
        let mut has_lost = false;
        for _ in 0..DATAGRAMS {
            let Some(table) = &self.table else { break };
            match table.read(room) {
                Read::Messages(messages) => messages.for_each(|message| self.take(&message)),
                Read::Lost => has_lost = true,
                Read::Nothing => break,
                Read::Broken(_) => {
                    self.table = None;
                    self.is_behind = true;
                }
            }
        }
        has_lost
    }

    /// The place of an address among those that are wanted; whoever was asked for longest ago makes
    /// room.
    fn place(&mut self, address: IpAddr) -> usize {
        self.questions += 1;
        let wanted = Wanted { address, since: self.questions, number: 0 };
        let same = self.wanted.iter().position(|wanted| wanted.address == address);
        let oldest = || self.wanted.iter().enumerate().min_by_key(|(_, wanted)| wanted.since).map(|(at, _)| at);
        let at = same.or_else(|| oldest().filter(|_| self.wanted.len() >= NEIGHBOURS));
        match at {
            Some(at) => {
                self.wanted[at] = wanted;
                at
            }
            None => {
                self.wanted.push(wanted);
                self.wanted.len() - 1
            }
        }
    }

    fn interface(&self) -> u32 {
        self.shared.interface.load(Ordering::Relaxed)
    }

    /// Asks the kernel where somebody is.
    fn ask(&mut self, at: usize) {
        let interface = self.interface();
        let (Some(wanted), Some(table)) = (self.wanted.get_mut(at), &self.table) else { return };
        if interface == 0 {
            return;
        }
        // 0 is that of what nobody asked.
        self.number = self.number.checked_add(1).unwrap_or(1);
        wanted.number = self.number;
        self.is_behind |= table.ask(interface, wanted.address, self.number).is_err();
    }

    /// Makes the kernel look.
    fn resolve(&mut self, address: IpAddr) {
        let interface = self.interface();
        if let Some(table) = self.table.as_ref().filter(|_| interface != 0) {
            self.is_behind |= table.resolve(interface, address, 0).is_err();
        }
    }

    fn take(&mut self, message: &Message) {
        match *message {
            Message::Entry { number, interface, address, whereabouts } => {
                if interface != self.interface() {
                    return;
                }
                let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.address == address) else { return };
                let is_answer = number != 0 && number == wanted.number;
                if is_answer {
                    wanted.number = 0;
                }
                let (told, is_good) = match whereabouts {
                    Whereabouts::At { mac, is_old } => (Some(Told::At(Mac(mac))), !is_old),
                    Whereabouts::Asked => (None, true),
                    Whereabouts::Nowhere if is_answer => (Some(Told::Nowhere), false),
                    // Unasked, this may be one that is being removed: the answer to the link's question tells.
                    Whereabouts::Nowhere | Whereabouts::Removed => (Some(Told::Unknown), false),
                };
                if let Some(told) = told {
                    self.tell(address, told);
                }
                if is_answer && !is_good {
                    self.resolve(address);
                }
            }
            Message::Refused { number, errno } => {
                let wanted = self.wanted.iter_mut().find(|wanted| number != 0 && wanted.number == number);
                let address = wanted.map(|wanted| {
                    wanted.number = 0;
                    wanted.address
                });
                match (address, errno) {
                    (Some(address), Errno::ENOENT) => {
                        self.tell(address, Told::Unknown);
                        self.resolve(address);
                    }
                    _ => {
                        self.shared.refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    fn tell(&mut self, address: IpAddr, told: Told) {
        // A link that does not look has more waiting than it has neighbours: it is told anew then.
        self.is_behind |= self.shared.words.push((address, told)).is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WORDS;
    use insane_conformance::wire::{Namespace, PATIENCE};
    use insane_sys::host::interface_index;
    use nix::sys::socket::{setsockopt, sockopt};
    use std::time::Instant;

    const NEAR: &str = "10.9.0.1";

    fn mac(last: u8) -> Told {
        Told::At(Mac([2, 0, 0, 0, 0, last]))
    }

    /// A follower whose turns are the test's, at `x0`, where nobody answers.
    struct World {
        namespace: Namespace,
        follower: Follower,
        room: Vec<u8>,
    }

    impl World {
        fn make() -> Option<Self> {
            let namespace = Namespace::make()?;
            namespace.ip(
                "link add x0 type veth peer name p0\nlink set x0 up\nlink set p0 up\naddress add 10.9.0.2/24 dev x0\n",
            );
            let (follower, index) = namespace.inside(|| {
                let follower = Follower::new(Arc::new(Shared::new().unwrap()), NeighbourTable::new().unwrap());
                (follower.unwrap(), interface_index("x0").unwrap())
            });
            follower.shared.interface.store(index, Ordering::Relaxed);
            Some(World { namespace, follower, room: vec![0; DATAGRAM_BYTES] })
        }

        fn entry(&self, what: &str) {
            self.namespace.ip(&format!("neigh {what} dev x0\n"));
        }

        fn turn(&mut self) -> Vec<(IpAddr, Told)> {
            self.follower.turn(&mut self.room);
            std::iter::from_fn(|| self.follower.shared.words.pop()).collect()
        }

        /// Turns until the last word about `NEAR` is this.
        fn wait_for(&mut self, told: Told) {
            let (end, near) = (Instant::now() + PATIENCE, NEAR.parse::<IpAddr>().unwrap());
            let mut last = None;
            while last != Some(told) {
                assert!(Instant::now() < end, "the last word is {last:?}, not {told:?}");
                last = self.turn().iter().rfind(|(address, _)| *address == near).map(|(_, told)| *told).or(last);
            }
        }

        fn want(&mut self, address: &str) {
            self.follower.shared.questions.push(address.parse().unwrap()).unwrap();
        }
    }

    #[test]
    fn changes_are_told_of_whom_the_link_asked_for_and_of_nobody_else() {
        let Some(mut world) = World::make() else { return };
        world.entry("add 10.9.0.1 lladdr 02:00:00:00:00:01 nud permanent");
        world.entry("add 10.9.0.3 lladdr 02:00:00:00:00:03 nud permanent");
        assert_eq!(world.turn(), [], "nobody was asked for");
        world.want(NEAR);
        world.wait_for(mac(1));
        world.entry("change 10.9.0.1 lladdr 02:00:00:00:00:11 nud permanent");
        world.entry("change 10.9.0.3 lladdr 02:00:00:00:00:33 nud permanent");
        world.wait_for(mac(0x11));
        world.entry("del 10.9.0.1");
        world.wait_for(Told::Unknown);
        // The same address at another interface is somebody else.
        world.namespace.ip("neigh add 10.9.0.1 lladdr 02:00:00:00:00:77 nud permanent dev p0\n");
        world.entry("add 10.9.0.1 lladdr 02:00:00:00:00:01 nud permanent");
        world.wait_for(mac(1));
        assert_eq!(world.turn(), []);
    }

    #[test]
    fn who_is_missing_old_or_silent_is_looked_for_and_an_operators_entry_is_left_alone() {
        let Some(mut world) = World::make() else { return };
        let states = |world: &World| {
            let show = || {
                let output = std::process::Command::new("ip").args(["neigh", "show", "dev", "x0"]).output().unwrap();
                String::from_utf8_lossy(&output.stdout).into_owned()
            };
            world.namespace.inside(show)
        };
        let wait_for = |world: &mut World, state: &str| {
            let end = Instant::now() + PATIENCE;
            while !states(world).contains(state) {
                assert!(Instant::now() < end, "never {state}: {}", states(world));
                world.turn();
            }
        };
        world.want(NEAR);
        wait_for(&mut world, "INCOMPLETE");
        // Nobody answers, and without a question it stays so.
        wait_for(&mut world, "FAILED");
        world.want(NEAR);
        world.wait_for(Told::Nowhere);
        wait_for(&mut world, "INCOMPLETE");
        world.entry("replace 10.9.0.1 lladdr 02:00:00:00:00:01 nud stale");
        world.wait_for(mac(1));
        world.want(NEAR);
        // The kernel waits for word of the neighbour, and then looks.
        wait_for(&mut world, "DELAY");
        world.entry("replace 10.9.0.1 lladdr 02:00:00:00:00:01 nud permanent");
        world.want(NEAR);
        world.wait_for(mac(1));
        world.turn();
        assert!(states(&world).contains("PERMANENT"), "{}", states(&world));
        assert_eq!(world.follower.shared.refused.load(Ordering::Relaxed), 0);
    }

    /// The interface has gone: its number is another's, or nobody's.
    #[test]
    fn without_an_interface_the_kernel_is_asked_for_nobody() {
        let Some(mut world) = World::make() else { return };
        world.entry("add 10.9.0.1 lladdr 02:00:00:00:00:01 nud stale");
        world.want(NEAR);
        world.wait_for(mac(1));
        world.follower.shared.interface.store(0, Ordering::Relaxed);
        world.want(NEAR);
        world.turn();
        world.follower.resolve(NEAR.parse().unwrap());
        assert_eq!(world.turn(), []);
        assert_eq!(world.follower.shared.refused.load(Ordering::Relaxed), 0);
    }

    /// Without asking again the link would send to where nobody is any more.
    #[test]
    fn after_lost_notifications_everybody_is_asked_for_again() {
        let Some(mut world) = World::make() else { return };
        world.entry("add 10.9.0.1 lladdr 02:00:00:00:00:01 nud permanent");
        world.want(NEAR);
        world.wait_for(mac(1));
        let table = world.follower.table.as_ref().unwrap();
        setsockopt(table, sockopt::RcvBuf, &2048).unwrap();
        // What fills the room comes first, so that the change has none.
        let mut flood: String =
            (3..250).map(|last| format!("neigh add 10.9.0.{last} lladdr 02:00:00:00:00:03 dev x0\n")).collect();
        flood += "neigh change 10.9.0.1 lladdr 02:00:00:00:00:11 nud permanent dev x0\n";
        world.namespace.ip(&flood);
        world.wait_for(mac(0x11));
        // The same, and it is gone.
        let flood: String = (3..250).map(|last| format!("neigh del 10.9.0.{last} dev x0\n")).collect();
        world.namespace.ip(&(flood + "neigh del 10.9.0.1 dev x0\n"));
        world.wait_for(Told::Unknown);
    }

    #[test]
    fn a_link_that_does_not_look_is_told_the_last_word() {
        let Some(mut world) = World::make() else { return };
        world.entry("add 10.9.0.1 lladdr 02:00:00:00:00:01 nud permanent");
        world.want(NEAR);
        world.wait_for(mac(1));
        for round in 0..WORDS + 10 {
            let last = round % 200;
            world.entry(&format!("change 10.9.0.1 lladdr 02:00:00:00:01:{last:02x} nud permanent"));
            world.follower.turn(&mut world.room);
        }
        assert!(world.follower.is_behind);
        world.entry("change 10.9.0.1 lladdr 02:00:00:00:00:22 nud permanent");
        world.follower.turn(&mut world.room);
        world.wait_for(mac(0x22));
    }

    #[test]
    fn no_more_are_followed_than_a_link_has_places_for() {
        let Some(mut world) = World::make() else { return };
        for number in 0..3 * NEIGHBOURS {
            world.want(&format!("10.9.{}.{}", number / 100, number % 100 + 1));
            world.turn();
        }
        assert_eq!(world.follower.wanted.len(), NEIGHBOURS);
        let last: IpAddr = "10.9.1.95".parse().unwrap();
        assert!(world.follower.wanted.iter().any(|wanted| wanted.address == last), "the last ones are");
    }
}
