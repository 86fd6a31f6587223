//! What tests of links that have a network interface to themselves share: network namespaces,
//! two hosts in them, and a link whose interface comes and goes.

use crate::frames::{Keep, lane_of};
use insane_core::PeerIndex;
use insane_link::{Link, LinkHealth, LinkKeeper, SendOutcome};
use insane_sys::clock::mono_now;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long something is waited for that comes at once, on a machine that is not busy.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The one peer of each link here.
pub const PEER: PeerIndex = PeerIndex(0);

/// A network namespace without a name, which goes with the last thread and socket in it.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// `None` without the right or the tool, with a word on standard error.
    #[must_use]
    pub fn make() -> Option<Self> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).ok()?;
            File::open("/proc/thread-self/ns/net").ok()
        };
        let file = std::thread::spawn(make).join().unwrap();
        let has_ip = Command::new("ip").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        match file {
            Some(file) if has_ip => Some(Namespace(file)),
            _ => {
                eprintln!("passed over: needs root and the command ip");
                None
            }
        }
    }

    /// Runs `action` on a thread inside.
    ///
    /// # Panics
    /// The action does.
    pub fn inside<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                action()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A path by which `ip` finds it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Gives `ip` these commands, one a line.
    ///
    /// # Panics
    /// It refuses one.
    pub fn ip(&self, commands: &str) {
        self.inside(|| {
            let mut ip = Command::new("ip");
            let mut ip = ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            ip.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
            assert!(ip.wait().unwrap().success(), "ip refuses one of:\n{commands}");
        });
    }
}

/// Two hosts: one for the link, one for the kernel at the other end of its wire.
#[derive(Debug)]
pub struct Hosts {
    /// Where `x0` is, once they are joined.
    pub ours: Namespace,
    /// Where `p0` is: 10.9.0.1 and fd00::1.
    pub kernel: Namespace,
}

impl Hosts {
    /// Not joined yet. `None` as for [`Namespace::make`].
    #[must_use]
    pub fn make() -> Option<Self> {
        Some(Hosts { ours: Namespace::make()?, kernel: Namespace::make()? })
    }

    /// Joins both by a veth pair, whose hardware addresses are others each time.
    ///
    /// # Panics
    /// They are joined already.
    pub fn join(&self) {
        let Hosts { ours, kernel } = self;
        ours.ip(&format!("link add x0 type veth peer name p0 netns {}\nlink set x0 up\n", kernel.path()));
        kernel.ip("address add 10.9.0.1/24 dev p0\naddress add fd00::1/64 dev p0 nodad\nlink set p0 up\n");
    }
}

/// Lets `link` ask and hear until it knows its ways.
///
/// # Panics
/// Nobody answers.
pub fn until_known<L: Link>(link: &mut L, knows_all_ways: impl Fn(&L) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !knows_all_ways(link) {
        assert!(Instant::now() < end, "nobody answers: {:?}", link.link_counts());
        link.tend(mono_now());
        link.receive(64, true, &mut Keep::default());
    }
}

/// Receives at `link`, while `other` answers questions, until `count` frames are there.
///
/// # Panics
/// Fewer or more come, or one that is not of the peer.
pub fn wait_for<L: Link, O: Link>(link: &mut L, other: &mut O, count: usize) -> Vec<Vec<u8>> {
    let mut kept = Keep::default();
    let end = Instant::now() + PATIENCE;
    while kept.0.len() < count && Instant::now() < end {
        link.receive(64, true, &mut kept);
        other.receive(64, true, &mut Keep::default());
        link.tend(mono_now());
        other.tend(mono_now());
    }
    assert_eq!(kept.0.len(), count, "frames that came");
    assert!(kept.0.iter().all(|arrival| arrival.from == Some(PEER)), "the sender of a frame");
    kept.0.into_iter().map(|arrival| arrival.bytes).collect()
}

/// Sends a frame that the link has no reason to refuse.
///
/// # Panics
/// It is refused.
pub fn send<L: Link>(link: &mut L, lane: u8, frame: &[u8]) {
    let sent = link.send(PEER, lane_of(lane), frame, (&[][..]).into());
    assert_eq!(sent, SendOutcome::Sent, "lane {lane}, {} bytes", frame.len());
}

/// A frame of so many bytes, each number another.
#[must_use]
pub fn frame(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 7 + at) as u8).collect()
}

/// Where a [`World`]'s link has to be, and its peer.
pub const WORLD_LINK: &str = "10.9.0.2:7400";
/// See [`WORLD_LINK`].
pub const WORLD_PEER: &str = "10.9.0.1:7400";

