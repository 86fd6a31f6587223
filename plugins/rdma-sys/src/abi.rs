//! The structures of the two libraries, as their ABI has them (libibverbs 1, librdmacm 1): what
//! is used of them by name, the rest as room. `tests/abi.rs` compares them with the headers.

use libc::{c_int, c_uint, c_void, sockaddr_storage};
use std::mem::offset_of;

pub(crate) const EVENT_ADDR_RESOLVED: c_uint = 0;
pub(crate) const EVENT_ADDR_ERROR: c_uint = 1;
pub(crate) const EVENT_ROUTE_RESOLVED: c_uint = 2;
pub(crate) const EVENT_ROUTE_ERROR: c_uint = 3;
pub(crate) const EVENT_CONNECT_REQUEST: c_uint = 4;
pub(crate) const EVENT_CONNECT_ERROR: c_uint = 6;
pub(crate) const EVENT_UNREACHABLE: c_uint = 7;
pub(crate) const EVENT_REJECTED: c_uint = 8;
pub(crate) const EVENT_ESTABLISHED: c_uint = 9;
pub(crate) const EVENT_DISCONNECTED: c_uint = 10;
pub(crate) const EVENT_DEVICE_REMOVAL: c_uint = 11;

/// `RDMA_PS_TCP`: reliable connections.
pub(crate) const PORT_SPACE_TCP: c_uint = 0x0106;
/// `RDMA_OPTION_ID` and its options.
pub(crate) const OPTION_ID: c_int = 0;
pub(crate) const OPTION_ID_TOS: c_int = 0;
pub(crate) const OPTION_ID_REUSEADDR: c_int = 1;
pub(crate) const OPTION_ID_ACK_TIMEOUT: c_int = 3;

pub(crate) const ACCESS_LOCAL_WRITE: c_int = 1;
/// `IBV_QPT_RC`: reliable, connected.
pub(crate) const QP_RELIABLE: c_uint = 2;
/// `IBV_WR_SEND`.
pub(crate) const WORK_SEND: c_uint = 2;
pub(crate) const SEND_SIGNALED: c_uint = 1 << 1;
pub(crate) const SEND_INLINE: c_uint = 1 << 3;

/// Never looked into.
macro_rules! opaque {
    ($($name:ident)*) => {$(
        #[repr(C)]
        pub(crate) struct $name { _private: [u8; 0] }
    )*};
}
opaque!(Pd CqHead Srq);

type PollCq = unsafe extern "C" fn(*mut CqHead, c_int, *mut WorkDone) -> c_int;
type NotifyCq = unsafe extern "C" fn(*mut CqHead, c_int) -> c_int;
type PostSrq = unsafe extern "C" fn(*mut Srq, *mut ReceiveWork, *mut *mut ReceiveWork) -> c_int;
type PostSend = unsafe extern "C" fn(*mut QpHead, *mut SendWork, *mut *mut SendWork) -> c_int;

/// `ibv_context_ops`: 32 functions of the driver.
#[repr(C)]
pub(crate) struct ContextOps {
    before_poll: [*mut c_void; 11],
    pub(crate) poll_cq: Option<PollCq>,
    pub(crate) req_notify_cq: Option<NotifyCq>,
    before_srq: [*mut c_void; 7],
    pub(crate) post_srq_recv: Option<PostSrq>,
    before_send: [*mut c_void; 4],
    pub(crate) post_send: Option<PostSend>,
    rest: [*mut c_void; 6],
}

/// The beginning of `ibv_context`.
#[repr(C)]
pub(crate) struct Context {
    device: *mut c_void,
    pub(crate) ops: ContextOps,
}

/// `ibv_mr`.
#[repr(C)]
pub(crate) struct Mr {
    context: *mut c_void,
    pd: *mut c_void,
    addr: *mut c_void,
    length: usize,
    handle: u32,
    pub(crate) lkey: u32,
    rkey: u32,
}

/// `ibv_comp_channel`.
#[repr(C)]
pub(crate) struct CompChannel {
    context: *mut c_void,
    pub(crate) fd: c_int,
    refcnt: c_int,
}

/// The beginning of `ibv_qp`.
#[repr(C)]
pub(crate) struct QpHead {
    context: *mut c_void,
    qp_context: *mut c_void,
    pd: *mut c_void,
    send_cq: *mut c_void,
    recv_cq: *mut c_void,
    srq: *mut c_void,
    handle: u32,
    pub(crate) qp_num: u32,
}

/// `ibv_wc`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct WorkDone {
    pub(crate) wr_id: u64,
    pub(crate) status: c_uint,
    opcode: c_uint,
    vendor_err: u32,
    pub(crate) byte_len: u32,
    imm_data: u32,
    pub(crate) qp_num: u32,
    src_qp: u32,
    wc_flags: c_uint,
    pkey_index: u16,
    slid: u16,
    sl: u8,
    dlid_path_bits: u8,
}

