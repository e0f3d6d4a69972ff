//! One mail transaction: its recipients, its message, and what becomes of it.

use crate::{
    decide::{Destination, Verdict, decide},
    handed_over,
    next_hop::NextHop,
    relay::{Conversation, RelayError},
    replies,
    serve::Shared,
    spool::Spool,
};
use rehome_domain::{
    address::SmtpAddress,
    id::{ExchangeGuid, TenantId},
    mailflow::{DeferReason, Passage},
    recipient::Mailbox,
};
use rehome_platform::{DeliveryLock, Place, PlatformError, WholeDelivery};
use rehome_wire::{
    digest::{Digest, Digester},
    smtp::Reply,
    trace_header::{Received, TraceHeaders, trace_line},
};
use std::{collections::BTreeMap, net::IpAddr, pin::pin, sync::Arc};
use tokio::time::{Instant, timeout_at};

/// Octets read back at once.
const PIECE: usize = 32 * 1024;

/// Where a message comes from.
pub(crate) struct Origin {
    /// The name in EHLO.
    pub(crate) hello: String,
    /// Address of the other end.
    pub(crate) peer: IpAddr,
    /// As a `Received` line names it.
    pub(crate) protocol: &'static str,
}

/// A recipient we said yes to.
struct Accepted {
    address: SmtpAddress,
    tenant: TenantId,
    destinations: Vec<Destination>,
}

/// A next hop of this transaction, with the recipients it said yes to.
struct Remote {
    hop: NextHop,
    recipients: Vec<SmtpAddress>,
    open: Option<Conversation>,
}

/// A transaction, from MAIL on.
pub(crate) struct Transaction {
    shared: Arc<Shared>,
    id: String,
    origin: Origin,
    from: Option<String>,
    size: Option<u64>,
    eight_bit: bool,
    accepted: Vec<Accepted>,
    remotes: Vec<Remote>,
    message: Spool,
    digester: Digester,
    spool_failed: bool,
    /// Recipients that are known but not delivered to now, named by the null sender: see [`Transaction::recipient`].
    waiting: bool,
}

/// Where one recipient's mail goes, hop by hop.
#[derive(Default)]
struct Plan {
    here: bool,
    there: Vec<(NextHop, Vec<SmtpAddress>)>,
}

impl Transaction {
    pub(crate) fn new(
        shared: Arc<Shared>,
        origin: Origin,
        from: Option<String>,
        size: Option<u64>,
        eight_bit: bool,
    ) -> Self {
        let message = Spool::new(&shared.settings.spool);
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self {
            shared,
            id,
            origin,
            from,
            size,
            eight_bit,
            accepted: Vec::new(),
            remotes: Vec::new(),
            message,
            digester: Digester::new(),
            spool_failed: false,
            waiting: false,
        }
    }

