//! Why a message missed its slot, and what became of it.
//!
//! # Precedence
//! Several causes may hold at once; the first of [`Cause::ALL`] that fits is named. The order
//! goes from what would have cost the slot whatever else happened to what is left over:
//!
//! | cause | fits when |
//! |---|---|
//! | `clock step` | the clock of the slots stepped, was locked anew or was lost while the message waited, and that moved its slot |
//! | `remap` | another table took over while the message waited, and that moved its slot |
//! | `application late` | the message was not there e_turn before the last instant at which it could have begun in its slot |
//! | `ring full` | in its slot the link took nothing, or not all of it |
//! | `gate shut` | in its slot the gate of its lane was shut |
//! | `link busy` | in its slot what was below had not left |
//! | `host stolen` | one of the next three, and a trace shows that nothing at all ran on the core |
//! | `wake late` | the datapath slept until less than e_turn before that instant, or beyond it, and first looked after it |
//! | `turn overrun` | the datapath did not sleep, and looked at the clock before and after that instant, more than e_turn apart |
//! | `not turned` | the same, where the application turns the engine |
//! | `unexplained` | none of these |

/// Why a message missed its slot. The numbers stand in mapped records, and do not change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Cause {
    /// The clock of the slots stepped, was locked anew or was lost.
    ClockStep = 1,
    /// Another table of slots took over.
    Remap = 2,
    /// The message came after its slot.
    ApplicationLate = 3,
    /// The link took nothing.
    RingFull = 4,
    /// The gate of its lane was shut.
    GateShut = 5,
    /// What was below had not left.
    LinkBusy = 6,
    /// The host took the core away. No datapath can know that: it takes a trace.
    HostStolen = 7,
    /// The datapath slept beyond the slot.
    WakeLate = 8,
    /// A turn took longer than e_turn, or the thread was not run meanwhile.
    TurnOverrun = 9,
    /// Nobody turned the engine.
    NotTurned = 10,
    /// None of these.
    Unexplained = 11,
}

impl Cause {
    /// All, in the order of their precedence.
    pub const ALL: [Cause; 11] = [
        Cause::ClockStep,
        Cause::Remap,
        Cause::ApplicationLate,
        Cause::RingFull,
        Cause::GateShut,
        Cause::LinkBusy,
        Cause::HostStolen,
        Cause::WakeLate,
        Cause::TurnOverrun,
        Cause::NotTurned,
        Cause::Unexplained,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cause::ClockStep => "clock step",
            Cause::Remap => "remap",
            Cause::ApplicationLate => "application late",
            Cause::RingFull => "ring full",
            Cause::GateShut => "gate shut",
            Cause::LinkBusy => "link busy",
            Cause::HostStolen => "host stolen",
            Cause::WakeLate => "wake late",
            Cause::TurnOverrun => "turn overrun",
            Cause::NotTurned => "not turned",
            Cause::Unexplained => "unexplained",
        }
    }

    /// The cause with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Cause> {
        match number {
            // The numbers are the places in `ALL`, from one on.
            1..=11 => Some(Cause::ALL[number as usize - 1]),
            _ => None,
        }
    }

    /// Whether it may be a host that took the core away: the datapath did not look in time, and
    /// cannot say why.
    #[must_use]
    pub const fn may_be_the_host(self) -> bool {
        matches!(self, Cause::WakeLate | Cause::TurnOverrun | Cause::NotTurned | Cause::Unexplained)
    }
}

/// What became of a message that missed its slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Fate {
    /// It went in a later slot.
    LaterSlot = 1,
    /// It went between slots.
    SentLate = 2,
    /// It was dropped.
    Dropped = 3,
    /// It was dropped because a newer one was there.
    Replaced = 4,
}

impl Fate {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Fate::LaterSlot => "sent in a later slot",
            Fate::SentLate => "sent between slots",
            Fate::Dropped => "dropped",
            Fate::Replaced => "replaced by a newer one",
        }
    }

    /// The fate with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Fate> {
        match number {
            1 => Some(Fate::LaterSlot),
            2 => Some(Fate::SentLate),
            3 => Some(Fate::Dropped),
            4 => Some(Fate::Replaced),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_and_lead_back() {
        for (at, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, at + 1);
            assert_eq!(Cause::from_number(cause as u8), Some(cause));
            let others = Cause::ALL.iter().filter(|other| other.name() == cause.name());
            assert_eq!(others.count(), 1);
        }
        assert_eq!((Cause::from_number(0), Cause::from_number(12)), (None, None));
        for fate in [Fate::LaterSlot, Fate::SentLate, Fate::Dropped, Fate::Replaced] {
            assert_eq!(Fate::from_number(fate as u8), Some(fate));
        }
        assert_eq!((Fate::from_number(0), Fate::from_number(5)), (None, None));
    }
}