/// `ibv_sge`.
#[repr(C)]
pub(crate) struct Piece {
    pub(crate) addr: u64,
    pub(crate) length: u32,
    pub(crate) lkey: u32,
}

/// `ibv_recv_wr`.
#[repr(C)]
pub(crate) struct ReceiveWork {
    pub(crate) wr_id: u64,
    pub(crate) next: *mut ReceiveWork,
    pub(crate) sg_list: *mut Piece,
    pub(crate) num_sge: c_int,
}

/// `ibv_send_wr`; nothing of its unions is used.
#[repr(C)]
pub(crate) struct SendWork {
    pub(crate) wr_id: u64,
    pub(crate) next: *mut SendWork,
    pub(crate) sg_list: *mut Piece,
    pub(crate) num_sge: c_int,
    pub(crate) opcode: c_uint,
    pub(crate) send_flags: c_uint,
    pub(crate) imm_data: u32,
    pub(crate) unions: [u64; 11],
}

/// `ibv_qp_cap`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct QpCap {
    pub(crate) max_send_wr: u32,
    pub(crate) max_recv_wr: u32,
    pub(crate) max_send_sge: u32,
    pub(crate) max_recv_sge: u32,
    pub(crate) max_inline_data: u32,
}

/// `ibv_qp_init_attr`.
#[repr(C)]
pub(crate) struct QpInit {
    pub(crate) qp_context: *mut c_void,
    pub(crate) send_cq: *mut CqHead,
    pub(crate) recv_cq: *mut CqHead,
    pub(crate) srq: *mut Srq,
    pub(crate) cap: QpCap,
    pub(crate) qp_type: c_uint,
    pub(crate) sq_sig_all: c_int,
}

/// `ibv_srq_init_attr`.
#[repr(C)]
pub(crate) struct SrqInit {
    pub(crate) srq_context: *mut c_void,
    pub(crate) max_wr: u32,
    pub(crate) max_sge: u32,
    pub(crate) srq_limit: u32,
}

/// `ibv_device_attr`.
#[repr(C)]
pub(crate) struct DeviceAttr {
    before_max_qp: [u64; 13],
    hw_ver_and_max_qp: [u32; 2],
    pub(crate) max_qp_wr: c_int,
    before_max_cqe: [u32; 4],
    pub(crate) max_cqe: c_int,
    before_max_srq: [u32; 19],
    pub(crate) max_srq: c_int,
    pub(crate) max_srq_wr: c_int,
    rest: [u32; 3],
}

/// `rdma_event_channel`.
#[repr(C)]
pub(crate) struct CmChannel {
    pub(crate) fd: c_int,
}

/// The beginning of `rdma_cm_id`.
#[repr(C)]
pub(crate) struct CmIdHead {
    pub(crate) verbs: *mut Context,
    channel: *mut CmChannel,
    pub(crate) context: *mut c_void,
    pub(crate) qp: *mut QpHead,
    pub(crate) src_addr: sockaddr_storage,
    pub(crate) dst_addr: sockaddr_storage,
}

/// `rdma_conn_param`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ConnParam {
    pub(crate) private_data: *const c_void,
    pub(crate) private_data_len: u8,
    pub(crate) responder_resources: u8,
    pub(crate) initiator_depth: u8,
    pub(crate) flow_control: u8,
    pub(crate) retry_count: u8,
    pub(crate) rnr_retry_count: u8,
    pub(crate) srq: u8,
    pub(crate) qp_num: u32,
}

/// The beginning of `rdma_cm_event`, as one of connections has it.
#[repr(C)]
pub(crate) struct CmEventHead {
    pub(crate) id: *mut CmIdHead,
    listen_id: *mut CmIdHead,
    pub(crate) event: c_uint,
    pub(crate) status: c_int,
    pub(crate) conn: ConnParam,
}

