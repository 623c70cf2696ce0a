//! The checks of an instance.

use std::collections::BTreeMap;

use super::{EdgeSwaps, INSTANCE_SCHEMA, Instance, InstanceError, Link, Quota};

/// Most nodes of an instance.
const NODES_MAX: usize = 20_000;
/// Most regions of an instance.
const REGIONS_MAX: usize = 1_000;
/// Most microbatches of an iteration.
const MICROBATCHES_MAX: u32 = 200_000;
/// Most stages.
const STAGES_MAX: u32 = 1_000;
/// Most visits of all microbatches together.
const VISITS_MAX: u64 = 4_000_000;
/// Longest iteration whose times are exact, seconds: one task after the other.
const SECONDS_MAX: f64 = 4.0e6;

impl Instance {
    /// Checks every field, and the fields against each other.
    ///
    /// # Errors
    /// The first thing wrong, see [`InstanceError`].
    pub fn check(&self) -> Result<(), InstanceError> {
        if self.schema != INSTANCE_SCHEMA {
            return Err(InstanceError::Schema { found: self.schema.chars().take(80).collect() });
        }
        self.check_sizes()?;
        self.check_numbers()?;
        self.check_nodes()?;
        self.check_links()?;
        self.check_stages()?;
        self.check_paths()?;
        self.check_duration()
    }

    fn check_sizes(&self) -> Result<(), InstanceError> {
        at_least_one("n_stages", self.n_stages)?;
        at_least_one("layers_per_stage", self.layers_per_stage)?;
        at_least_one("path_len", self.path_len)?;
        at_least_one("samples_per_mb", self.samples_per_mb)?;
        at_least_one("total_microbatches", self.total_microbatches)?;
        if let Some(most) = self.stage_visits_max {
            at_least_one("stage_visits_max", most)?;
        }
        at_most("n_stages", f64::from(self.n_stages), f64::from(STAGES_MAX))?;
        at_most("total_microbatches", f64::from(self.total_microbatches), f64::from(MICROBATCHES_MAX))?;
        at_most("layers_per_stage", f64::from(self.layers_per_stage), 1.0e6)?;
        at_most("origin_layers", f64::from(self.layers_of_origin()), 1.0e6)?;
        at_most("samples_per_mb", f64::from(self.samples_per_mb), 1.0e6)?;
        at_most("nodes", self.nodes.len() as f64, NODES_MAX as f64)?;
        let visits = u64::from(self.n_stages) * u64::from(self.total_microbatches);
        at_most("total_microbatches × n_stages", visits as f64, VISITS_MAX as f64)
    }

    fn check_numbers(&self) -> Result<(), InstanceError> {
        for (field, value) in [
            ("activation_bytes_per_sample", self.activation_bytes_per_sample),
            ("param_bytes_per_stage", self.param_bytes_per_stage),
            ("backward_ratio", self.backward_ratio),
            ("loss_ratio", self.loss_ratio),
            ("link_overhead_s", self.link_overhead_s),
            ("task_gap_s", self.task_gap_s),
            ("skip_ratio", self.skip_ratio.unwrap_or(0.0)),
            ("waves", self.waves.unwrap_or(0.0)),
            ("dp_allreduce_max_s", self.dp_allreduce_max_s.unwrap_or(0.0)),
        ] {
            not_negative(field, value)?;
            at_most(field, value, 1.0e15)?;
        }
        check_link("regions.intra", &self.regions.intra)
    }

    fn check_nodes(&self) -> Result<(), InstanceError> {
        if self.nodes.is_empty() {
            return Err(InstanceError::Number {
                field: "nodes (its length)".to_owned(),
                found: 0.0,
                must: "at least 1",
            });
        }
        for (place, node) in self.nodes.iter().enumerate() {
            if node.id as usize != place {
                let duplicate = self.nodes.iter().filter(|other| other.id == node.id).count() > 1;
                return Err(InstanceError::NodeId { place, found: node.id, duplicate });
            }
            let speed = node.compute_s_per_layer_sample;
            if !(speed.is_finite() && speed > 0.0) {
                return Err(InstanceError::Number {
                    field: format!("nodes[{place}].compute_s_per_layer_sample"),
                    found: speed,
                    must: "above 0",
                });
            }
            at_least_one(&format!("nodes[{place}].memory"), node.memory)?;
        }
        Ok(())
    }

