//! What was found, as it is kept in JSON. A run replaces what it ran and leaves the rest.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::campaign::Campaign;
use super::report::Series;
use super::yardstick::Row;
use crate::bench::results::Machine;
use crate::{Error, say};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Results {
    #[serde(default)]
    pub(super) matrix: Option<Matrix>,
    #[serde(default)]
    pub(super) yardstick: Option<Yardstick>,
    #[serde(default)]
    pub(super) campaign: Option<CampaignRun>,
}

/// When, on what, with whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Setting {
    pub(super) date: String,
    pub(super) machine: Machine,
    pub(super) seed: u64,
    /// Proxy and version.
    pub(super) versions: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Matrix {
    pub(super) setting: Setting,
    /// Requests per second of each proxy.
    pub(super) per_s: Vec<(String, f64)>,
    pub(super) rows: Vec<MatrixRow>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct MatrixRow {
    pub(super) number: u8,
    pub(super) name: String,
    pub(super) demand: String,
    pub(super) series: Vec<Series>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Yardstick {
    pub(super) setting: Setting,
    pub(super) rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct CampaignRun {
    pub(super) setting: Setting,
    pub(super) runs: Vec<Campaign>,
}

impl Matrix {
    /// With what `former` has of the proxies and faults that were not run now.
    fn beside(mut self, former: Self) -> Self {
        let run: Vec<u8> = self.rows.iter().map(|row| row.number).collect();
        let known: Vec<String> = self.per_s.iter().map(|(proxy, _)| proxy.clone()).collect();
        let is_other = |proxy: &String| !known.contains(proxy);
        for row in &mut self.rows {
            let same = former.rows.iter().filter(|other| other.number == row.number);
            row.series.extend(same.flat_map(|other| &other.series).filter(|series| is_other(&series.proxy)).cloned());
        }
        self.rows.extend(former.rows.into_iter().filter(|row| !run.contains(&row.number)));
        self.rows.sort_by_key(|row| row.number);
        self.per_s.extend(former.per_s.into_iter().filter(|(proxy, _)| is_other(proxy)));
        for version in former.setting.versions {
            if !self.setting.versions.contains(&version) {
                self.setting.versions.push(version);
            }
        }
        self
    }
}

impl Results {
    /// What of `new` was run takes the place of what was there; in the matrix, proxy by proxy and fault by fault.
    pub(super) fn update(&mut self, new: Self) {
        self.matrix = match (new.matrix, self.matrix.take()) {
            (Some(new), Some(former)) => Some(new.beside(former)),
            (new, former) => new.or(former),
        };
        self.yardstick = new.yardstick.or_else(|| self.yardstick.take());
        self.campaign = new.campaign.or_else(|| self.campaign.take());
    }

    /// # Errors
    /// When there is something else in the file.
    pub(super) fn read(file: &Path) -> Result<Self, Error> {
        let failed = |e: String| Error::Failed(format!("{}: {e}", file.display()));
        let text = fs::read_to_string(file).map_err(|e| failed(e.to_string()))?;
        serde_json::from_str(&text).map_err(|e| failed(e.to_string()))
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), Error> {
        let failed = |e: String| Error::Failed(format!("{}: {e}", file.display()));
        let text = serde_json::to_string_pretty(self).map_err(|e| failed(e.to_string()))?;
        fs::write(file, text + "\n").map_err(|e| failed(e.to_string()))?;
        say(&format!("written: {}", file.display()));
        Ok(())
    }
}
