//! Aeron IPC: exclusive publications and subscriptions in shared memory, a client for
//! each end, and the C media driver in a process of its own.
//!
//! Messages that fit into one fragment are claimed and composed in place and read in
//! place; larger ones are offered and put together again, since Aeron has no other way.
//!
//! On the path of an IPC message there is no driver, but the driver moves the limit up to
//! which a publication may write. It does so in one thread (the shared mode) that sleeps
//! for [`DRIVER_SLEEP`] when it has nothing to do: with two cores, both of them taken by
//! the busy ends, every wake of a driver's thread costs an end its core for a moment.
//!
//! There are two kinds of [`Log`]: Aeron's own default, and a short one that is touched
//! beforehand, so that no page is met for the first time while it is measured.

use crate::harness::converse::End;
use crate::harness::fault::Fault;
use crate::harness::payload;
use rusteron_client::{
    Aeron, AeronBufferClaim, AeronContext, AeronExclusivePublication, AeronFragmentClosureAssembler, AeronHeader,
    AeronOfferError, AeronSubscription, Handlers,
};
use rusteron_media_driver::bindings::aeron_threading_mode_enum::AERON_THREADING_MODE_SHARED;
use rusteron_media_driver::{AeronDriver, AeronDriverContext};
use std::ffi::{CStr, CString};
use std::fmt::Display;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long the driver's thread sleeps when it has nothing to do.
const DRIVER_SLEEP: &CStr = c"1ms";
/// How long a client waits for the driver, or for the other end.
const CONNECT_BOUND: Duration = Duration::from_secs(10);
const CONNECT_PAUSE: Duration = Duration::from_millis(1);
/// Largest fragment that the driver is told to allow, bytes: Aeron's own limit.
const FRAGMENT_BYTES: usize = 65_504;
/// In front of each fragment.
const HEADER_BYTES: usize = 32;
/// A third of a log, bytes, as Aeron has it; a message may take an eighth of that.
const TERM_BYTES: usize = 64 << 20;
/// The same of a short log: enough for what small messages fill while the driver sleeps.
const TERM_BYTES_SHORT: usize = 4 << 20;
/// Fragments taken with one poll.
const BATCH: usize = 16;

/// Where Aeron keeps its files: memory, as it recommends.
const SHARED_MEMORY: &str = "/dev/shm";

/// Makes the folder, for this user alone, runs the driver in it, and removes it when the
/// driver has ended: when its input does, or when somebody kills it.
const JANITOR: &str = r#"trap '' INT TERM HUP
mkdir -m 700 "$1" || exit 1
"$2" media-driver --config "$1/aeron"
rm -rf "$1""#;

/// A running media driver; ended on drop, and by itself when this process dies.
pub struct Driver {
    process: Child,
    folder: PathBuf,
}

