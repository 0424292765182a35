//! The controllers themselves, through libbpf.

use std::{
    cell::RefCell,
    ffi::OsStr,
    sync::atomic::{AtomicU8, Ordering},
};

use libbpf_rs::{
    ErrorKind, Link, MapCore, MapFlags, Object, ObjectBuilder, OpenObject, PrintLevel, ProgramInput, set_print,
};

use super::{DctcpAck, DctcpRecovery, DctcpState, DctcpTotals};
use crate::{HostError, error::MEND_NOT_ALLOWED};

/// Built by `scripts/build-cc`; `ebpf/cc/MANIFEST` says from what and by what.
const OBJECT: &[u8] = include_bytes!("../../../cc/dctcp.o");
/// What stands in the object where the name belongs.
const PLACEHOLDER: &[u8] = b"placeholder\0";
/// TCP_CA_NAME_MAX, include/uapi/linux/tcp.h, without the zero at its end.
const NAME_BYTES_MAX: usize = 15;
/// The struct_ops map and the one step of the arithmetic, as dctcp.bpf.c calls them.
const OPS: &str = "dctcp";
const STEP: &str = "dctcp_step";

/// DCTCP, registered with the kernel until this is dropped or the process ends.
#[derive(Debug)]
pub struct Dctcp {
    /// Before the object: what is registered goes first.
    _link: Link,
    object: Object,
    name: String,
}

impl Dctcp {
    /// Registers it, under a name that no other process and no other call has.
    ///
    /// # Errors
    /// A missing privilege, a kernel without struct_ops or without types of its own (CONFIG_DEBUG_INFO_BTF), or one whose verifier
    /// refuses it.
    pub fn load() -> Result<Dctcp, HostError> {
        let mut open = open()?;
        let name = unique_name();
        for mut map in open.maps_mut().filter(|map| map.name() == OsStr::new(OPS)) {
            let value = map.initial_value_mut().ok_or_else(|| damaged("has no operations"))?;
            let at = value
                .windows(PLACEHOLDER.len())
                .position(|window| window == PLACEHOLDER)
                .ok_or_else(|| damaged("has no name to be replaced"))?;
            // The name's field is 16 bytes long and zero behind the placeholder.
            value[at..at + PLACEHOLDER.len()].fill(0);
            value[at..at + name.len()].copy_from_slice(name.as_bytes());
        }
        let mut object = load(open)?;
        let mut ops = object
            .maps_mut()
            .find(|map| map.name() == OsStr::new(OPS))
            .ok_or_else(|| damaged("has no operations"))?;
        let link = heard(|| ops.attach_struct_ops())
            .map_err(|(error, log)| refusal("registering the congestion controller", &error, log))?;
        Ok(Dctcp {
            _link: link,
            object,
            name,
        })
    }

    /// Its name for `TCP_CONGESTION`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its connections saw so far.
    ///
    /// # Errors
    /// The kernel did not let its map be read.
    pub fn totals(&self) -> Result<DctcpTotals, HostError> {
        // The map of zeroed globals; libbpf puts the object's name before it.
        let totals = self
            .object
            .maps()
            .find(|map| map.name().as_encoded_bytes().ends_with(b".bss"))
            .ok_or_else(|| damaged("has no totals"))?;
        let bytes = totals
            .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| refusal("reading the controller's totals", &error, String::new()))?
            .ok_or_else(|| damaged("has no totals"))?;
        let word = |index: usize| {
            let at = bytes.get(8 * index..8 * index + 8);
            at.map_or(0, |bytes| u64::from_ne_bytes(bytes.try_into().expect("eight bytes")))
        };
        Ok(DctcpTotals {
            acks_count: word(0),
            marked_acks_count: word(1),
            mark_reductions_count: word(2),
            loss_reductions_count: word(3),
            ce_segments_count: word(4),
            taken_back_count: word(5),
        })
    }
}

/// The controller's arithmetic, run by the kernel on numbers that the caller makes up: no connection, nothing registered.
#[derive(Debug)]
pub struct DctcpReplay {
    object: Object,
    step: Step,
}

impl DctcpReplay {
    /// A connection that begins with `window_segments` at sequence number 0.
    ///
    /// # Errors
    /// As [`Dctcp::load`].
    pub fn begin(window_segments: u32) -> Result<DctcpReplay, HostError> {
        let mut open = open()?;
        for mut map in open.maps_mut().filter(|map| map.name() == OsStr::new(OPS)) {
            map.set_autocreate(false)
                .map_err(|error| refusal("loading the controller's arithmetic", &error, String::new()))?;
        }
        for mut program in open.progs_mut().filter(|program| program.name() != OsStr::new(STEP)) {
            program.set_autoload(false);
        }
        let mut step = Step([0; Step::BYTES]);
        step.set(Step::CWND, window_segments);
        step.set(Step::BEGINS, 1);
        Ok(DctcpReplay {
            object: load(open)?,
            step,
        })
    }

