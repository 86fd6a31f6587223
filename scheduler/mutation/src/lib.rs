//! Deliberate faults: a test turns one on and must fail, which shows that it looks.
//!
//! A crate that uses this has a feature `mutants`, off in every program, and a module
//! `mutants` with its faults in [`mutations!`]. Where a fault can be, its code says
//! [`mutate!`]`(Name, right, wrong)`; without the feature that is `right`, and nothing else
//! is compiled. There are macros here and no code: the crates that share them share no logic.
#![no_std]
#![forbid(unsafe_code)]

/// `mutate!(Name, right, wrong)`: `right`, unless the fault of that name is turned on.
#[expect(clippy::crate_in_macro_def, reason = "the faults are those of the crate that uses it")]
#[macro_export]
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

/// The faults of a crate, for its module `mutants`: each with its name and what is wrong
/// then. Makes `Mutation`, `turn_on` and `is_on`.
#[macro_export]
macro_rules! mutations {
    ($($name:ident: $what:literal,)*) => {
        use core::sync::atomic::{AtomicU32, Ordering};

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
    };
}