    /// Answers for a recipient. A next hop is asked first, so that a yes is a yes.
    ///
    /// The null sender is told whether a mailbox in cutover is known, and put off at DATA: that is how the partner asks,
    /// while the mailbox is locked, whether mail will be taken once it has moved.
    pub(crate) async fn recipient(&mut self, to: &str) -> Reply {
        if self.accepted.len() >= self.shared.settings.max_recipients {
            return Reply::new(452, "4.5.3", "Too many recipients");
        }
        // What the directory cannot hold nobody has.
        let Ok(address) = to.parse::<SmtpAddress>() else {
            return Reply::new(550, "5.1.1", "No such recipient");
        };
        let verdict = match decide(&self.shared.store, &address, &|_| None).await {
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::error!(id = self.id, %error, "mail flow cannot read the state");
                return replies::failure();
            }
        };
        let Verdict::Deliver { tenant, destinations } = verdict else {
            if self.from.is_none() && self.accepted.is_empty() && waits(&verdict) {
                self.waiting = true;
                return Reply::new(250, "2.1.5", "Recipient accepted");
            }
            let reply = replies::of_verdict(&verdict);
            tracing::info!(id = self.id, peer = %self.origin.peer, %address, ?verdict, %reply, "a recipient was not accepted");
            return reply;
        };
        if self.waiting {
            return replies::another_transaction();
        }
        let shared = Arc::clone(&self.shared);
        let included = match shared.asking.open(self.from.as_deref(), &address.key()) {
            Some(_question) => self.include(tenant, &destinations).await,
            None => Err(replies::circle()),
        };
        match included {
            Ok(()) => {
                self.accepted.push(Accepted {
                    address,
                    tenant,
                    destinations,
                });
                Reply::new(250, "2.1.5", "Recipient accepted")
            }
            Err(reply) => {
                tracing::info!(id = self.id, peer = %self.origin.peer, %address, %reply, "a recipient was not accepted");
                reply
            }
        }
    }

    /// Whether the message may be sent now.
    pub(crate) fn may_begin(&self) -> Result<(), Reply> {
        if self.waiting { Err(replies::busy()) } else { Ok(()) }
    }

    /// Makes the destinations of one more recipient part of the transaction, if they can be.
    async fn include(&mut self, tenant: TenantId, destinations: &[Destination]) -> Result<(), Reply> {
        for destination in destinations {
            if let (Destination::Here { mailbox, .. }, Some(size)) = (destination, self.size) {
                fits(mailbox, size)?;
            }
        }
        let plan = self.plan(destinations).await?;
        if let Some(first) = self.accepted.first() {
            let has_here = self
                .accepted
                .iter()
                .flat_map(|a| &a.destinations)
                .any(|d| matches!(d, Destination::Here { .. }));
            let known = |hop: &NextHop| self.remotes.iter().any(|remote| remote.hop == *hop);
            if first.tenant != tenant || (plan.here && !has_here) || !plan.there.iter().all(|(hop, _)| known(hop)) {
                return Err(replies::another_transaction());
            }
        }
        let mut offered = Ok(());
        let mut additions = Vec::new();
        for (hop, addresses) in plan.there {
            let at = self
                .remotes
                .iter()
                .position(|remote| remote.hop == hop)
                .unwrap_or_else(|| {
                    self.remotes.push(Remote {
                        hop,
                        recipients: Vec::new(),
                        open: None,
                    });
                    self.remotes.len() - 1
                });
            let new: Vec<_> = addresses
                .into_iter()
                .filter(|a| !self.remotes[at].recipients.contains(a))
                .collect();
            offered = self.offer(at, &new).await;
            additions.push((at, new));
            if offered.is_err() {
                break;
            }
        }
        match offered {
            Ok(()) => {
                for (at, new) in additions {
                    self.remotes[at].recipients.extend(new);
                }
                Ok(())
            }
            Err(reply) => {
                // A hop may have said yes to someone for whom we say no: it must forget.
                let several = additions.len() > 1;
                for (at, new) in additions {
                    if several || new.len() > 1 {
                        self.remotes[at].open = None;
                    }
                }
                self.remotes.retain(|remote| !remote.recipients.is_empty());
                Err(reply)
            }
        }
    }

    async fn plan(&self, destinations: &[Destination]) -> Result<Plan, Reply> {
        let mut plan = Plan::default();
        for destination in destinations {
            match destination {
                Destination::Here { .. } => plan.here = true,
                Destination::There(address) => {
                    let hop = self.shared.next_hops.of(address.domain()).await.map_err(|error| {
                        tracing::warn!(id = self.id, %address, %error, "no next hop");
                        replies::of_next_hop_error(&error)
                    })?;
                    match plan.there.iter_mut().find(|(known, _)| *known == hop) {
                        Some((_, addresses)) if addresses.contains(address) => {}
                        Some((_, addresses)) => addresses.push(address.clone()),
                        None => plan.there.push((hop, vec![address.clone()])),
                    }
                }
            }
        }
        Ok(plan)
    }

    /// Asks a next hop about more recipients, on the open conversation or a new one.
    async fn offer(&mut self, at: usize, new: &[SmtpAddress]) -> Result<(), Reply> {
        let reused = self.remotes[at].open.is_some();
        match self.try_offer(at, new).await {
            // The hop may have tired of waiting for us.
            Err(Offer::Failed(_)) if reused => {
                self.remotes[at].open = None;
                self.try_offer(at, new).await
            }
            other => other,
        }
        .map_err(|offer| self.offer_reply(offer))
    }

    fn offer_reply(&self, offer: Offer) -> Reply {
        match offer {
            Offer::Refused(reply) => replies::of_next_hop(&reply),
            Offer::Failed(error) => {
                tracing::warn!(id = self.id, error = %chain(&error), "a next hop failed");
                replies::unreachable()
            }
        }
    }

    async fn try_offer(&mut self, at: usize, new: &[SmtpAddress]) -> Result<(), Offer> {
        let remote = &mut self.remotes[at];
        // The answer about the first recipient, who is named together with the sender.
        let mut first = None;
        let mut conversation = match remote.open.take() {
            Some(conversation) => conversation,
            None => {
                let mut conversation = self.shared.caller.open(&remote.hop).await.map_err(Offer::Failed)?;
                let from = self.from.as_deref();
                let mail = match remote.recipients.first().or(new.first()) {
                    Some(recipient) => {
                        let asked = conversation.mail_and_rcpt(from, self.size, self.eight_bit, recipient);
                        asked.await.map(|(mail, rcpt)| {
                            first = rcpt;
                            mail
                        })
                    }
                    None => conversation.mail(from, self.size, self.eight_bit).await,
                };
                positive(mail)?;
                for recipient in &remote.recipients {
                    positive(answered(&mut first, &mut conversation, recipient).await)?;
                }
                conversation
            }
        };
        for (count, recipient) in new.iter().enumerate() {
            let answer = positive(answered(&mut first, &mut conversation, recipient).await);
            if let Err(Offer::Refused(_)) = answer
                && count == 0
            {
                // The hop has not said yes to anyone it should forget.
                remote.open = Some(conversation);
                return answer;
            }
            answer?;
        }
        remote.open = Some(conversation);
        Ok(())
    }

    /// Takes octets of the message.
    pub(crate) async fn octets(&mut self, octets: &[u8]) {
        if self.spool_failed {
            return;
        }
        self.digester.update(octets);
        if let Err(error) = self.message.write(octets).await {
            tracing::error!(id = self.id, %error, "a message could not be spooled");
            self.spool_failed = true;
        }
    }

    /// The message is whole: puts it where it belongs and answers for it.
    pub(crate) async fn deliver(mut self) -> Reply {
        let octets = self.message.length();
        let reply = match self.try_deliver().await {
            Ok(reply) | Err(reply) => reply,
        };
        let recipients: Vec<String> = self.accepted.iter().map(|a| a.address.to_string()).collect();
        tracing::info!(
            id = self.id,
            peer = %self.origin.peer,
            from = self.from.as_deref().unwrap_or("<>"),
            recipients = recipients.join(", "),
            octets,
            %reply,
            "message"
        );
        reply
    }

    async fn try_deliver(&mut self) -> Result<Reply, Reply> {
        if self.spool_failed {
            return Err(Reply::new(452, "4.3.1", "No room for the message, try again later"));
        }
        let headers = TraceHeaders::read(self.message.head());
        self.decide_again(&headers).await?;
        let mailboxes = self.mailboxes();
        for mailbox in mailboxes.values() {
            fits(mailbox, self.message.length())?;
        }
        let lines = self.lines();
        let mut whole = Vec::with_capacity(mailboxes.len());
        for mailbox in mailboxes.values() {
            let place = Place::from(mailbox);
            let delivery = self
                .write_beside(&place, &lines)
                .await
                .map_err(|error| self.delivery_failed(&error))?;
            whole.push((place, delivery));
        }
        let names = self.names();
        let mut taken: Vec<bool> = names.iter().map(|name| self.shared.handed_over.holds(*name)).collect();
        let outcome = self.bring(whole, &headers, &lines, &mut taken).await;
        match &outcome {
            Ok(_) => names.iter().for_each(|name| self.shared.handed_over.forget(*name)),
            Err(_) => {
                let taken = names.iter().zip(&taken).filter(|(_, taken)| **taken);
                taken.for_each(|(name, _)| self.shared.handed_over.note(*name));
            }
        }
        outcome.map_err(|reply| {
            if taken.contains(&true) {
                replies::for_the_rest(reply)
            } else {
                reply
            }
        })
    }

    /// Names this message for each next hop, as its sender's repetition will name it.
    fn names(&self) -> Vec<Digest> {
        let message = self.digester.clone().finish();
        let remotes = self.remotes.iter();
        remotes
            .map(|remote| handed_over::key(self.from.as_deref(), &remote.recipients, message))
            .collect()
    }

    /// Brings the message to every hop that has not taken it, and into the inboxes. What may last is done without locks:
    /// a hop that has everything but the end of the message has not taken it. Then locks, the state once more, the ends,
    /// and the renames, so that nothing is handed over that cannot be published.
    async fn bring(
        &mut self,
        whole: Vec<(Place, WholeDelivery)>,
        headers: &TraceHeaders,
        lines: &str,
        taken: &mut [bool],
    ) -> Result<Reply, Reply> {
        let mut begun = Vec::with_capacity(taken.len());
        for at in (0..taken.len()).filter(|at| !taken[*at]) {
            begun.push((at, self.begin_hand_over(at, lines).await?));
        }
        let mut locks = Some(self.lock_and_decide(&whole, headers).await?);
        let until = Instant::now() + self.shared.settings.timeouts.locked;
        let mut answer = Reply::new(250, "2.0.0", "Message delivered");
        for (at, conversation) in begun {
            let reply = self.end_hand_over(conversation, &mut locks, until).await?;
            answer = replies::of_next_hop(&reply);
            if !answer.is_positive() {
                return Err(answer);
            }
            taken[at] = true;
            rehome_fault::step("routing.relayed");
        }
        let locks = match locks {
            Some(locks) => locks,
            None => self.lock_and_decide(&whole, headers).await?,
        };
        for ((_, delivery), lock) in whole.into_iter().zip(&locks) {
            delivery
                .publish(lock)
                .await
                .map_err(|error| self.delivery_failed(&error.into()))?;
            rehome_fault::step("routing.delivered");
        }
        Ok(answer)
    }

    /// Reads every recipient's state again, now that the message's way is known.
    async fn decide_again(&self, headers: &TraceHeaders) -> Result<(), Reply> {
        let passage = |tenant: TenantId| {
            Some(Passage {
                earlier_entries: headers.count_for(&tenant.to_string()),
                received_lines: headers.received(),
            })
        };
        for accepted in &self.accepted {
            let verdict = decide(&self.shared.store, &accepted.address, &passage)
                .await
                .map_err(|error| {
                    tracing::error!(id = self.id, %error, "mail flow cannot read the state");
                    replies::failure()
                })?;
            match &verdict {
                Verdict::Deliver { destinations, .. } if *destinations == accepted.destinations => {}
                Verdict::Deliver { .. } => return Err(replies::busy()),
                Verdict::Defer(_) | Verdict::Refuse(_) | Verdict::TooLarge(_) => {
                    let address = &accepted.address;
                    tracing::info!(id = self.id, %address, ?verdict, "a recipient's state changed, or the message loops");
                    return Err(replies::of_verdict(&verdict));
                }
            }
        }
        Ok(())
    }

    /// The local mailboxes, each once, in the order in which their locks are taken.
    fn mailboxes(&self) -> BTreeMap<ExchangeGuid, Mailbox> {
        let destinations = self.accepted.iter().flat_map(|a| &a.destinations);
        destinations
            .filter_map(|destination| match destination {
                Destination::Here { mailbox, .. } => Some((mailbox.exchange_guid, mailbox.clone())),
                Destination::There(_) => None,
            })
            .collect()
    }

    /// Our two lines, to stand before the message.
    fn lines(&self) -> String {
        let recipient = match &self.accepted[..] {
            [only] => Some(only.address.to_string()),
            _ => None,
        };
        let received = Received {
            hello_name: &self.origin.hello,
            client: self.origin.peer,
            by: &self.shared.settings.server_name,
            protocol: self.origin.protocol,
            id: &self.id,
            recipient: recipient.as_deref(),
            at: jiff::Timestamp::now(),
        };
        let trace = self
            .accepted
            .first()
            .map(|a| trace_line(&a.tenant.to_string()))
            .unwrap_or_default();
        received.render() + &trace
    }

    async fn write_beside(&mut self, place: &Place, lines: &str) -> Result<WholeDelivery, DeliveryError> {
        let mut delivery = self.shared.platforms.deliver_begin(place).await?;
        delivery.write(lines.as_bytes()).await?;
        self.message.rewind().await?;
        let mut buffer = vec![0; PIECE];
        loop {
            let count = self.message.read(&mut buffer).await?;
            if count == 0 {
                return Ok(delivery.finish().await?);
            }
            delivery.write(&buffer[..count]).await?;
        }
    }

    /// Locks the mailboxes here, in order, and reads every recipient's state under the locks. Nothing without mailboxes.
    async fn lock_and_decide(
        &self,
        whole: &[(Place, WholeDelivery)],
        headers: &TraceHeaders,
    ) -> Result<Vec<DeliveryLock>, Reply> {
        let patience = self.shared.settings.timeouts.lock;
        let mut locks = Vec::with_capacity(whole.len());
        for (place, _) in whole {
            let lock = self
                .shared
                .platforms
                .deliver_lock(place, patience)
                .await
                .map_err(|error| match error {
                    PlatformError::Lock(_) => replies::busy(),
                    error => self.delivery_failed(&error.into()),
                })?;
            locks.push(lock);
        }
        if !whole.is_empty() {
            self.decide_again(headers).await?;
        }
        Ok(locks)
    }

    /// Gives the message to a next hop, but for its end. What fails before the message itself is tried again here.
    async fn begin_hand_over(&mut self, at: usize, lines: &str) -> Result<Conversation, Reply> {
        let mut started = None;
        for _ in 0..2 {
            self.offer(at, &[]).await?;
            let Some(mut conversation) = self.remotes[at].open.take() else {
                continue;
            };
            match conversation.data().await {
                Ok(reply) if !reply.is_positive() => return Err(replies::of_next_hop(&reply)),
                Ok(_) => {
                    started = Some(conversation);
                    break;
                }
                Err(error) => {
                    tracing::debug!(id = self.id, error = %chain(&error), "a next hop was lost before DATA")
                }
            }
        }
        let Some(mut conversation) = started else {
            return Err(replies::unreachable());
        };
        match conversation.octets(lines, &mut self.message).await {
            Ok(()) => Ok(conversation),
            Err(error) => {
                tracing::warn!(id = self.id, error = %chain(&error), "a next hop was lost in the middle of a message");
                Err(replies::unreachable())
            }
        }
    }

    /// Ends the message at a next hop. A hop that thinks longer than `until` costs the locks: a cutover does not wait for
    /// it, and the caller looks again.
    async fn end_hand_over(
        &self,
        mut conversation: Conversation,
        locks: &mut Option<Vec<DeliveryLock>>,
        until: Instant,
    ) -> Result<Reply, Reply> {
        let ended = {
            let mut ending = pin!(conversation.end());
            match timeout_at(until, &mut ending).await {
                Ok(ended) => ended,
                Err(_) => {
                    *locks = None;
                    ending.await
                }
            }
        };
        match ended {
            Ok(reply) => {
                tracing::info!(id = self.id, next_hop = conversation.server(), %reply, "handed over");
                tokio::spawn(conversation.quit());
                Ok(reply)
            }
            Err(error) => {
                tracing::warn!(id = self.id, error = %chain(&error), "a next hop was lost at the end of a message");
                Err(replies::unreachable())
            }
        }
    }

    fn delivery_failed(&self, error: &DeliveryError) -> Reply {
        tracing::error!(id = self.id, error = %chain(error), "a message could not be delivered here");
        replies::failure()
    }
}

