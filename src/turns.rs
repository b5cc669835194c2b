//! Who runs an output's tasks: its own thread or, while small chunks come one after the other, the flush that waits for them.
//!
//! A flush that hands a small chunk over and waits costs two changes of threads, which is more than encoding it. A flush that runs the
//! tasks itself costs none. For that it has a stack of ours: the host's is too small to sign and encrypt on. Only the flush that has the
//! turn runs tasks; if the thread comes back meanwhile, tokio lets it wait until the flush is done. It is called back when a flush leaves
//! something to do, and stays away while nothing is.

use crate::told;
use corosensei::stack::DefaultStack;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, TryLockError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinError;
use tokio::time::timeout_at;

/// The largest chunk whose flush runs the tasks, in bytes: for larger ones the changes of threads are nothing beside the rest, and what
/// is allocated on the host's threads stays in their arenas.
pub const SMALL: usize = 64 * 1024;

/// After so many flushes, each of a small chunk, soon after the one before it, and alone, the next ones run the tasks.
const ALONE: i32 = 4;

/// After a flush that was not alone it takes so many more: with several workers most are not, and each change costs.
const CROWD: i32 = 64;

/// How soon.
const SOON: Duration = Duration::from_millis(20);

/// How long the output's thread stays away once no flush runs the tasks and nothing is left to do but to publish the counts: longer than
/// the host's usual second between flushes.
const AWAY: Duration = Duration::from_secs(2);

/// The size of a flush's stack for the tasks, in bytes: that of Rust's threads. Only what is touched takes memory.
const STACK: usize = 2 << 20;

/// Whether a flush may run the tasks: whether they do nothing now that may block their thread for long. At first it may not.
#[derive(Debug, Default)]
pub struct Ready {
    now: AtomicBool,
    /// Whether nothing is left to do.
    idle: AtomicBool,
    /// Ends the turn of a flush.
    lost: Notify,
}

impl Ready {
    /// Whether it may from now on.
    pub fn set(&self, ready: bool) {
        if self.now.swap(ready, SeqCst) && !ready {
            self.lost.notify_waiters();
        }
    }

    /// Whether nothing is left to do until the next flush or the end, so that the thread may stay away.
    pub fn rest(&self, idle: bool) {
        self.idle.store(idle, SeqCst);
    }
}

/// The turns of an output's thread and its flushes at running the tasks.
pub struct Turns {
    /// `None` once the thread has ended.
    runtime: RwLock<Option<Runtime>>,
    /// Where a flush runs the tasks. Whoever holds it has the turn. A flush only tries: its deadline's timer runs with the tasks, and could
    /// not end a wait for a thread that is stuck.
    stack: Mutex<Option<DefaultStack>>,
    thread: OnceLock<Thread>,
    began: Instant,
    ready: Arc<Ready>,
    /// Flushes that wait for an answer.
    waiting: AtomicUsize,
    /// Flushes in a row of which each was alone, small and soon; below zero after one that was not alone.
    alone: AtomicI32,
    /// When the last one ended, in nanoseconds since `began`.
    last: AtomicU64,
    /// How often a flush began or ended to run the tasks: odd while one does.
    taken: AtomicU64,
    /// Asks the thread to leave, while `wanted` says that a flush still waits for that.
    leave: Notify,
    wanted: AtomicBool,
    /// The thread has left: a reason to look at `away`.
    left: Notify,
    away: AtomicBool,
    /// Asks it to come back.
    back: AtomicBool,
}

/// Does something when it is dropped.
struct AtEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Turns {
    /// The thread has the turn. A flush takes it only while `ready` says so.
    pub fn new(runtime: Runtime, ready: Arc<Ready>) -> Turns {
        Turns {
            ready,
            runtime: RwLock::new(Some(runtime)),
            stack: Mutex::default(),
            thread: OnceLock::new(),
            began: Instant::now(),
            waiting: AtomicUsize::new(0),
            alone: AtomicI32::new(0),
            last: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            leave: Notify::new(),
            wanted: AtomicBool::new(false),
            left: Notify::new(),
            away: AtomicBool::new(false),
            back: AtomicBool::new(false),
        }
    }

