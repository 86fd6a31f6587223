//! The past for sinks that join a reliable flow which is further already.
//!
//! A flow goes to the sinks that were there when it began, and to those that joined it since.
//! Where its source keeps its last values, a sink that comes later waits: its host tells the
//! source's, which sends the past as a *recap*, a part that is acknowledged by itself. It goes
//! to the sinks that wait and to nobody else, the past marked, and where it has come to the flow's place
//! they join that. So each of them gets the past, then all that follows, each once, in order,
//! and nobody else notices.
//!
//! Bounds: one recap a flow; sinks that join meanwhile wait for the next one. Who waits for a
//! recap that does not come joins the flow without.

use crate::deliver::{Joined, Outlets};
use crate::inflow::Part;
use crate::routes::RouteIndex;
use insane_core::{MonoTime, Nanos};
use insane_overlay::reliable::{Ack, Limits, Receiver, Sync};

/// A recap that is coming in.
pub(crate) struct Recap {
    pub part: Part,
    number: u32,
    /// It is for sinks up to this number.
    upto: u64,
    /// Messages before this one are of the past to them.
    past: u64,
    /// It brought something.
    began: bool,
}

impl Recap {
    /// Whether a message is of the past to those who get the recap.
    pub const fn is_past(&self, sequence: u64) -> bool {
        sequence < self.past
    }
}

/// Which sinks of a host a flow goes to.
pub(crate) struct Audience {
    /// Sinks up to this number, and those that only watch.
    heard: u64,
    /// They got something.
    began: bool,
    /// The source keeps its last values: other sinks wait for them.
    keeps: bool,
    /// Since when, and from which message of the flow on, messages are kept from sinks that wait,
    /// and up to which number those were there then.
    waits_since: Option<(MonoTime, u64, u64)>,
    pub recap: Option<Recap>,
    /// The recap that ended last.
    over: u32,
    /// The sender is to be told so.
    tell_over: bool,
}

/// What waits for a recap longer than this joins the flow: longer than a sender tries.
fn wait_max(limits: &Limits) -> Nanos {
    Nanos(2 * limits.evict_after.0)
}

impl Audience {
    /// That of a flow which begins.
    pub const fn new(joined: u64, keeps: bool) -> Self {
        Audience { heard: joined, began: false, keeps, waits_since: None, recap: None, over: 0, tell_over: false }
    }

    /// The flow brings a message, or a part of one.
    #[inline]
    pub const fn begin(&mut self) {
        self.began = true;
    }

    /// Whether a sink of the route has got something of the flow.
    #[cold]
    pub fn has_heard(&self, route: Option<RouteIndex>, outlets: &Outlets) -> bool {
        self.began && route.is_some_and(|route| outlets.has_joined_by(route, self.heard))
    }

    /// Who gets what is next in the flow.
    #[inline]
    pub fn of_flow(&self, outlets: &Outlets) -> Joined {
        if self.heard == outlets.joined() { Joined::ALL } else { Joined::up_to(self.heard) }
    }

    /// Who gets what the recap brings.
    pub fn of_recap(&self) -> Joined {
        Joined::between(self.heard, self.recap.as_ref().map_or(self.heard, |recap| recap.upto))
    }

    /// A message of the flow is coming: takes in sinks that need not wait, or not any longer.
    #[inline]
    pub fn look(&mut self, now: MonoTime, main: &Receiver, limits: &Limits, route: RouteIndex, outlets: &mut Outlets) {
        if self.heard != outlets.joined() {
            self.meet(now, main, limits, route, outlets);
        }
    }

    #[cold]
    fn meet(&mut self, now: MonoTime, main: &Receiver, limits: &Limits, route: RouteIndex, outlets: &mut Outlets) {
        if self.recap.is_some() {
            return;
        }
        if self.keeps && outlets.has_joined_after(route, self.heard) {
            let next = main.next().sequence;
            let &mut (since, from, upto) = self.waits_since.get_or_insert((now, next, outlets.joined()));
            if now.since(since) < wait_max(limits) {
                return;
            }
            // Those that waited all the while are told what was kept from them.
            outlets.miss_among(Joined::between(self.heard, upto), route, next.saturating_sub(from));
        }
        self.take_in(outlets.joined());
    }

    fn take_in(&mut self, joined: u64) {
        self.heard = joined;
        self.waits_since = None;
    }

