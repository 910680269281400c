//! Numbers as nodetool writes them.

const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];

/// A size with at most two decimals: `104.44 KiB`, `52 MiB`, `0 bytes`.
pub(crate) fn file_size(bytes: u64) -> String {
    match scale(bytes) {
        None => format!("{bytes} bytes"),
        Some((value, unit)) => {
            let text = format!("{value:.2}");
            format!("{} {unit}", text.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

/// A size with three decimals and no space: `1.500KiB`, `0B`.
pub(crate) fn memory_size(bytes: u64) -> String {
    match scale(bytes) {
        None => format!("{bytes}B"),
        Some((value, unit)) => format!("{value:.3}{unit}"),
    }
}

fn scale(bytes: u64) -> Option<(f64, &'static str)> {
    let mut scaled = None;
    for (index, unit) in UNITS.iter().enumerate() {
        let size = 1_u64 << (10 * (index + 1));
        if bytes >= size {
            scaled = Some((bytes as f64 / size as f64, *unit));
        }
    }
    scaled
}

/// A mean, or NaN of nothing.
pub(crate) fn mean(total: f64, count: u64) -> f64 {
    if count == 0 {
        f64::NAN
    } else {
        total / count as f64
    }
}

/// A number with a fixed number of decimals; NaN as `NaN`.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            (0, "0 bytes", "0B"),
            (1023, "1023 bytes", "1023B"),
            (1024, "1 KiB", "1.000KiB"),
            (106_947, "104.44 KiB", "104.440KiB"),
            (52 << 20, "52 MiB", "52.000MiB"),
            (3 << 29, "1.5 GiB", "1.500GiB"),
            (5 << 50, "5120 TiB", "5120.000TiB"),
        ];
        for (bytes, file, memory) in cases {
            assert_eq!(
                (file_size(bytes).as_str(), memory_size(bytes).as_str()),
                (file, memory)
            );
        }
        assert_eq!(fixed(mean(3.0, 0), 3), "NaN");
        assert_eq!(fixed(mean(3.0, 2), 3), "1.500");
    }
}
