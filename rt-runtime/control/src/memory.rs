//! Memory of the runtime itself: receive heaps, counters, wake pages.

use crate::spec::HeapSpec;
use crate::start::StartError;
use insane_config::{HugePages, MemoryPlan, Plan};
use insane_core::heap::Geometry;
use insane_engine::DomainParts;
use insane_shm::counters::{BLOCK_BYTES, CounterBlock};
use insane_shm::heap::SenderHeap;
use insane_shm::misses::MissLog;
use insane_shm::region::Region;
use insane_shm::wake::WAKE_PAGE_BYTES;
use insane_sys::memfd;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Memory that the runtime writes and clients read.
#[derive(Debug)]
pub(crate) struct OwnRegion {
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) region: Arc<Region>,
}

impl OwnRegion {
    /// Makes, maps and seals it; nobody else ever writes it.
    pub(crate) fn new(name: &str, bytes: u64) -> io::Result<Self> {
        let fd = memfd::create(name, bytes)?;
        let region = Region::map_writable(fd.as_fd(), bytes as usize)?;
        memfd::seal_writers(&fd)?;
        Ok(OwnRegion { fd: Arc::new(fd), region })
    }
}

/// How much of what should be huge pages is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HugeReport {
    pub(crate) wanted: u32,
    pub(crate) got: u32,
}

/// What one datapath has of its own.
#[derive(Debug)]
pub(crate) struct DatapathMemory {
    pub(crate) wake_page: OwnRegion,
    /// Receive heap of each domain; `None` where a domain receives in line only.
    pub(crate) heaps: Vec<Option<OwnRegion>>,
    pub(crate) parts: Vec<DomainParts>,
    pub(crate) turn_counters: CounterBlock,
    /// Where it notes its misses.
    pub(crate) misses: MissLog,
}

/// Counters of all datapaths: one region for the whole, and one for each domain, so
/// that a domain's page can be shown without another's. One block a datapath.
#[derive(Debug)]
pub(crate) struct CounterPages {
    turn: OwnRegion,
    domains: Vec<OwnRegion>,
}

impl CounterPages {
    pub(crate) fn new(plan: &Plan) -> Result<Self, StartError> {
        let bytes = (plan.datapaths.len() * BLOCK_BYTES).next_multiple_of(4096) as u64;
        let page = |name| OwnRegion::new(name, bytes).map_err(|source| memory("a page of counters", source));
        let domains = plan.domains.iter().map(|_| page("insane-counters")).collect::<Result<_, _>>()?;
        Ok(CounterPages { turn: page("insane-turns")?, domains })
    }

    pub(crate) fn turn(&self, datapath: usize) -> Result<CounterBlock, StartError> {
        block(&self.turn, datapath)
    }

    pub(crate) fn domain(&self, domain: usize, datapath: usize) -> Result<CounterBlock, StartError> {
        block(&self.domains[domain], datapath)
    }
}

fn block(page: &OwnRegion, datapath: usize) -> Result<CounterBlock, StartError> {
    let block = CounterBlock::new(Arc::clone(&page.region), datapath as u32);
    block.ok_or_else(|| StartError::Plan("more datapaths than a page of counters has blocks".into()))
}

fn memory(what: impl Into<String>, source: io::Error) -> StartError {
    StartError::Memory { what: what.into(), source }
}

impl DatapathMemory {
    pub(crate) fn new(
        plan: &Plan,
        datapath: usize,
        (counters, misses): (&CounterPages, MissLog),
        huge: &mut HugeReport,
    ) -> Result<Self, StartError> {
        let wake_page = OwnRegion::new("insane-wake", WAKE_PAGE_BYTES as u64).map_err(|e| memory("a wake page", e))?;
        let mut heaps = Vec::new();
        let mut parts = Vec::new();
        for (at, domain) in plan.domains.iter().enumerate() {
            let geometry = Geometry::new(&domain.receive)
                .ok_or_else(|| StartError::Plan(format!("the receive classes of domain {:?}", domain.name)))?;
            let what = || format!("the receive heap of domain {:?}", domain.name);
            let own = (geometry.bytes() > 0).then(|| receive_heap(&plan.memory, geometry.bytes(), huge)).transpose();
            let own = own.map_err(|source| memory(what(), source))?;
            let region = match &own {
                Some(own) => Arc::clone(&own.region),
                None => Region::anonymous(1).map_err(|source| memory(what(), source))?,
            };
            let counters = counters.domain(at, datapath)?;
            parts.push(DomainParts { heap: SenderHeap::copied_into(region, geometry), counters });
            heaps.push(own);
        }
        Ok(DatapathMemory { wake_page, heaps, parts, turn_counters: counters.turn(datapath)?, misses })
    }

    /// Bytes of shared memory, and how many regions.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let heaps = self.heaps.iter().flatten();
        heaps.fold((WAKE_PAGE_BYTES as u64, 1), |(bytes, count), own| (bytes + own.region.len() as u64, count + 1))
    }
}

fn receive_heap(memory: &MemoryPlan, bytes: u64, huge: &mut HugeReport) -> io::Result<OwnRegion> {
    let own = OwnRegion::new("insane-receive", bytes)?;
    let wants_huge = memory.huge_pages != HugePages::Never && bytes >= 2 << 20;
    if memory.prefault || wants_huge {
        own.region.prefault()?;
    }
    if wants_huge {
        huge.wanted += 1;
        let collapsed = own.region.collapse_huge();
        huge.got += u32::from(collapsed);
        if !collapsed && memory.huge_pages == HugePages::Require {
            return Err(io::Error::other("memory.huge_pages is `require`, and the kernel gives none"));
        }
    }
    Ok(own)
}

/// The receive heap of each domain, as the hub knows it.
pub(crate) fn heap_specs(plan: &Plan) -> Result<Vec<HeapSpec>, StartError> {
    let spec = |domain: &insane_config::DomainPlan| {
        HeapSpec::new(&domain.receive)
            .ok_or_else(|| StartError::Plan(format!("the receive classes of domain {:?}", domain.name)))
    };
    plan.domains.iter().map(spec).collect()
}