    fn runtime(&self) -> RwLockReadGuard<'_, Option<Runtime>> {
        self.runtime.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Since the last flush ended.
    fn since_last(&self) -> Duration {
        Duration::from_nanos(self.now().saturating_sub(self.last.load(SeqCst)))
    }

    /// Runs what a flush waits for, and the other tasks with it if it is this flush's turn. `None` at the deadline.
    pub fn wait<F: Future>(&self, small: bool, deadline: Instant, talk: F) -> Option<F::Output> {
        let others = self.waiting.fetch_add(1, SeqCst);
        let _waiting = AtEnd(|| {
            self.last.store(self.now(), SeqCst);
            if self.waiting.fetch_sub(1, SeqCst) > 1 {
                self.call_back();
            }
        });
        let may = others == 0 && small && self.ready.now.load(SeqCst);
        let away = self.away.load(SeqCst);
        if others > 0 {
            self.alone.store(-CROWD, SeqCst);
        } else if !may || !away && self.since_last() > SOON {
            self.alone.fetch_min(0, SeqCst);
        }
        let mut talk = pin!(talk);
        let alone = self.alone.fetch_add(1, SeqCst);
        if may && (away && alone >= 0 || alone >= ALONE) {
            let answer = self.run_here(deadline, talk.as_mut());
            if !self.ready.idle.load(SeqCst) {
                self.call_back();
            }
            if let Some(answer) = answer {
                return answer;
            }
        }
        self.call_back();
        told::sleep_on(talk, deadline)
    }

