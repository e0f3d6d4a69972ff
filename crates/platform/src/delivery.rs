//! Local delivery: beside the inbox without a lock, into the inbox under the mailbox's shared lock.

use crate::{Platforms, error::PlatformError, place::Place, platforms::Platform};
use rehome_domain::id::ExchangeGuid;
use rehome_mailbox::{
    imap::ImapMailbox,
    maildir::{deliver, place::MailboxLock},
    spooled_delivery::{SpooledDelivery, WholeSpooledDelivery},
};
use std::{sync::Arc, time::Duration};

/// A message on its way into one mailbox. Dropping it leaves nothing.
pub struct Delivery {
    exchange_guid: ExchangeGuid,
    inner: Begun,
}

enum Begun {
    Maildir(deliver::Delivery),
    Imap(Arc<ImapMailbox>, Box<SpooledDelivery>),
}

/// A message that lies whole beside the inbox, seen by nobody. Dropping it leaves nothing.
pub struct WholeDelivery {
    exchange_guid: ExchangeGuid,
    inner: Whole,
}

enum Whole {
    Maildir(deliver::FinishedDelivery),
    Imap(Arc<ImapMailbox>, WholeSpooledDelivery),
}

/// Deliveries share this; a cutover waits until nobody has it. Whoever takes it reads the recipient's state *after*
/// that, and only then publishes.
#[derive(Debug)]
pub struct DeliveryLock {
    exchange_guid: ExchangeGuid,
    _lock: MailboxLock,
}

impl Platforms {
    /// Begins a delivery into the inbox of a mailbox in service.
    ///
    /// # Errors
    /// When the mailbox is not in its place, or the disk or the server refuses.
    pub async fn deliver_begin(&self, place: &Place) -> Result<Delivery, PlatformError> {
        let inner = match self.platform(&place.platform)? {
            Platform::Maildir(maildir) => {
                Begun::Maildir(deliver::Delivery::begin(&maildir.served(place).await?).await?)
            }
            Platform::Imap(imap) => {
                let mailbox = imap.open(&place.location).await?;
                let spool = imap.own_folder("spool").await?;
                Begun::Imap(mailbox, Box::new(SpooledDelivery::begin(&spool).await?))
            }
        };
        Ok(Delivery {
            exchange_guid: place.exchange_guid,
            inner,
        })
    }

    /// Takes the mailbox's lock together with other deliveries; waits at most `wait` for a cutover that has it alone.
    ///
    /// # Errors
    /// When it was not had in time.
    pub async fn deliver_lock(&self, place: &Place, wait: Duration) -> Result<DeliveryLock, PlatformError> {
        let path = self.lock_file(&place.platform, place.exchange_guid).await?;
        let lock = MailboxLock::shared(&path, wait).await.map_err(PlatformError::Lock)?;
        Ok(DeliveryLock {
            exchange_guid: place.exchange_guid,
            _lock: lock,
        })
    }

    /// Closes and drains a mailbox: returns once every delivery that shared its lock has ended and, where the platform
    /// can, its user is kept out and the last of his sessions has ended. The state that makes new deliveries defer must
    /// be stored before; later ones read it when they have the lock. Doing it again is safe; [`Platforms::reopen`]
    /// undoes it.
    ///
    /// # Errors
    /// When deliveries did not end within `wait`, or sessions within the platform's own time. Then the user may be kept
    /// out all the same, until [`Platforms::reopen`].
    pub async fn quiesce(&self, place: &Place, wait: Duration) -> Result<(), PlatformError> {
        let path = self.lock_file(&place.platform, place.exchange_guid).await?;
        MailboxLock::exclusive(&path, wait).await.map_err(PlatformError::Lock)?;
        match self.platform(&place.platform)? {
            Platform::Maildir(_) => Ok(()),
            Platform::Imap(imap) => imap.deny(place).await,
        }
    }
}

impl Delivery {
    /// Adds octets, as they are to lie in the mailbox.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn write(&mut self, octets: &[u8]) -> Result<(), PlatformError> {
        match &mut self.inner {
            Begun::Maildir(delivery) => delivery.write(octets).await?,
            Begun::Imap(_, delivery) => delivery.write(octets).await?,
        }
        Ok(())
    }

    /// The message is whole. In a Maildir it is durable beside the inbox then; for a server it waits in a spool file.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn finish(self) -> Result<WholeDelivery, PlatformError> {
        let inner = match self.inner {
            Begun::Maildir(delivery) => Whole::Maildir(delivery.finish_tmp().await?),
            Begun::Imap(mailbox, delivery) => Whole::Imap(mailbox, delivery.finish().await?),
        };
        Ok(WholeDelivery {
            exchange_guid: self.exchange_guid,
            inner,
        })
    }
}

impl WholeDelivery {
    /// Puts it into the inbox, durably.
    ///
    /// # Errors
    /// When the disk or the server refuses. Where a connection was lost, a server may take the message later all the
    /// same, and its sender's repetition beside it.
    ///
    /// # Panics
    /// When `lock` is another mailbox's.
    pub async fn publish(self, lock: &DeliveryLock) -> Result<(), PlatformError> {
        assert_eq!(
            self.exchange_guid, lock.exchange_guid,
            "a delivery is published under its own mailbox's lock"
        );
        match self.inner {
            Whole::Maildir(delivery) => delivery.publish().await?,
            Whole::Imap(mailbox, delivery) => delivery.publish(&*mailbox).await?,
        }
        Ok(())
    }
}
