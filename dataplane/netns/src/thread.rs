//! Work on a thread that is thrown away. Making and entering namespaces moves the calling thread, and the netlink runtime must
//! not start inside a caller's; on a thread of its own neither can touch the caller, whatever fails.

use crate::NetError;

/// Runs `work` on a new thread and waits for it; a panic goes on in the caller.
pub(crate) fn run<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, NetError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| NetError::kernel("starting the thread", name, error))?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
