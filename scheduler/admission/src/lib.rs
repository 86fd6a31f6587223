//! Admission: a schedule for a whole plant of hosts and links, or a reason why not; and
//! one more stream beside those that have a place.
//!
//! The method: each stream has one unknown, its start; what it takes of its links follows
//! (with e_turn, foreign bytes, path delays and clock errors). Streams are placed one by
//! one, each at the first start that touches nothing (module `table`). When one finds no
//! place it is moved further ahead and all are placed anew, at most [`Budget::rounds`]
//! times. The search is not complete: that it found nothing proves nothing, so it says so,
//! unless one of the proofs of module `refute` holds. What it finds is exact.
//!
//! Integers only, `no_std` with an allocator. Nothing here is for a hot path.
//!
//! | call | cost |
//! |---|---|
//! | `synthesise`, `synthesise_beside` | rounds x streams x (windows log windows) |
//! | `admit` | windows log windows, and the lanes |
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod chain;
#[cfg(feature = "mutants")]
mod mutants;
mod refute;
mod response;
mod shape;
mod table;
mod words;

#[cfg(feature = "mutants")]
pub use mutants::{Mutation, turn_on};
pub use words::{Budget, Offer, PlantError, Reason, Refusal};

use alloc::vec::Vec;
use insane_certificate::{Certificate, ChainBound, Placed, Plant, Stream, Window};
use insane_scheduler::PERIOD_NS_MAX;
use shape::Shape;
use table::{Nothing, Tables};

/// A plant whose streams all have a place.
#[derive(Clone, Debug)]
pub struct Plan {
    plant: Plant,
    shapes: Vec<Shape>,
    starts: Vec<u64>,
    tables: Tables,
    chains: Vec<ChainBound>,
    lanes: Vec<u64>,
}

/// Finds a schedule for a plant.
///
/// # Errors
/// [`Refusal`].
pub fn synthesise(plant: &Plant, budget: Budget) -> Result<Plan, Refusal> {
    synthesise_beside(plant, &[], budget)
}

/// As [`synthesise`], but streams of which `kept` says a start keep it: nothing that runs
/// is moved for what is new. Streams beyond the end of `kept` are new.
///
/// # Errors
/// [`Refusal`]. With kept streams a [`Reason::NotFound`] may also mean that a kept start is
/// no longer possible; the stream is named.
pub fn synthesise_beside(plant: &Plant, kept: &[Option<u64>], budget: Budget) -> Result<Plan, Refusal> {
    let shapes = shapes(plant).map_err(invalid)?;
    let kept = |stream: usize| kept.get(stream).copied().flatten();
    let mut order: Vec<usize> = (0..shapes.len()).collect();
    // What is kept comes first; then what comes often and may move little.
    order.sort_by_key(|&at| {
        let slack = shapes[at].latest_ns - i128::from(shapes[at].release_ns);
        (kept(at).is_none(), shapes[at].period_ns, slack)
    });
    let first = order.iter().filter(|&&stream| kept(stream).is_some()).count();
    let mut failed = None;
    for _ in 0..budget.rounds.max(1) {
        match place_all(plant, &shapes, &order, &kept, budget) {
            Ok((starts, tables)) => return Plan::with_bounds(plant.clone(), shapes, starts, tables),
            Err(at) => {
                let stream = order.remove(at);
                // Half way ahead; to the front when it fails again; never before what is kept.
                let to = if failed == Some(stream) { first } else { first + at.saturating_sub(first) / 2 };
                order.insert(to.min(at), stream);
                failed = Some(stream);
                if at <= first {
                    break;
                }
            }
        }
    }
    let reason = refute::refute(plant, &shapes).map_or(Reason::NotFound, Reason::Refuted);
    let offer =
        failed.map_or(Offer::default(), |stream| offer_beside_others(plant, &shapes, (&order, &kept), stream, budget));
    Err(Refusal { reason, stream: failed, offer })
}

impl Plan {
    fn with_bounds(plant: Plant, shapes: Vec<Shape>, starts: Vec<u64>, tables: Tables) -> Result<Plan, Refusal> {
        let mut plan = Plan { plant, shapes, starts, tables, chains: Vec::new(), lanes: Vec::new() };
        plan.chains = plan.chain_bounds()?;
        plan.lanes = plan.lane_bounds()?;
        Ok(plan)
    }

    /// The plant.
    #[must_use]
    pub fn plant(&self) -> &Plant {
        &self.plant
    }

