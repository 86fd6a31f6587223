//! Names of the counters. A counter is a `u64` that only grows, at a fixed
//! place in a mapped page (`insane_shm::counters`); the enum's number is the place.

/// Places of a block of counters in shared memory.
pub const COUNTERS_MAX: usize = 32;

/// In a line of a session's page: where what its counters showed stands, in their order, when the
/// source or sink that has the line now took it. The rest is its own.
pub const PORT_BASE: usize = 16;

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }
        impl $name {
            /// All counters, in the order of their places.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// The name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
        const _: () = assert!(
            $name::ALL.len() <= COUNTERS_MAX,
            concat!(stringify!($name), " has more counters than a block has places (COUNTERS_MAX)")
        );
    };
}

counters!(
    /// What one datapath counts for one domain.
    DatapathCounter {
        /// Messages taken from sources' rings.
        MessagesFromSources = "messages_from_sources",
        /// Messages delivered into sinks' rings.
        MessagesToSinks = "messages_to_sinks",
        /// Frames handed to links.
        FramesSent = "frames_sent",
        /// Bytes handed to links, headers included.
        BytesSent = "bytes_sent",
        /// Frames accepted from links.
        FramesReceived = "frames_received",
        /// Bytes accepted from links, headers included.
        BytesReceived = "bytes_received",
        /// Messages dropped: the sink's ring was full, or the sink held its share of buffers.
        DroppedRingFull = "dropped_ring_full",
        /// Messages dropped: no receive buffer was free.
        DroppedNoBuffer = "dropped_no_buffer",
        /// Messages dropped: no sink for the channel here.
        DroppedNoSink = "dropped_no_sink",
        /// Messages dropped before the link: no peer has a sink.
        DroppedNoPeer = "dropped_no_peer",
        /// Frames that the link will never take: no way to the peer.
        FramesFailed = "frames_failed",
        /// Frames dropped: duplicates.
        DroppedDuplicate = "dropped_duplicate",
        /// Frames dropped: older than what was already released.
        DroppedLate = "dropped_late",
        /// Messages given up: fragments missing.
        DroppedIncomplete = "dropped_incomplete",
        /// Messages larger than this side accepts.
        DroppedTooLarge = "dropped_too_large",
        /// Messages dropped: the flow table was full.
        DroppedNoFlow = "dropped_no_flow",
        /// Sequence numbers never seen.
        Lost = "lost",
        /// Claims by clients that failed their check; each closed a connection.
        Violations = "violations",
        /// Wake-ups sent.
        Wakes = "wakes",
        /// Reliable: frames sent again.
        Repairs = "repairs",
        /// Reliable: reports of losses sent.
        Naks = "naks",
        /// Reliable: peers and sinks put out because they took nothing for too long.
        Evictions = "evictions",
        /// Messages dropped: their source was closed or died, and in the time that is left
        /// to it then they were not taken by the link, or acknowledged by every peer.
        DroppedSourceClosed = "dropped_source_closed",
        /// Wake-ups, of those sent, whose system call the waker thread makes.
        WakesHandedOver = "wakes_handed_over",
        /// Wake-ups put off because the sleeper's session had used up its rate.
        WakesRefused = "wakes_refused",
        /// Reliable: messages that a peer had not acknowledged when it was removed from the
        /// configuration, counted once for each peer and source.
        DroppedPeerRemoved = "dropped_peer_removed",
        /// Frames, of those handed to links, that went to a group: once for several peers.
        GroupFrames = "group_frames",
        /// Times that a session with something to send had used up its budget
        /// (`bytes_per_second`), or a best-effort source with more to send what is left of a
        /// link's (`policy.budgets`, `mbps`): sources waited.
        BudgetUsedUp = "budget_used_up",
        /// Messages that came by one link of a moving stream before those that another still
        /// had, and were kept until then.
        HeldBack = "held_back",
        /// Times that such messages were released although some before them had not come: the
        /// time for those was up, or there was no more room.
        HoldsEnded = "holds_ended",
        /// Reliable: times that the past was on its way to sinks that joined late at a peer, and
        /// the peer took nothing of it for too long.
        RecapsGivenUp = "recaps_given_up",
        /// Times a source of this domain had used up the arrival contract of its lane, and more
        /// was there to send.
        ContractUsedUp = "contract_used_up",
    }
);

