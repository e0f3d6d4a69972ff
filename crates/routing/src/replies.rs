//! How decisions and failures are told to a sender. The texts reveal little: who asks is a stranger.

use crate::{decide::Verdict, next_hop::NextHopError};
use rehome_domain::mailflow::{DeferReason, RefuseReason};
use rehome_wire::smtp::Reply;

/// Stands before a next hop's words.
const NEXT_HOP_SAYS: &str = "The next hop says: ";

/// The reply to an address that is not delivered to now.
pub(crate) fn of_verdict(verdict: &Verdict) -> Reply {
    match verdict {
        Verdict::Deliver { .. } => Reply::new(250, "2.1.5", "Recipient accepted"),
        Verdict::Defer(DeferReason::InCutover(_) | DeferReason::NotYetShown) => busy(),
        Verdict::Defer(DeferReason::LoopDuringCutover) => circle(),
        Verdict::Refuse(RefuseReason::NotOurDomain) => Reply::new(550, "5.7.1", "Relaying denied"),
        Verdict::Refuse(RefuseReason::Unknown) => Reply::new(550, "5.1.1", "No such recipient"),
        Verdict::Refuse(RefuseReason::NoRoute) => Reply::new(550, "5.4.4", "No route to this recipient"),
        Verdict::Refuse(RefuseReason::Loop) => Reply::new(554, "5.4.6", "The message loops"),
        Verdict::TooLarge(_) => Reply::new(550, "5.2.4", "Too many members"),
    }
}

/// A mailbox that cannot be delivered to for a while.
pub(crate) fn busy() -> Reply {
    Reply::new(451, "4.2.1", "Mailbox temporarily unavailable, try again later")
}

/// Something failed here.
pub(crate) fn failure() -> Reply {
    Reply::new(451, "4.3.0", "Temporary failure, try again later")
}

/// A recipient that cannot share this transaction.
pub(crate) fn another_transaction() -> Reply {
    Reply::new(452, "4.5.3", "Send this recipient in another transaction")
}

/// A next hop that cannot be talked to.
pub(crate) fn unreachable() -> Reply {
    Reply::new(451, "4.4.1", "The next hop cannot be reached, try again later")
}

/// A domain without a next hop.
pub(crate) fn of_next_hop_error(error: &NextHopError) -> Reply {
    match error {
        NextHopError::NullMx(_) => Reply::new(556, "5.1.10", "The recipient's domain takes no mail"),
        NextHopError::NoSuchDomain(_) | NextHopError::Lookup { .. } => {
            Reply::new(451, "4.4.3", "The next hop is not known, try again later")
        }
    }
}

/// A recipient about whom next hops are being asked too often at once.
pub(crate) fn circle() -> Reply {
    Reply::new(451, "4.4.6", "Suspected loop, try again later")
}

/// What a next hop answered, as our own answer: same class, its words.
pub(crate) fn of_next_hop(reply: &Reply) -> Reply {
    let class = reply.code / 100;
    let code = match reply.code {
        // These would say something about our own connection, or ask the sender to go on.
        421 => 451,
        300..=399 => 451,
        code => code,
    };
    let enhanced = match &reply.enhanced {
        Some(enhanced) if code == reply.code || class == 4 => enhanced.clone(),
        Some(_) | None => format!("{}.0.0", code / 100),
    };
    let text = reply.text.lines().next().unwrap_or_default();
    // Said once, however many hops of our kind it has come through.
    let text = text.strip_prefix(NEXT_HOP_SAYS).unwrap_or(text);
    Reply::new(code, &enhanced, format!("{NEXT_HOP_SAYS}{text}"))
}

/// The answer where some of the recipients' hops have the message already: a permanent no would say that nobody has it.
pub(crate) fn for_the_rest(reply: Reply) -> Reply {
    if reply.is_permanent() {
        Reply::new(451, "4.3.0", reply.text)
    } else {
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_of_a_next_hops_answer_stays() {
        for (theirs, code, enhanced) in [
            (Reply::new(250, "2.1.5", "fine"), 250, "2.1.5"),
            (Reply::new(550, "5.1.1", "who"), 550, "5.1.1"),
            (Reply::new(450, "", "busy"), 450, "4.0.0"),
            (Reply::new(421, "4.3.2", "bye"), 451, "4.3.2"),
            (Reply::new(354, "", "go"), 451, "4.0.0"),
        ] {
            assert_eq!(of_next_hop(&of_next_hop(&theirs)), of_next_hop(&theirs));
            let ours = of_next_hop(&theirs);
            assert_eq!(
                (ours.code, ours.enhanced.as_deref()),
                (code, Some(enhanced)),
                "{theirs}"
            );
        }
    }
}
