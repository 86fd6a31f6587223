//! The link, as physics has it and apart from how the scheduler thinks of it: frames go
//! one after another, in picoseconds; a queue that launches frames at an instant stands
//! beside the ordinary one; others put frames on it that nobody told us of.

use std::collections::VecDeque;

/// Who sent a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sender {
    /// Within these nanoseconds.
    Slot {
        start: u64,
        end: u64,
    },
    Lane(u8),
    Late,
    Foreign,
}

/// A frame and when it was on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub sender: Sender,
    pub bytes: u64,
    pub begin_ps: u128,
    pub end_ps: u128,
}

pub(crate) struct Wire {
    ps_per_byte: u128,
    free_ps: u128,
    under_way: VecDeque<Frame>,
    /// Not before its launch instant.
    launch: Option<(Sender, u64, u128)>,
}

impl Wire {
    pub(crate) fn new(ps_per_byte: u32) -> Self {
        Wire { ps_per_byte: u128::from(ps_per_byte), free_ps: 0, under_way: VecDeque::new(), launch: None }
    }

    /// A frame comes to the ordinary queue at `at_ps`. Returns what went meanwhile.
    pub(crate) fn hand_over(&mut self, sender: Sender, bytes: u64, at_ps: u128) -> Vec<Frame> {
        let mut gone: Vec<Frame> = self.launch_until(at_ps.max(self.free_ps)).into_iter().collect();
        gone.push(self.transmit(sender, bytes, at_ps));
        gone
    }

    /// A frame comes to the launch queue; the one before it has been launched.
    pub(crate) fn hand_over_launch(&mut self, sender: Sender, bytes: u64, launch_ps: u128) -> Option<Frame> {
        let before = self.launch_until(u128::MAX);
        self.launch = Some((sender, bytes, launch_ps));
        before
    }

    /// The frame of the launch queue goes, if its instant is not after `ps`.
    pub(crate) fn launch_until(&mut self, ps: u128) -> Option<Frame> {
        let (sender, bytes, launch_ps) = self.launch.filter(|launch| launch.2 <= ps)?;
        self.launch = None;
        Some(self.transmit(sender, bytes, launch_ps))
    }

    /// Bytes of ours that have not left at `now_ps`; of the frame on the wire all, or
    /// only those that are left.
    pub(crate) fn below(&mut self, now_ps: u128, is_exact: bool) -> u64 {
        self.settle(now_ps);
        let ours = self.under_way.iter().filter(|frame| frame.sender != Sender::Foreign);
        let launch = self.launch.map_or(0, |launch| launch.1);
        let left = |frame: &Frame| match is_exact && frame.begin_ps < now_ps {
            true => (frame.end_ps - now_ps).div_ceil(self.ps_per_byte) as u64,
            false => frame.bytes,
        };
        launch + ours.map(left).sum::<u64>()
    }

    /// Bytes of others that have not left.
    pub(crate) fn foreign(&mut self, now_ps: u128) -> u64 {
        self.settle(now_ps);
        self.under_way.iter().filter(|frame| frame.sender == Sender::Foreign).map(|frame| frame.bytes).sum()
    }

    fn settle(&mut self, now_ps: u128) {
        while self.under_way.front().is_some_and(|frame| frame.end_ps <= now_ps) {
            self.under_way.pop_front();
        }
    }

    fn transmit(&mut self, sender: Sender, bytes: u64, at_ps: u128) -> Frame {
        let begin_ps = at_ps.max(self.free_ps);
        let end_ps = begin_ps + u128::from(bytes) * self.ps_per_byte;
        self.free_ps = end_ps;
        let frame = Frame { sender, bytes, begin_ps, end_ps };
        self.under_way.push_back(frame);
        frame
    }
}
