//! Setting up an io_uring: what a ring is asked to be, and the best that this kernel makes of it.

use std::io;

use io_uring::IoUring;

/// Who runs the kernel's half of a completion, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskWork {
    /// The submitting thread, when it enters to wait (IORING_SETUP_SINGLE_ISSUER | DEFER_TASKRUN, Linux 6.1).
    Deferred,
    /// The submitting thread, at its next system call (IORING_SETUP_COOP_TASKRUN, Linux 5.19).
    Cooperative,
    /// The submitting thread, interrupted for it (before Linux 5.19).
    Interrupting,
    /// The kernel's own thread (IORING_SETUP_SQPOLL).
    SubmissionThread,
}

/// What a ring is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingConfig {
    /// Sends that may be queued or in flight; at most 4096.
    pub(crate) tx_slots_count: u16,
    /// Receive buffers; a power of two, at most 32768.
    pub(crate) buffers_count: u16,
    /// The longest payload that is received or sent whole.
    pub(crate) payload_bytes_max: usize,
    /// Rows in the table of addresses.
    pub(crate) addresses_max: usize,
    /// The socket is connected: no addresses in or out.
    pub(crate) connected: bool,
    /// SEND_ZC from registered memory.
    pub(crate) zero_copy: bool,
    /// A kernel thread that polls the submission queue, and sleeps after so many idle milliseconds.
    pub(crate) sqpoll_idle_ms: Option<u32>,
    /// Busy polling of the device's queue while waiting.
    pub(crate) napi_us: Option<u32>,
}

/// The best ring that this kernel takes. Older kernels refuse newer flags with EINVAL.
pub(super) fn build(config: &RingConfig, sq_entries: u32, cq_entries: u32) -> io::Result<(IoUring, TaskWork)> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(cq_entries).setup_submit_all().setup_r_disabled();
    if let Some(idle_ms) = config.sqpoll_idle_ms {
        let uring = builder.setup_sqpoll(idle_ms).build(sq_entries)?;
        return Ok((uring, TaskWork::SubmissionThread));
    }
    let mut deferred = builder.clone();
    deferred
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag();
    let mut without_array = deferred.clone();
    without_array.setup_no_sqarray();
    let mut cooperative = builder.clone();
    cooperative.setup_coop_taskrun().setup_taskrun_flag();

    let ladder = [
        (without_array, TaskWork::Deferred),
        (deferred, TaskWork::Deferred),
        (cooperative, TaskWork::Cooperative),
        (builder, TaskWork::Interrupting),
    ];
    let mut refused = None;
    for (builder, task_work) in ladder {
        match builder.build(sq_entries) {
            Ok(uring) => return Ok((uring, task_work)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(refused.expect("the ladder is not empty"))
}
