//! The scenario files that come with the program: one for each published figure.

/// A file of `bench/scenarios`.
#[derive(Clone, Copy, Debug)]
pub struct Embedded {
    /// Its name, without the ending: the experiment's.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        /// All of them.
        pub const EMBEDDED: &[Embedded] = &[$(Embedded {
            name: $name,
            text: include_str!(concat!("../../scenarios/", $name, ".toml")),
        }),*];
    };
}

embedded![
    "incast-dctcp-fig18",
    "incast-dctcp-fig19",
    "incast-all-to-all",
    "incast-queue-buildup",
    "incast-buffer-pressure",
    "incast-meta-bursts",
    "incast-swift-5000",
    "incast-three-regions",
    "incast-rtomin",
    "incast-collapse-fast08",
    "incast-tlp",
    "dctcp-marking-threshold",
    "cc-mathis",
    "cc-cubic-window",
    "bbr-loss-wall",
    "cc-bufferbloat",
    "cc-bbr-vs-lossbased",
    "cc-fairness",
    "cc-rtt-unfairness",
    "cc-quinn",
    "cc-quinn-two",
];

/// The file of that name.
pub fn embedded(name: &str) -> Option<&'static Embedded> {
    EMBEDDED.iter().find(|embedded| embedded.name == name)
}