/// How a next hop did not take recipients.
enum Offer {
    /// It said no.
    Refused(Reply),
    /// It could not be talked to.
    Failed(RelayError),
}

/// Why a message does not get into a mailbox.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error("the platform failed")]
    Platform(#[from] PlatformError),
    #[error("the spooled message cannot be read")]
    Spool(#[from] std::io::Error),
}

/// The answer about a recipient: the one that is there, or the hop is asked.
async fn answered(
    first: &mut Option<Reply>,
    conversation: &mut Conversation,
    recipient: &SmtpAddress,
) -> Result<Reply, RelayError> {
    match first.take() {
        Some(reply) => Ok(reply),
        None => conversation.rcpt(recipient).await,
    }
}

fn positive(reply: Result<Reply, RelayError>) -> Result<(), Offer> {
    match reply {
        Ok(reply) if reply.is_positive() => Ok(()),
        Ok(reply) => Err(Offer::Refused(reply)),
        Err(error) => Err(Offer::Failed(error)),
    }
}

fn fits(mailbox: &Mailbox, size: u64) -> Result<(), Reply> {
    if size > mailbox.max_receive_size {
        return Err(Reply::new(552, "5.2.3", "The message is too large for this recipient"));
    }
    Ok(())
}

fn waits(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Defer(DeferReason::InCutover(_) | DeferReason::NotYetShown) => true,
        Verdict::Defer(DeferReason::LoopDuringCutover)
        | Verdict::Deliver { .. }
        | Verdict::Refuse(_)
        | Verdict::TooLarge(_) => false,
    }
}

/// An error with its causes, for the log.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
