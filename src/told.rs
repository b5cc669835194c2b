//! What a waiting flush is told: a small channel whose wait goes to sleep at once.
//!
//! A delivery takes milliseconds at least. A channel that first spins and yields, as crossbeam's does, costs four `sched_yield` for each
//! flush, which is a good part of a small chunk's CPU.

use crate::delivery::room::Reservation;
use crate::host::Status;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// One message to a flush.
#[derive(Debug)]
pub enum Told {
    /// There is room: it may copy its chunk.
    Admitted(Reservation),
    /// The answer to the host.
    Answer(Status),
}

#[derive(Debug, Default)]
struct State {
    told: VecDeque<Told>,
    /// How many [`Teller`]s there are that have not answered.
    tellers: usize,
    /// Wakes whoever waits.
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a flush waits.
#[derive(Debug, Default)]
pub struct Waiter(Arc<Shared>);

impl Waiter {
    /// One more way to tell it.
    pub fn teller(&self) -> Teller {
        self.0.state().tellers += 1;
        Teller(Some(self.0.clone()))
    }

    /// The next message; `None` once nobody can tell it anything any more.
    pub async fn told(&self) -> Option<Told> {
        poll_fn(|context| {
            let mut state = self.0.state();
            match state.told.pop_front() {
                Some(told) => Poll::Ready(Some(told)),
                None if state.tellers == 0 => Poll::Ready(None),
                None => {
                    state.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// A thread that sleeps.
struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread, which sleeps meanwhile. `None` at the deadline.
pub fn sleep_on<F: Future>(future: F, deadline: Instant) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Sleeper(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}

/// Tells a flush. Never waits; the flush may have given up.
#[derive(Debug)]
pub struct Teller(Option<Arc<Shared>>);

impl Teller {
    /// There is room for its chunk.
    pub fn admit(&self, reservation: Reservation) {
        if let Some(shared) = &self.0 {
            let mut state = shared.state();
            state.told.push_back(Told::Admitted(reservation));
            wake(state);
        }
    }

    /// The answer.
    pub fn answer(mut self, status: Status) {
        self.end(Some(Told::Answer(status)));
    }

    /// The last that this teller does: the flush is woken once.
    fn end(&mut self, last: Option<Told>) {
        let Some(shared) = self.0.take() else { return };
        let mut state = shared.state();
        state.told.extend(last);
        state.tellers -= 1;
        wake(state);
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    waker.into_iter().for_each(Waker::wake);
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.end(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    fn wait(waiter: &Waiter, deadline: Instant) -> Option<Told> {
        sleep_on(waiter.told(), deadline).flatten()
    }

    #[test]
    fn messages_come_in_order_and_a_wait_ends_at_the_deadline_or_without_tellers() {
        let waiter = Waiter::default();
        let teller = waiter.teller();
        waiter.teller().answer(Status::Retry);
        waiter.teller().answer(Status::Ok);
        let soon = || Instant::now() + Duration::from_millis(20);
        assert!(matches!(wait(&waiter, soon()), Some(Told::Answer(Status::Retry))));
        assert!(matches!(wait(&waiter, soon()), Some(Told::Answer(Status::Ok))));
        let deadline = soon();
        assert!(wait(&waiter, deadline).is_none() && Instant::now() >= deadline);
        // A second teller replaces the first; what was told before the end still comes.
        let second = waiter.teller();
        drop(teller);
        second.answer(Status::Error);
        let far = Instant::now() + Duration::from_secs(20);
        assert!(matches!(wait(&waiter, far), Some(Told::Answer(Status::Error))));
        assert!(wait(&waiter, far).is_none() && Instant::now() < far);
    }

    #[test]
    fn one_that_sleeps_is_woken_by_a_message_and_by_the_end_of_the_last_teller() {
        for ends in [false, true] {
            let waiter = Waiter::default();
            let (one, two) = (waiter.teller(), waiter.teller());
            let far = Instant::now() + Duration::from_secs(20);
            let telling = thread::spawn(move || {
                thread::sleep(Duration::from_millis(50));
                drop(one);
                if !ends {
                    two.answer(Status::Ok);
                }
            });
            assert_eq!(wait(&waiter, far).is_none(), ends);
            assert!(Instant::now() < far);
            telling.join().unwrap();
        }
    }
}