    /// The start of each stream, nanoseconds after the base time.
    #[must_use]
    pub fn starts_ns(&self) -> &[u64] {
        &self.starts
    }

    /// The certificate: to be checked by `insane-checker` before anybody relies on it.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        let placed = self.shapes.iter().zip(&self.starts);
        let placed = placed.map(|(shape, &start_ns)| Placed { start_ns, windows: shape.windows(start_ns) });
        Certificate {
            plant: self.plant.clone(),
            placed: placed.collect(),
            chains: self.chains.clone(),
            lanes: self.lanes.clone(),
        }
    }

    /// Admits one more stream, without moving another; its place in the list.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing has changed. A refutation is about the plant with the
    /// new stream, which is its last.
    pub fn admit(&mut self, stream: Stream, budget: Budget) -> Result<usize, Refusal> {
        let shape = Shape::of(&self.plant, &stream).map_err(invalid)?;
        let number = self.starts.len();
        let found = if shape.fits_alone() {
            self.tables.first_start(&shape, shape.release_ns, shape.latest_ns, budget.jumps)
        } else {
            Err(Nothing::Full)
        };
        let Ok(start) = found else {
            return Err(self.refusal(stream, shape, budget));
        };
        let tables = (!self.plant.lanes.is_empty()).then(|| self.tables.clone());
        self.tables.place(&shape, start);
        self.plant.streams.push(stream);
        self.shapes.push(shape);
        self.starts.push(start);
        match self.lane_bounds() {
            Ok(lanes) => {
                self.lanes = lanes;
                Ok(number)
            }
            Err(refusal) => {
                self.plant.streams.pop();
                self.shapes.pop();
                self.starts.pop();
                if let Some(tables) = tables {
                    self.tables = tables;
                }
                Err(Refusal { stream: Some(number), ..refusal })
            }
        }
    }

    /// Takes a stream out; all others stay where they are, those behind it move up one place
    /// in the list. False where there is no such stream, or a chain names one.
    pub fn dismiss(&mut self, stream: usize) -> bool {
        if stream >= self.starts.len() || !self.plant.chains.is_empty() {
            return false;
        }
        self.plant.streams.remove(stream);
        self.shapes.remove(stream);
        self.starts.remove(stream);
        self.tables = Tables::of(&self.plant);
        for (shape, &start) in self.shapes.iter().zip(&self.starts) {
            self.tables.place(shape, start);
        }
        if let Ok(lanes) = self.lane_bounds() {
            self.lanes = lanes;
        }
        true
    }

    fn refusal(&self, stream: Stream, shape: Shape, budget: Budget) -> Refusal {
        let offer = offer(&self.plant, &self.tables, &stream, &shape, budget);
        let (mut plant, mut shapes) = (self.plant.clone(), self.shapes.clone());
        plant.streams.push(stream);
        shapes.push(shape);
        let reason = refute::refute(&plant, &shapes).map_or(Reason::NotFound, Reason::Refuted);
        Refusal { reason, stream: Some(self.starts.len()), offer }
    }

    fn chain_bounds(&self) -> Result<Vec<ChainBound>, Refusal> {
        let each = |(at, chain): (usize, &insane_certificate::Chain)| {
            let bound = chain::bound(&self.plant, &self.shapes, &self.starts, chain).map_err(invalid)?;
            if bound.reaction_ns > chain.reaction_ns_max || bound.age_ns > chain.age_ns_max {
                return Err(Refusal { reason: Reason::Chain(at, bound), stream: None, offer: Offer::default() });
            }
            Ok(bound)
        };
        self.plant.chains.iter().enumerate().map(each).collect()
    }

    fn lane_bounds(&self) -> Result<Vec<u64>, Refusal> {
        let each = |at: usize| {
            let windows = self.windows_on(self.plant.lanes[at].link);
            let response = response::response_ns(&self.plant, &windows, at).map_err(invalid)?;
            let too_slow = || Refusal { reason: Reason::Lane(at), stream: None, offer: Offer::default() };
            response.filter(|&ns| ns <= self.plant.lanes[at].deadline_ns).ok_or_else(too_slow)
        };
        (0..self.plant.lanes.len()).map(each).collect()
    }

    fn windows_on(&self, link: usize) -> Vec<Window> {
        let of = |(shape, &start): (&Shape, &u64)| {
            let parts = shape.parts.clone().into_iter().zip(shape.windows(start));
            parts.filter(|(part, _)| part.link == link).map(|(_, window)| window).collect::<Vec<_>>()
        };
        self.shapes.iter().zip(&self.starts).flat_map(of).collect()
    }
}

