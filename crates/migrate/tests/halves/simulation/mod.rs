//! Whole organisations over longer histories than the model of the cutover can hold: several mailboxes, real stores and
//! Maildirs, a clock that is set, a network that loses and doubles, workers and processes that end anywhere, consent that
//! is withdrawn, promises that are ended by hand, and mail all the time. A history follows from its seed, which is printed;
//! `REHOME_SIMULATION_SEED` plays one again; only what depends on the order in which the system runs threads may differ.

mod chance;
mod network;
mod organisations;
mod post;

use chance::Chance;
use jiff::SignedDuration;
use organisations::{LEASE, Organisations, SOURCE_DOMAIN, TARGET_DOMAIN, address};
use rehome_domain::{
    cutover::{Ground, Resolution},
    moves::UserStatus,
    recipient::{Mailbox, MailboxState, Recipient, RecipientKind},
};
use rehome_migrate::{source::ByHand, target::control};
use rehome_wire::flags::Flags;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use tokio::task::JoinSet;

const MAILBOXES: usize = 3;
const EVENTS: usize = 120;

/// Histories whose seeds are the same in each run; one whose seed is new comes after them. `REHOME_SIMULATION_HISTORIES`
/// asks for more.
const FIXED: u64 = 8;

/// Most rounds that the end of a history may take.
const ROUNDS_TO_THE_END: usize = 200;

/// Whatever is asked of the real machine takes less.
const REAL_BOUND: Duration = Duration::from_secs(60);

/// How often what happened, over all histories of a run.
#[derive(Clone, Default, Debug)]
struct Tally {
    forced: usize,
    crashes: usize,
    late: usize,
    woken: usize,
    flags: usize,
    caught_up: usize,
}

struct History {
    seed: u64,
    chance: Chance,
    organisations: Organisations,
    /// Workers that stand still; the last one that fell asleep wakes first.
    asleep: Vec<JoinSet<()>>,
    stopping: Arc<AtomicBool>,
    consent: bool,
    /// Mailboxes that were reopened by force.
    forced: BTreeSet<usize>,
    /// What users have flagged, by the message's octets.
    flags: BTreeMap<Vec<u8>, Flags>,
    tally: Tally,
}

fn is_done(status: UserStatus) -> bool {
    matches!(status, UserStatus::Completed | UserStatus::CompletedWithWarnings)
}

fn is_open(recipient: &Recipient) -> bool {
    recipient.mailbox().is_some_and(|m| m.state == MailboxState::Open)
}

