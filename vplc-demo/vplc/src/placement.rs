//! Where and when a program runs: what is settled at its start, within what was assumed when it
//! was built.

use crate::running::StartError;
use insane_core::{MonoTime, Nanos, TaiTime};
use insane_rt::{Base, Spin};
use insane_sys::thread::cores;

/// The largest that is added to a priority: with the 9 of the most urgent task it is 99.
const FIFO_MAX: u8 = 90;

/// Where the threads of a program run, and on which clock its cycles begin. What the attributes
/// say is `placement()` of the program's module:
/// `Placement { core: Some(2), ..app::placement() }`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The core of all tasks and idle; `None`: those of the thread that starts the program. Where
    /// that is more than one, ceilings do not hold, and tasks have mutexes with inheritance alone.
    /// A datapath on the core takes its turns from the tasks: the program declares it
    /// (`datapath_cycle`, `datapath_wcet`), or its analysis does not hold there.
    pub core: Option<usize>,
    /// Added to a priority it is that of the thread, `SCHED_FIFO`; at most 90. `None`: all have the
    /// policy of the thread that starts the program, and then no deadline is guaranteed.
    pub fifo: Option<u8>,
    /// What cycles are counted from. Of TAI only where the program says `tai = true`.
    pub base: Base,
    /// How a task waits for its instant: at most as long before it as the program says, `spin`.
    pub spin: Spin,
}

/// A placement for which the program was not checked when it was built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unchecked {
    /// Steps of TAI move tasks against each other.
    #[error("cycles of TAI, and the program was checked for offsets that nobody moves: say `tai = true`")]
    Tai,
    /// The time for which a task looks at the clock is taken from all that are less urgent.
    #[error("a task looks at the clock for {asked} before its instant, and the program says {declared} (`spin`)")]
    Spin {
        /// By the placement.
        asked: Nanos,
        /// By the program.
        declared: Nanos,
    },
    /// There is no such priority.
    #[error("a `fifo` of {0} is more than {FIFO_MAX}")]
    Fifo(u8),
}

impl Placement {
    /// What the attributes say. Called by generated code.
    #[doc(hidden)]
    #[must_use]
    pub fn declared(core: Option<usize>, fifo: u8, tai: bool, spin_ns: u64) -> Self {
        Placement {
            core: core.or_else(|| cores().last().copied()),
            fifo: Some(fifo),
            base: if tai { Base::Tai(TaiTime(0)) } else { Base::Mono(MonoTime(0)) },
            spin: if spin_ns > 0 { Spin::Fixed(Nanos(spin_ns)) } else { Spin::Never },
        }
    }

    /// Whether the analysis of a program holds here as it does where its attributes say.
    pub(crate) fn check(&self, declared: &Placement) -> Result<(), StartError> {
        let (asked, allowed) = (longest(self.spin), longest(declared.spin));
        let unchecked = match (self.base, declared.base) {
            (Base::Tai(_), Base::Mono(_)) => Unchecked::Tai,
            _ if asked > allowed => Unchecked::Spin { asked, declared: allowed },
            _ => match self.fifo.filter(|fifo| *fifo > FIFO_MAX) {
                Some(fifo) => Unchecked::Fifo(fifo),
                None => return Ok(()),
            },
        };
        Err(unchecked.into())
    }
}

/// For how long at most a task looks at the clock.
fn longest(spin: Spin) -> Nanos {
    match spin {
        Spin::Never => Nanos::ZERO,
        Spin::Fixed(margin) | Spin::Learnt(margin) => margin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(placement: Placement, declared: &Placement) -> Option<Unchecked> {
        match placement.check(declared) {
            Ok(()) => None,
            Err(StartError::Unchecked(why)) => Some(why),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_placement_stays_within_what_was_assumed_at_build_time() {
        let declared = Placement::declared(Some(0), 40, false, 50_000);
        assert_eq!(refused(declared, &declared), None);
        let free = Placement { core: None, fifo: None, base: Base::Mono(MonoTime(7)), spin: Spin::Never };
        assert_eq!(refused(free, &declared), None);
        let tai = Placement { base: Base::Tai(TaiTime(7)), ..declared };
        assert_eq!(refused(tai, &declared), Some(Unchecked::Tai));
        let of_tai = Placement::declared(Some(0), 40, true, 50_000);
        assert_eq!(refused(tai, &of_tai), None);
        assert_eq!(refused(declared, &of_tai), None, "a clock that nobody steps is no worse");
        for spin in [Spin::Fixed, Spin::Learnt] {
            assert_eq!(refused(Placement { spin: spin(Nanos(50_000)), ..declared }, &declared), None);
            let unchecked = Unchecked::Spin { asked: Nanos(50_001), declared: Nanos(50_000) };
            assert_eq!(refused(Placement { spin: spin(Nanos(50_001)), ..declared }, &declared), Some(unchecked));
        }
        assert_eq!(refused(Placement { fifo: Some(90), ..declared }, &declared), None);
        assert_eq!(refused(Placement { fifo: Some(91), ..declared }, &declared), Some(Unchecked::Fifo(91)));
    }

    #[test]
    fn a_program_that_declares_no_spin_gets_none() {
        let declared = Placement::declared(None, 40, false, 0);
        assert_eq!((declared.spin, declared.core), (Spin::Never, cores().last().copied()));
        assert!(refused(Placement { spin: Spin::Learnt(Nanos(1)), ..declared }, &declared).is_some());
    }
}
