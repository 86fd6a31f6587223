//! Touching memory before a datapath uses it.
//!
//! The first touch of a page costs microseconds, which a datapath must not pay, and a
//! large ring has thousands of pages, which must not hold up the control plane. So a
//! thread of its own touches them, and the connection is handed over after that.

use insane_core::{ConnId, DatapathIndex};
use insane_engine::Command;
use insane_shm::region::Region;
use insane_sys::event::Event;
use insane_sys::thread;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// A connection on its way to a datapath.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) datapath: DatapathIndex,
    pub(crate) conn: ConnId,
    pub(crate) command: Command,
    /// Its memory.
    pub(crate) regions: Vec<Arc<Region>>,
}

/// The thread that touches memory.
#[derive(Debug)]
pub(crate) struct Preparer {
    jobs: Option<Sender<Handover>>,
    done: Receiver<Handover>,
    stops: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
    pub(crate) tid: i32,
}

impl Preparer {
    /// Starts the thread; it signals `answer` when something is done.
    pub(crate) fn start(answer: Arc<Event>) -> io::Result<Self> {
        let (jobs, jobs_received) = channel::<Handover>();
        let (done_sent, done) = channel();
        let (report, reported) = channel();
        let stops = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stops);
        let run = move || {
            let _ = report.send(thread::current_tid());
            while let Ok(job) = jobs_received.recv() {
                if !stop.load(Ordering::Relaxed) {
                    // What cannot be touched now faults later: slower, not wrong.
                    job.regions.iter().for_each(|region| drop(region.prefault()));
                }
                if done_sent.send(job).is_err() {
                    return;
                }
                let _ = answer.signal();
            }
        };
        let handle = std::thread::Builder::new().name("insane-prepare".into()).spawn(run)?;
        let tid = reported.recv().map_err(|_| io::Error::other("it ended while starting"))?;
        Ok(Preparer { jobs: Some(jobs), done, stops, handle: Some(handle), tid })
    }

    /// Takes a connection; it comes back if the thread has ended.
    pub(crate) fn submit(&self, job: Handover) -> Result<(), Box<Handover>> {
        match &self.jobs {
            Some(jobs) => jobs.send(job).map_err(|refused| Box::new(refused.0)),
            None => Err(Box::new(job)),
        }
    }

    /// The next connection whose memory is touched.
    pub(crate) fn next_done(&self) -> Option<Handover> {
        self.done.try_recv().ok()
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_submitted_comes_back_in_order() {
        let answer = Arc::new(Event::new().unwrap());
        let preparer = Preparer::start(Arc::clone(&answer)).unwrap();
        for number in 0..20 {
            let regions = vec![Region::anonymous(1 << 20).unwrap()];
            let job = Handover { datapath: DatapathIndex(0), conn: ConnId(number), command: Command::Spent, regions };
            preparer.submit(job).unwrap();
        }
        let mut done = Vec::new();
        while done.len() < 20 {
            done.extend(preparer.next_done().map(|job| job.conn.0));
            std::thread::yield_now();
        }
        assert_eq!(done, (0..20).collect::<Vec<_>>());
        assert!(answer.clear().unwrap() > 0);
    }
}
