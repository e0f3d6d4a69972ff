//! Mail that arrives at both organisations: each sender repeats until he is told yes. Where a message goes is decided by
//! the function of production, hop by hop, and once more under the mailbox's lock.

use rehome_domain::{
    address::{ProxyAddress, SmtpAddress},
    id::TenantId,
    mailflow::{Decision, MAX_ENTRIES, Passage, RouteFacts, route},
    recipient::Recipient,
};
use rehome_platform::{Place, Platforms};
use rehome_store::Store;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// An organisation as mail meets it.
pub struct Side {
    pub tenant: TenantId,
    pub store: Store,
    pub platforms: Platforms,
}

impl Side {
    pub async fn recipient(&self, address: &SmtpAddress) -> Option<Recipient> {
        let mut tx = self.store.read().await.unwrap();
        let key = ProxyAddress::Smtp(address.clone()).key();
        tx.recipient_by_proxy(self.tenant, &key).await.unwrap()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not tried before those with a lower number.
    Waits(u64),
    IsOffered,
    Accepted,
}

struct Message {
    mailbox: usize,
    octets: Vec<u8>,
    to: SmtpAddress,
    stage: Stage,
}

pub struct Post {
    pub source: Side,
    pub target: Side,
    messages: Mutex<Vec<Message>>,
    tries: AtomicU64,
}

enum Outcome {
    Accepted,
    PutOff,
}

impl Post {
    pub fn new(source: Side, target: Side) -> Self {
        Self {
            source,
            target,
            messages: Mutex::default(),
            tries: AtomicU64::new(0),
        }
    }

    /// Somebody writes to a mailbox, at its address in one of the two organisations.
    pub fn write(&self, mailbox: usize, to: &str) {
        let mut messages = self.messages.lock().unwrap();
        let number = messages.len();
        let octets = format!("Subject: {number}\r\nTo: {to}\r\n\r\nmessage {number} for mailbox {mailbox}\r\n");
        messages.push(Message {
            mailbox,
            octets: octets.into_bytes(),
            to: to.parse().unwrap(),
            stage: Stage::Waits(number as u64),
        });
    }

    /// How many were not accepted yet.
    pub fn waiting(&self) -> usize {
        let messages = self.messages.lock().unwrap();
        messages.iter().filter(|m| m.stage != Stage::Accepted).count()
    }

    /// What was accepted for a mailbox.
    pub fn accepted(&self, mailbox: usize) -> Vec<Vec<u8>> {
        let messages = self.messages.lock().unwrap();
        let mine = messages
            .iter()
            .filter(|m| m.mailbox == mailbox && m.stage == Stage::Accepted);
        let mut octets: Vec<_> = mine.map(|m| m.octets.clone()).collect();
        octets.sort();
        octets
    }

    pub async fn try_all(self: &Arc<Self>) {
        for _ in 0..self.waiting() {
            self.try_one(0).await;
        }
    }

    /// One of those that wait is tried. A sender's try goes on when whoever made him try here is gone.
    pub async fn try_one(self: &Arc<Self>, which: usize) {
        let post = Arc::clone(self);
        tokio::spawn(async move { post.offer_one(which).await }).await.unwrap();
    }

    async fn offer_one(&self, which: usize) {
        let (at, to, octets) = {
            let mut messages = self.messages.lock().unwrap();
            let mut waiting: Vec<_> = (0..messages.len())
                .filter_map(|at| match messages[at].stage {
                    Stage::Waits(since) => Some((since, at)),
                    Stage::IsOffered | Stage::Accepted => None,
                })
                .collect();
            waiting.sort_unstable();
            let Some((_, at)) = waiting.get(which % waiting.len().max(1)).copied() else {
                return;
            };
            messages[at].stage = Stage::IsOffered;
            (at, messages[at].to.clone(), messages[at].octets.clone())
        };
        let stage = match self.offer(to, &octets).await {
            Outcome::Accepted => Stage::Accepted,
            Outcome::PutOff => Stage::Waits(1_000_000 + self.tries.fetch_add(1, Ordering::SeqCst)),
        };
        self.messages.lock().unwrap()[at].stage = stage;
    }

    fn side_of(&self, address: &SmtpAddress) -> (usize, &Side) {
        if address.domain().as_str() == "contoso.example" {
            (0, &self.source)
        } else {
            (1, &self.target)
        }
    }

    async fn offer(&self, mut to: SmtpAddress, octets: &[u8]) -> Outcome {
        let mut entries = [0; 2];
        for hop in 0..2 * MAX_ENTRIES + 2 {
            let (number, side) = self.side_of(&to);
            let passage = Passage {
                earlier_entries: entries[number],
                received_lines: hop,
            };
            entries[number] += 1;
            let recipient = side.recipient(&to).await;
            match decide(recipient.as_ref(), passage) {
                Decision::Relay { address } => to = address,
                Decision::Defer(_) => return Outcome::PutOff,
                Decision::DeliverHere { .. } => return deliver(side, &to, passage, octets).await,
                refused @ (Decision::Refuse(_) | Decision::Expand { .. }) => {
                    panic!("mail for {to} is refused at hop {hop}: {refused:?}, {recipient:#?}")
                }
            }
        }
        panic!("mail for {to} goes round");
    }
}

fn decide(recipient: Option<&Recipient>, passage: Passage) -> Decision {
    route(&RouteFacts {
        domain_accepted: true,
        recipient,
        passage: Some(passage),
        cutover_under_way: false,
    })
}

async fn deliver(side: &Side, to: &SmtpAddress, passage: Passage, octets: &[u8]) -> Outcome {
    let Some(recipient) = side.recipient(to).await else {
        return Outcome::PutOff;
    };
    let Some(place) = recipient.mailbox().map(Place::from) else {
        return Outcome::PutOff;
    };
    let Ok(mut delivery) = side.platforms.deliver_begin(&place).await else {
        return Outcome::PutOff;
    };
    delivery.write(octets).await.unwrap();
    let whole = delivery.finish().await.unwrap();
    let Ok(lock) = side.platforms.deliver_lock(&place, Duration::from_secs(5)).await else {
        return Outcome::PutOff;
    };
    let now = side.recipient(to).await;
    match decide(now.as_ref(), passage) {
        Decision::DeliverHere { .. } if now.as_ref().and_then(Recipient::mailbox).map(Place::from) == Some(place) => {
            whole.publish(&lock).await.unwrap();
            Outcome::Accepted
        }
        _ => Outcome::PutOff,
    }
}
