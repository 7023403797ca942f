//! The figures of all rounds, case by case and row by row.

use std::collections::BTreeMap;

use super::measure::Sample;
use super::plan::{Case, Metric};

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) tables: Vec<Table>,
}

/// One case.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) case: Case,
    pub(crate) rows: Vec<Row>,
}

/// One contender, in one of its ways.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) samples: Vec<Sample>,
    /// Why a round has no figures; the last reason.
    pub(crate) problem: Option<String>,
}

/// A figure over all rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Results {
    /// Takes what came of one measurement.
    pub(crate) fn note(&mut self, case: Case, label: &str, sample: Result<Sample, String>) {
        let row = self.table(case).row(label);
        match sample {
            Ok(sample) => row.samples.push(sample),
            Err(problem) => row.problem = Some(problem),
        }
    }

    fn table(&mut self, case: Case) -> &mut Table {
        let at = match self.tables.iter().position(|table| table.case == case) {
            Some(at) => at,
            None => {
                self.tables.push(Table {
                    case,
                    rows: Vec::new(),
                });
                self.tables.len() - 1
            }
        };
        // Found, or pushed a moment ago.
        &mut self.tables[at]
    }

    /// In the order of the plan, however they came in; Weft first.
    pub(crate) fn sort(&mut self, labels: &[String]) {
        self.tables.sort_by_key(|table| table.case);
        let place = |row: &Row| labels.iter().position(|label| *label == row.label);
        for table in &mut self.tables {
            table.rows.sort_by_key(|row| place(row).unwrap_or(labels.len()));
        }
    }
}

impl Table {
    fn row(&mut self, label: &str) -> &mut Row {
        let at = match self.rows.iter().position(|row| row.label == label) {
            Some(at) => at,
            None => {
                self.rows.push(Row {
                    label: label.to_owned(),
                    samples: Vec::new(),
                    problem: None,
                });
                self.rows.len() - 1
            }
        };
        &mut self.rows[at]
    }

    /// The row that the others are compared with: Weft's.
    pub(crate) fn base(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.label.starts_with("weft"))
    }

    /// By how much Weft's first figure is another row's: under 1 is cheaper where the figure is a cost.
    pub(crate) fn ratio(&self, row: &Row) -> Option<f64> {
        let base = self.base()?;
        let metric = *self.case.metrics().first()?;
        if base.label == row.label {
            return None;
        }
        Some(base.figure(metric)?.median / row.figure(metric)?.median)
    }
}

impl Row {
    pub(crate) fn figure(&self, metric: Metric) -> Option<Figure> {
        let mut values: Vec<f64> = self
            .samples
            .iter()
            .filter_map(|sample| sample.get(&metric).copied())
            .collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = match (values.len().is_multiple_of(2), values.get(middle.wrapping_sub(1))) {
            (true, Some(lower)) => f64::midpoint(*lower, upper),
            _ => upper,
        };
        Some(Figure {
            median,
            least: *values.first()?,
            most: *values.last()?,
        })
    }

    /// All rounds of one metric.
    pub(crate) fn rounds(&self) -> BTreeMap<Metric, Vec<f64>> {
        let mut rounds: BTreeMap<Metric, Vec<f64>> = BTreeMap::new();
        for (metric, value) in self.samples.iter().flatten() {
            rounds.entry(*metric).or_default().push(*value);
        }
        rounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::plan::Size;

    #[test]
    fn the_median_is_the_middle_and_ratios_are_against_weft() {
        let (mut results, case) = (Results::default(), Case::Plain(Size::Bytes100));
        for (label, cpu) in [
            ("nginx", 10.0),
            ("weft", 9.0),
            ("weft", 30.0),
            ("weft", 15.0),
            ("nginx", 20.0),
        ] {
            results.note(case, label, Ok(Sample::from([(Metric::CpuMicros, cpu)])));
        }
        results.note(case, "envoy", Err("not there".to_owned()));
        results.sort(&["weft".to_owned(), "nginx".to_owned(), "envoy".to_owned()]);
        let [table] = &results.tables[..] else {
            panic!("{results:?}")
        };
        let [weft, nginx, envoy] = &table.rows[..] else {
            panic!("{results:?}")
        };
        let figure = Figure {
            median: 15.0,
            least: 9.0,
            most: 30.0,
        };
        assert_eq!(weft.figure(Metric::CpuMicros), Some(figure));
        assert_eq!(nginx.figure(Metric::CpuMicros).map(|it| it.median), Some(15.0));
        assert_eq!(table.ratio(nginx), Some(1.0));
        assert_eq!(table.ratio(weft), None);
        assert_eq!((envoy.figure(Metric::P99), table.ratio(envoy)), (None, None));
    }
}
