//! How tables look, on a terminal and in a pipe, and how durations are written in them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{ContentArrangement, Table, presets};

/// A table without borders, as wide as its content, with this header.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table
}

/// The table as text, its columns two spaces apart.
pub(crate) fn text(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// The two largest units of a duration: `23h 58m`, `4m 3s`, `12s`; below one second `0s`.
pub(crate) fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut parts = Vec::new();
    let mut rest = seconds;
    for (size, unit) in units {
        if rest >= size || !parts.is_empty() {
            parts.push((rest / size, unit));
            rest %= size;
        }
    }
    parts.truncate(2);
    let text: Vec<String> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text.join(" ")
    }
}

/// Milliseconds with as many digits as are worth reading: `0.84 ms`, `12.3 ms`, `1240 ms`.
pub(crate) fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    match millis {
        m if m < 1.0 => format!("{m:.2} ms"),
        m if m < 100.0 => format!("{m:.1} ms"),
        m => format!("{m:.0} ms"),
    }
}

/// A share in percent with two digits, so that 99.95 % does not read as 100 %; `-` of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    // Rounded down, so that one failure among many is never hidden by rounding up to 100.
    let hundredths = u128::from(part) * 10_000 / u128::from(whole);
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

/// `1 object`, `2 objects`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Time since or until a moment in Unix seconds; zero where it lies on the other side.
pub(crate) fn between(earlier: i64, later: i64) -> Duration {
    Duration::from_secs(u64::try_from(later.saturating_sub(earlier)).unwrap_or(0))
}

/// How long a certificate has been there: it begins earlier than it was made, for clocks that are late.
pub(crate) fn age(not_before: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(not_before)
        .unwrap_or_default()
        .saturating_sub(certs::CLOCK_SKEW)
}

/// This moment in Unix seconds.
pub(crate) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_their_two_largest_units() {
        let shown = |seconds| rough(Duration::from_secs(seconds));
        assert_eq!(shown(0), "0s");
        assert_eq!(shown(59), "59s");
        assert_eq!(shown(60), "1m");
        assert_eq!(shown(3_661), "1h 1m");
        assert_eq!(shown(86_400 + 59), "1d");
        assert_eq!(shown(23 * 3_600 + 58 * 60 + 9), "23h 58m");
    }

    #[test]
    fn columns_are_two_spaces_apart_and_begin_at_the_edge() {
        let mut table = table(&["A", "BB"]);
        table.add_row(["long", "x"]);
        assert_eq!(text(table), "A     BB\nlong  x");
    }

    #[test]
    fn one_failure_is_never_rounded_away() {
        assert_eq!(percent(99_999, 100_000), "99.99 %");
        assert_eq!(percent(100_000, 100_000), "100.00 %");
        assert_eq!(percent(0, 0), "-");
        assert_eq!(percent(1, 3), "33.33 %");
    }

    #[test]
    fn milliseconds_keep_three_digits() {
        assert_eq!(millis(Duration::from_micros(840)), "0.84 ms");
        assert_eq!(millis(Duration::from_micros(12_340)), "12.3 ms");
        assert_eq!(millis(Duration::from_millis(1_240)), "1240 ms");
    }
}
