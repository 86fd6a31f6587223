//! Progress in lines, where nobody looks at a terminal.

use super::picture::Picture;
use super::{micros, millimetres};
use crate::device::Phase;

/// The state in one line.
#[must_use]
pub fn progress(picture: &Picture) -> String {
    let Some(device) = &picture.device else { return "starting".into() };
    if device.phase == Phase::Settling {
        return format!("settling: {} commands so far", device.commands);
    }
    if device.phase == Phase::Leading {
        return "hovering: best effort begins in a moment".into();
    }
    let mut line = format!(
        "{:5.1} s  {} misses  round trip p50 {}  control error {} RMS",
        device.cycles as f64 / 1e3,
        device.misses,
        micros(device.round_trip.level("p50")),
        device.error_rms.map_or("-".into(), millimetres),
    );
    for (flow, (_, received)) in &picture.flows {
        if let Some((_, megabytes)) = received.as_ref().and_then(|received| received.rates()) {
            line.push_str(&format!("  {} {megabytes:.1} MB/s", flow.name()));
        }
    }
    if device.down {
        line.push_str("  DOWN");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{DeviceReport, Report};

    #[test]
    fn every_state_has_its_line() {
        let mut picture = Picture::default();
        assert_eq!(progress(&picture), "starting");
        picture.take(Report::Device(Box::default()));
        assert_eq!(progress(&picture), "settling: 0 commands so far");
        let device = DeviceReport { phase: Phase::Running, cycles: 1_500, down: true, ..DeviceReport::default() };
        picture.take(Report::Device(Box::new(device)));
        let line = progress(&picture);
        assert!(line.starts_with("  1.5 s  0 misses") && line.ends_with("DOWN"), "{line}");
    }
}
