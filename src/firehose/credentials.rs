//! Credentials: a task of their own looks them up, one look-up at a time. A call waits only for that task, never for another call,
//! and each wait is bounded.

use crate::firehose::{Class, Fault, Setup};
use futures_util::FutureExt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

/// How long before their expiry credentials are no longer used; the SDK's own default.
const BEFORE_EXPIRY: Duration = Duration::from_secs(10);
/// How long before that new ones are looked up, while the old ones are still used, so that no call waits.
const EARLY: Duration = Duration::from_secs(60);
/// When an early look-up found none that last longer, it is repeated after this time.
const EARLY_AGAIN: Duration = Duration::from_secs(10);
/// Credentials without an expiry are looked up again after this time; the SDK's own default.
const WITHOUT_EXPIRY: Duration = Duration::from_secs(15 * 60);
/// How much longer than a look-up may take a call waits for it.
const MARGIN: Duration = Duration::from_secs(1);

/// What a look-up has found, and how long it is valid.
#[derive(Debug)]
pub struct Found<A> {
    /// What signs the calls.
    pub access: Arc<A>,
    /// How long it is valid; `None` if it does not expire.
    pub valid_for: Option<Duration>,
}

/// Where credentials are looked for.
pub trait Source<A> {
    /// One look-up. With `renew` it reads the environment and the files again. The future may be dropped at any await.
    fn look(&mut self, renew: bool) -> impl Future<Output = Result<Found<A>, Fault>> + Send;
}

#[derive(Debug)]
struct Held<A> {
    access: Arc<A>,
    /// When it is no longer used.
    until: Instant,
    /// When the next call asks for a new look-up.
    refresh: Instant,
}

#[derive(Debug)]
struct Outcome<A> {
    held: Option<Held<A>>,
    /// Why the last look-up failed, if it did.
    fault: Option<Fault>,
}

#[derive(Debug, Default)]
struct Asks {
    wanted: Notify,
    /// What is held was refused, or the last look-up failed: the next one reads environment and files again.
    renew: AtomicBool,
    /// A look-up is under way, or is about to begin.
    open: AtomicBool,
}

impl Asks {
    fn ask(&self) {
        self.open.store(true, Relaxed);
        self.wanted.notify_one();
    }
}

/// The calls' side.
pub struct Credentials<A> {
    asks: Arc<Asks>,
    outcome: watch::Receiver<Outcome<A>>,
    limit: Duration,
}

/// The task's side.
pub struct Lookups<A> {
    asks: Arc<Asks>,
    outcome: watch::Sender<Outcome<A>>,
    limit: Duration,
}

/// Both sides; a look-up may take as long as `limit`. Nothing is looked up before the first call.
pub fn credentials<A>(limit: Duration) -> (Credentials<A>, Lookups<A>) {
    let (tell, outcome) = watch::channel(Outcome { held: None, fault: None });
    let asks = Arc::new(Asks::default());
    (Credentials { asks: asks.clone(), outcome, limit }, Lookups { asks, outcome: tell, limit })
}

impl<A> Credentials<A> {
    /// Stops using what is held; the next call asks for a look-up that reads environment and files again.
    pub fn renew(&self) {
        self.asks.renew.store(true, Relaxed);
    }

    /// What signs a call: at once if it is held, otherwise after the current look-up, or a new one, has ended.
    ///
    /// # Errors
    /// Why that look-up failed.
    pub async fn get(&self) -> Result<Arc<A>, Fault> {
        let mut outcome = self.outcome.clone();
        if let Some(access) = self.held(&outcome.borrow_and_update()) {
            return Ok(access);
        }
        self.asks.ask();
        match timeout(self.limit + MARGIN, outcome.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(none("the look-up of credentials has ended".to_owned())),
            Err(_) => return Err(too_late(self.limit)),
        }
        let outcome = outcome.borrow();
        match (&outcome.fault, &outcome.held) {
            (Some(fault), _) => Err(fault.clone()),
            (None, Some(held)) => Ok(held.access.clone()),
            (None, None) => Err(none("no credentials".to_owned())),
        }
    }

    fn held(&self, outcome: &Outcome<A>) -> Option<Arc<A>> {
        let now = Instant::now();
        let held = outcome.held.as_ref().filter(|held| held.until > now)?;
        if self.asks.renew.load(Relaxed) {
            return None;
        }
        if held.refresh <= now {
            self.asks.ask();
        }
        Some(held.access.clone())
    }

    /// Whether a look-up is under way that somebody must go on with.
    pub fn are_looked_up(&self) -> bool {
        self.asks.open.load(Relaxed)
    }
}

