//! Local delivery: into `tmp` without a lock, into the inbox under the mailbox's shared lock.

use crate::{Platforms, error::PlatformError, place::Place};
use rehome_domain::id::ExchangeGuid;
use rehome_mailbox::maildir::{deliver, place::MailboxLock};
use std::time::Duration;

/// A message on its way into one mailbox. Dropping it leaves nothing.
pub struct Delivery {
    exchange_guid: ExchangeGuid,
    inner: deliver::Delivery,
}

/// A message that lies whole and durable beside the inbox, seen by nobody. Dropping it leaves nothing.
pub struct WholeDelivery {
    exchange_guid: ExchangeGuid,
    inner: deliver::FinishedDelivery,
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
    /// When the mailbox is not in its place, or the disk refuses.
    pub async fn deliver_begin(&self, place: &Place) -> Result<Delivery, PlatformError> {
        let path = self.served(place).await?;
        let inner = deliver::Delivery::begin(&path).await?;
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
        let path = self.lock_file(place).await?;
        let lock = MailboxLock::shared(&path, wait).await.map_err(PlatformError::Lock)?;
        Ok(DeliveryLock {
            exchange_guid: place.exchange_guid,
            _lock: lock,
        })
    }

    /// Drains a mailbox: returns once every delivery that shared its lock has ended. The state that makes new ones
    /// defer must be stored before; later deliveries read it when they have the lock.
    ///
    /// # Errors
    /// When deliveries did not end within `wait`.
    pub async fn quiesce(&self, place: &Place, wait: Duration) -> Result<(), PlatformError> {
        let path = self.lock_file(place).await?;
        MailboxLock::exclusive(&path, wait).await.map_err(PlatformError::Lock)?;
        Ok(())
    }
}

impl Delivery {
    /// Adds octets, as they are to lie in the mailbox.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn write(&mut self, octets: &[u8]) -> Result<(), PlatformError> {
        Ok(self.inner.write(octets).await?)
    }

    /// Makes it durable beside the inbox.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn finish(self) -> Result<WholeDelivery, PlatformError> {
        Ok(WholeDelivery {
            exchange_guid: self.exchange_guid,
            inner: self.inner.finish_tmp().await?,
        })
    }
}

impl WholeDelivery {
    /// Puts it into the inbox, durably.
    ///
    /// # Errors
    /// When the disk refuses.
    ///
    /// # Panics
    /// When `lock` is another mailbox's.
    pub async fn publish(self, lock: &DeliveryLock) -> Result<(), PlatformError> {
        assert_eq!(
            self.exchange_guid, lock.exchange_guid,
            "a delivery is published under its own mailbox's lock"
        );
        Ok(self.inner.publish().await?)
    }
}