impl Driver {
    /// Starts a driver.
    ///
    /// # Errors
    /// It does not start.
    pub fn start() -> Result<Self, Fault> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(SHARED_MEMORY).join(format!("latency-tests.{}.aeron{count}", std::process::id()));
        let own = std::env::current_exe().map_err(Fault::os("find this program"))?;
        let process = Command::new("sh")
            .args(["-c", JANITOR, "janitor"])
            .args([folder.as_path(), &own])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(Fault::os("start a media driver"))?;
        let mut driver = Driver { process, folder };
        driver.wait_for_files()?;
        Ok(driver)
    }

    fn wait_for_files(&mut self) -> Result<(), Fault> {
        let give_up = Instant::now() + CONNECT_BOUND;
        while !self.files().join("cnc.dat").exists() {
            let ended = self.process.try_wait().map_err(Fault::os("look after a media driver"))?;
            if ended.is_some() || Instant::now() > give_up {
                return Err(Fault::Party("Aeron's media driver did not start".into()));
            }
            std::thread::sleep(CONNECT_PAUSE);
        }
        Ok(())
    }

    fn files(&self) -> PathBuf {
        self.folder.join("aeron")
    }

    /// A client of this driver.
    fn client(&self, log: Log) -> Result<Aeron, Fault> {
        let context = AeronContext::new().map_err(fault("context"))?;
        context.set_dir(&path(&self.files())?).map_err(fault("folder"))?;
        context.set_pre_touch_mapped_memory(log == Log::Warm).map_err(fault("touch"))?;
        let client = Aeron::new(&context).map_err(fault("client"))?;
        client.start().map_err(fault("start"))?;
        Ok(client)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It ends when its input does; then its folder is removed.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn path(path: &Path) -> Result<CString, Fault> {
    CString::new(path.as_os_str().as_bytes()).map_err(fault("path"))
}

fn fault<E: Display>(what: &'static str) -> impl FnOnce(E) -> Fault {
    move |error| Fault::Party(format!("Aeron, {what}: {error}"))
}

/// The driver's half: runs in `folder` until the input ends.
///
/// # Errors
/// The driver does not start, or fails.
pub fn drive(folder: &Path) -> Result<(), Fault> {
    let context = AeronDriverContext::new().map_err(fault("driver"))?;
    context.set_dir(&path(folder)?).map_err(fault("folder"))?;
    context.set_threading_mode(AERON_THREADING_MODE_SHARED).map_err(fault("threads"))?;
    context.set_shared_idle_strategy(c"sleeping").map_err(fault("idle strategy"))?;
    context.set_shared_idle_strategy_init_args(DRIVER_SLEEP).map_err(fault("idle strategy"))?;
    context.set_ipc_mtu_length(FRAGMENT_BYTES).map_err(fault("fragment"))?;
    let driver = AeronDriver::new(&context).map_err(fault("driver"))?;
    driver.start(true).map_err(fault("driver"))?;
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    std::thread::spawn(move || {
        let mut nothing = [0; 1];
        while std::io::stdin().read(&mut nothing).is_ok_and(|length| length > 0) {}
        // Relaxed: the flag carries no data.
        end.store(true, Ordering::Relaxed);
    });
    while !ended.load(Ordering::Relaxed) {
        driver.main_idle_strategy(driver.main_do_work().map_err(fault("driver"))?);
    }
    Ok(())
}

/// The memory of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Log {
    /// As Aeron makes it: three times 64 MiB, of which each page is there when it is used
    /// for the first time.
    Default,
    /// As short as the messages allow, and touched by both ends when they open it.
    Warm,
}

/// One direction: its place at a driver, the size of its messages, and its log.
#[derive(Clone, Copy)]
pub struct Route<'d> {
    driver: &'d Driver,
    stream: i32,
    size: usize,
    log: Log,
}

impl<'d> Route<'d> {
    /// Direction `stream` for messages of `size` bytes.
    #[must_use]
    pub fn new(driver: &'d Driver, stream: i32, size: usize, log: Log) -> Self {
        Route { driver, stream, size, log }
    }

    fn is_one_fragment(&self) -> bool {
        self.size <= FRAGMENT_BYTES - HEADER_BYTES
    }

    fn channel(&self) -> Result<CString, Fault> {
        let is_short = self.log == Log::Warm && self.is_one_fragment();
        let term = if is_short { TERM_BYTES_SHORT } else { TERM_BYTES };
        CString::new(format!("aeron:ipc?term-length={term}")).map_err(fault("channel"))
    }
}

/// Write end.
pub struct AeronPut {
    publication: AeronExclusivePublication,
    claim: AeronBufferClaim,
    /// A message that is too large to be composed in place.
    message: Option<Vec<u8>>,
    size: usize,
    _client: Aeron,
}

