//! `skipstone manage`.

use crate::commands::tickets::parse_life;
use crate::failure::{Failure, Outcome};
use crate::output::{print, print_json, say};
use crate::ticket_table::{parse_capability, parse_number, ticket_table};
use clap::Args;
use serde_json::json;
use skipstone_types::NodeId;
use skipstone_worlds::live::remote::{Capability, ManageError, Managed, Order, manage};

const EXAMPLES: &str = "\
Examples:
  skipstone manage skipstone1abc…                       the run's tickets, and until when they hold
  skipstone manage skipstone1abc… --new                 one more ticket to join with, for a day
  skipstone manage skipstone1abc… --new --for viewer    one that only shows the run: skipstone watch TICKET
  skipstone manage skipstone1abc… --revoke 2            lets nobody in any more, and cuts off who came with it
  skipstone manage skipstone1abc… --save                saves the states of all stages after this iteration
  skipstone manage skipstone1abc… --drain 7             has node 7 leave: others take its work over first, then it ends
  skipstone manage skipstone1abc… --stop                ends the iteration, saves, and stops; `train --resume` goes on

The ticket comes from `skipstone tickets DIR --new --for admin`, on the machine that the run was started on. Its owner can also join
and watch. It issues no tickets like itself: revoke it, and nobody else manages the run.";

/// Options of `manage`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Manage {
    /// An admin's ticket
    ticket: String,
    /// Issue a ticket
    #[arg(long, group = "order")]
    new: bool,
    /// For how long it lets machines in, as 90s, 10m or 1h
    #[arg(long, value_name = "TIME", value_parser = parse_life, default_value = "24h", requires = "new")]
    life: f64,
    /// What it is for: worker joins with nodes, viewer only watches
    #[arg(long = "for", value_name = "worker|viewer", value_parser = parse_capability, default_value = "worker", requires = "new")]
    capability: Capability,
    /// Take a ticket back, by its number
    #[arg(long, value_name = "NUMBER", value_parser = parse_revoked, group = "order")]
    revoke: Option<u64>,
    /// Save after this iteration
    #[arg(long, group = "order")]
    save: bool,
    /// Stop after this iteration, and save
    #[arg(long, group = "order")]
    stop: bool,
    /// Have a node leave, by its number, as if its machine had given notice
    #[arg(long, value_name = "NODE", group = "order")]
    drain: Option<u32>,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// What `--revoke` takes from elsewhere.
fn parse_revoked(text: &str) -> Result<u64, String> {
    if text == "expired" {
        return Err("expired tickets let nobody in; `skipstone tickets DIR --revoke expired` forgets them, where the run is".to_owned());
    }
    parse_number(text)
}

impl Manage {
    fn order(&self) -> Order {
        if let Some(node) = self.drain {
            return Order::Drain { node: NodeId(node) };
        }
        match (self.new, self.revoke, self.save, self.stop) {
            (true, ..) => Order::Issue { capability: self.capability, life_s: self.life as u64 },
            (_, Some(id), ..) => Order::Revoke { id },
            (_, _, true, _) => Order::Save,
            (_, _, _, true) => Order::Stop,
            _ => Order::List,
        }
    }

    pub(crate) fn run(self) -> Outcome {
        let order = self.order();
        let managed = manage(&self.ticket, order).map_err(|why| match why {
            ManageError::Ticket(_) | ManageError::Unfit(_) | ManageError::Refused(_) => Failure::input(why),
            why => Failure::failed(why),
        })?;
        match managed {
            Managed::Tickets(tickets) if self.json => print_json(&json!({ "tickets": tickets })),
            Managed::Tickets(tickets) => print(&ticket_table(&tickets)),
            Managed::Issued { id, ticket } if self.json => print_json(&json!({ "ticket": ticket, "id": id })),
            Managed::Issued { ticket, .. } => {
                print(&format!("skipstone {} {ticket}\n", self.capability.command()))
            }
            Managed::Done if self.json => print_json(&json!({ "done": true })),
            Managed::Done => {
                say(match order {
                    Order::Save => "the run saves after this iteration",
                    Order::Drain { .. } => "the node leaves once others have what they need of it",
                    Order::Stop => {
                        "the run stops after this iteration, and saves; `skipstone train --resume` goes on where it was started"
                    }
                    _ => "the ticket lets nobody in any more; who came with it is cut off within seconds",
                });
                Ok(())
            }
        }
    }
}