impl History {
    async fn new(seed: u64) -> Self {
        Self {
            seed,
            chance: Chance::new(seed),
            organisations: Organisations::new(seed, MAILBOXES).await,
            asleep: Vec::new(),
            stopping: Arc::default(),
            consent: true,
            forced: BTreeSet::new(),
            flags: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    fn say(&self, what: &str) {
        println!("seed {} at {}: {what}", self.seed, self.organisations.now());
    }

    /// Workers for what is due work, one after the other so that the seed alone says what happens, until each rests, stands
    /// still or has met its end.
    async fn target_works(&mut self) {
        for _ in 0..2 * MAILBOXES {
            let mut running = JoinSet::new();
            self.organisations.advance(SignedDuration::from_millis(1));
            self.organisations
                .target
                .hand_out(&mut running, &self.stopping)
                .await
                .unwrap();
            if running.is_empty() {
                return;
            }
            self.one_works(running).await;
        }
    }

    async fn one_works(&mut self, mut running: JoinSet<()>) {
        let network = Arc::clone(&self.organisations.network);
        let still = network.standing_still();
        while network.standing_still() == still {
            if network.takes_crash() {
                self.asleep.push(running);
                return self.target_crashes().await;
            }
            tokio::select! {
                biased;
                () = network.news.notified() => {}
                done = running.join_next() => match done {
                    Some(done) => ended(done),
                    None => return,
                },
                () = tokio::time::sleep(REAL_BOUND) => panic!("seed {}: a worker hangs", self.seed),
            }
        }
        self.asleep.push(running);
    }

    /// A worker that stood still goes on, to where it rests or has met its end.
    async fn one_goes_on(&mut self) -> bool {
        let network = Arc::clone(&self.organisations.network);
        if !network.wake_one() {
            return false;
        }
        // It is the last one that fell asleep.
        if let Some(running) = self.asleep.pop() {
            self.one_works(running).await;
        }
        true
    }

    /// The target's process ends, all of its workers with it, and comes back.
    async fn target_crashes(&mut self) {
        self.say("the target's process ends");
        self.tally.crashes += 1;
        for mut running in std::mem::take(&mut self.asleep) {
            running.abort_all();
            while let Some(done) = running.join_next().await {
                ended(done);
            }
        }
        // One that asked for it in the same moment is gone as well.
        self.organisations.network.takes_crash();
        self.organisations.restart_target();
    }

    async fn source_works(&self) {
        let round = self.organisations.source.round();
        tokio::time::timeout(REAL_BOUND, round)
            .await
            .expect("the source's round ends");
    }

    async fn ask_user(&self, mailbox: usize, ask: usize) {
        self.organisations.advance(SignedDuration::from_millis(1));
        let (side, now) = (&self.organisations.post.target, self.organisations.now());
        let id = self.organisations.users().await[mailbox].id;
        let mut tx = side.store.write().await.unwrap();
        let asked = match ask {
            0 => control::user_stop(&mut tx, side.tenant, id, now).await,
            1 => control::user_start(&mut tx, side.tenant, id, now).await,
            2 => control::user_sync_now(&mut tx, side.tenant, id, now).await,
            _ => control::user_complete_after(&mut tx, side.tenant, id, now, now).await,
        };
        // What does not fit is refused with a reason.
        if asked.is_ok() {
            tx.commit("test").await.unwrap();
        }
    }

    /// The source's administrator opens a mailbox that waits, if nobody can tell him its outcome.
    async fn opens_by_force(&mut self, mailbox: usize) {
        let organisations = &self.organisations;
        let (side, recipient) = (&organisations.post.source, organisations.at_source(mailbox).await);
        let guid = organisations.guid(mailbox);
        let Ok(promised) = organisations.source.promised(side.tenant, &recipient, guid).await else {
            return;
        };
        let typed = address(mailbox, SOURCE_DOMAIN);
        let by_hand = ByHand {
            wanted: Resolution::Aborted,
            statement: None,
            force: true,
            confirmed: Some(&typed),
        };
        let Ok(ground) = promised.ground(&by_hand, &recipient, organisations.now()) else {
            return;
        };
        let mut tx = side.store.write().await.unwrap();
        let resolved = organisations
            .source
            .resolve(&mut tx, &promised, Resolution::Aborted, ground)
            .await;
        if resolved.is_ok() {
            tx.commit("test").await.unwrap();
            self.say(&format!("mailbox {mailbox} is opened by hand: {ground:?}"));
            if ground == Ground::Forced {
                self.forced.insert(mailbox);
                self.tally.forced += 1;
            }
        }
    }

    async fn administrator_is_impatient(&mut self) {
        for mailbox in 0..MAILBOXES {
            self.opens_by_force(mailbox).await;
        }
    }

    /// Whether there may be two mailboxes, because one was reopened by force and the move has not caught up.
    async fn may_be_two(&self, mailbox: usize) -> bool {
        self.forced.contains(&mailbox) && !is_done(self.organisations.users().await[mailbox].status)
    }

    /// A user flags a message in the mailbox that is his.
    async fn user_flags(&mut self, mailbox: usize) {
        let organisations = &self.organisations;
        let (source, target) = (
            organisations.at_source(mailbox).await,
            organisations.at_target(mailbox).await,
        );
        // With two mailboxes it is said that flags are not carried over; before the decision only the old one counts.
        if self.may_be_two(mailbox).await {
            return;
        }
        let (side, recipient) = match (is_open(&source), is_open(&target)) {
            (true, false) if target.mail_user().is_some() => (&organisations.post.source, source),
            (false, true) if source.mail_user().is_some() => (&organisations.post.target, target),
            _ => return,
        };
        let items = organisations.items(side, &recipient).await;
        if items.is_empty() {
            return;
        }
        let (uid, _, octets) = items[self.chance.below(items.len())].clone();
        let names = [&["\\Seen"][..], &["\\Flagged"], &["\\Seen", "\\Answered"]];
        let flags = Flags::from_names(names[self.chance.below(names.len())]);
        organisations.set_flags(side, &recipient, uid, flags.clone()).await;
        self.tally.flags += 1;
        self.flags.insert(octets, flags);
    }

    async fn event(&mut self) {
        let mailbox = self.chance.below(MAILBOXES);
        match self.chance.below(30) {
            0..=8 => {
                self.target_works().await;
                // What waits for its outcome is not always found by one who looks later.
                self.administrator_is_impatient().await;
            }
            9..=12 => self.source_works().await,
            13..=16 => {
                for _ in 0..=self.chance.below(2) {
                    let domain = if self.chance.one_in(3) {
                        TARGET_DOMAIN
                    } else {
                        SOURCE_DOMAIN
                    };
                    self.organisations.post.write(mailbox, &address(mailbox, domain));
                }
            }
            17 | 18 => self.organisations.post.try_all().await,
            19 => {
                let which = self.chance.below(64);
                if let Some(name) = self.organisations.network.late_one_arrives(which).await {
                    self.tally.late += 1;
                    self.say(&format!("late arrives {name}"));
                }
            }
            20 => {
                if self.one_goes_on().await {
                    self.say("a worker that stood still has gone on");
                    self.tally.woken += 1;
                }
            }
            21 => {
                self.say("the source's process is another one");
                self.organisations.restart_source();
            }
            22 => self.target_crashes().await,
            23 => {
                // Seldom gone for long: without it nothing happens.
                self.consent = !self.consent || !self.chance.one_in(3);
                self.organisations.set_consent(self.consent).await;
            }
            24 | 25 => self.administrator_is_impatient().await,
            26 => self.user_flags(mailbox).await,
            27 if self.chance.one_in(3) => self.ask_user(mailbox, 0).await,
            _ => {
                self.ask_user(mailbox, 1).await;
                let ask = if self.chance.one_in(3) { 2 } else { 3 };
                self.ask_user(mailbox, ask).await;
            }
        }
        let seconds = [0, 1, 5, 20, 61, 61, 130, 700];
        let seconds = seconds[self.chance.below(seconds.len())];
        self.organisations.advance(SignedDuration::from_secs(seconds));
    }

    /// What must hold at every moment.
    async fn check(&self) {
        for mailbox in 0..MAILBOXES {
            let (source, target) = (
                self.organisations.at_source(mailbox).await,
                self.organisations.at_target(mailbox).await,
            );
            let both = is_open(&source) && is_open(&target);
            assert!(
                !both || self.may_be_two(mailbox).await,
                "seed {}: two tenants accept mail for mailbox {mailbox}",
                self.seed
            );
            let forwards = [&source, &target]
                .iter()
                .all(|r| matches!(r.kind, RecipientKind::MailUser(_)));
            assert!(!forwards, "seed {}: nobody has mailbox {mailbox}", self.seed);
        }
    }

    /// Nothing goes wrong any more; everything comes to its end.
    async fn comes_to_its_end(&mut self) {
        let network = Arc::clone(&self.organisations.network);
        network.set_calm();
        self.organisations.set_consent(true).await;
        while self.one_goes_on().await {}
        while network.late_one_arrives(0).await.is_some() {}
        for _ in 0..ROUNDS_TO_THE_END {
            self.organisations.advance(LEASE + SignedDuration::from_secs(1));
            self.source_works().await;
            self.target_works().await;
            self.organisations.post.try_all().await;
            self.check().await;
            let users = self.organisations.users().await;
            if users.iter().all(|u| is_done(u.status)) && self.organisations.post.waiting() == 0 {
                return;
            }
            for (mailbox, user) in users.iter().enumerate() {
                if !is_done(user.status) && user.status != UserStatus::Completing {
                    self.ask_user(mailbox, 1).await;
                    self.ask_user(mailbox, 3).await;
                }
            }
        }
        panic!(
            "seed {}: stuck after {ROUNDS_TO_THE_END} rounds with {} messages waiting: {:#?}",
            self.seed,
            self.organisations.post.waiting(),
            self.organisations.users().await
        );
    }

    /// Every message that was accepted is in the new mailbox, once, with its flags; the old organisation forwards.
    async fn check_the_end(&self) {
        let seed = self.seed;
        for mailbox in 0..MAILBOXES {
            let (source, target) = (
                self.organisations.at_source(mailbox).await,
                self.organisations.at_target(mailbox).await,
            );
            let forwards = source
                .mail_user()
                .and_then(|u| u.external_email_address.clone())
                .map(|a| a.to_string());
            assert_eq!(
                forwards,
                Some(address(mailbox, TARGET_DOMAIN)),
                "seed {seed}: mailbox {mailbox}"
            );
            assert_eq!(
                target.mailbox().map(|m: &Mailbox| m.state),
                Some(MailboxState::Open),
                "seed {seed}: {mailbox}"
            );
            let items = self.organisations.items(&self.organisations.post.target, &target).await;
            let mut octets: Vec<_> = items.iter().map(|(_, _, octets)| octets.clone()).collect();
            octets.sort();
            let accepted = self.organisations.post.accepted(mailbox);
            let text = |all: &[Vec<u8>]| {
                all.iter()
                    .map(|m| String::from_utf8_lossy(m).into_owned())
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                text(&octets),
                text(&accepted),
                "seed {seed}: the contents of mailbox {mailbox}"
            );
            for (uid, flags, octets) in items {
                let wanted = self.flags.get(&octets).cloned().unwrap_or_default();
                assert_eq!(
                    flags.names(),
                    wanted.names(),
                    "seed {seed}: flags of uid {uid} of mailbox {mailbox}"
                );
            }
        }
    }
}

fn ended(done: Result<(), tokio::task::JoinError>) {
    if let Err(error) = done
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

async fn live_through(seed: u64) -> Tally {
    println!("REHOME_SIMULATION_SEED={seed}");
    let mut history = History::new(seed).await;
    for mailbox in 0..MAILBOXES {
        for _ in 0..=mailbox {
            history
                .organisations
                .post
                .write(mailbox, &address(mailbox, SOURCE_DOMAIN));
        }
    }
    history.organisations.post.try_all().await;
    for _ in 0..EVENTS {
        history.event().await;
        history.check().await;
    }
    let statuses: Vec<_> = history.organisations.users().await.iter().map(|u| u.status).collect();
    history.say(&format!(
        "everything goes well from here on; the users are {statuses:?}"
    ));
    history.comes_to_its_end().await;
    history.check_the_end().await;
    // Sweeps, an hour and days later, find nothing and change nothing.
    for hours in [1, 24, 24] {
        history.organisations.advance(SignedDuration::from_hours(hours));
        history.target_works().await;
        history.source_works().await;
    }
    history.check_the_end().await;
    history.tally.caught_up = history.organisations.catch_ups().await;
    history.tally
}

fn seeds() -> Vec<u64> {
    if let Ok(seed) = std::env::var("REHOME_SIMULATION_SEED") {
        return vec![seed.parse().expect("REHOME_SIMULATION_SEED is a number")];
    }
    let random = u64::try_from(uuid::Uuid::new_v4().as_u128() >> 96).unwrap();
    let fixed =
        std::env::var("REHOME_SIMULATION_HISTORIES").map_or(FIXED, |n| n.parse().expect("a number of histories"));
    (1..=fixed).chain([random]).collect()
}

#[tokio::test]
async fn histories_of_two_organisations() {
    let mut all = Tally::default();
    let seeds = seeds();
    for seed in &seeds {
        let tally = live_through(*seed).await;
        println!("seed {seed}: {tally:?}");
        all.forced += tally.forced;
        all.crashes += tally.crashes;
        all.late += tally.late;
        all.woken += tally.woken;
        all.flags += tally.flags;
        all.caught_up += tally.caught_up;
    }
    println!("{} histories of {EVENTS} events: {all:?}", seeds.len());
    if seeds.len() > 1 {
        // A simulation in which nothing happens shows nothing.
        assert!(
            all.forced > 0 && all.crashes > 0 && all.late > 0 && all.woken > 0 && all.flags > 0,
            "{all:?}"
        );
        assert!(all.caught_up > 0, "{all:?}");
    }
}
