//! Figures beside their targets, and the tables they stand in.

use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// What a figure should be.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// One number.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
    pub target: Option<Target>,
}

/// Rows of text under a head, the first column to the left.
#[derive(Clone, Default, Debug, Serialize)]
pub struct Table {
    pub title: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// What a group found.
#[derive(Clone, Default, Debug, Serialize)]
pub struct Findings {
    pub figures: Vec<Figure>,
    pub tables: Vec<Table>,
    /// Every single measurement.
    pub samples: Vec<serde_json::Value>,
}

impl Findings {
    /// Notes a figure, with or without a target.
    pub fn note(&mut self, what: &str, value: f64, unit: &'static str, target: impl Into<Option<Target>>) {
        self.figures.push(Figure { what: what.to_owned(), value, unit, target: target.into() });
    }
}

impl Target {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Target::AtMost(limit) => value <= limit,
            Target::AtLeast(limit) => value >= limit,
        }
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Target::AtMost(limit) => write!(f, "at most {limit}"),
            Target::AtLeast(limit) => write!(f, "at least {limit}"),
        }
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        if !self.title.is_empty() {
            writeln!(f, "\n{}", self.title)?;
        }
        for row in all() {
            for (column, cell) in row.iter().enumerate() {
                match column {
                    0 => write!(f, "{cell:<0$}", width(0))?,
                    _ => write!(f, "  {cell:>0$}", width(column))?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Display for Findings {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        for table in &self.tables {
            write!(f, "{table}")?;
        }
        let rows = self.figures.iter().map(|figure| {
            let value = format!("{:.3} {}", figure.value, figure.unit);
            let Some(target) = figure.target else { return vec![figure.what.clone(), value] };
            let verdict = if target.is_met_by(figure.value) { "met" } else { "MISSED" };
            vec![figure.what.clone(), value, target.to_string(), verdict.to_owned()]
        });
        let head = ["", "measured", "target", ""].map(str::to_owned).to_vec();
        let table = Table { title: String::new(), head, rows: rows.collect() };
        if self.figures.is_empty() { Ok(()) } else { write!(f, "\n{table}") }
    }
}

/// The middle one; 0 of none.
pub fn median(values: impl IntoIterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.into_iter().collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_stands_beside_its_target() {
        let mut findings = Findings::default();
        findings.note("slow", 3.0, "s", Target::AtMost(2.0));
        findings.note("ratio", 12.0, "x", Target::AtLeast(10.0));
        findings.note("plain", 1.0, "ms", None);
        let text = findings.to_string();
        let line = |what| text.lines().find(|line| line.starts_with(what)).unwrap().to_owned();
        assert!(line("slow").ends_with("3.000 s    at most 2  MISSED"), "{text}");
        assert!(line("ratio").contains("at least 10     met"), "{text}");
        assert!(line("plain").ends_with("1.000 ms"), "{text}");
    }

    #[test]
    fn the_median_is_a_value_that_was_measured() {
        assert_eq!((median([3, 1, 2]), median([4, 1]), median([])), (2, 4, 0));
    }
}
