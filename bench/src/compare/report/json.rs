//! All figures of all rounds, for whoever wants to reckon with them.

use serde_json::{Map, Value, json};

use super::Machine;
use crate::compare::plan::Effort;
use crate::compare::results::{Results, Row, Table};

pub(crate) fn text(machine: &Machine, effort: &Effort, results: &Results, notes: &[String]) -> String {
    let versions: Map<String, Value> = machine
        .versions
        .iter()
        .map(|(name, version)| (name.clone(), json!(version)))
        .collect();
    let document = json!({
        "machine": {"cpu": machine.cpu, "cores": machine.cores, "kernel": machine.kernel, "load_before": machine.load},
        "versions": versions,
        "rounds": effort.rounds,
        "seconds": effort.seconds,
        "idle_connections": effort.idle_connections,
        "not_run": notes,
        "cases": results.tables.iter().map(case).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

fn case(table: &Table) -> Value {
    json!({
        "workload": table.case.workload(),
        "case": table.case.title(),
        "contenders": table.rows.iter().map(|row| contender(table, row)).collect::<Vec<_>>(),
    })
}

fn contender(table: &Table, row: &Row) -> Value {
    let mut figures = Map::new();
    for (metric, rounds) in row.rounds() {
        if let Some(figure) = row.figure(metric) {
            let figure = json!({
                "median": figure.median, "least": figure.least, "most": figure.most, "rounds": rounds,
            });
            figures.insert(metric.title().to_owned(), figure);
        }
    }
    json!({
        "contender": row.label,
        "figures": figures,
        "weft_is": table.ratio(row),
        "problem": row.problem,
    })
}
