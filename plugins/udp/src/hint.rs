//! To which of a link's two sockets a look goes that is to cost one system call.
//!
//! It goes to the socket that had the last frame; but while real-time frames are a *series* every
//! fourth look at a quiet best-effort socket goes to the real-time one, so that its frames never
//! wait for longer than three empty looks (1 us). They are a series for two of the times between
//! which the link is tended (10 ms each) after one that came in the time after another's.
//!
//! A real-time frame that stands alone, as the heartbeats of the control plane do, changes nothing:
//! it would turn all looks away from best effort until the next thorough call. So that one, and the
//! first of a series, wait for the thorough call: fifteen empty looks (5 us) at most.

use crate::link::Class;

/// Every how many looks at a quiet best-effort socket the real-time one is looked at.
const GLANCE_STRIDE: u8 = 4;
/// For so many times between two tendings a series goes on without a frame.
const SERIES_TIMES: u8 = 2;

/// Where a single look goes.
#[derive(Debug)]
pub(crate) struct Hint {
    /// The socket that had the last frame.
    hot: Class,
    /// Counts the single looks while best effort is quiet.
    glance: u8,
    /// For how many times between two tendings real-time frames are still a series.
    series: u8,
    /// Whether a real-time frame came since the link was tended, and in the time before that.
    real_time: [bool; 2],
}

impl Hint {
    pub(crate) const fn new() -> Self {
        Hint { hot: Class::RealTime, glance: 0, series: 0, real_time: [false, true] }
    }

    pub(crate) const fn hot(&self) -> Class {
        self.hot
    }

    /// A frame of this class came.
    #[inline]
    pub(crate) const fn note(&mut self, class: Class) {
        match class {
            Class::BestEffort => self.hot = class,
            Class::RealTime => {
                self.real_time[0] = true;
                if self.real_time[1] {
                    self.hot = class;
                    self.series = SERIES_TIMES;
                }
            }
        }
    }

    /// The link is tended.
    pub(crate) const fn tend(&mut self) {
        self.series = self.series.saturating_sub(1);
        self.real_time = [false, self.real_time[0]];
    }

    /// The next look; `is_streak`: the last one found something.
    #[inline]
    pub(crate) const fn next(&mut self, is_streak: bool) -> Class {
        if self.series == 0 || is_streak || matches!(self.hot, Class::RealTime) {
            return self.hot;
        }
        self.glance = (self.glance + 1) % GLANCE_STRIDE;
        if self.glance == 0 { Class::RealTime } else { Class::BestEffort }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the next looks go, of which none finds anything.
    fn looks(hint: &mut Hint) -> usize {
        (0..100).filter(|_| hint.next(false) == Class::RealTime).count()
    }

    fn in_best_effort() -> Hint {
        let mut hint = Hint::new();
        (0..3).for_each(|_| hint.tend());
        hint.note(Class::BestEffort);
        hint
    }

    #[test]
    fn a_real_time_frame_that_stands_alone_costs_best_effort_no_look() {
        let mut hint = in_best_effort();
        for _ in 0..5 {
            // Two at once are no series either.
            hint.note(Class::RealTime);
            hint.note(Class::RealTime);
            assert_eq!(looks(&mut hint), 0);
            hint.tend();
            hint.tend();
        }
    }

    #[test]
    fn in_a_real_time_series_every_fourth_look_is_for_it_until_it_ends() {
        let mut hint = in_best_effort();
        hint.note(Class::RealTime);
        hint.tend();
        hint.note(Class::RealTime);
        assert_eq!((hint.hot(), looks(&mut hint)), (Class::RealTime, 100));
        hint.note(Class::BestEffort);
        for _ in 0..SERIES_TIMES {
            assert_eq!(looks(&mut hint), 25);
            hint.tend();
        }
        assert_eq!(looks(&mut hint), 0);
    }
}
