//! The figures as a table, and the verdict in words.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::Measured;
use super::baseline::{Baseline, MadeBy, Verdict};
use super::cost::Share;

/// The project's own limit, per request and sidecar.
const ALLOCATIONS_PER_HOP: f64 = 10.0;

pub(super) fn text(measured: &[Measured], baseline: Option<&Baseline>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    let mut titles = vec![
        "per request",
        "instructions",
        "allocations",
        "a hop",
        "client and app beside",
    ];
    if baseline.is_some() {
        titles.extend(["instructions were", "allocations were"]);
    }
    table.set_header(&titles);
    for run in measured {
        let mut row = vec![
            run.name(),
            whole(run.proxy.instructions),
            format!("{:.2}", run.proxy.allocations),
            format!("{:.2}", run.proxy.allocations / run.scenario.hops() as f64),
            whole(run.client_and_app.instructions),
        ];
        if let Some(baseline) = baseline {
            row.extend(baseline.judge(&run.name(), run.proxy).map(cell));
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{table}\n");
    for run in measured {
        shares(
            &mut text,
            &run.name(),
            "instructions, by function",
            &run.costliest,
        );
        shares(
            &mut text,
            &run.name(),
            "allocations, by function",
            &run.allocating,
        );
    }
    let is_over = |run: &&Measured| run.proxy.allocations / run.scenario.hops() as f64 > ALLOCATIONS_PER_HOP;
    for run in measured.iter().filter(is_over) {
        let _ = writeln!(
            text,
            "{}: over the limit of {ALLOCATIONS_PER_HOP} allocations a hop",
            run.name()
        );
    }
    text
}

fn shares(text: &mut String, run: &str, title: &str, shares: &[Share]) {
    if shares.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{run}: {title}, with client and app");
    for share in shares {
        let _ = writeln!(text, "{:>12.2}  {}", share.count, share.function);
    }
}

/// `12,345`
fn whole(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn cell(verdict: Verdict) -> String {
    match verdict {
        Verdict::Kept(change) => format!("{:+.2} %", change * 100.0),
        Verdict::Risen(change) => format!("{:+.2} % RISEN", change * 100.0),
        Verdict::Fallen(change) => format!("{:+.2} % fallen", change * 100.0),
        Verdict::New => "not known".to_owned(),
    }
}

/// That baseline and program do not come from the same tools.
pub(super) fn other_build(baseline: &MadeBy, here: &MadeBy) -> String {
    let mut text =
        "WARNING: the baseline was written by another build, so that a difference may not be the code's:"
            .to_owned();
    for (name, was, is) in [
        ("rustc", &baseline.rustc, &here.rustc),
        ("profile", &baseline.profile, &here.profile),
        ("valgrind", &baseline.valgrind, &here.valgrind),
    ] {
        if was != is {
            let _ = write!(text, "\n  {name}: {was} there, {is} here");
        }
    }
    text
}

/// What to do about it, and whether the figures can stay.
pub(super) fn verdict(measured: &[Measured], baseline: &Baseline) -> (String, bool) {
    let runs = |wanted: fn(&Verdict) -> bool| {
        let runs = measured
            .iter()
            .filter(|run| baseline.judge(&run.name(), run.proxy).iter().any(wanted));
        runs.map(Measured::name).collect::<Vec<_>>().join(", ")
    };
    let risen = runs(|verdict| matches!(verdict, Verdict::Risen(_)));
    let fallen = runs(|verdict| matches!(verdict, Verdict::Fallen(_)));
    let new = runs(|verdict| matches!(verdict, Verdict::New));
    let mut lines = Vec::new();
    if !risen.is_empty() {
        lines.push(format!(
            "FAILED: a request costs over 3 % more than the baseline says: {risen}"
        ));
    }
    if !new.is_empty() {
        lines.push(format!("FAILED: the baseline does not know: {new}"));
    }
    if !fallen.is_empty() {
        lines.push(format!(
            "A request costs over 3 % less: {fallen}. Renew the baseline, so that it stays so: --write-baseline"
        ));
    }
    if lines.is_empty() {
        lines.push("As the baseline says.".to_owned());
    }
    (lines.join("\n"), risen.is_empty() && new.is_empty())
}
