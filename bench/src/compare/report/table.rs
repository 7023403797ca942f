//! A table per case, on standard output.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::Machine;
use crate::compare::plan::{Case, Effort, Metric};
use crate::compare::results::{Figure, Results, Row, Table as Figures};

pub(crate) fn text(machine: &Machine, effort: &Effort, results: &Results, notes: &[String]) -> String {
    let mut text = String::new();
    let Effort { rounds, seconds, .. } = effort;
    let _ = writeln!(text, "{}", machine.line());
    let _ = writeln!(
        text,
        "median (least–most) of {rounds} rounds of {seconds} s; \"weft is\" compares the first figure: weft's is so many \
         times this one's"
    );
    for figures in &results.tables {
        let case = figures.case;
        let _ = writeln!(text, "\n{}  {}", case.workload(), case.title());
        let _ = writeln!(text, "{}", table(figures));
        let problems = figures
            .rows
            .iter()
            .filter_map(|row| Some((&row.label, row.problem.as_ref()?)));
        for (label, problem) in problems {
            let first = problem.lines().next().unwrap_or_default();
            let _ = writeln!(text, "  not run: {label}: {first}");
        }
    }
    for note in notes {
        let _ = writeln!(text, "\nnot run: {note}");
    }
    text
}

fn table(figures: &Figures) -> String {
    let metrics = shown(figures.case, figures);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    let titles = metrics.iter().map(|metric| metric.title());
    table.set_header([""].into_iter().chain(titles).chain(["weft is"]));
    for row in figures.rows.iter().filter(|row| !row.samples.is_empty()) {
        let cells = metrics.iter().map(|metric| {
            row.figure(*metric)
                .map_or_else(String::new, |figure| cell(*metric, figure))
        });
        let ratio = figures
            .ratio(row)
            .map_or_else(String::new, |ratio| format!("{ratio:.2} ×"));
        table.add_row([row.label.clone()].into_iter().chain(cells).chain([ratio]));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// The case's columns that anybody has a figure in.
fn shown(case: Case, figures: &Figures) -> Vec<Metric> {
    let has = |row: &Row, metric| row.figure(metric).is_some();
    let metrics = case.metrics().iter().copied();
    metrics
        .filter(|metric| figures.rows.iter().any(|row| has(row, *metric)))
        .collect()
}

fn cell(metric: Metric, figure: Figure) -> String {
    let digits = metric.decimals();
    let Figure { median, least, most } = figure;
    match least < most {
        true => format!("{median:.digits$} ({least:.digits$}–{most:.digits$})"),
        false => format!("{median:.digits$}"),
    }
}