impl<A> Lookups<A> {
    /// Looks up credentials whenever a call needs them, until the calls' side is dropped.
    pub async fn run(self, mut source: impl Source<A>) {
        loop {
            tokio::select! {
                () = self.asks.wanted.notified() => {}
                () = self.outcome.closed() => return,
            }
            let renew = self.asks.renew.swap(false, Relaxed);
            // The last look-up may have found what this request asked for.
            let needed = match &self.outcome.borrow().held {
                Some(held) => renew || held.refresh <= Instant::now(),
                None => true,
            };
            if !needed {
                self.asks.open.store(false, Relaxed);
                continue;
            }
            let looked = AssertUnwindSafe(timeout(self.limit, source.look(renew))).catch_unwind().await;
            let looked = match looked {
                Ok(Ok(looked)) => looked,
                Ok(Err(_)) => Err(too_late(self.limit)),
                Err(panic) => {
                    // Dropping a panic's payload may panic again.
                    std::mem::forget(panic);
                    Err(none("a defect in the look-up of credentials; please report it".to_owned()))
                }
            };
            // This outcome serves whoever has asked meanwhile.
            let _ = self.asks.wanted.notified().now_or_never();
            self.asks.open.store(false, Relaxed);
            self.outcome.send_modify(|outcome| outcome.take(looked, renew));
        }
    }
}

impl<A> Outcome<A> {
    fn take(&mut self, looked: Result<Found<A>, Fault>, renewed: bool) {
        let now = Instant::now();
        match looked {
            Ok(Found { access, valid_for }) => {
                let life = valid_for.map_or(WITHOUT_EXPIRY, |valid| valid.saturating_sub(BEFORE_EXPIRY));
                let mut refresh = now + life - EARLY.min(life / 2);
                if refresh <= now + EARLY_AGAIN {
                    refresh = now + EARLY_AGAIN.min(life);
                }
                *self = Outcome { held: Some(Held { access, until: now + life, refresh }), fault: None };
            }
            // An early look-up has failed: what is held is still valid.
            Err(_) if !renewed && self.held.as_ref().is_some_and(|held| held.until > now) => {
                if let Some(held) = &mut self.held {
                    held.refresh = now + EARLY_AGAIN;
                }
            }
            Err(fault) => *self = Outcome { held: None, fault: Some(fault) },
        }
    }
}

fn none(text: String) -> Fault {
    Fault { class: Class::Setup(Setup::Credentials), ambiguous: false, text }
}

