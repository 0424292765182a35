//! The verilated models, as C++ objects behind a handful of functions each. The only unsafe code of the test benches; what
//! `build.rs` generates declares those functions and is included at the end.

use std::{
    env,
    ffi::{CString, c_char, c_void},
    fs,
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Words of the widest port.
const WORDS_MAX: usize = 64;

/// What a top's C++ side offers. Ports are numbered as in the generated header.
struct Functions {
    new: unsafe extern "C" fn(u32, *const c_char) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    eval: unsafe extern "C" fn(*mut c_void),
    set: unsafe extern "C" fn(*mut c_void, u32, *const u32),
    get: unsafe extern "C" fn(*const c_void, u32, *mut u32),
}

/// A verilated model. It has a context of its own, so that models of two threads share nothing; it stays on its thread.
struct Model {
    raw: *mut c_void,
    functions: Functions,
}

impl Model {
    fn new(name: &str, seed: u32, functions: Functions) -> Model {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = env::var_os("FPGA_TRACE").unwrap_or_default();
        // A model says nothing of a file that it cannot write.
        if !folder.is_empty()
            && let Err(error) = fs::create_dir_all(&folder)
        {
            panic!("FPGA_TRACE: the folder {folder:?} for waves cannot be made: {error}");
        }
        let file = format!("{name}-{}-{}.vcd", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(&folder).join(file);
        let path = CString::new(path.into_os_string().into_encoded_bytes()).expect("a path has no zero byte");
        // SAFETY: the path is a C string that outlives the call, and the function is this top's constructor.
        let raw = unsafe { (functions.new)(seed, path.as_ptr()) };
        Model { raw, functions }
    }

    fn eval(&mut self) {
        // SAFETY: `raw` came from this top's constructor and is freed in `drop` alone.
        unsafe { (self.functions.eval)(self.raw) }
    }

    fn set(&mut self, port: u32, words: &[u32]) {
        // SAFETY: as in `eval`; the generated callers pass as many words as the port of that number reads.
        unsafe { (self.functions.set)(self.raw, port, words.as_ptr()) }
    }

    fn get(&self, port: u32, words: &mut [u32]) {
        assert!(words.len() <= WORDS_MAX, "no port has {} words", words.len());
        // SAFETY: as in `eval`; the generated callers pass room for as many words as the port of that number writes.
        unsafe { (self.functions.get)(self.raw, port, words.as_mut_ptr()) }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: as in `eval`; nobody uses it afterwards.
        unsafe { (self.functions.free)(self.raw) }
    }
}

include!(concat!(env!("OUT_DIR"), "/rtl.rs"));
