//! What a run cost, where it was said what a node costs.

use crate::account::Badput;
use crate::words;
use serde::{Deserialize, Serialize};

const SECONDS_PER_HOUR: f64 = 3600.0;

/// What a run cost, in the currency of its price.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Price of a node and hour.
    pub price_per_hour: f64,
    /// Price of all node-seconds.
    pub total: f64,
    /// `total` over millions of tokens trained on; none before the first.
    pub per_million_tokens: Option<f64>,
    /// Price of the node-seconds that did not end in a commit, by cause.
    pub wasted: Badput,
}

impl Cost {
    /// Of so many node-seconds, those of `badput` among them, for so many tokens. What crosses the network is not in it.
    pub fn of(price_per_hour: f64, node_seconds: f64, badput: &Badput, tokens: u64) -> Self {
        let price = price_per_hour / SECONDS_PER_HOUR;
        let total = price * node_seconds;
        Self {
            price_per_hour,
            total,
            per_million_tokens: (tokens > 0).then(|| total / (tokens as f64 / 1e6)),
            wasted: badput.times(price),
        }
    }

    /// As people read it.
    pub fn render(&self) -> String {
        let mut text =
            format!("{} for node time at {} an hour", money(self.total), money(self.price_per_hour));
        if let Some(price) = self.per_million_tokens {
            text.push_str(&format!(", {} a million tokens", money(price)));
        }
        let mut causes: Vec<_> = self
            .wasted
            .causes()
            .into_iter()
            .filter(|(_, price)| *price > 0.0 && *price >= 0.005 * self.total)
            .collect();
        causes.sort_by(|a, b| b.1.total_cmp(&a.1));
        if !causes.is_empty() {
            let causes: Vec<_> = causes
                .iter()
                .map(|(name, price)| format!("{} {}", name.replace('_', " "), money(*price)))
                .collect();
            let wasted = words::percent(self.wasted.total() / self.total);
            text.push_str(&format!("; {wasted} of it for time that trained nothing: {}", causes.join(", ")));
        }
        text
    }
}

/// Three digits that count, or cents where there are whole ones.
fn money(price: f64) -> String {
    if price >= 1.0 || price == 0.0 {
        return format!("{price:.2}");
    }
    let digits = (2.0 - price.log10().floor()).clamp(2.0, 12.0) as usize;
    format!("{price:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_hours_have_their_price_and_so_has_what_was_wasted() {
        let badput = Badput { bubble: 1800.0, recovery: 360.0, ..Badput::default() };
        let cost = Cost::of(0.5, 7200.0, &badput, 4_000_000);
        assert_eq!((cost.total, cost.per_million_tokens), (1.0, Some(0.25)));
        assert!((cost.wasted.bubble - 0.25).abs() < 1e-12 && (cost.wasted.total() - 0.3).abs() < 1e-12);
        assert_eq!(
            cost.render(),
            "1.00 for node time at 0.500 an hour, 0.250 a million tokens; 30 % of it for time that trained nothing: \
             bubble 0.250, recovery 0.0500"
        );
        assert_eq!(Cost::of(0.5, 0.0, &Badput::default(), 0).render(), "0.00 for node time at 0.500 an hour");
    }
}