/// A link at `x0` whose interface comes and goes, who looks after it, and its peer: the kernel.
#[derive(Debug)]
pub struct World<L, K> {
    /// Both hosts.
    pub hosts: Hosts,
    /// The link.
    pub link: L,
    /// Who looks after it.
    pub keeper: K,
    /// Whether the link could send now.
    pub is_ready: fn(&L) -> bool,
}

impl<L: Link, K: LinkKeeper> World<L, K> {
    /// One look of the keeper.
    pub fn look(&mut self) -> LinkHealth {
        let keeper = &mut self.keeper;
        self.hosts.ours.inside(|| keeper.look())
    }

    /// One turn of the datapath.
    pub fn turn(&mut self, kept: &mut Keep) {
        self.link.tend(mono_now());
        self.link.receive(64, true, kept);
    }

    /// What the datapath and the keeper do, until this is so.
    ///
    /// # Panics
    /// It never is.
    pub fn wait_until(&mut self, what: &str, is_it: impl Fn(&L, &LinkHealth) -> bool) -> LinkHealth {
        let end = Instant::now() + PATIENCE;
        loop {
            let health = self.look();
            self.link.tend(mono_now());
            if is_it(&self.link, &health) {
                return health;
            }
            assert!(Instant::now() < end, "never {what}: {health:?}, {:?}", self.link.link_counts());
        }
    }

    /// Up, and the peer is found.
    ///
    /// # Panics
    /// It never is.
    pub fn wait_until_up(&mut self) {
        self.wait_until("up", |_, health| *health == LinkHealth::Up);
        let end = Instant::now() + PATIENCE;
        while !(self.is_ready)(&self.link) {
            assert!(Instant::now() < end, "the kernel does not answer: {:?}", self.link.link_counts());
            self.turn(&mut Keep::default());
        }
    }

    /// The reason, in words.
    ///
    /// # Panics
    /// It never is.
    pub fn wait_until_missing(&mut self) -> String {
        match self.wait_until("missing", |_, health| *health != LinkHealth::Up) {
            LinkHealth::Missing(why) => why,
            LinkHealth::Up => unreachable!(),
        }
    }

    /// Offers a frame of the last lane, which is not a real-time one.
    pub fn send(&mut self, frame: &[u8]) -> SendOutcome {
        let outcome = self.link.send(PEER, lane_of(7), frame, (&[][..]).into());
        self.link.flush();
        outcome
    }

    /// Frames pass both ways. Where a frame `may_be_lost` it is sent again.
    ///
    /// # Panics
    /// None comes, or another, or from elsewhere.
    pub fn exchange(&mut self, round: u32, may_be_lost: bool) {
        let next = |address: &str| {
            let address: SocketAddr = address.parse().unwrap();
            SocketAddr::new(address.ip(), address.port() + 1)
        };
        let socket = self.hosts.kernel.inside(|| UdpSocket::bind(next(WORLD_PEER))).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (there, back) = (format!("there {round}"), format!("back {round}"));
        let (mut came, mut kept) = ([0; 100], Keep::default());
        if !may_be_lost {
            assert_eq!(self.send(there.as_bytes()), SendOutcome::Sent);
        }
        let end = Instant::now() + PATIENCE;
        let (from, len) = loop {
            if may_be_lost {
                let _ = self.send(there.as_bytes());
            }
            self.turn(&mut kept);
            match socket.recv_from(&mut came) {
                Ok((len, from)) => break (from, len),
                Err(_) => {
                    assert!(Instant::now() < end, "round {round}: nothing comes: {:?}", self.link.link_counts());
                }
            }
        };
        assert_eq!((&came[..len], from), (there.as_bytes(), next(WORLD_LINK)));
        socket.send_to(back.as_bytes(), from).unwrap();
        while !kept.0.iter().any(|arrival| arrival.bytes == back.as_bytes()) {
            assert!(Instant::now() < end, "round {round}: no answer comes: {:?}", kept.0);
            self.turn(&mut kept);
        }
    }
}

/// What a link has counted under this name.
///
/// # Panics
/// It counts nothing of that name.
#[must_use]
pub fn named<L: Link>(link: &L, name: &str) -> u64 {
    let counts = link.link_counts();
    let mut rows = counts.names().iter().zip(counts.values());
    *rows.find(|(given, _)| **given == name).unwrap_or_else(|| panic!("nothing is called {name}")).1
}

/// How many descriptors this process has open.
#[must_use]
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
