//! A report as text.

use std::fmt;

use super::advice::Lasted;
use super::{FixedFleet, GroupReport, Report, Starts};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "from {} to {}", self.from, self.to)?;
        if self.gap_seconds > 0.0 {
            let gap = std::time::Duration::from_secs_f64(self.gap_seconds);
            writeln!(f, "not looked at for {}, billed as last known", Lasted(gap))?;
        }
        for group in &self.groups {
            write!(f, "\n{group}")?;
        }
        if !self.decisions.is_empty() {
            writeln!(f, "\nlatest decisions")?;
            for decision in &self.decisions {
                writeln!(f, "  {}  {decision}", decision.at)?;
            }
        }
        if !self.advice.is_empty() {
            writeln!(f, "\nrecommendations")?;
            for advice in &self.advice {
                writeln!(f, "  {advice}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for GroupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.group)?;
        writeln!(f, "  machines       {:.2} on average, {} at most", self.machines_mean, self.machines_max)?;
        match self.utilisation {
            Some(utilisation) => writeln!(f, "  utilisation    {:.1} %", utilisation * 100.0)?,
            None => writeln!(f, "  utilisation    not known")?,
        }
        writeln!(f, "  cost           {:.2} in all, {:.4} per hour", self.money, self.per_hour)?;
        for (region, money) in &self.by_region {
            writeln!(f, "    {region:<12} {money:.2}")?;
        }
        match self.per_1000 {
            Some(per_1000) => writeln!(f, "  predictions    {per_1000:.5} for 1,000")?,
            None => writeln!(f, "  predictions    not counted")?,
        }
        writeln!(f, "  changes        {}", self.changes)?;
        starts(f, "cold", self.cold)?;
        starts(f, "warm", self.warm)?;
        for saving in &self.savings {
            // Added to zero, what rounds to nothing has no sign.
            let share = (saving.share * 1000.0).round() / 10.0 + 0.0;
            let (machines, money) = (saving.machines, saving.money);
            let which = match saving.fleet {
                FixedFleet::Most => ", as many as there were at most,",
                FixedFleet::Asked => "",
                FixedFleet::Smallest => ", the smallest that is over its objective for no longer,",
            };
            write!(f, "  a fixed fleet of {machines}{which} would have cost {money:.2}: ")?;
            if share < 0.0 {
                writeln!(f, "{:.1} % more was spent", -share)?;
            } else {
                writeln!(f, "{share:.1} % saved")?;
            }
        }
        Ok(())
    }
}

fn starts(f: &mut fmt::Formatter<'_>, kind: &str, starts: Starts) -> fmt::Result {
    write!(f, "  {kind} starts    {}", starts.count)?;
    if let (Some(mean), Some(slowest)) = (starts.mean, starts.slowest) {
        write!(f, ", ready after {} on average, {} at most", Lasted(mean), Lasted(slowest))?;
    }
    writeln!(f)
}
