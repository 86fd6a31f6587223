//! Ethernet II frames, untagged or with one tag of IEEE 802.1Q.
//!
//! A tag that bears a priority only (VLAN 0) makes no VLAN of a frame. Of several tags the first
//! counts, and the type behind it is then one that nobody takes; so is a service tag (802.1ad).
//!
//! ```text
//!    0        6        12       14
//!    +--------+--------+--------+---------
//!    |  dest. | source |  type  | payload          untagged
//!    +--------+--------+--------+--------+--------+---------
//!    |  dest. | source | 0x8100 |  tag   |  type  | payload
//!    +--------+--------+--------+--------+--------+---------
//!                               priority 3, eligible 1, VLAN 12 bits
//! ```

/// Bytes in front of the payload of an untagged frame.
pub const ETHERNET_BYTES: usize = 14;
/// Bytes that a tag adds.
pub const TAG_BYTES: usize = 4;

pub(crate) const TYPE_IPV4: u16 = 0x0800;
pub(crate) const TYPE_ARP: u16 = 0x0806;
pub(crate) const TYPE_IPV6: u16 = 0x86dd;
const TYPE_TAG: u16 = 0x8100;

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All stations.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether it names one station: what a source must be.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The number of a VLAN, 1 to 4094.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VlanId(u16);

impl VlanId {
    /// `None` outside 1 to 4094: 0 is no VLAN, 4095 is reserved.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number > 0 && number < 4095 { Some(VlanId(number)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// A frame, taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ethernet {
    pub(crate) destination: Mac,
    pub(crate) source: Mac,
    /// The VLAN of its tag; 0: untagged, or a tag that bears a priority only.
    pub(crate) vlan: u16,
    /// What the payload is. A second tag is left as what it is: a type that nobody takes.
    pub(crate) ether_type: u16,
    /// Where the payload begins.
    pub(crate) at: usize,
}

impl Ethernet {
    /// `None`: too short to be one.
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        let head = frame.first_chunk::<ETHERNET_BYTES>()?;
        let (destination, rest) = head.split_first_chunk::<6>()?;
        let (source, ether_type) = rest.split_first_chunk::<6>()?;
        let ether_type = u16::from_be_bytes([ether_type[0], ether_type[1]]);
        let (destination, source) = (Mac(*destination), Mac(*source));
        if ether_type != TYPE_TAG {
            return Some(Ethernet { destination, source, vlan: 0, ether_type, at: ETHERNET_BYTES });
        }
        let tag = frame[ETHERNET_BYTES..].first_chunk::<TAG_BYTES>()?;
        let vlan = u16::from_be_bytes([tag[0], tag[1]]) & 0xfff;
        let ether_type = u16::from_be_bytes([tag[2], tag[3]]);
        Some(Ethernet { destination, source, vlan, ether_type, at: ETHERNET_BYTES + TAG_BYTES })
    }
}

/// Bytes in front of the payload.
pub(crate) const fn head_bytes(vlan: Option<VlanId>) -> usize {
    ETHERNET_BYTES + if vlan.is_some() { TAG_BYTES } else { 0 }
}

/// Writes what stands in front of a payload; `room` has [`head_bytes`] at least.
pub(crate) fn write(
    room: &mut [u8],
    destination: Mac,
    source: Mac,
    vlan: Option<VlanId>,
    priority: u8,
    ether_type: u16,
) {
    room[..6].copy_from_slice(&destination.0);
    room[6..12].copy_from_slice(&source.0);
    let mut at = 12;
    if let Some(vlan) = vlan {
        room[12..14].copy_from_slice(&TYPE_TAG.to_be_bytes());
        room[14..16].copy_from_slice(&vlan.0.to_be_bytes());
        set_priority(room, priority);
        at = 16;
    }
    room[at..at + 2].copy_from_slice(&ether_type.to_be_bytes());
}

/// Another priority in the tag of a frame that has one.
#[inline]
pub(crate) fn set_priority(frame: &mut [u8], priority: u8) {
    if let Some(tag) = frame.get_mut(ETHERNET_BYTES) {
        *tag = (priority & 7) << 5 | *tag & 0x1f;
    }
}
