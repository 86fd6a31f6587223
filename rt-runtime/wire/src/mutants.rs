//! Deliberate faults of the formats: see [`insane_mutation`].

insane_mutation::mutations! {
    PieceBeyondMessage: "a payload may be longer than the rest of its message",
    RangeUnread: "a message may be of any length, and a piece anywhere",
    BundleBeyondDatagram: "the last frame of a bundle may be longer than the bundle",
    MoreChangesThanVersions: "a delta may have more changes than versions",
    ProbeOfNobody: "a probe may be of a life that is none",
    ReportNotBlank: "a report may have anything between its fields",
    NameOfAnyLength: "a name of the control protocol may be longer than allowed",
}
