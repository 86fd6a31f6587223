//! Deliberate faults of the checker: see [`insane_mutation`].

insane_mutation::mutations! {
    OtherPlantAccepted: "a certificate of another plant is accepted",
    ReleaseIgnored: "the release is ignored",
    DeadlineOffByOne: "the deadline is one nanosecond late",
    WindowsBelieved: "windows are believed to be the stream's",
    LastPairForgotten: "the last pair of windows is not compared",
    BlockedIgnored: "blocked windows are ignored",
    QuantileForAssured: "assured streams get the quantile, not the maximum",
    ClockErrorForgotten: "the error of the clock is forgotten",
    TurnForgotten: "e_turn is forgotten",
    ForeignForgotten: "what others may put on the queue is forgotten",
    PathDelayForgotten: "the delay of the path is forgotten",
    ApartOffByOne: "windows one nanosecond apart overlap",
    UtilisationHalf: "half of a link counts as all of it",
    ChainBelieved: "the bounds of a chain are believed",
    AgeForgetsHold: "data age: the last task's hold is forgotten",
    ChainForgetsClocks: "a chain forgets the clocks' errors",
    LaneBelieved: "the bound of a lane is believed",
    LaneForgetsGuard: "a lane forgets the guards",
    LaneForgetsSlots: "a lane forgets the slots",
    LaneFirstAlone: "a lane counts the first of a burst alone",
}