impl AeronPut {
    /// Opens the write end, and waits until the read end is there.
    ///
    /// # Errors
    /// The library refused.
    pub fn open(route: Route<'_>) -> Result<Self, Fault> {
        let client = route.driver.client(route.log)?;
        let publication = client
            .async_add_exclusive_publication(&route.channel()?, route.stream)
            .and_then(|adding| adding.poll_blocking(CONNECT_BOUND))
            .map_err(fault("publication"))?;
        let message = (!route.is_one_fragment()).then(|| vec![0; route.size]);
        let claim = AeronBufferClaim::new_zeroed_on_stack();
        Ok(AeronPut { publication, claim, message, size: route.size, _client: client })
    }
}

/// Back pressure is no failure, nor is a reader that has not come yet.
#[cold]
fn not_now(error: &AeronOfferError) -> Result<bool, Fault> {
    match error {
        AeronOfferError::BackPressured | AeronOfferError::AdminAction | AeronOfferError::NotConnected => Ok(false),
        other => Err(Fault::Party(format!("Aeron, offer: {other:?}"))),
    }
}

impl End for AeronPut {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        if let Some(message) = &mut self.message {
            payload::write(message, number);
            return self.publication.offer(message).map_or_else(|error| not_now(&error), |_| Ok(true));
        }
        if let Err(error) = self.publication.try_claim(self.size, &self.claim) {
            return not_now(&error);
        }
        payload::write(self.claim.data_mut(), number);
        self.claim.commit().map_err(fault("commit"))?;
        Ok(true)
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

/// Read end.
pub struct AeronTake {
    subscription: AeronSubscription,
    assembler: Option<AeronFragmentClosureAssembler>,
    batch: Batch,
    _client: Aeron,
}

/// The messages of one poll, verified, and how many of them were handed on.
struct Batch {
    numbers: [u64; BATCH],
    came: usize,
    gone: usize,
    fault: Option<Fault>,
    size: usize,
}

impl Batch {
    #[inline(always)]
    fn add(&mut self, message: &[u8], _header: AeronHeader) {
        if message.len() != self.size {
            self.fault = Some(Fault::Corrupt { expected: self.size as u64, found: message.len() as u64 });
            return;
        }
        match payload::read(message) {
            Ok(number) => {
                self.numbers[self.came] = number;
                self.came += 1;
            }
            Err(fault) => self.fault = Some(fault),
        }
    }

    #[inline(always)]
    fn next(&mut self) -> Option<u64> {
        if self.gone == self.came {
            return None;
        }
        self.gone += 1;
        Some(self.numbers[self.gone - 1])
    }
}

impl AeronTake {
    /// Opens the read end.
    ///
    /// # Errors
    /// The library refused.
    pub fn open(route: Route<'_>) -> Result<Self, Fault> {
        let client = route.driver.client(route.log)?;
        let subscription = client
            .async_add_subscription(&route.channel()?, route.stream, Handlers::NONE, Handlers::NONE)
            .and_then(|adding| adding.poll_blocking(CONNECT_BOUND))
            .map_err(fault("subscription"))?;
        let assembler = match route.is_one_fragment() {
            true => None,
            false => Some(AeronFragmentClosureAssembler::new().map_err(fault("assembler"))?),
        };
        let batch = Batch { numbers: [0; BATCH], came: 0, gone: 0, fault: None, size: route.size };
        Ok(AeronTake { subscription, assembler, batch, _client: client })
    }
}

impl End for AeronTake {
    fn send(&mut self, _number: u64) -> Result<bool, Fault> {
        Ok(false)
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        if let Some(number) = self.batch.next() {
            return Ok(Some(number));
        }
        let batch = &mut self.batch;
        (batch.came, batch.gone) = (0, 0);
        match &mut self.assembler {
            None => self.subscription.poll_fn(|message, header| batch.add(message, header), BATCH),
            Some(assembler) => assembler.poll(&self.subscription, batch, Batch::add, BATCH),
        }
        .map_err(fault("poll"))?;
        match self.batch.fault.take() {
            Some(fault) => Err(fault),
            None => Ok(self.batch.next()),
        }
    }
}