counters!(
    /// What one datapath counts as a whole.
    TurnCounter {
        /// Turns.
        Turns = "turns",
        /// Turns that moved nothing.
        TurnsIdle = "turns_idle",
        /// Times the thread went to sleep.
        Sleeps = "sleeps",
        /// Frames that no rule accepts: wrong magic, size or check.
        FramesMalformed = "frames_malformed",
        /// Frames from an address that is no peer.
        FramesUnknownPeer = "frames_unknown_peer",
        /// Frames of an earlier life of a peer, or of another runtime at its address.
        FramesOtherLife = "frames_other_life",
        /// Frames of a conversation that nobody on this host takes part in.
        FramesNoListener = "frames_no_listener",
        /// Overlay frames passed to the control plane.
        OverlayFrames = "overlay_frames",
        /// Overlay frames dropped: the queue to the control plane was full.
        OverlayFramesDropped = "overlay_frames_dropped",
        /// Longest of the turns whose time was taken, one in 1,024, nanoseconds (a maximum, not
        /// a sum).
        TurnNsMax = "turn_ns_max",
        /// Messages sent in their slots.
        SlotsSent = "slots_sent",
        /// Slots that went by without a message: the stream had nothing to say.
        SlotsUnused = "slots_unused",
        /// Late messages sent between slots.
        LateSent = "late_sent",
        /// Messages dropped because they were late.
        LateDropped = "late_dropped",
        /// Messages dropped because a newer one of their source was there.
        LateReplaced = "late_replaced",
        /// Late by the application: the message came after its slot.
        LateApplication = "late_application",
        /// Slots missed: the link took nothing.
        LateRingFull = "late_ring_full",
        /// Slots missed: the thread slept beyond them.
        LateWake = "late_wake",
        /// Slots missed: a turn took longer than assumed, or the thread was not run.
        LateTurn = "late_turn",
        /// Slots missed: nobody turned the engine (inline hosting).
        LateUnturned = "late_unturned",
        /// Slots missed: what was below had not left.
        LateLinkBusy = "late_link_busy",
        /// Times the slots' clock was stepped or locked anew: slots were left out.
        ClockStep = "clock_step",
        /// Slots missed for none of these reasons.
        LateUnexplained = "late_unexplained",
        /// Slots left out because the host rested for cycles, nanoseconds of them.
        SlotsSkippedNs = "slots_skipped_ns",
        /// Messages larger than their slot, dropped.
        SlotsOversize = "slots_oversize",
        /// How long messages without slots waited for the guard before a slot, nanoseconds.
        GuardNs = "guard_ns",
        /// Times something was on its way later than e_turn allows: out of spec.
        TurnOverruns = "turn_overruns",
        /// Longest time from a decision for a slot to its frame being on its way,
        /// nanoseconds (a maximum, not a sum).
        SlotTurnNsMax = "slot_turn_ns_max",
        /// Messages handed over with a launch time.
        SlotsLaunched = "slots_launched",
        /// Frames handed over in time that the launch queue dropped: it looked too late, or they
        /// were too long on the way to it.
        LateLaunch = "late_launch",
        /// Frames of peers that speak another version of what runtimes say to each other.
        FramesOtherVersion = "frames_other_version",
        /// Times a lane had more to send than the arrival contract of a schedule allows, and was
        /// held to it.
        LanesCut = "lanes_cut",
    }
);

counters!(
    /// What a session counts for one source, sink or cyclic task, in a line of its own page.
    PortCounter {
        /// Source: messages emitted. Sink: messages consumed.
        Messages = "messages",
        /// Payload bytes of those.
        Bytes = "bytes",
        /// Source: deliveries dropped because a receiver's ring was full.
        Dropped = "dropped",
        /// Source: emits refused.
        Refused = "refused",
        /// Source: `get_buffer` found none free.
        NoBuffer = "no_buffer",
        /// Sink: sequence numbers never seen.
        Lost = "lost",
        /// Checks of the other side's claims that failed.
        Violations = "violations",
        /// Wake-ups sent.
        Wakes = "wakes",
        /// Source: heaps so large that they could be of huge pages.
        HeapsLarge = "heaps_large",
        /// Source: those of them that are.
        HeapsHuge = "heaps_huge",
        /// Process sink: times it became stale. Of an image, its first member counts.
        Stale = "stale",
        /// Sink: times that sources of another host were found to be of another schema.
        SchemaRefused = "schema_refused",
        /// Sink: callbacks that panicked; the sink is closed then.
        CallbackPanics = "callback_panics",
        /// Source of a reliable stream: times that a receiver of this host was put out, since it
        /// took nothing while others waited for it.
        PutOut = "put_out",
        /// Process sink: times it was fresh again after it had become stale. It is stale as long
        /// as these are fewer.
        Recovered = "recovered",
        /// Cyclic task: times it came back after its next instant had passed.
        Overruns = "overruns",
    }
);

const _: () = assert!(PortCounter::ALL.len() <= PORT_BASE && PORT_BASE + PortCounter::ALL.len() <= COUNTERS_MAX);
