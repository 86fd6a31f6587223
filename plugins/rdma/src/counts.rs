//! What a link counts.

use insane_link::LinkCounts;

/// What the link counts that no outcome tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RdmaCounts {
    /// Connections that the link got.
    pub connected: u64,
    /// Those that ended.
    pub lost: u64,
    /// Of those: ended because what came was no message, had no grant, or granted what cannot be.
    pub garbage: u64,
    /// Messages of connections that nobody has any more.
    pub orphans: u64,
    /// Of `lost`: replaced by a newer one of the same peer.
    pub replaced: u64,
    /// Attempts to connect that failed: refused, unanswered, or answered by another.
    pub attempts_failed: u64,
    /// Calls from addresses that no peer has.
    pub strangers: u64,
    /// Calls and answers without a hello, with one of another version, or of nobody that is
    /// expected (other port, class, `frame_bytes_max`).
    pub hellos_refused: u64,
    /// Frames that were refused because the device was missing.
    pub absent: u64,
    /// Devices that were lost while the link was in use.
    pub devices_lost: u64,
}

impl RdmaCounts {
    /// Both together.
    #[must_use]
    pub(crate) fn and(self, other: RdmaCounts) -> RdmaCounts {
        RdmaCounts {
            connected: self.connected + other.connected,
            lost: self.lost + other.lost,
            garbage: self.garbage + other.garbage,
            orphans: self.orphans + other.orphans,
            replaced: self.replaced + other.replaced,
            attempts_failed: self.attempts_failed + other.attempts_failed,
            strangers: self.strangers + other.strangers,
            hellos_refused: self.hellos_refused + other.hellos_refused,
            absent: self.absent + other.absent,
            devices_lost: self.devices_lost + other.devices_lost,
        }
    }

    /// With the names that they have in reports.
    pub(crate) fn named(&self) -> LinkCounts {
        let names = &[
            "connections_made",
            "connections_lost",
            "connections_ended_by_garbage",
            "connections_replaced",
            "attempts_failed",
            "strangers_refused",
            "hellos_refused",
            "messages_orphaned",
            "frames_device_missing",
            "devices_lost",
        ];
        LinkCounts::new(
            names,
            [
                self.connected,
                self.lost,
                self.garbage,
                self.replaced,
                self.attempts_failed,
                self.strangers,
                self.hellos_refused,
                self.orphans,
                self.absent,
                self.devices_lost,
            ],
        )
    }
}
