//! Deliberate faults of the synthesiser: see [`insane_mutation`].

insane_mutation::mutations! {
    ForbiddenBeginsLate: "a forbidden interval begins one nanosecond late",
    ForbiddenEndsEarly: "a forbidden interval ends one nanosecond early",
    JumpNotRechecked: "after a jump the earlier windows are not looked at again",
    LatestOffByOne: "the latest offset is one nanosecond late",
    SecondHopForgotten: "the second link of a path is forgotten",
    ClockErrorForgotten: "the error of the clock is forgotten",
    TurnForgotten: "e_turn is forgotten",
    ForeignForgotten: "what others may put on the queue is forgotten",
    QuantileForAssured: "assured streams get the quantile, not the maximum",
    BlockedForgotten: "blocked windows are forgotten",
    GcdIsLesserPeriod: "modulo the lesser period, not the gcd",
    ResponseForgetsBlocking: "response time: blocking is forgotten",
    ResponseForgetsHigher: "response time: lanes before are forgotten",
    ResponseForgetsSlots: "response time: slots are forgotten",
    ReactionForgetsFirst: "reaction time: the first task's period is forgotten",
    ChainForgetsClocks: "a chain forgets the clocks' errors",
    PairAtGcd: "refutation: a pair that just fits conflicts",
    OverloadCountsOneMore: "refutation: an interval counts one window too many",
}