    /// Works an ack in.
    ///
    /// # Errors
    /// The kernel did not run the program.
    pub fn ack(&mut self, ack: &DctcpAck) -> Result<DctcpState, HostError> {
        let step = &mut self.step;
        step.0[Step::ACKED_BYTES..Step::ACKED_BYTES + 8].copy_from_slice(&ack.acked_bytes.to_ne_bytes());
        // enum tcp_ca_state, include/uapi/linux/tcp.h.
        let state = match ack.recovery {
            DctcpRecovery::Open => 0,
            DctcpRecovery::Recovery => 3,
            DctcpRecovery::Loss => 4,
        };
        let words = [
            ack.una,
            ack.nxt,
            ack.delivered_segments,
            ack.delivered_segments,
            ack.in_flight_segments,
            ack.packets_out_max,
            ack.prr_out_segments,
            state,
            ack.is_marked.into(),
        ];
        for (index, word) in words.into_iter().enumerate() {
            step.set(Step::ACK_WORDS + 4 * index, word);
        }
        let program = self
            .object
            .progs_mut()
            .find(|program| program.name() == OsStr::new(STEP))
            .ok_or_else(|| damaged("has no arithmetic"))?;
        program
            .test_run(ProgramInput {
                context_in: Some(&mut step.0),
                ..ProgramInput::default()
            })
            .map_err(|error| refusal("running the controller's arithmetic", &error, String::new()))?;
        step.set(Step::BEGINS, 0);
        Ok(DctcpState {
            window_segments: step.get(Step::WINDOW),
            ssthresh_segments: step.get(Step::SSTHRESH),
            alpha: step.get(Step::ALPHA),
        })
    }
}

/// `struct step` of dctcp.bpf.c.
#[derive(Debug)]
struct Step([u8; Step::BYTES]);

impl Step {
    /// `struct dctcp` ca: 72 bytes, cwnd first.
    const CWND: usize = 0;
    const SSTHRESH: usize = 4;
    const ALPHA: usize = 12;
    /// `struct ack`: 48 bytes, of which the last four are nothing.
    const ACKED_BYTES: usize = 72;
    const ACK_WORDS: usize = 80;
    const BEGINS: usize = 120;
    const WINDOW: usize = 124;
    const BYTES: usize = 128;

    fn set(&mut self, at: usize, word: u32) {
        self.0[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }

    fn get(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }
}

/// "dctcp_PID_N" in hexadecimal: the largest process id is 2^22 (PID_MAX_LIMIT, include/linux/threads.h), so it fits with two digits
/// for N; two live ones of the same number would need 256 between them.
fn unique_name() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let name = format!(
        "dctcp_{:x}_{:x}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    assert!(name.len() <= NAME_BYTES_MAX, "{name} is too long for the kernel");
    name
}

fn open() -> Result<OpenObject, HostError> {
    heard(|| ObjectBuilder::default().open_memory(OBJECT))
        .map_err(|(error, log)| refusal("opening the congestion controller", &error, log))
}

fn load(open: OpenObject) -> Result<Object, HostError> {
    heard(|| open.load()).map_err(|(error, log)| refusal("loading the congestion controller", &error, log))
}

fn damaged(what: &str) -> HostError {
    HostError::Controller {
        operation: "reading ebpf/cc/dctcp.o",
        error: format!("the object {what}: run scripts/build-cc"),
        log_tail: String::new(),
    }
}

fn refusal(operation: &'static str, error: &libbpf_rs::Error, log: String) -> HostError {
    // The verifier says no with the same number as the kernel to whom it does not know; it then says why.
    let is_privilege = error.kind() == ErrorKind::PermissionDenied && !log.contains("PROG LOAD LOG");
    let mend = match is_privilege {
        true => format!("; {MEND_NOT_ALLOWED}"),
        false => String::new(),
    };
    HostError::Controller {
        operation,
        error: format!("{error}{mend}"),
        log_tail: log,
    }
}

/// Last lines of what libbpf said that an error repeats.
const LOG_LINES_MAX: usize = 12;

thread_local! {
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `work`, keeps off stderr what libbpf says meanwhile, and gives the end of it with an error.
fn heard<T>(work: impl FnOnce() -> libbpf_rs::Result<T>) -> Result<T, (libbpf_rs::Error, String)> {
    fn listen(_level: PrintLevel, text: String) {
        SAID.with_borrow_mut(|said| said.push_str(&text));
    }
    set_print(Some((PrintLevel::Warn, listen)));
    SAID.with_borrow_mut(String::clear);
    work().map_err(|error| {
        let said = SAID.take();
        let lines: Vec<&str> = said.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES_MAX)..];
        (error, tail.join("\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_one_and_names_are_unique() {
        assert!(
            OBJECT.starts_with(b"\x7fELF"),
            "dctcp.o is no ELF object: run scripts/build-cc"
        );
        let (one, other) = (unique_name(), unique_name());
        assert_ne!(one, other);
        assert!(one.starts_with(&format!("dctcp_{:x}_", std::process::id())));
    }
}
