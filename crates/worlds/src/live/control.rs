//! What a parent tells a node after the start, a line each: faults to make on purpose.

use skipstone_net::CutDirection;
use skipstone_types::NodeId;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A line of the control pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// Cut the link to `peer` (node 0: the coordinator) for a while.
    Cut { peer: NodeId, direction: CutDirection, time: Duration },
    /// Damage what goes to `peer` next.
    Corrupt { peer: NodeId },
    /// Take longer by `pause` for every task, for a while.
    Slow { pause: Duration, time: Duration },
    /// Compute wrong sums of gradients from now on, of the usual size.
    Lie,
    /// Say hello to the coordinator: it is this node's turn.
    Enter,
    /// Leave, once others have what is needed of it.
    Leave,
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { peer, direction, time } => {
                let direction = match direction {
                    CutDirection::Outgoing => "outgoing",
                    CutDirection::Incoming => "incoming",
                    CutDirection::Both => "both",
                };
                write!(f, "cut {} {direction} {}", peer.0, time.as_millis())
            }
            Self::Corrupt { peer } => write!(f, "corrupt {}", peer.0),
            Self::Slow { pause, time } => write!(f, "slow {} {}", pause.as_millis(), time.as_millis()),
            Self::Lie => f.write_str("lie"),
            Self::Enter => f.write_str("enter"),
            Self::Leave => f.write_str("leave"),
        }
    }
}

impl FromStr for Control {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| word.parse::<u32>().map_err(drop);
        let millis = |word: &str| number(word).map(|millis| Duration::from_millis(u64::from(millis)));
        match words[..] {
            ["lie"] => Ok(Self::Lie),
            ["enter"] => Ok(Self::Enter),
            ["leave"] => Ok(Self::Leave),
            ["cut", peer, direction, time] => {
                let direction = match direction {
                    "outgoing" => CutDirection::Outgoing,
                    "incoming" => CutDirection::Incoming,
                    "both" => CutDirection::Both,
                    _ => return Err(()),
                };
                Ok(Self::Cut { peer: NodeId(number(peer)?), direction, time: millis(time)? })
            }
            ["corrupt", peer] => Ok(Self::Corrupt { peer: NodeId(number(peer)?) }),
            ["slow", pause, time] => Ok(Self::Slow { pause: millis(pause)?, time: millis(time)? }),
            _ => Err(()),
        }
    }
}

/// A brake on the compute thread.
#[derive(Debug, Default)]
pub(super) struct Brake {
    until: Mutex<Option<(Instant, Duration)>>,
}

impl Brake {
    pub(super) fn set(&self, pause: Duration, time: Duration) {
        *self.until.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Some((Instant::now() + time, pause));
    }

    /// Waits as long as a task is to take longer now.
    pub(super) fn wait(&self) {
        let mut until = self.until.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match *until {
            Some((end, pause)) if Instant::now() < end => {
                drop(until);
                std::thread::sleep(pause);
            }
            Some(_) => *until = None,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let time = Duration::from_millis(250);
        for control in [
            Control::Cut { peer: NodeId(0), direction: CutDirection::Both, time },
            Control::Cut { peer: NodeId(7), direction: CutDirection::Incoming, time },
            Control::Corrupt { peer: NodeId(9) },
            Control::Lie,
            Control::Enter,
            Control::Leave,
            Control::Slow { pause: Duration::from_millis(20), time },
        ] {
            assert_eq!(control.to_string().parse(), Ok(control));
        }
        for bad in ["", "cut", "cut 1 sideways 5", "corrupt", "slow 1", "save", "cut 1 both -5"] {
            assert_eq!(bad.parse::<Control>(), Err(()), "{bad}");
        }
    }
}