    /// A heartbeat of the flow itself came in, before the flow is told; `main`: the flow as
    /// it is.
    pub fn on_sync(&mut self, sync: &Sync, main: &Receiver, route: Option<RouteIndex>, outlets: &mut Outlets) {
        self.keeps = sync.keeps;
        let is_anew = sync.token > main.token();
        if is_anew || sync.base > main.next().sequence {
            self.end(main, route, outlets);
        }
        if is_anew {
            // Recaps of another attachment of the source are counted anew.
            (self.over, self.tell_over) = (0, false);
        }
    }

    /// A heartbeat of a recap came in.
    #[cold]
    pub fn on_recap(
        &mut self,
        now: MonoTime,
        sync: &Sync,
        main: &Receiver,
        route: Option<RouteIndex>,
        outlets: &mut Outlets,
    ) {
        if sync.token != main.token() || sync.recap < self.over {
            return;
        }
        if sync.recap == self.over {
            self.tell_over = true;
            return;
        }
        if let Some(recap) = &mut self.recap {
            if sync.recap == recap.number {
                let _ = recap.part.machine.on_sync(now, sync);
            }
            if sync.recap <= recap.number {
                return;
            }
            // The sender has given that one up.
            self.end(main, route, outlets);
        }
        let upto = outlets.joined();
        let is_awaited = route.is_some_and(|route| outlets.has_joined_after(route, self.heard));
        if is_awaited && sync.base < main.next().sequence {
            let part = Part::new(Receiver::new(now, sync));
            self.recap = Some(Recap { part, number: sync.recap, upto, past: sync.past, began: false });
            self.waits_since = None;
        } else {
            // All have what it would bring, or it comes with the flow.
            (self.over, self.tell_over) = (sync.recap, true);
            self.take_in(upto);
        }
    }

    /// The recap took a frame, of a message that is complete with it or not: once it is where
    /// the flow is, its sinks are of that.
    pub fn advanced(&mut self, completes: bool, main: &Receiver, route: RouteIndex, outlets: &mut Outlets) {
        let Some(recap) = &mut self.recap else { return };
        recap.began |= completes;
        if recap.part.machine.next().sequence >= main.next().sequence {
            self.end(main, Some(route), outlets);
        }
    }

    /// Ends the recap; its sinks are of the flow from now on, and are told what they miss of
    /// what is before that.
    pub fn end(&mut self, main: &Receiver, route: Option<RouteIndex>, outlets: &mut Outlets) {
        let among = self.of_recap();
        let Some(mut recap) = self.recap.take() else { return };
        recap.part.free(outlets);
        let left = main.next().sequence.saturating_sub(recap.part.machine.next().sequence);
        let missing = recap.part.machine.lost() + if recap.began { left } else { 0 };
        if let (Some(route), 1..) = (route, missing) {
            outlets.miss_among(among, route, missing);
        }
        (self.over, self.tell_over) = (recap.number, true);
        self.take_in(recap.upto);
    }

    /// Gives up a recap that stands still: its sender has done so by now.
    pub fn expire(
        &mut self,
        now: MonoTime,
        limits: &Limits,
        main: &Receiver,
        route: Option<RouteIndex>,
        outlets: &mut Outlets,
    ) {
        let is_stale = |recap: &Recap| {
            let machine = &recap.part.machine;
            now.since(machine.progress_at()) >= wait_max(limits) && machine.blocked_for(now).is_none()
        };
        if self.recap.as_ref().is_some_and(is_stale) {
            self.end(main, route, outlets);
        }
    }

    /// Whether there is something to say of recaps.
    pub fn is_due(&self) -> bool {
        self.tell_over || self.recap.as_ref().is_some_and(|recap| recap.part.machine.is_due())
    }

    /// What is to be said of recaps, to be asked for until there is nothing; `ack`: any of the
    /// flow.
    pub fn ack(&mut self, ack: Ack) -> Option<Ack> {
        if std::mem::take(&mut self.tell_over) {
            return Some(Ack { gone: true, nak: false, recap: self.over, ..ack });
        }
        let recap = self.recap.as_mut().filter(|recap| recap.part.machine.is_due())?;
        Some(Ack { recap: recap.number, ..recap.part.machine.ack(ack.life) })
    }
}
