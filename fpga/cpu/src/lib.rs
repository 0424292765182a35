//! L2: the opponent of the blocks in `fpga/rtl`: the scan of `kv_filter` and the product of `systolic_array` on a CPU, as plain loops and
//! with vector instructions that are looked for at run time. Every way gives the same answer as the blocks' cycle models, which the tests
//! hold against each other.
#![deny(unsafe_code)]

pub mod filter;
pub mod product;

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod sys;

/// How a CPU works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Plain loops, for the instructions that every CPU of this kind has.
    Scalar,
    /// 256 bits at a time.
    Avx2,
    /// 512 bits at a time; products by `vpdpbusd` (VNNI).
    Avx512,
}

impl Way {
    /// All, the simplest first.
    pub const ALL: [Way; 3] = [Way::Scalar, Way::Avx2, Way::Avx512];

    /// As an axis calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Way::Scalar => "scalar",
            Way::Avx2 => "avx2",
            Way::Avx512 => "avx512",
        }
    }

    /// Has this CPU what it takes, and does its kernel save the registers?
    pub fn is_here(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Way::Scalar => true,
            Way::Avx2 => std::arch::is_x86_feature_detected!("avx2"),
            Way::Avx512 => {
                std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512vnni")
            }
        };
        #[cfg(not(target_arch = "x86_64"))]
        return self == Way::Scalar;
    }
}
