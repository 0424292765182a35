//! A program and its model, side by side: who disagrees is told with the frame.

use ebpf_host::{Count, Counts, Loaded, Program, Settings, TestRun};

use super::{
    frames::ONE_BUFFER_BYTES,
    load,
    model::{self, Expected, Situation},
};

/// A loaded program beside its model.
pub struct Judge {
    pub loaded: Loaded,
    settings: Settings,
    /// Whether `steer` was given a socket for queue 0.
    pub has_socket: bool,
    expected: [u64; Count::ALL.len()],
    before: Counts,
}

impl Judge {
    pub fn new(test: &str, program: Program, settings: Settings) -> Option<Judge> {
        let loaded = load(test, program, &settings)?;
        let mut judge = Judge {
            loaded,
            settings,
            has_socket: false,
            expected: [0; Count::ALL.len()],
            before: Counts::default(),
        };
        judge.start_counting();
        Some(judge)
    }

    fn start_counting(&mut self) {
        self.expected = [0; Count::ALL.len()];
        if !matches!(self.loaded.program(), Program::Pass | Program::Lossy) {
            self.before = self.loaded.counts().expect("it counts");
        }
    }

    /// Runs the program and holds its answer against the model; the count is held later, by [`Judge::settle`].
    pub fn run(&mut self, bytes: &[u8]) -> Result<(Expected, TestRun), String> {
        let answer = self.loaded.test_run(bytes).map_err(|error| error.to_string())?;
        let situation = Situation {
            has_socket: self.has_socket,
            linear_bytes: ONE_BUFFER_BYTES,
            stamp_ns: match self.loaded.program() {
                Program::Stamp => model::stamp_ns(&self.settings, bytes, &answer.data),
                _ => 0,
            },
        };
        let expected = model::expect(self.loaded.program(), &self.settings, &situation, bytes);
        if let Some(count) = expected.count {
            self.expected[count as usize] += 1;
        }
        if answer.verdict != expected.verdict || answer.data != expected.data {
            return Err(format!(
                "{}: expected {:?} ({:?})\n  frame    {}\n  expected {}\n  got {:?} {}",
                self.loaded.program().name(),
                expected.verdict,
                expected.count,
                hex(bytes),
                hex(&expected.data),
                answer.verdict,
                hex(&answer.data),
            ));
        }
        Ok((expected, answer))
    }

    /// Holds what the program counted since the last time against the model.
    pub fn settle(&mut self) -> Result<(), String> {
        let expected = self.expected;
        if !matches!(self.loaded.program(), Program::Pass | Program::Lossy) {
            let counted = self
                .loaded
                .counts()
                .map_err(|error| error.to_string())?
                .since(&self.before);
            for count in Count::ALL {
                if counted.get(count) != expected[count as usize] {
                    return Err(format!("counted {counted}, where the model has {expected:?}"));
                }
            }
        }
        self.start_counting();
        Ok(())
    }

    /// One frame, counted at once.
    #[track_caller]
    pub fn holds(&mut self, name: &str, bytes: &[u8]) -> (Expected, TestRun) {
        let outcome = self.run(bytes).and_then(|outcome| self.settle().map(|()| outcome));
        match outcome {
            Ok(outcome) => outcome,
            Err(fault) => panic!("{name}: {fault}"),
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One for each program that may be loaded here.
pub fn judges(test: &str, settings: Settings) -> Vec<Judge> {
    Program::ALL
        .into_iter()
        .filter_map(|program| Judge::new(test, program, settings))
        .collect()
}
