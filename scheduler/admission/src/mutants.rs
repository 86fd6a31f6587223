//! Deliberate faults, compiled only with the feature `mutants`.

macro_rules! mutate {
    ($name:ident, $right:expr, $wrong:expr) => {{
        #[cfg(not(feature = "mutants"))]
        {
            $right
        }
        #[cfg(feature = "mutants")]
        {
            if crate::mutants::is_on(crate::mutants::Mutation::$name) { $wrong } else { $right }
        }
    }};
}
pub(crate) use mutate;

#[cfg(feature = "mutants")]
mod on {
    use core::sync::atomic::{AtomicU32, Ordering};

    macro_rules! mutations {
        ($($name:ident,)*) => {
            /// A fault that can be turned on; its name says what is wrong.
            #[allow(missing_docs)]
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            #[repr(u32)]
            pub enum Mutation { $($name,)* }

            impl Mutation {
                /// All of them.
                pub const ALL: &[Mutation] = &[$(Mutation::$name,)*];
            }
        };
    }

    mutations! {
        ForbiddenBeginsLate, ForbiddenEndsEarly, JumpNotRechecked, LatestOffByOne, SecondHopForgotten, ClockErrorForgotten,
        TurnForgotten, ForeignForgotten, QuantileForAssured, BlockedForgotten, GcdIsLesserPeriod, ResponseForgetsBlocking,
        ResponseForgetsHigher, ResponseForgetsSlots, ReactionForgetsFirst, ChainForgetsClocks, PairAtGcd, OverloadCountsOneMore,
    }

    static ON: AtomicU32 = AtomicU32::new(u32::MAX);

    /// Turns one fault on, and all others off.
    pub fn turn_on(mutation: Option<Mutation>) {
        // Relaxed: the tests that use it run in one thread.
        ON.store(mutation.map_or(u32::MAX, |mutation| mutation as u32), Ordering::Relaxed);
    }

    pub(crate) fn is_on(mutation: Mutation) -> bool {
        ON.load(Ordering::Relaxed) == mutation as u32
    }
}
#[cfg(feature = "mutants")]
pub(crate) use on::is_on;
#[cfg(feature = "mutants")]
pub use on::{Mutation, turn_on};
