//! The library itself: opened once, its functions looked up by name.
#![allow(
    unsafe_code,
    reason = "functions found by name have the signatures that the header gives them, which nothing but this file says"
)]

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    mem,
    sync::OnceLock,
};

use crate::layout::{
    ibv_comp_channel, ibv_context, ibv_cq, ibv_device, ibv_device_attr, ibv_gid, ibv_mr, ibv_mw, ibv_pd, ibv_qp,
    ibv_qp_attr, ibv_qp_init_attr, ibv_recv_wr, ibv_send_wr, ibv_wc,
};

/// The name under which every distribution installs it, without a -dev package.
const FILE: &CStr = c"libibverbs.so.1";

/// Why there is no library.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not installed, or the loader refuses it.
    #[error("{said}; apt-get install libibverbs1 ibverbs-providers")]
    Open {
        /// What the loader said.
        said: String,
    },
    /// It is too old, or something else by that name.
    #[error("libibverbs.so.1 has no {name}: rdma-core 26 or newer is needed")]
    Symbol {
        /// Which function.
        name: &'static str,
    },
}

macro_rules! library {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// libibverbs' functions, each as its header declares it. It stays open for good: its drivers do not like to be unloaded.
        #[derive(Debug)]
        #[allow(missing_docs, reason = "the functions are the header's, where they are explained")]
        pub struct Library {
            $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Library {
            fn resolve(handle: *mut c_void) -> Result<Library, LoadError> {
                Ok(Library {
                    $($name: {
                        let address = symbol(handle, concat!(stringify!($name), "\0"))?;
                        // SAFETY: the library's function of this name has this signature (infiniband/verbs.h; its versions
                        // change what a function does to its arguments only together with the library's file name).
                        unsafe { mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(address) }
                    },)*
                })
            }
        }
    };
}

library! {
    ibv_get_device_list(*mut c_int) -> *mut *mut ibv_device;
    ibv_free_device_list(*mut *mut ibv_device);
    ibv_get_device_name(*mut ibv_device) -> *const c_char;
    ibv_open_device(*mut ibv_device) -> *mut ibv_context;
    ibv_close_device(*mut ibv_context) -> c_int;
    ibv_query_device(*mut ibv_context, *mut ibv_device_attr) -> c_int;
    ibv_query_gid(*mut ibv_context, u8, c_int, *mut ibv_gid) -> c_int;
    ibv_alloc_pd(*mut ibv_context) -> *mut ibv_pd;
    ibv_dealloc_pd(*mut ibv_pd) -> c_int;
    ibv_reg_mr_iova(*mut ibv_pd, *mut c_void, usize, u64, c_int) -> *mut ibv_mr;
    ibv_dereg_mr(*mut ibv_mr) -> c_int;
    ibv_create_comp_channel(*mut ibv_context) -> *mut ibv_comp_channel;
    ibv_destroy_comp_channel(*mut ibv_comp_channel) -> c_int;
    ibv_get_cq_event(*mut ibv_comp_channel, *mut *mut ibv_cq, *mut *mut c_void) -> c_int;
    ibv_ack_cq_events(*mut ibv_cq, u32);
    ibv_create_cq(*mut ibv_context, c_int, *mut c_void, *mut ibv_comp_channel, c_int) -> *mut ibv_cq;
    ibv_destroy_cq(*mut ibv_cq) -> c_int;
    ibv_create_qp(*mut ibv_pd, *mut ibv_qp_init_attr) -> *mut ibv_qp;
    ibv_modify_qp(*mut ibv_qp, *mut ibv_qp_attr, c_int) -> c_int;
    ibv_query_qp(*mut ibv_qp, *mut ibv_qp_attr, c_int, *mut ibv_qp_init_attr) -> c_int;
    ibv_destroy_qp(*mut ibv_qp) -> c_int;
}

/// `name` ends with a zero byte.
fn symbol(handle: *mut c_void, name: &'static str) -> Result<*mut c_void, LoadError> {
    // SAFETY: `handle` is an open library's, and `name` ends with a zero byte.
    let address = unsafe { libc::dlsym(handle, name.as_ptr().cast()) };
    match address.is_null() {
        true => Err(LoadError::Symbol {
            name: name.trim_end_matches('\0'),
        }),
        false => Ok(address),
    }
}

