//! XDP programs of somebody else's making: shown to the verifier, and run on single packets. They are attached to nothing:
//! what this crate puts on an interface is its own programs, which pass what is not ours.

use std::{io, num::NonZeroU32};

use crate::{
    HostError, TestRun,
    error::{errno, io_error},
    load::{run_on, tail},
};
use aya::{
    EbpfLoader,
    programs::{ProgramError, Xdp},
};

/// A program that the verifier has accepted, out of an object that this crate does not know. Dropping it frees it.
#[derive(Debug)]
pub struct Foreign {
    ebpf: aya::Ebpf,
    function: String,
}

impl Foreign {
    /// Loads `function` out of the ELF object `object`: it must stand in a section `xdp`.
    ///
    /// # Errors
    /// [`HostError::ForeignRefused`], with the end of the verifier's log; [`HostError::ForeignObject`] for an object in which
    /// there is no such function; no BPF, not allowed.
    ///
    /// # Panics
    /// Only if the object is malformed in a way that the parser of aya does not foresee, as with a symbol that reaches beyond its
    /// section: what a linker writes is not.
    pub fn load(object: &[u8], function: &str) -> Result<Foreign, HostError> {
        let ebpf = EbpfLoader::new().load(object).map_err(|error| {
            let io = io_error(&error);
            match errno(&io) {
                Some(_) => HostError::kernel(format!("making the maps of {function}"), io),
                None => HostError::ForeignObject {
                    function: function.to_owned(),
                    why: io.to_string(),
                },
            }
        })?;
        let mut foreign = Foreign {
            ebpf,
            function: function.to_owned(),
        };
        let missing = foreign.no_function();
        let found = foreign.ebpf.program_mut(function);
        let xdp: &mut Xdp = found.and_then(|program| program.try_into().ok()).ok_or(missing)?;
        xdp.load().map_err(|error| verifying(function, error))?;
        Ok(foreign)
    }

    /// As [`Loaded::test_run`](crate::Loaded::test_run).
    ///
    /// # Errors
    /// As there.
    pub fn test_run(&self, frame: &[u8]) -> Result<TestRun, HostError> {
        let found = self.ebpf.program(&self.function);
        let xdp: &Xdp = found
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| self.no_function())?;
        let mut data = vec![0; frame.len()];
        let result = run_on(xdp, &self.function, frame, &mut data, NonZeroU32::MIN)?;
        Ok(TestRun::new(&result, data))
    }

    fn no_function(&self) -> HostError {
        HostError::ForeignObject {
            function: self.function.clone(),
            why: "it has no such function in a section xdp".to_owned(),
        }
    }
}

/// What BPF_PROG_LOAD said.
fn verifying(function: &str, error: ProgramError) -> HostError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => refusal(function, io_error, &verifier_log.to_string()),
        error => HostError::kernel(format!("loading {function}"), io_error(&error)),
    }
}

/// A no without a word of the verifier's is not its own.
fn refusal(function: &str, error: io::Error, log: &str) -> HostError {
    match tail(log) {
        log_tail if log_tail.is_empty() => HostError::kernel(format!("loading {function}"), error),
        log_tail => HostError::ForeignRefused {
            function: function.to_owned(),
            error,
            log_tail,
        },
    }
}

#[cfg(test)]
mod tests {
    use ebpf_abi::Program;
    use nix::errno::Errno;

    use super::*;
    use crate::{Verdict, objects::object};

    #[test]
    fn an_object_is_loaded_and_run_without_knowing_it() {
        match Foreign::load(object(Program::Pass), "pass") {
            Ok(foreign) => {
                let run = foreign.test_run(&[7; 64]).expect("it runs");
                assert_eq!((run.verdict, run.data), (Verdict::Pass, vec![7; 64]));
                let error = foreign.test_run(&[7; 13]).expect_err("no Ethernet header");
                assert!(matches!(error, HostError::FrameLength { frame_bytes: 13 }), "{error}");
            }
            Err(error @ (HostError::NotAllowed { .. } | HostError::NoBpf { .. })) => println!("not run: {error}"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn no_object_and_no_function_are_told_so() {
        for bytes in [&[][..], b"version https://git-lfs.github.com/spec/v1\n"] {
            let error = Foreign::load(bytes, "pass").expect_err("no object");
            assert!(matches!(error, HostError::ForeignObject { .. }), "{error}");
        }
        let error = Foreign::load(object(Program::Pass), "absent").expect_err("no such function");
        assert!(error.to_string().contains("it has no such function"), "{error}");
    }

    #[test]
    fn a_refusal_carries_the_verifiers_words() {
        let error = refusal("theirs", Errno::EACCES.into(), "0: R1=ctx()\ninvalid access to packet");
        assert!(
            matches!(&error, HostError::ForeignRefused { log_tail, .. } if log_tail.ends_with("to packet")),
            "{error}"
        );
        let error = refusal("theirs", Errno::EPERM.into(), "");
        assert!(matches!(error, HostError::NotAllowed { .. }), "{error}");
    }
}