fn too_late(limit: Duration) -> Fault {
    none(format!("no credentials were found within request_timeout ({limit:?})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use proptest::prelude::*;
    use std::sync::Mutex;
    use tokio::time::sleep;

    /// How long a look-up may take.
    const LIMIT: Duration = Duration::from_secs(20);

    /// What one look-up does.
    #[derive(Clone, Debug)]
    enum Does {
        /// Finds some that are valid for so long, after so long.
        Finds(Duration, Option<Duration>),
        Fails(Duration),
        Hangs,
        Panics,
    }

    /// Each look-up: when it began, and whether from the beginning.
    type Seen = Arc<Mutex<Vec<(Instant, bool)>>>;

    struct Script {
        does: std::vec::IntoIter<Does>,
        then: Does,
        seen: Seen,
        running: Arc<AtomicBool>,
    }

    /// Resets the flag even where the look-up is dropped.
    struct Running(Arc<AtomicBool>);

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.store(false, Relaxed);
        }
    }

    impl Source<Instant> for Script {
        async fn look(&mut self, renew: bool) -> Result<Found<Instant>, Fault> {
            assert!(!self.running.swap(true, Relaxed), "two look-ups at a time");
            let _running = Running(self.running.clone());
            self.seen.lock().unwrap().push((Instant::now(), renew));
            match self.does.next().unwrap_or_else(|| self.then.clone()) {
                Does::Finds(after, valid_for) => {
                    sleep(after).await;
                    // The access is the time until which it is good.
                    let until = Instant::now() + valid_for.unwrap_or(Duration::from_secs(86_400));
                    Ok(Found { access: Arc::new(until), valid_for })
                }
                Does::Fails(after) => {
                    sleep(after).await;
                    Err(none("it says no".to_owned()))
                }
                Does::Hangs => std::future::pending().await,
                Does::Panics => panic!("a look-up panics"),
            }
        }
    }

    /// Runs a script on simulated time.
    fn play<T>(does: Vec<Does>, then: Does, test: impl AsyncFnOnce(Credentials<Instant>, Seen) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (credentials, lookups) = credentials(LIMIT);
            let seen = Seen::default();
            let source = Script { does: does.into_iter(), then, seen: seen.clone(), running: Arc::default() };
            tokio::spawn(lookups.run(source));
            test(credentials, seen).await
        })
    }

    const SOON: Duration = Duration::from_millis(50);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn calls_at_once_share_a_look_up_and_its_failure() {
        let then = Does::Finds(SOON, Some(HOUR));
        for (first, text) in [
            (Does::Fails(SOON), "it says no"),
            (Does::Hangs, "no credentials were found within request_timeout (20s)"),
            (Does::Panics, "a defect in the look-up of credentials; please report it"),
        ] {
            play(vec![first], then.clone(), async |credentials, seen| {
                let get = || async { credentials.get().await.map_err(|fault| fault.text) };
                assert!(join_all((0..50).map(|_| get())).await.iter().all(|got| got.as_ref() == Err(&text.to_owned())));
                sleep(SOON).await;
                assert_eq!(seen.lock().unwrap().len(), 1, "a look-up nobody has asked for");
                assert!(join_all((0..50).map(|_| get())).await.iter().all(Result::is_ok));
                assert_eq!(seen.lock().unwrap().len(), 2);
            });
        }
    }

    #[test]
    fn no_call_waits_for_new_ones_while_the_old_are_valid_even_if_they_cannot_be_had() {
        let first = Does::Finds(SOON, Some(HOUR));
        play(vec![first, Does::Hangs, Does::Fails(SOON)], Does::Finds(SOON, Some(HOUR)), async |credentials, seen| {
            credentials.get().await.unwrap();
            let begin = Instant::now();
            let mut under_way = 0;
            while begin.elapsed() < 3 * HOUR {
                let before = Instant::now();
                let until = credentials.get().await.unwrap();
                assert_eq!(before, Instant::now(), "a call has waited");
                assert!(*until > before);
                under_way += usize::from(credentials.are_looked_up());
                sleep(Duration::from_secs(1)).await;
                let hangs = seen.lock().unwrap().len() == 2;
                assert!(hangs || !credentials.are_looked_up(), "one that has ended is still said to be under way");
            }
            // One an hour, and what the two failures add.
            let lookups = seen.lock().unwrap().len();
            // The one that hangs for LIMIT, and each other in the call that asks for it.
            assert!(under_way >= LIMIT.as_secs() as usize + lookups - 2, "{under_way}");
            assert!((4..=7).contains(&lookups), "{lookups} look-ups");
        });
    }

    #[test]
    fn refused_ones_are_not_used_again_and_are_looked_for_from_the_beginning() {
        play(Vec::new(), Does::Finds(SOON, None), async |credentials, seen| {
            let first = credentials.get().await.unwrap();
            credentials.renew();
            assert!(!Arc::ptr_eq(&first, &credentials.get().await.unwrap()));
            let renewed: Vec<bool> = seen.lock().unwrap().iter().map(|(_, renew)| *renew).collect();
            assert_eq!(renewed, [false, true]);
        });
    }

    #[test]
    fn the_task_ends_with_the_last_call_that_can_be_made() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (credentials, lookups) = credentials(LIMIT);
            let source = Script {
                does: Vec::new().into_iter(),
                then: Does::Hangs,
                seen: Seen::default(),
                running: Arc::default(),
            };
            let task = tokio::spawn(lookups.run(source));
            drop(credentials);
            timeout(LIMIT, task).await.unwrap().unwrap();
        });
    }

    fn does() -> impl Strategy<Value = Does> {
        let after = || (0..25_000_u64).prop_map(Duration::from_millis);
        let valid = prop_oneof![Just(None), (0..7200_u64).prop_map(|seconds| Some(Duration::from_secs(seconds)))];
        prop_oneof![
            3 => (after(), valid).prop_map(|(after, valid)| Does::Finds(after, valid)),
            3 => after().prop_map(Does::Fails),
            1 => Just(Does::Hangs),
            1 => Just(Does::Panics),
        ]
    }

    proptest! {
        #[test]
        fn whatever_look_ups_do_each_call_ends_and_all_succeed_once_they_do(
            script in prop::collection::vec(does(), 0..12),
            calls in prop::collection::vec((0..200_000_u64, any::<bool>()), 1..60),
        ) {
            let outcomes = play(script, Does::Finds(SOON, Some(HOUR)), async |credentials, seen| {
                let call = |after: u64, renew: bool| {
                    let credentials = &credentials;
                    async move {
                        sleep(Duration::from_millis(after)).await;
                        if renew {
                            credentials.renew();
                        }
                        let begin = Instant::now();
                        let got = credentials.get().await;
                        (begin.elapsed(), got.is_ok())
                    }
                };
                let outcomes = join_all(calls.iter().map(|(after, renew)| call(*after, *renew))).await;
                // The script is over after at most as many more.
                for _ in 0..13 {
                    let _ = credentials.get().await;
                    credentials.renew();
                }
                let last = join_all((0..20).map(|_| call(0, false))).await;
                let lookups = seen.lock().unwrap().len();
                (outcomes, last, lookups)
            });
            let (during, last, lookups) = outcomes;
            for (waited, _) in &during {
                prop_assert!(*waited <= LIMIT + MARGIN, "a call has waited {waited:?}");
            }
            prop_assert!(last.iter().all(|(_, ok)| *ok), "{last:?}");
            prop_assert!(lookups <= calls.len() + 14, "{lookups} look-ups for {} calls", calls.len());
        }
    }
}