pub(crate) fn layout() -> Vec<(&'static str, usize)> {
    vec![
        ("sizeof(struct ibv_context_ops)", size_of::<ContextOps>()),
        ("sizeof(struct ibv_wc)", size_of::<WorkDone>()),
        ("sizeof(struct ibv_sge)", size_of::<Piece>()),
        ("sizeof(struct ibv_recv_wr)", size_of::<ReceiveWork>()),
        ("sizeof(struct ibv_send_wr)", size_of::<SendWork>()),
        ("sizeof(struct ibv_qp_init_attr)", size_of::<QpInit>()),
        ("sizeof(struct ibv_srq_init_attr)", size_of::<SrqInit>()),
        ("sizeof(struct ibv_device_attr)", size_of::<DeviceAttr>()),
        ("sizeof(struct rdma_conn_param)", size_of::<ConnParam>()),
        ("offsetof(struct ibv_context, ops.poll_cq)", offset_of!(Context, ops.poll_cq)),
        ("offsetof(struct ibv_context, ops.req_notify_cq)", offset_of!(Context, ops.req_notify_cq)),
        ("offsetof(struct ibv_context, ops.post_srq_recv)", offset_of!(Context, ops.post_srq_recv)),
        ("offsetof(struct ibv_context, ops.post_send)", offset_of!(Context, ops.post_send)),
        ("offsetof(struct ibv_mr, lkey)", offset_of!(Mr, lkey)),
        ("offsetof(struct ibv_comp_channel, fd)", offset_of!(CompChannel, fd)),
        ("offsetof(struct ibv_qp, qp_num)", offset_of!(QpHead, qp_num)),
        ("offsetof(struct ibv_wc, status)", offset_of!(WorkDone, status)),
        ("offsetof(struct ibv_wc, byte_len)", offset_of!(WorkDone, byte_len)),
        ("offsetof(struct ibv_wc, qp_num)", offset_of!(WorkDone, qp_num)),
        ("offsetof(struct ibv_send_wr, send_flags)", offset_of!(SendWork, send_flags)),
        ("offsetof(struct ibv_qp_init_attr, cap)", offset_of!(QpInit, cap)),
        ("offsetof(struct ibv_qp_init_attr, qp_type)", offset_of!(QpInit, qp_type)),
        ("offsetof(struct ibv_srq_init_attr, attr.max_wr)", offset_of!(SrqInit, max_wr)),
        ("offsetof(struct ibv_device_attr, max_qp_wr)", offset_of!(DeviceAttr, max_qp_wr)),
        ("offsetof(struct ibv_device_attr, max_cqe)", offset_of!(DeviceAttr, max_cqe)),
        ("offsetof(struct ibv_device_attr, max_srq_wr)", offset_of!(DeviceAttr, max_srq_wr)),
        ("offsetof(struct rdma_event_channel, fd)", offset_of!(CmChannel, fd)),
        ("offsetof(struct rdma_cm_id, verbs)", offset_of!(CmIdHead, verbs)),
        ("offsetof(struct rdma_cm_id, context)", offset_of!(CmIdHead, context)),
        ("offsetof(struct rdma_cm_id, qp)", offset_of!(CmIdHead, qp)),
        ("offsetof(struct rdma_cm_id, route.addr.src_addr)", offset_of!(CmIdHead, src_addr)),
        ("offsetof(struct rdma_cm_id, route.addr.dst_addr)", offset_of!(CmIdHead, dst_addr)),
        ("offsetof(struct rdma_cm_event, event)", offset_of!(CmEventHead, event)),
        ("offsetof(struct rdma_cm_event, param.conn)", offset_of!(CmEventHead, conn)),
        ("offsetof(struct rdma_conn_param, rnr_retry_count)", offset_of!(ConnParam, rnr_retry_count)),
        ("offsetof(struct rdma_conn_param, qp_num)", offset_of!(ConnParam, qp_num)),
        ("IBV_ACCESS_LOCAL_WRITE", ACCESS_LOCAL_WRITE as usize),
        ("IBV_QPT_RC", QP_RELIABLE as usize),
        ("IBV_WR_SEND", WORK_SEND as usize),
        ("IBV_SEND_SIGNALED", SEND_SIGNALED as usize),
        ("IBV_SEND_INLINE", SEND_INLINE as usize),
        ("IBV_WC_SUCCESS", 0),
        ("RDMA_PS_TCP", PORT_SPACE_TCP as usize),
        ("RDMA_OPTION_ID", OPTION_ID as usize),
        ("RDMA_OPTION_ID_TOS", OPTION_ID_TOS as usize),
        ("RDMA_OPTION_ID_REUSEADDR", OPTION_ID_REUSEADDR as usize),
        ("RDMA_OPTION_ID_ACK_TIMEOUT", OPTION_ID_ACK_TIMEOUT as usize),
        ("RDMA_CM_EVENT_ADDR_RESOLVED", EVENT_ADDR_RESOLVED as usize),
        ("RDMA_CM_EVENT_ADDR_ERROR", EVENT_ADDR_ERROR as usize),
        ("RDMA_CM_EVENT_ROUTE_RESOLVED", EVENT_ROUTE_RESOLVED as usize),
        ("RDMA_CM_EVENT_ROUTE_ERROR", EVENT_ROUTE_ERROR as usize),
        ("RDMA_CM_EVENT_CONNECT_REQUEST", EVENT_CONNECT_REQUEST as usize),
        ("RDMA_CM_EVENT_CONNECT_ERROR", EVENT_CONNECT_ERROR as usize),
        ("RDMA_CM_EVENT_UNREACHABLE", EVENT_UNREACHABLE as usize),
        ("RDMA_CM_EVENT_REJECTED", EVENT_REJECTED as usize),
        ("RDMA_CM_EVENT_ESTABLISHED", EVENT_ESTABLISHED as usize),
        ("RDMA_CM_EVENT_DISCONNECTED", EVENT_DISCONNECTED as usize),
        ("RDMA_CM_EVENT_DEVICE_REMOVAL", EVENT_DEVICE_REMOVAL as usize),
    ]
}
