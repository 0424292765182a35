//! Does a NIC stamp frames with a clock of its own?

use std::{io, net::UdpSocket};

use dataplane_waist::{ProbeError, Support};

use crate::sys::stamps::{HwConfig, TsInfo, hardware_config, ts_info};

/// The bits that hardware stamps of both directions need.
const HARDWARE: u32 =
    libc::SOF_TIMESTAMPING_TX_HARDWARE | libc::SOF_TIMESTAMPING_RX_HARDWARE | libc::SOF_TIMESTAMPING_RAW_HARDWARE;

/// Asks the driver of `interface`, in the network namespace of the calling thread, whether the NIC stamps frames by
/// itself, and whether it does so now.
///
/// # Errors
/// [`ProbeError`] when it could not be asked: no such interface, no socket.
pub fn probe_hardware(interface: &str) -> Result<Support, ProbeError> {
    let unasked = |asked: &str, error: io::Error, mend: &str| ProbeError {
        asked: format!("{asked} for {interface:?}"),
        error,
        mend: mend.to_owned(),
    };
    // Any socket carries the question.
    let socket = UdpSocket::bind("127.0.0.1:0")
        .or_else(|_| UdpSocket::bind("[::1]:0"))
        .map_err(|error| unasked("opening a socket to ask", error, "bring the loopback interface up"))?;
    let info = match ts_info(&socket, interface) {
        Ok(info) => info,
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            return Ok(Support::Absent {
                why: format!(
                    "the driver of {interface} knows of no time stamps; it takes a NIC with a clock of its own"
                ),
            });
        }
        Err(error) => {
            return Err(unasked(
                "ETHTOOL_GET_TS_INFO",
                error,
                "name an interface of this network namespace (ip link)",
            ));
        }
    };
    let config = match hardware_config(&socket, interface) {
        Ok(config) => config,
        Err(error) if is_no(&error) => HwConfig::default(),
        Err(error) => return Err(unasked("SIOCGHWTSTAMP", error, "run as root")),
    };
    Ok(support(interface, info, config))
}

/// A driver without the call says so in one of these ways.
fn is_no(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOTTY)
    )
}

fn support(interface: &str, info: TsInfo, config: HwConfig) -> Support {
    if info.so_timestamping & HARDWARE != HARDWARE || info.phc_index < 0 {
        return Support::Absent {
            why: format!(
                "{interface} stamps frames in software only (ethtool -T {interface}); it takes a NIC with a clock of its own \
                 (PHC), which veth, loopback and most virtual NICs have not"
            ),
        };
    }
    if config.tx_type == 0 || config.rx_filter == 0 {
        return Support::Absent {
            why: format!(
                "{interface} could stamp frames by its own clock (/dev/ptp{}), and does not now; turn it on: \
                 hwstamp_ctl -i {interface} -t 1 -r 1",
                info.phc_index
            ),
        };
    }
    Support::Native
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_clock_of_its_own() {
        let Ok(Support::Absent { why }) = probe_hardware("lo") else {
            panic!("{:?}", probe_hardware("lo"))
        };
        assert!(why.contains("lo"), "{why}");
    }

    #[test]
    fn no_interface_is_no_answer() {
        for name in ["no-such-if", "a-name-that-no-interface-can-have", ""] {
            let error = probe_hardware(name).expect_err("nobody to ask").to_string();
            assert!(error.contains("ip link"), "{error}");
        }
    }

    #[test]
    fn a_nic_that_can_and_does_is_native_and_one_that_does_not_says_how() {
        let able = TsInfo {
            so_timestamping: HARDWARE,
            ..TsInfo::default()
        };
        let on = HwConfig {
            tx_type: 1,
            rx_filter: 1,
            ..HwConfig::default()
        };
        assert_eq!(support("eth0", able, on), Support::Native);
        let Support::Absent { why } = support("eth0", able, HwConfig::default()) else {
            panic!("it is off")
        };
        assert!(why.contains("hwstamp_ctl -i eth0"), "{why}");
        let clockless = TsInfo { phc_index: -1, ..able };
        assert!(matches!(support("eth0", clockless, on), Support::Absent { .. }));
        assert!(matches!(support("eth0", TsInfo::default(), on), Support::Absent { .. }));
    }
}