    fn check_links(&self) -> Result<(), InstanceError> {
        let mut links: BTreeMap<(&str, &str), Link> = BTreeMap::new();
        for (place, entry) in self.regions.links.iter().enumerate() {
            check_link(&format!("regions.links[{place}]"), &entry.link)?;
            check_link(&format!("regions.links[{place}].back"), &entry.back())?;
            for (a, b, link) in [(&entry.a, &entry.b, entry.link), (&entry.b, &entry.a, entry.back())] {
                if links.insert((a, b), link).is_some_and(|other| other != link) {
                    let (a, b) = ordered(a, b);
                    return Err(InstanceError::LinkTwice { a: a.to_owned(), b: b.to_owned() });
                }
            }
        }
        let mut regions: Vec<&str> = self.nodes.iter().map(|node| node.region.as_str()).collect();
        regions.sort_unstable();
        regions.dedup();
        at_most("nodes (their regions)", regions.len() as f64, REGIONS_MAX as f64)?;
        for (index, a) in regions.iter().enumerate() {
            for b in &regions[index + 1..] {
                if !links.contains_key(&(*a, *b)) {
                    return Err(InstanceError::MissingLink { a: (*a).to_owned(), b: (*b).to_owned() });
                }
            }
        }
        Ok(())
    }

    fn check_stages(&self) -> Result<(), InstanceError> {
        let contradiction =
            |field, reason: String, remedy| Err(InstanceError::Contradiction { field, reason, remedy });
        let nodes = self.nodes.len();
        let total = self.total_microbatches;
        if let Some(sizes) = &self.stage_sizes {
            if sizes.len() != self.n_stages as usize {
                return contradiction(
                    "stage_sizes",
                    format!("it has {} sizes, and n_stages is {}", sizes.len(), self.n_stages),
                    "give one size for each stage, the origin's first",
                );
            }
            let sum: u64 = sizes.iter().map(|size| u64::from(*size)).sum();
            if sum != nodes as u64 {
                return contradiction(
                    "stage_sizes",
                    format!("the sizes add up to {sum}, and there are {nodes} nodes"),
                    "every node serves exactly one stage",
                );
            }
            if sizes[0] == 0 {
                return contradiction(
                    "stage_sizes",
                    "stage 0 has no node".to_owned(),
                    "every path starts at an origin; give stage 0 a node",
                );
            }
        }
        match &self.microbatches_per_origin {
            Quota::List(list) => {
                let sum: u64 = list.iter().map(|quota| u64::from(*quota)).sum();
                if list.is_empty()
                    || self.stage_sizes.as_ref().is_some_and(|sizes| sizes[0] as usize != list.len())
                {
                    return contradiction(
                        "microbatches_per_origin",
                        format!("the list has {} entries, another number than stage 0 has nodes", list.len()),
                        "give one entry for each node of stage 0",
                    );
                }
                if sum != u64::from(total) {
                    return contradiction(
                        "microbatches_per_origin",
                        format!("its entries add up to {sum}, and total_microbatches is {total}"),
                        "make the two agree",
                    );
                }
            }
            Quota::Each(each) => {
                at_least_one("microbatches_per_origin", *each)?;
                let fits = match &self.stage_sizes {
                    Some(sizes) => u64::from(*each) * u64::from(sizes[0]) == u64::from(total),
                    None => total.is_multiple_of(*each),
                };
                if !fits {
                    return contradiction(
                        "microbatches_per_origin",
                        format!("{each} for each origin can't add up to total_microbatches {total}"),
                        "total_microbatches = microbatches_per_origin × nodes of stage 0",
                    );
                }
            }
        }
        if self.stage_sizes.is_none() && nodes < self.origins() + self.n_stages as usize - 1 {
            return contradiction(
                "nodes",
                format!(
                    "{nodes} nodes can't be {} origins and {} relay stages",
                    self.origins(),
                    self.n_stages - 1
                ),
                "add nodes, or take fewer stages or origins",
            );
        }
        Ok(())
    }

