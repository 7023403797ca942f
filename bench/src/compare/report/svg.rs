//! One chart: CPU per request, a group of bars per workload. It takes its ink from the page, so that it can be read on
//! light and on dark.

use std::fmt::Write as _;

use super::Machine;
use crate::compare::plan::{Case, Metric, SessionKind, Size};
use crate::compare::results::{Results, Row, Table};

/// The cases that are drawn: a bar is CPU per request in each.
const CASES: [(Case, &str); 7] = [
    (Case::Plain(Size::Bytes100), "HTTP/1.1, one hop, plain, full load"),
    (Case::Mesh(Size::Bytes100), "HTTP/1.1, two hops, mTLS, full load"),
    (Case::H2c, "HTTP/2, two hops, mTLS, full load"),
    (Case::Grpc, "gRPC, two hops, mTLS, full load"),
    (Case::OpenPlain, "one hop, plain, 2,670 requests/s"),
    (Case::OpenMesh, "two hops, mTLS, 1,240 requests/s"),
    (
        Case::Handshake(SessionKind::Full),
        "a new mTLS connection per request, accepting side",
    ),
];

/// In pixels.
const WIDTH: f64 = 880.0;
const LABELS: f64 = 150.0;
const FIGURES: f64 = 70.0;
const BAR: f64 = 14.0;
const GAP: f64 = 4.0;
const TITLE: f64 = 26.0;
const GROUP_GAP: f64 = 14.0;
const HEAD: f64 = 56.0;
const FOOT: f64 = 30.0;

/// Colours that stand out on white and on black.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.h{font-size:16px;font-weight:600}\
    .g{font-weight:600}.s{font-size:11px;fill:#59636e}.bar{fill:#9aa4af}.weft{fill:#d9480f}\
    .l{text-anchor:end}.w{font-weight:600}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9198a1}.bar{fill:#5d6772}.weft{fill:#ff7a33}}";

pub(crate) fn text(machine: &Machine, results: &Results) -> String {
    let (mut body, mut top) = (String::new(), HEAD);
    for (case, title) in CASES {
        let table = results.tables.iter().find(|table| table.case == case);
        if let Some(table) = table {
            top = group(&mut body, top, title, table);
        }
    }
    let height = top + FOOT;
    let foot = top + 14.0;
    let line = escaped(&machine.line());
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"CPU per request of Weft and others\">\n\
         <style>{STYLE}</style>\n\
         <text class=\"h\" x=\"8\" y=\"24\">CPU per request, µs; less is better</text>\n\
         <text class=\"s\" x=\"8\" y=\"42\">medians; two hops are summed; bars of a group share a scale</text>\n\
         {body}<text class=\"s\" x=\"8\" y=\"{foot}\">{line}</text>\n</svg>\n"
    )
}

/// Draws one group from `top` on; where the next one begins.
fn group(body: &mut String, top: f64, title: &str, table: &Table) -> f64 {
    let figure = |row: &Row| row.figure(Metric::CpuMicros).map(|figure| figure.median);
    let bars: Vec<(&str, f64)> = table
        .rows
        .iter()
        .filter_map(|row| Some((row.label.as_str(), figure(row)?)))
        .collect();
    let most = bars.iter().map(|(_, cpu)| *cpu).fold(f64::MIN_POSITIVE, f64::max);
    let _ = writeln!(
        body,
        "<text class=\"g\" x=\"8\" y=\"{:.0}\">{}</text>",
        top + 14.0,
        escaped(title)
    );
    let mut y = top + TITLE;
    for (label, cpu) in bars {
        let width = (WIDTH - LABELS - FIGURES) * cpu / most;
        let (bar, weight) = match label.starts_with("weft") {
            true => ("weft", " w"),
            false => ("bar", ""),
        };
        let (text, end) = (y + BAR - 2.0, LABELS + width + 6.0);
        let _ = writeln!(
            body,
            "<text class=\"l{weight}\" x=\"{:.0}\" y=\"{text:.0}\">{}</text>\
             <rect class=\"{bar}\" x=\"{LABELS}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"/>\
             <text class=\"{weight}\" x=\"{end:.1}\" y=\"{text:.0}\">{cpu:.1}</text>",
            LABELS - 8.0,
            escaped(label),
        );
        y += BAR + GAP;
    }
    y + GROUP_GAP
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::measure::Sample;

    #[test]
    fn every_contender_has_a_bar_and_weft_stands_out() {
        let mut results = Results::default();
        for (label, cpu) in [("weft", 20.0), ("a<b", 40.0)] {
            let sample = Sample::from([(Metric::CpuMicros, cpu)]);
            results.note(Case::OpenMesh, label, Ok(sample));
        }
        let machine = Machine {
            cpu: "a CPU".to_owned(),
            cores: 2,
            kernel: "6".to_owned(),
            load: "0".to_owned(),
            versions: Vec::new(),
        };
        let svg = text(&machine, &results);
        assert_eq!(svg.matches("<rect class=\"bar\"").count(), 1);
        assert_eq!(svg.matches("<rect class=\"weft\"").count(), 1);
        assert!(
            svg.contains("width=\"660.0\"") && svg.contains("width=\"330.0\""),
            "{svg}"
        );
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
    }
}
