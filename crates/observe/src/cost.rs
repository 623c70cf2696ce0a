//! What a run cost, where it was said what a node costs.

use crate::account::Badput;
use crate::words;
use serde::{Deserialize, Serialize};

const SECONDS_PER_HOUR: f64 = 3600.0;

/// Bytes of the unit that traffic is priced by.
const BYTES_PER_GB: f64 = 1e9;

/// What a run cost, in the currency of its prices.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Price of a node and hour.
    pub price_per_hour: f64,
    /// Price of all node-seconds, and of what was sent if that has one.
    pub total: f64,
    /// `total` over millions of tokens trained on; none before the first.
    pub per_million_tokens: Option<f64>,
    /// Price of the node-seconds that did not end in a commit, by cause.
    pub wasted: Badput,
    /// What was sent, where it was said what that costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficCost>,
}

/// What it cost that nodes sent each other tensors.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct TrafficCost {
    /// Price of 10⁹ bytes.
    pub price_per_gb: f64,
    /// Bytes of tensors sent.
    pub sent_bytes: u64,
    /// Price of them.
    pub total: f64,
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
            traffic: None,
        }
    }

    /// With so many bytes sent in all, for so many tokens.
    #[must_use]
    pub fn with_traffic(self, price_per_gb: f64, sent_bytes: u64, tokens: u64) -> Self {
        let traffic =
            TrafficCost { price_per_gb, sent_bytes, total: price_per_gb * sent_bytes as f64 / BYTES_PER_GB };
        let total = self.node_time() + traffic.total;
        Self {
            total,
            per_million_tokens: (tokens > 0).then(|| total / (tokens as f64 / 1e6)),
            traffic: Some(traffic),
            ..self
        }
    }

    /// Price of all node-seconds.
    fn node_time(&self) -> f64 {
        self.total - self.traffic.map_or(0.0, |traffic| traffic.total)
    }

    /// As people read it.
    pub fn render(&self) -> String {
        let node_time = self.node_time();
        let mut parts = Vec::new();
        if self.price_per_hour > 0.0 || self.traffic.is_none() {
            parts.push(format!(
                "{} for node time at {} an hour",
                money(node_time),
                money(self.price_per_hour)
            ));
        }
        if let Some(TrafficCost { price_per_gb, sent_bytes, total }) = self.traffic {
            let gb = sent_bytes as f64 / BYTES_PER_GB;
            parts.push(format!("{} for {gb:.3} GB sent at {} a GB", money(total), money(price_per_gb)));
        }
        if let Some(price) = self.per_million_tokens {
            parts.push(format!("{} a million tokens", money(price)));
        }
        let mut text = parts.join(", ");
        let mut causes: Vec<_> = self
            .wasted
            .causes()
            .into_iter()
            .filter(|(_, price)| *price > 0.0 && *price >= 0.005 * node_time)
            .collect();
        causes.sort_by(|a, b| b.1.total_cmp(&a.1));
        if !causes.is_empty() {
            let causes: Vec<_> = causes
                .iter()
                .map(|(name, price)| format!("{} {}", name.replace('_', " "), money(*price)))
                .collect();
            let wasted = words::percent(self.wasted.total() / node_time);
            let of = if self.traffic.is_some() { "node time" } else { "it" };
            text.push_str(&format!(
                "; {wasted} of {of} for time that trained nothing: {}",
                causes.join(", ")
            ));
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

    #[test]
    fn what_is_sent_has_its_own_price() {
        let badput = Badput { bubble: 1800.0, ..Badput::default() };
        let cost = Cost::of(0.5, 7200.0, &badput, 4_000_000).with_traffic(0.08, 12_500_000_000, 4_000_000);
        assert_eq!((cost.total, cost.per_million_tokens), (2.0, Some(0.5)));
        assert_eq!(
            cost.render(),
            "1.00 for node time at 0.500 an hour, 1.00 for 12.500 GB sent at 0.0800 a GB, 0.500 a million tokens; 25 % of \
             node time for time that trained nothing: bubble 0.250"
        );
        let alone = Cost::of(0.0, 7200.0, &badput, 0).with_traffic(0.1, 1_000_000_000, 0);
        assert_eq!(alone.render(), "0.100 for 1.000 GB sent at 0.100 a GB");
        let json = serde_json::to_value(Cost::of(0.5, 1.0, &badput, 1)).unwrap();
        assert!(json.get("traffic").is_none(), "who asks for no price of traffic reads what he read before");
    }
}