    fn check_paths(&self) -> Result<(), InstanceError> {
        let contradiction =
            |field, reason: String, remedy| Err(InstanceError::Contradiction { field, reason, remedy });
        if self.path_len > self.n_stages {
            return contradiction(
                "path_len",
                format!(
                    "it is {}, above n_stages {}, and no stage is visited twice",
                    self.path_len, self.n_stages
                ),
                "make path_len at most n_stages",
            );
        }
        let relays = self.path_len - 1;
        if relays > 0 && self.max_jump == 0 {
            return contradiction(
                "max_jump",
                format!("it is 0, and path_len {} asks for relays", self.path_len),
                "make max_jump at least 1",
            );
        }
        let served: u64 = match &self.stage_sizes {
            Some(sizes) => sizes[1..].iter().filter(|size| **size > 0).count() as u64,
            None => u64::from(self.n_stages) - 1,
        };
        if u64::from(relays) > served {
            return contradiction(
                "stage_sizes",
                format!(
                    "only {served} relay stages have a node, and path_len {} asks for {relays}",
                    self.path_len
                ),
                "give more stages a node, or shorten path_len",
            );
        }
        if let Some(most) = self.stage_visits_max {
            let need = u64::from(relays) * u64::from(self.total_microbatches);
            let have = served * u64::from(most);
            if need > have {
                return contradiction(
                    "stage_visits_max",
                    format!(
                        "{most} visits for each of {served} relay stages are {have}, and the microbatches need {need}"
                    ),
                    "raise stage_visits_max, or shorten path_len",
                );
            }
        }
        if self.edge_swaps == Some(EdgeSwaps::Odd)
            && self.total_microbatches > 1
            && self.n_stages == 2
            && relays == 1
        {
            return contradiction(
                "edge_swaps",
                "with one relay stage there is nothing to swap".to_owned(),
                "leave edge_swaps out, or take more stages",
            );
        }
        Ok(())
    }

    /// Times are microseconds in 43 bits: an iteration in which one task follows the other must fit.
    fn check_duration(&self) -> Result<(), InstanceError> {
        let slowest = self.nodes.iter().map(|node| node.compute_s_per_layer_sample).fold(0.0, f64::max);
        let layers = f64::from(self.layers_per_stage.max(self.layers_of_origin()));
        let forward = slowest * layers * f64::from(self.samples_per_mb);
        let task = forward * (1.0 + self.backward_ratio + self.loss_ratio) + 3.0 * self.task_gap_s;
        let bytes = self.activation_bytes_per_sample * f64::from(self.samples_per_mb);
        let intra = self.regions.intra;
        let links = self.regions.links.iter().flat_map(|entry| {
            let (there, back) = (entry.link, entry.back());
            [there.way(&back), back.way(&there)]
        });
        let transfer = links
            .chain([intra.way(&intra)])
            .map(|way| way.tensor_s(bytes) + self.link_overhead_s)
            .fold(0.0, f64::max);
        let visits = f64::from(self.total_microbatches) * f64::from(self.n_stages);
        at_most(
            "nodes, regions (seconds of all tasks and transfers, one after the other)",
            visits * (task + 2.0 * transfer),
            SECONDS_MAX,
        )
    }
}

fn ordered<'a>(a: &'a str, b: &'a str) -> (&'a str, &'a str) {
    if a <= b { (a, b) } else { (b, a) }
}

fn check_link(field: &str, link: &Link) -> Result<(), InstanceError> {
    not_negative(&format!("{field}.latency_s"), link.latency_s)?;
    not_negative(&format!("{field}.jitter_s"), link.jitter_s)?;
    if !(0.0..=Link::LOSS_MAX).contains(&link.loss) {
        let must = "a share from 0 to 0.5";
        return Err(InstanceError::Number { field: format!("{field}.loss"), found: link.loss, must });
    }
    let bandwidth = link.bandwidth_bytes_per_s;
    if bandwidth.is_finite() && bandwidth > 0.0 {
        return Ok(());
    }
    Err(InstanceError::Number { field: format!("{field}.bandwidth_Bps"), found: bandwidth, must: "above 0" })
}

fn at_least_one(field: &str, value: u32) -> Result<(), InstanceError> {
    if value > 0 {
        return Ok(());
    }
    Err(InstanceError::Number { field: field.to_owned(), found: 0.0, must: "at least 1" })
}

fn not_negative(field: &str, value: f64) -> Result<(), InstanceError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(InstanceError::Number { field: field.to_owned(), found: value, must: "a finite number, 0 or more" })
}

fn at_most(field: &str, value: f64, most: f64) -> Result<(), InstanceError> {
    if value <= most {
        return Ok(());
    }
    Err(InstanceError::TooLarge { field: field.to_owned(), found: value, most })
}
