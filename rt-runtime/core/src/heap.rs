//! Geometry of a heap: size classes, and which bytes a buffer number means.
//!
//! ```text
//! | class 0: count x stride | class 1: count x stride | ...   each class starts on a page
//! ```
//! Buffers are numbered through all classes from 0. `stride` is the size rounded up
//! to a cache line (a page from 4 KiB on).

use crate::limits::{CLASSES_MAX, MESSAGE_BYTES_MAX};
use serde::{Deserialize, Serialize};

/// `count` buffers of `size` bytes each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassSpec {
    /// Bytes of one buffer, 1 to [`MESSAGE_BYTES_MAX`].
    pub size: u32,
    /// How many, 1 to 65,536.
    pub count: u32,
}

/// A buffer of one heap, by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BufferId(pub u32);

/// One class of a [`Geometry`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Class {
    /// Bytes an application may use.
    pub size: u32,
    /// Buffers in the class.
    pub count: u32,
    /// Number of its first buffer.
    pub first: u32,
    /// Bytes from one buffer to the next.
    pub stride: u64,
    /// Where the class starts, bytes from the start of the heap.
    pub offset: u64,
}

/// Where every buffer of a heap lies. Both sides compute it from the same specs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Geometry {
    classes: [Class; CLASSES_MAX],
    len: usize,
    buffers: u32,
    bytes: u64,
}

const LINE: u64 = 64;
const PAGE: u64 = 4096;

impl Geometry {
    /// `None` unless there are at most [`CLASSES_MAX`] classes, of rising size, each in
    /// range, with at most 65,536 buffers in all.
    #[must_use]
    pub fn new(specs: &[ClassSpec]) -> Option<Self> {
        let mut geometry = Geometry::default();
        let mut size_last = 0;
        for spec in specs {
            let in_range = spec.size > size_last
                && spec.size <= MESSAGE_BYTES_MAX
                && (1..=65_536).contains(&spec.count)
                && geometry.len < CLASSES_MAX;
            if !in_range {
                return None;
            }
            size_last = spec.size;
            let stride = u64::from(spec.size).next_multiple_of(if u64::from(spec.size) < PAGE { LINE } else { PAGE });
            geometry.classes[geometry.len] =
                Class { size: spec.size, count: spec.count, first: geometry.buffers, stride, offset: geometry.bytes };
            geometry.len += 1;
            geometry.buffers += spec.count;
            geometry.bytes += (stride * u64::from(spec.count)).next_multiple_of(PAGE);
        }
        (geometry.buffers <= 65_536).then_some(geometry)
    }

    /// The classes, by rising size.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        &self.classes[..self.len]
    }

    /// Buffers in all classes.
    #[must_use]
    pub const fn buffers(&self) -> u32 {
        self.buffers
    }

    /// Bytes of the whole heap: a multiple of a page.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the largest buffer; 0 without classes.
    #[must_use]
    pub fn size_max(&self) -> u32 {
        self.classes().last().map_or(0, |class| class.size)
    }

    /// The one check that turns a claimed buffer number and length into a place:
    /// bytes from the start of the heap, or `None` if there is no such buffer or it
    /// is shorter than `len`.
    #[must_use]
    pub fn locate(&self, id: BufferId, len: u32) -> Option<u64> {
        let class = self.classes().iter().find(|class| id.0.wrapping_sub(class.first) < class.count)?;
        (len <= class.size).then(|| class.offset + u64::from(id.0 - class.first) * class.stride)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn no_two_buffers_overlap_and_all_lie_inside() {
        let specs = [(64, 3), (100, 2), (4096, 2), (6_220_800, 2)].map(|(size, count)| ClassSpec { size, count });
        let geometry = Geometry::new(&specs).unwrap();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for id in 0..geometry.buffers() {
            let class = geometry.classes().iter().rfind(|c| c.first <= id).unwrap();
            let start = geometry.locate(BufferId(id), class.size).unwrap();
            assert_eq!(geometry.locate(BufferId(id), class.size + 1), None);
            ranges.push((start, start + u64::from(class.size)));
        }
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        assert!(ranges.last().unwrap().1 <= geometry.bytes());
        assert_eq!(geometry.locate(BufferId(geometry.buffers()), 0), None);
        assert_eq!(geometry.locate(BufferId(u32::MAX), 0), None);
    }

    #[test]
    fn bad_specs_are_refused() {
        let spec = |size, count| ClassSpec { size, count };
        assert!(Geometry::new(&[spec(0, 1)]).is_none());
        assert!(Geometry::new(&[spec(64, 0)]).is_none());
        assert!(Geometry::new(&[spec(64, 1), spec(64, 1)]).is_none());
        assert!(Geometry::new(&[spec(MESSAGE_BYTES_MAX + 1, 1)]).is_none());
        assert!(Geometry::new(&[spec(64, 65_536), spec(65, 1)]).is_none());
        assert_eq!(Geometry::new(&[]).unwrap().bytes(), 0);
    }
}