    /// `None` if it is not, or no longer, this flush's turn.
    fn run_here<F: Future>(&self, deadline: Instant, talk: Pin<&mut F>) -> Option<Option<F::Output>> {
        let runtime = self.runtime.try_read().ok()?;
        let runtime = runtime.as_ref()?;
        if !self.away.load(SeqCst) {
            self.wanted.store(true, SeqCst);
            self.leave.notify_one();
            let until = deadline.min(Instant::now() + SOON);
            while !self.away.load(SeqCst) {
                if told::sleep_on(self.left.notified(), until).is_none() {
                    break;
                }
            }
            // If the thread is just about to leave, it is called back.
            if self.wanted.swap(false, SeqCst) {
                return None;
            }
        }
        let mut stack = match self.stack.try_lock() {
            Ok(stack) => stack,
            Err(TryLockError::Poisoned(stack)) => stack.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if stack.is_none() {
            *stack = DefaultStack::new(STACK).ok();
        }
        let stack = stack.as_mut()?;
        self.taken.fetch_add(1, SeqCst);
        let _taken = AtEnd(|| {
            self.taken.fetch_add(1, SeqCst);
        });
        let rested = self.since_last() > SOON;
        let run = || {
            runtime.block_on(async {
                if rested {
                    // A connection may have been closed while nobody looked: then the call makes another one.
                    tokio::task::yield_now().await;
                }
                tokio::select! {
                    biased;
                    answer = timeout_at(deadline.into(), talk) => Some(answer.ok()),
                    () = self.ready.lost.notified() => None,
                }
            })
        };
        corosensei::on_stack(stack, run)
    }

    /// Calls the thread back, if it is away or about to leave.
    pub fn call_back(&self) {
        if !self.back.swap(true, SeqCst) && self.away.load(SeqCst) {
            self.thread.get().inspect(|thread| thread.unpark());
        }
    }

    /// Runs this task, and those it makes, on the output's thread whenever no flush does, until it has ended.
    ///
    /// # Errors
    /// When it panics.
    pub fn run(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), JoinError> {
        let _ = self.thread.set(thread::current());
        // Spawned, because the future that `block_on` itself runs is woken through the kernel even from its own thread.
        let Some(mut task) = self.runtime().as_ref().map(|runtime| runtime.spawn(task)) else { return Ok(()) };
        loop {
            let turn = self.stack.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = self.runtime().as_ref().map(|runtime| {
                runtime.block_on(async {
                    tokio::select! {
                        biased;
                        ended = &mut task => Some(ended),
                        () = self.leave.notified() => None,
                    }
                })
            });
            match ended {
                Some(None) => {}
                Some(Some(ended)) => return ended,
                None => return Ok(()),
            }
            // From here on a call counts. The flush that asked may have given up before.
            self.back.store(false, SeqCst);
            if !self.wanted.swap(false, SeqCst) {
                continue;
            }
            drop(turn);
            self.away.store(true, SeqCst);
            self.left.notify_one();
            while !self.back.swap(false, SeqCst) {
                let (taken, begin) = (self.taken.load(SeqCst), Instant::now());
                // No flush may wait for long while nobody runs the tasks, whatever has happened to its call.
                let rest = if self.waiting.load(SeqCst) == 0 { AWAY } else { SOON };
                thread::park_timeout(rest);
                let none_has_run = taken.is_multiple_of(2) && self.taken.load(SeqCst) == taken;
                if none_has_run && begin.elapsed() >= rest {
                    break;
                }
            }
            self.away.store(false, SeqCst);
        }
    }

    /// Ends the runtime; what it still does may take as long as `within`.
    pub fn end(&self, within: Duration) {
        let runtime = self.runtime.write().unwrap_or_else(PoisonError::into_inner).take();
        runtime.into_iter().for_each(|runtime| runtime.shutdown_timeout(within));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Status;
    use crate::told::{Teller, Told, Waiter};
    use fastrand::Rng;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

    /// What a flush asks for: an answer after so long.
    type Ask = (Duration, Teller);

    /// An answer at once, after which the task blocks its thread for some seconds.
    const BLOCKS: Duration = Duration::from_secs(59);

    /// The same, but only for longer than a flush waits for its turn.
    const BLOCKS_SHORTLY: Duration = Duration::from_secs(58);

    /// Turns of a thread whose task answers, until the channel to it closes or it is asked for more than a minute: then it panics.
    fn answering() -> (Arc<Turns>, UnboundedSender<Ask>, thread::JoinHandle<bool>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let turns = Arc::new(Turns::new(runtime, Arc::default()));
        turns.ready.set(true);
        turns.ready.rest(true);
        let (asks, mut asked) = unbounded_channel::<Ask>();
        let theirs = turns.clone();
        let thread = thread::spawn(move || {
            let ended = theirs.run(async move {
                while let Some((after, teller)) = asked.recv().await {
                    assert!(after < Duration::from_secs(60), "a defect");
                    if after >= BLOCKS_SHORTLY {
                        // The answer comes first: whoever has it knows on which thread this blocks.
                        teller.answer(Status::Ok);
                        thread::sleep(if after == BLOCKS { Duration::from_secs(3) } else { SOON * 3 / 2 });
                        continue;
                    }
                    tokio::spawn(async move {
                        tokio::time::sleep(after).await;
                        teller.answer(Status::Ok);
                    });
                }
            });
            theirs.end(Duration::from_millis(200));
            ended.is_ok()
        });
        (turns, asks, thread)
    }

    fn ask(turns: &Turns, asks: &UnboundedSender<Ask>, small: bool, after: Duration, wait: Duration) -> Option<Told> {
        let talk = async {
            let waiter = Waiter::default();
            match asks.send((after, waiter.teller())) {
                Ok(()) => waiter.told().await,
                Err(_) => None,
            }
        };
        turns.wait(small, Instant::now() + wait, talk).flatten()
    }

    const LONG: Duration = Duration::from_secs(50);
    const AT_ONCE: Duration = Duration::ZERO;

    fn answered(told: Option<Told>) -> bool {
        matches!(told, Some(Told::Answer(Status::Ok)))
    }

    /// Makes it a flush's turn.
    fn take(turns: &Turns, asks: &UnboundedSender<Ask>) {
        let begin = Instant::now();
        while turns.taken.load(SeqCst) == 0 || !turns.away.load(SeqCst) {
            assert!(begin.elapsed() < LONG, "no flush has run the tasks");
            assert!(answered(ask(turns, asks, true, AT_ONCE, LONG)));
        }
    }

    #[test]
    fn small_chunks_one_after_the_other_are_run_by_their_flushes_and_others_are_not() {
        let (turns, asks, thread) = answering();
        for _ in 0..100 {
            assert!(answered(ask(&turns, &asks, false, AT_ONCE, LONG)));
        }
        turns.ready.set(false);
        for _ in 0..100 {
            assert!(answered(ask(&turns, &asks, true, AT_ONCE, LONG)));
        }
        assert_eq!(turns.taken.load(SeqCst), 0);
        turns.ready.set(true);
        take(&turns, &asks);
        drop(asks);
        assert!(thread.join().unwrap());
    }

    #[test]
    fn the_thread_is_back_soon_after_the_last_flush_that_ran_the_tasks() {
        let (turns, asks, thread) = answering();
        take(&turns, &asks);
        // Nobody waits for this one, and nobody calls the thread back.
        let waiter = Waiter::default();
        asks.send((AT_ONCE, waiter.teller())).unwrap();
        assert!(answered(told::sleep_on(waiter.told(), Instant::now() + LONG).flatten()));
        drop(asks);
        assert!(thread.join().unwrap());
    }

    #[test]
    fn while_nothing_is_left_to_do_the_thread_stays_away_and_otherwise_it_is_back_at_once() {
        let (turns, asks, thread) = answering();
        take(&turns, &asks);
        let taken = turns.taken.load(SeqCst);
        // Each after a pause in which the thread would have come back.
        for _ in 0..3 {
            thread::sleep(10 * SOON);
            assert!(turns.away.load(SeqCst));
            assert!(answered(ask(&turns, &asks, true, AT_ONCE, LONG)));
        }
        assert_eq!(turns.taken.load(SeqCst), taken + 6, "a flush has not run the tasks");
        turns.ready.rest(false);
        assert!(answered(ask(&turns, &asks, true, AT_ONCE, LONG)));
        let begin = Instant::now();
        let waiter = Waiter::default();
        asks.send((AT_ONCE, waiter.teller())).unwrap();
        assert!(answered(told::sleep_on(waiter.told(), begin + AWAY / 2).flatten()), "nobody was called back");
        drop(asks);
        assert!(thread.join().unwrap());
    }

    #[test]
    fn after_flushes_at_once_a_few_alone_leave_the_tasks_to_the_thread() {
        let (turns, asks, thread) = answering();
        take(&turns, &asks);
        thread::scope(|scope| {
            let slow = scope.spawn(|| ask(&turns, &asks, true, 5 * SOON, LONG));
            while turns.waiting.load(SeqCst) == 0 {
                thread::yield_now();
            }
            assert!(answered(ask(&turns, &asks, true, AT_ONCE, LONG)));
            assert!(answered(slow.join().unwrap()));
        });
        let taken = turns.taken.load(SeqCst);
        for _ in 0..CROWD / 2 {
            assert!(answered(ask(&turns, &asks, true, AT_ONCE, LONG)));
        }
        assert_eq!(turns.taken.load(SeqCst), taken);
        let begin = Instant::now();
        while turns.taken.load(SeqCst) == taken {
            assert!(begin.elapsed() < LONG, "no flush has run the tasks again");
            assert!(answered(ask(&turns, &asks, true, AT_ONCE, LONG)));
        }
        drop(asks);
        turns.call_back();
        assert!(thread.join().unwrap());
    }

    #[test]
    fn a_flush_that_runs_the_tasks_waits_until_its_deadline_and_leaves_the_rest_to_the_thread() {
        let (turns, asks, thread) = answering();
        take(&turns, &asks);
        let begin = Instant::now();
        let after = Duration::from_millis(300);
        assert!(ask(&turns, &asks, true, after, Duration::from_millis(50)).is_none());
        assert!(begin.elapsed() < after, "it has waited for the answer");
        assert!(answered(ask(&turns, &asks, false, AT_ONCE, LONG)));
        drop(asks);
        assert!(thread.join().unwrap());
    }

    #[test]
    fn a_flush_that_may_no_longer_run_the_tasks_waits_on_while_the_thread_runs_them() {
        let (turns, asks, thread) = answering();
        take(&turns, &asks);
        let lost = thread::spawn({
            let turns = turns.clone();
            move || {
                thread::sleep(Duration::from_millis(100));
                turns.ready.set(false);
                thread::sleep(Duration::from_millis(100));
                (turns.taken.load(SeqCst), turns.waiting.load(SeqCst))
            }
        });
        assert!(answered(ask(&turns, &asks, true, Duration::from_millis(500), LONG)));
        let (taken, waiting) = lost.join().unwrap();
        assert_eq!((taken % 2, waiting), (0, 1), "the flush has run the tasks on");
        drop(asks);
        assert!(thread.join().unwrap());
    }

    #[test]
    fn no_flush_waits_beyond_its_deadline_for_a_thread_that_is_stuck() {
        let (turns, asks, thread) = answering();
        for _ in 0..ALONE {
            assert!(answered(ask(&turns, &asks, true, AT_ONCE, LONG)));
        }
        let waiter = Waiter::default();
        asks.send((BLOCKS, waiter.teller())).unwrap();
        assert!(answered(told::sleep_on(waiter.told(), Instant::now() + LONG).flatten()));
        let begin = Instant::now();
        assert!(ask(&turns, &asks, true, AT_ONCE, Duration::from_millis(200)).is_none());
        assert!(begin.elapsed() < Duration::from_secs(2), "it waited for the thread");
        assert!(answered(ask(&turns, &asks, true, AT_ONCE, LONG)));
        drop(asks);
        assert!(thread.join().unwrap());
    }

    #[test]
    fn a_task_that_panics_or_has_ended_answers_no_flush_and_lets_none_wait() {
        for (small, panics) in [(true, true), (false, true), (true, false), (false, false)] {
            let (turns, asks, thread) = answering();
            take(&turns, &asks);
            let begin = Instant::now();
            let asks = match panics {
                true => {
                    assert!(ask(&turns, &asks, small, Duration::from_secs(60), LONG).is_none());
                    asks
                }
                false => {
                    drop(asks);
                    unbounded_channel().0
                }
            };
            assert_eq!(thread.join().unwrap(), !panics);
            assert!(ask(&turns, &asks, small, AT_ONCE, LONG).is_none());
            assert!(begin.elapsed() < LONG);
        }
    }

    #[test]
    fn flushes_of_all_sizes_at_once_and_one_after_the_other_are_each_answered() {
        let mut taken = 0;
        let stalls = AtomicUsize::new(0);
        for seed in 0..60 {
            let mut random = Rng::with_seed(seed);
            let (turns, asks, thread) = answering();
            turns.ready.rest(random.bool());
            let most_pause = random.u64(0..60);
            let small_of_ten = random.u32(6..=10);
            let blocks = [0, 1, 10][random.usize(0..3)];
            let flushes: Vec<_> = (0..[1, 1, 2, 4][random.usize(0..4)]).map(|_| random.fork()).collect();
            thread::scope(|scope| {
                for mut random in flushes {
                    let (turns, asks, stalls) = (&turns, &asks, &stalls);
                    scope.spawn(move || {
                        for _ in 0..random.usize(1..80) {
                            let small = random.u32(0..10) < small_of_ten;
                            let after = match random.u32(0..20) < blocks {
                                true => BLOCKS_SHORTLY,
                                false => Duration::from_micros(random.u64(0..3000)),
                            };
                            let begin = Instant::now();
                            assert!(answered(ask(turns, asks, small, after, LONG)), "seed {seed}");
                            stalls.fetch_add(usize::from(begin.elapsed() > AWAY / 2), SeqCst);
                            if random.u32(0..10) == 0 {
                                thread::sleep(Duration::from_millis(random.u64(0..=most_pause)));
                            }
                        }
                    });
                }
            });
            taken += turns.taken.load(SeqCst);
            assert_eq!((turns.taken.load(SeqCst) % 2, turns.waiting.load(SeqCst)), (0, 0), "seed {seed}");
            drop(asks);
            turns.call_back();
            assert!(thread.join().unwrap(), "seed {seed}");
        }
        // The machine itself may stand still once.
        assert!(stalls.load(SeqCst) <= 1, "{stalls:?} flushes waited while nobody ran the tasks");
        assert!(taken > 400, "flushes have run the tasks {} times only", taken / 2);
    }
}