fn invalid(error: PlantError) -> Refusal {
    Refusal { reason: Reason::Invalid(error), stream: None, offer: Offer::default() }
}

/// All streams, and that the windows that are blocked are some.
fn shapes(plant: &Plant) -> Result<Vec<Shape>, PlantError> {
    let bad = |window: &Window| {
        let Window { offset_ns, length_ns, period_ns } = *window;
        length_ns == 0 || length_ns > period_ns || period_ns > PERIOD_NS_MAX || offset_ns >= period_ns
    };
    if plant.links.iter().any(|link| link.blocked.iter().any(bad)) {
        return Err(PlantError::Window);
    }
    plant.streams.iter().map(|stream| Shape::of(plant, stream)).collect()
}

/// The starts, or the place in `order` of the first stream without one.
fn place_all(
    plant: &Plant,
    shapes: &[Shape],
    order: &[usize],
    kept: &dyn Fn(usize) -> Option<u64>,
    budget: Budget,
) -> Result<(Vec<u64>, Tables), usize> {
    let mut tables = Tables::of(plant);
    let mut starts = alloc::vec![0; shapes.len()];
    for (at, &stream) in order.iter().enumerate() {
        let shape = &shapes[stream];
        if !shape.fits_alone() {
            return Err(at);
        }
        let (from_ns, latest_ns) = range(shape, kept(stream)).ok_or(at)?;
        let found = tables.first_start(shape, from_ns, latest_ns, budget.jumps);
        starts[stream] = found.map_err(|_| at)?;
        tables.place(shape, starts[stream]);
    }
    Ok((starts, tables))
}

/// Where a stream may start: anywhere, or where it is. `None`: it may not stay there.
fn range(shape: &Shape, kept: Option<u64>) -> Option<(u64, i128)> {
    let Some(start) = kept else { return Some((shape.release_ns, shape.latest_ns)) };
    let may_stay = start >= shape.release_ns && i128::from(start) <= shape.latest_ns;
    may_stay.then_some((start, i128::from(start)))
}

/// What a stream could have beside all others that find a place.
fn offer_beside_others(
    plant: &Plant,
    shapes: &[Shape],
    (order, kept): (&[usize], &dyn Fn(usize) -> Option<u64>),
    stream: usize,
    budget: Budget,
) -> Offer {
    let mut tables = Tables::of(plant);
    for &other in order.iter().filter(|&&other| other != stream && shapes[other].fits_alone()) {
        let shape = &shapes[other];
        let Some((from_ns, latest_ns)) = range(shape, kept(other)) else { continue };
        if let Ok(start) = tables.first_start(shape, from_ns, latest_ns, budget.jumps) {
            tables.place(shape, start);
        }
    }
    offer(plant, &tables, &plant.streams[stream], &shapes[stream], budget)
}

fn offer(plant: &Plant, tables: &Tables, stream: &Stream, shape: &Shape, budget: Budget) -> Offer {
    let fits = |changed: &Stream| {
        let Ok(shape) = Shape::of(plant, changed) else { return false };
        shape.fits_alone() && tables.first_start(&shape, shape.release_ns, shape.latest_ns, budget.jumps).is_ok()
    };
    let last = i128::from(shape.release_ns) + i128::from(shape.period_ns) - 1;
    let later = tables.first_start(shape, shape.release_ns, last, budget.jumps).ok();
    let deadline_ns = later.map(|start| start.saturating_add(shape.span_ns));
    let deadline_ns = deadline_ns.filter(|&deadline_ns| fits(&Stream { deadline_ns, ..stream.clone() }));
    // Smaller messages fit where larger ones do, so halving finds the largest.
    let (mut low, mut high) = (0, stream.bytes);
    while high - low > 1 {
        let bytes = low + (high - low) / 2;
        if fits(&Stream { bytes, ..stream.clone() }) { low = bytes } else { high = bytes }
    }
    let longer = (2..=16).filter_map(|factor| stream.period_ns.checked_mul(factor));
    let period_ns = longer.into_iter().find(|&period_ns| fits(&Stream { period_ns, ..stream.clone() }));
    Offer { deadline_ns, bytes: (low > 0).then_some(low), period_ns }
}
