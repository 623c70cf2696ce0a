//! Everything that can go wrong, by name. The simulation and chaos runs of real processes share these names.

use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

macro_rules! faults {
    ($($kind:ident $name:literal $description:literal,)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $(#[doc = $description] $kind,)*
        }

        /// Name and description of each, in the order of the enum.
        const TABLE: &[(Fault, &str, &str)] = &[$((Fault::$kind, $name, $description),)*];
    };
}

faults! {
    Kill "kill" "a node's process dies; an empty one may take its place",
    Restore "restore" "a node's process dies and comes back as it was a while before",
    Stop "stop" "a node stands still for a while, and goes on where it stood",
    Slow "slow" "a node computes 2 to 50 times slower for a while",
    Hang "hang" "a node lives, and answers, but its tasks do not end for a while",
    Drain "drain" "a node is told that its machine is about to be taken away",
    Task "task" "a task of a node fails",
    Numbers "numbers" "a node computes wrong numbers",
    Clock "clock" "the clock of a node or of the coordinator jumps",
    Cut "cut" "a connection breaks: between two nodes, or to the coordinator",
    Partition "partition" "some nodes can't reach the others: both ways, one way, or a whole region",
    Delay "delay" "a node's messages take 10 to 100 times as long for a while",
    Loss "loss" "what is sent on a connection vanishes, until it is seen to be dead",
    Reorder "reorder" "frames between two nodes overtake each other",
    Duplicate "duplicate" "frames between two nodes arrive twice",
    Stale "stale" "frames of earlier iterations and attempts arrive again",
    Corrupt "corrupt" "a frame arrives cut short or with flipped bits; it costs the connection",
    Coordinator "coordinator" "the coordinator dies between two commands, and is started again",
    Journal "journal" "the coordinator dies just before, in the middle of, or just after a write",
    Pause "pause" "the coordinator stands still for a while",
    Disk "disk" "the disk is full for a while: journal writes wait, saves fail",
    Transfer "transfer" "a donor or a joiner dies in mid-transfer",
    Stage "stage" "all replicas of a stage die at once",
    Adjacent "adjacent" "all replicas of two adjacent stages die at once",
    Origins "origins" "all origins but one die at once",
    Save "save" "not a fault, but it may fall between any two steps: state/ is asked for",
    Interrupt "interrupt" "Ctrl-C at any moment; the run goes on with --resume",
    Blackout "blackout" "everything dies at once; the run goes on with --resume",
    Lie "lie" "a node computes wrong shares of the usual size from then on, where replicas check each other",
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; TABLE.len()] = {
        let mut all = [Self::Kill; TABLE.len()];
        let mut index = 0;
        while index < TABLE.len() {
            all[index] = TABLE[index].0;
            index += 1;
        }
        all
    };

    /// Its name.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// What goes wrong, in one line.
    pub fn description(self) -> &'static str {
        TABLE[self as usize].2
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A name that no fault has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no fault called {0:?}; name some of {known}, with commas between, or all", known = names())]
pub struct UnknownFault(pub String);

fn names() -> String {
    Fault::ALL.map(Fault::name).join(", ")
}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Self, UnknownFault> {
        let found = Self::ALL.into_iter().find(|fault| fault.name() == name);
        found.ok_or_else(|| UnknownFault(name.to_owned()))
    }
}

/// Kinds of faults that may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultSet(u32);

impl FaultSet {
    /// Every fault.
    pub const ALL: Self = Self((1 << TABLE.len()) - 1);

    /// Whether it may happen.
    pub fn contains(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u32) != 0
    }
}

impl FromIterator<Fault> for FaultSet {
    fn from_iter<I: IntoIterator<Item = Fault>>(faults: I) -> Self {
        Self(faults.into_iter().fold(0, |set, fault| set | (1 << fault as u32)))
    }
}

/// `all`, or names with commas between.
impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("all");
        }
        let chosen: Vec<_> =
            Fault::ALL.into_iter().filter(|fault| self.contains(*fault)).map(Fault::name).collect();
        f.write_str(&chosen.join(","))
    }
}

impl FromStr for FaultSet {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        if text == "all" {
            return Ok(Self::ALL);
        }
        text.split(',').map(|name| name.trim().parse()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (index, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, index);
            assert_eq!(fault.to_string().parse(), Ok(fault));
            let alone: FaultSet = fault.name().parse().expect("a set");
            assert_eq!(alone.to_string(), fault.name());
            assert!(Fault::ALL.into_iter().all(|other| alone.contains(other) == (other == fault)));
        }
        assert_eq!("all".parse(), Ok(FaultSet::ALL));
        assert_eq!("stop, kill".parse::<FaultSet>().expect("a set").to_string(), "kill,stop");
        for wrong in ["", "Kill", "kill,", "everything"] {
            assert!(wrong.parse::<FaultSet>().is_err(), "{wrong}");
        }
    }
}
