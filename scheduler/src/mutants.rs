//! Deliberate faults, compiled only with the feature `mutants`: the tests turn one on
//! and must fail. See `scheduler/mutation`.

/// `mutate!(Name, right, wrong)`: `right`, unless the fault of that name is turned on.
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
        ($($name:ident: $what:literal,)*) => {
            /// A fault that can be turned on.
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            #[repr(u32)]
            pub enum Mutation { $(#[doc = $what] $name,)* }

            impl Mutation {
                /// All of them.
                pub const ALL: &[Mutation] = &[$(Mutation::$name,)*];

                /// What is wrong then.
                #[must_use]
                pub const fn what(self) -> &'static str {
                    match self { $(Mutation::$name => $what,)* }
                }
            }
        };
    }

    mutations! {
        OverlapFirstLength: "overlap test: the first window is one nanosecond shorter",
        OverlapSecondLength: "overlap test: the second window is one nanosecond shorter",
        OverlapPeriodForGcd: "overlap test: modulo the first period, not the gcd",
        OverlapSwapped: "overlap test: the difference of offsets has the wrong sign",
        NextStartLate: "next start: strictly after, not at or after",
        GuardMinusOneByte: "guard: one byte too many may go before a slot",
        GuardForgetsBelow: "guard: the bytes below are forgotten",
        GuardForgetsTurn: "guard: e_turn is forgotten",
        GuardForgetsFrame: "guard: the overrun of the last frame is forgotten",
        GuardForgetsLaunch: "guard: the frame handed over for launch is forgotten",
        DurationRoundsDown: "duration of bytes is rounded down",
        DueEarly: "a slot is due one nanosecond early",
        WindowEndLate: "a slot may end one nanosecond after its window",
        BelowForgottenInSlot: "a slot forgets the bytes below when it looks at its end",
        TurnForgottenInSlot: "a slot forgets e_turn when it looks at its end",
        ForeignForgotten: "what others may put on the queue is forgotten",
        InFlightForgotten: "the limit of what is below us is forgotten",
        BaseOffByOne: "the base time is off by one",
        SwapLate: "the staged table is taken one nanosecond late",
        SwapForgetsStreams: "after a swap the old table is used on",
        CursorSkips: "expanded table: the cursor skips a slot",
        CursorWrapsLate: "expanded table: the next cycle begins one nanosecond late",
        TreeForgetsLevel: "recurrences: the root of the tree is not renewed",
        LateSendIgnoresDeadline: "a late message is sent after its deadline",
        LateDropIsSent: "a late message that is to be dropped waits for the next slot",
        NewestIsOldest: "newest wins sends the oldest",
        EarlyIsLate: "a message that is early for the next slot counts as late",
        GateBaseOffByOne: "gates: the base time is off by one",
        GateCloseIgnored: "gates: a frame may end after its gate shuts",
        GateMaskShifted: "gates: the lanes of the entry before",
        GateExtensionIgnored: "gates: the last cycle is not extended",
        WaitPastSlot: "wait: one nanosecond past the next slot",
        WaitPastGate: "wait: gate events are forgotten",
        SteppedIgnored: "a step of the clock is not told",
    }

    static ON: AtomicU32 = AtomicU32::new(u32::MAX);

    /// Turns one fault on, and all others off.
    pub fn turn_on(mutation: Option<Mutation>) {
        // Relaxed: the tests that use it run in one thread.
        ON.store(mutation.map_or(u32::MAX, |mutation| mutation as u32), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_on(mutation: Mutation) -> bool {
        ON.load(Ordering::Relaxed) == mutation as u32
    }
}
#[cfg(feature = "mutants")]
pub(crate) use on::is_on;
#[cfg(feature = "mutants")]
pub use on::{Mutation, turn_on};
