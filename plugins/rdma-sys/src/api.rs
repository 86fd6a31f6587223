//! The functions of both libraries.

use crate::VerbsError;
use crate::abi::{CmChannel, CmEventHead, CmIdHead, CompChannel, ConnParam, Context, CqHead, DeviceAttr, Mr, Pd};
use crate::abi::{QpInit, Srq, SrqInit};
use libc::{c_int, c_uint, c_void, sockaddr};
use libloading::Library;
use std::sync::OnceLock;

const VERBS: (&str, &str) = ("libibverbs.so.1", "libibverbs1 ibverbs-providers");
const CM: (&str, &str) = ("librdmacm.so.1", "librdmacm1");

macro_rules! functions {
    ($($library:ident { $($name:ident($($argument:ty),*) $(-> $answer:ty)?;)* })*) => {
        /// Function pointers that stay valid, since the libraries are never unloaded.
        pub(crate) struct Api {
            $($(pub(crate) $name: unsafe extern "C" fn($($argument),*) $(-> $answer)?,)*)*
            _libraries: [Library; 2],
        }

        fn open() -> Result<Api, VerbsError> {
            let (verbs, cm) = (library(VERBS)?, library(CM)?);
            Ok(Api {
                $($($name: {
                    let (library, name) = functions!(@ $library verbs cm);
                    let symbol = concat!(stringify!($name), "\0");
                    // SAFETY: the type is that of this function in the library's ABI.
                    let found = unsafe { library.get::<unsafe extern "C" fn($($argument),*) $(-> $answer)?>(symbol.as_bytes()) };
                    *found.map_err(|error| absent(name, &error))?
                },)*)*
                _libraries: [verbs, cm],
            })
        }
    };
    (@ verbs $verbs:ident $cm:ident) => { (&$verbs, VERBS) };
    (@ cm $verbs:ident $cm:ident) => { (&$cm, CM) };
}

functions! {
    verbs {
        ibv_query_device(*mut Context, *mut DeviceAttr) -> c_int;
        ibv_alloc_pd(*mut Context) -> *mut Pd;
        ibv_dealloc_pd(*mut Pd) -> c_int;
        ibv_reg_mr(*mut Pd, *mut c_void, usize, c_int) -> *mut Mr;
        ibv_dereg_mr(*mut Mr) -> c_int;
        ibv_create_comp_channel(*mut Context) -> *mut CompChannel;
        ibv_destroy_comp_channel(*mut CompChannel) -> c_int;
        ibv_create_cq(*mut Context, c_int, *mut c_void, *mut CompChannel, c_int) -> *mut CqHead;
        ibv_destroy_cq(*mut CqHead) -> c_int;
        ibv_get_cq_event(*mut CompChannel, *mut *mut CqHead, *mut *mut c_void) -> c_int;
        ibv_ack_cq_events(*mut CqHead, c_uint);
        ibv_create_srq(*mut Pd, *mut SrqInit) -> *mut Srq;
        ibv_destroy_srq(*mut Srq) -> c_int;
    }
    cm {
        rdma_create_event_channel() -> *mut CmChannel;
        rdma_destroy_event_channel(*mut CmChannel);
        rdma_create_id(*mut CmChannel, *mut *mut CmIdHead, *mut c_void, c_uint) -> c_int;
        rdma_destroy_id(*mut CmIdHead) -> c_int;
        rdma_bind_addr(*mut CmIdHead, *mut sockaddr) -> c_int;
        rdma_resolve_addr(*mut CmIdHead, *mut sockaddr, *mut sockaddr, c_int) -> c_int;
        rdma_resolve_route(*mut CmIdHead, c_int) -> c_int;
        rdma_create_qp(*mut CmIdHead, *mut Pd, *mut QpInit) -> c_int;
        rdma_destroy_qp(*mut CmIdHead);
        rdma_connect(*mut CmIdHead, *mut ConnParam) -> c_int;
        rdma_listen(*mut CmIdHead, c_int) -> c_int;
        rdma_accept(*mut CmIdHead, *mut ConnParam) -> c_int;
        rdma_reject(*mut CmIdHead, *const c_void, u8) -> c_int;
        rdma_disconnect(*mut CmIdHead) -> c_int;
        rdma_get_cm_event(*mut CmChannel, *mut *mut CmEventHead) -> c_int;
        rdma_ack_cm_event(*mut CmEventHead) -> c_int;
        rdma_set_option(*mut CmIdHead, c_int, c_int, *mut c_void, usize) -> c_int;
        rdma_get_src_port(*mut CmIdHead) -> u16;
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

fn library(name: (&'static str, &'static str)) -> Result<Library, VerbsError> {
    // SAFETY: both libraries' initialisers only set up the library itself.
    unsafe { Library::new(name.0) }.map_err(|error| absent(name, &error))
}

fn absent((library, package): (&'static str, &'static str), error: &libloading::Error) -> VerbsError {
    VerbsError::Absent { library, package, reason: error.to_string() }
}

/// Both libraries, loaded once; looked for again if they were missing.
pub(crate) fn load() -> Result<&'static Api, VerbsError> {
    static API: OnceLock<Api> = OnceLock::new();
    match API.get() {
        Some(api) => Ok(api),
        // Two threads may load them at once: the loader counts, and one of both is kept.
        None => open().map(|api| API.get_or_init(|| api)),
    }
}