impl Library {
    /// The library, opened when it is first asked for.
    ///
    /// # Errors
    /// It is not here, or lacks something; that does not change while the process lives.
    pub fn get() -> Result<&'static Library, LoadError> {
        static LIBRARY: OnceLock<Result<Library, LoadError>> = OnceLock::new();
        LIBRARY.get_or_init(|| open(FILE)).as_ref().map_err(Clone::clone)
    }

    /// `ibv_alloc_mw` of the header; `None`: the device's driver has no such call.
    ///
    /// # Safety
    /// As there: a live protection domain.
    pub unsafe fn alloc_mw(&self, pd: *mut ibv_pd, kind: c_uint) -> Option<*mut ibv_mw> {
        // SAFETY: the caller's domain is alive, so its context is, and that has its driver's table.
        let call = unsafe { (*(*pd).context).ops.alloc_mw };
        // SAFETY: as the caller says.
        call.map(|call| unsafe { call(pd, kind) })
    }

    /// `ibv_dealloc_mw` of the header.
    ///
    /// # Safety
    /// As there: a live memory window, which is none afterwards.
    pub unsafe fn dealloc_mw(&self, mw: *mut ibv_mw) -> c_int {
        // SAFETY: the caller's window is alive, so its context is, and that has its driver's table.
        let call = unsafe { (*(*mw).context).ops.dealloc_mw };
        // SAFETY: as the caller says.
        call.map_or(libc::ENOSYS, |call| unsafe { call(mw) })
    }

    /// `ibv_post_send` of the header.
    ///
    /// # Safety
    /// As there: a live queue pair, work requests that are whole, memory that stays registered or, inline, readable.
    pub unsafe fn post_send(&self, qp: *mut ibv_qp, wr: *mut ibv_send_wr, bad: *mut *mut ibv_send_wr) -> c_int {
        // SAFETY: the caller's queue pair is alive, so its context is, and that has its driver's table.
        let call = unsafe { (*(*qp).context).ops.post_send };
        // SAFETY: as the caller says.
        call.map_or(libc::ENOSYS, |call| unsafe { call(qp, wr, bad) })
    }

    /// `ibv_post_recv` of the header.
    ///
    /// # Safety
    /// As [`Library::post_send`].
    pub unsafe fn post_recv(&self, qp: *mut ibv_qp, wr: *mut ibv_recv_wr, bad: *mut *mut ibv_recv_wr) -> c_int {
        // SAFETY: as in `post_send`.
        let call = unsafe { (*(*qp).context).ops.post_recv };
        // SAFETY: as the caller says.
        call.map_or(libc::ENOSYS, |call| unsafe { call(qp, wr, bad) })
    }

    /// `ibv_poll_cq` of the header.
    ///
    /// # Safety
    /// A live completion queue, and room for `count` completions.
    pub unsafe fn poll_cq(&self, cq: *mut ibv_cq, count: c_int, into: *mut ibv_wc) -> c_int {
        // SAFETY: the caller's completion queue is alive, so its context is, and that has its driver's table.
        let call = unsafe { (*(*cq).context).ops.poll_cq };
        // SAFETY: as the caller says.
        call.map_or(-1, |call| unsafe { call(cq, count, into) })
    }

    /// `ibv_req_notify_cq` of the header.
    ///
    /// # Safety
    /// A live completion queue that has a channel.
    pub unsafe fn req_notify_cq(&self, cq: *mut ibv_cq, solicited_only: c_int) -> c_int {
        // SAFETY: as in `poll_cq`.
        let call = unsafe { (*(*cq).context).ops.req_notify_cq };
        // SAFETY: as the caller says.
        call.map_or(libc::ENOSYS, |call| unsafe { call(cq, solicited_only) })
    }
}

fn open(file: &CStr) -> Result<Library, LoadError> {
    // SAFETY: the name ends with a zero byte; what runs when the library is loaded is the library's own and its drivers'.
    let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        // SAFETY: no argument; the answer is null or text of the loader's, copied before anything else can replace it.
        let said = unsafe {
            let said = libc::dlerror();
            match said.is_null() {
                true => String::from("libibverbs.so.1 does not open"),
                false => CStr::from_ptr(said).to_string_lossy().into_owned(),
            }
        };
        return Err(LoadError::Open { said });
    }
    Library::resolve(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_says_its_name_and_what_to_install() {
        let said = open(c"libibverbs-of-nobody.so.1").unwrap_err().to_string();
        assert!(said.contains("libibverbs-of-nobody.so.1"), "{said}");
        assert!(said.contains("apt-get install libibverbs1"), "{said}");
    }

    #[test]
    fn another_library_is_told_by_what_it_lacks() {
        let said = open(c"libc.so.6").unwrap_err().to_string();
        assert!(said.starts_with("libibverbs.so.1 has no ibv_get_device_list"), "{said}");
    }

    #[test]
    fn here_it_has_every_function_or_says_what_is_missing() {
        match Library::get() {
            Ok(_) => {}
            Err(LoadError::Open { said }) => eprintln!("skipped: {said}"),
            Err(error) => panic!("{error}"),
        }
    }
}
