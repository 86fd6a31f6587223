//! Deliberate faults of the stack: see [`insane_mutation`].

insane_mutation::mutations! {
    PiecesTaken: "pieces of packets are taken for packets",
    LengthBelieved: "the length of an IPv4 packet may be more than came",
    AnyVlan: "frames of every VLAN are taken",
    SumOfUdpUnread: "the sum of UDP is not looked at",
    AnyAddress: "datagrams for other hosts are taken",
    OptionsUnread: "an option of neighbour discovery may be longer than its message",
    AnswerFromAsker: "an answer comes from the hardware address that was asked for",
}
