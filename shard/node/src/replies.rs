//! Where the coordinator core's replies meet the requests that wait for them.
//!
//! The core names a request by its slot and a serial, and uses the slot again as soon as it has replied. The request
//! itself takes its reply later, when its task runs. So a reply that is not taken when its slot is used again moves
//! aside; the common case needs no allocation. Never: a reply without a request that still waits for it, because a
//! request that goes away takes its place along.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ceto_cluster::coordinator::Reply;
use ceto_internode::RequestId;
use rustc_hash::FxHashMap;

/// A reply, and what a failing replica said, when that was this node.
pub(crate) type Outcome = (Reply, Option<String>);

/// Requests that wait for the core.
#[derive(Default)]
pub(crate) struct Replies {
    /// By slot of the request.
    waiting: RefCell<Vec<Option<Waiting>>>,
    /// Not taken when their slot was used again.
    aside: RefCell<FxHashMap<RequestId, Outcome>>,
}

struct Waiting {
    request: RequestId,
    waker: Option<Waker>,
    reply: Option<Reply>,
    failure: Option<String>,
}

impl Replies {
    /// From now on a reply to `request` can come. It must be waited for by [`Self::reply`].
    pub(crate) fn expect(&self, request: RequestId) {
        let mut waiting = self.waiting.borrow_mut();
        let slot = request.slot as usize;
        if waiting.len() <= slot {
            waiting.resize_with(slot + 1, || None);
        }
        let entry = Waiting {
            request,
            waker: None,
            reply: None,
            failure: None,
        };
        if let Some(before) = waiting[slot].replace(entry)
            && let Some(reply) = before.reply
        {
            self.aside
                .borrow_mut()
                .insert(before.request, (reply, before.failure));
        }
    }

    /// The reply to a request that is expected. The future must be polled to its end or dropped.
    pub(crate) fn reply(&self, request: RequestId) -> ReplyFuture<'_> {
        ReplyFuture {
            replies: self,
            request,
        }
    }

    /// Brings the reply. Nothing happens when nobody waits for it any more.
    pub(crate) fn deliver(&self, request: RequestId, reply: Reply) {
        let waker = self.with(request, |entry| {
            entry.reply = Some(reply);
            entry.waker.take()
        });
        if let Some(Some(waker)) = waker {
            waker.wake();
        }
    }

    /// Keeps the text of a local failure for the client.
    pub(crate) fn note_failure(&self, request: RequestId, text: &str) {
        self.with(request, |entry| entry.failure = Some(text.to_owned()));
    }

    fn with<T>(&self, request: RequestId, change: impl FnOnce(&mut Waiting) -> T) -> Option<T> {
        let mut waiting = self.waiting.borrow_mut();
        let entry = waiting.get_mut(request.slot as usize)?.as_mut()?;
        (entry.request == request).then(|| change(entry))
    }

    /// The outcome, if it is there.
    fn take(&self, request: RequestId, context: &mut Context<'_>) -> Option<Outcome> {
        let found = self.with(request, |entry| match entry.reply.take() {
            Some(reply) => Some((reply, entry.failure.take())),
            None => {
                entry.waker = Some(context.waker().clone());
                None
            }
        });
        match found {
            Some(outcome) => outcome,
            None => self.aside.borrow_mut().remove(&request),
        }
    }

    fn forget(&self, request: RequestId) {
        let mut waiting = self.waiting.borrow_mut();
        match waiting.get_mut(request.slot as usize) {
            Some(slot) if slot.as_ref().is_some_and(|entry| entry.request == request) => *slot = None,
            _ => {
                self.aside.borrow_mut().remove(&request);
            }
        }
    }
}

/// Waits for the reply to a request.
pub(crate) struct ReplyFuture<'a> {
    replies: &'a Replies,
    request: RequestId,
}

impl Future for ReplyFuture<'_> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        match self.replies.take(self.request, context) {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }
}

impl Drop for ReplyFuture<'_> {
    fn drop(&mut self) {
        self.replies.forget(self.request);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn request(slot: u32, serial: u32) -> RequestId {
        RequestId {
            shard: 0,
            slot,
            serial,
        }
    }

    fn poll(future: &mut ReplyFuture<'_>, waker: &Waker) -> Poll<Outcome> {
        Pin::new(future).poll(&mut Context::from_waker(waker))
    }

    fn is_done(poll: Poll<Outcome>) -> bool {
        matches!(poll, Poll::Ready((Reply::Write(Ok(())), _)))
    }

    #[test]
    fn a_reply_wakes_its_request() {
        let (replies, count) = (Replies::default(), Arc::new(Count::default()));
        let waker = Waker::from(count.clone());
        replies.expect(request(3, 1));
        let mut first = replies.reply(request(3, 1));
        assert!(poll(&mut first, &waker).is_pending());
        replies.deliver(request(3, 0), Reply::Write(Ok(())));
        assert_eq!(count.0.load(Ordering::Relaxed), 0, "another request's");
        replies.note_failure(request(3, 1), "why");
        replies.deliver(request(3, 1), Reply::Write(Ok(())));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let outcome = poll(&mut first, &waker);
        assert!(matches!(outcome, Poll::Ready((_, Some(text))) if text == "why"));
    }

    #[test]
    fn a_reply_outlives_its_slot() {
        let replies = Replies::default();
        replies.expect(request(0, 1));
        let mut first = replies.reply(request(0, 1));
        assert!(poll(&mut first, Waker::noop()).is_pending());
        replies.deliver(request(0, 1), Reply::Write(Ok(())));
        // The core uses the slot again before the first request's task has run.
        replies.expect(request(0, 2));
        let mut second = replies.reply(request(0, 2));
        assert!(poll(&mut second, Waker::noop()).is_pending());
        assert!(is_done(poll(&mut first, Waker::noop())));
        drop(first);
        replies.deliver(request(0, 2), Reply::Write(Ok(())));
        assert!(is_done(poll(&mut second, Waker::noop())));
    }

    #[test]
    fn a_request_that_goes_away_leaves_nothing() {
        let replies = Replies::default();
        replies.expect(request(0, 1));
        let first = replies.reply(request(0, 1));
        replies.deliver(request(0, 1), Reply::Write(Ok(())));
        replies.expect(request(0, 2));
        let second = replies.reply(request(0, 2));
        assert_eq!(replies.aside.borrow().len(), 1);
        drop(first);
        assert!(replies.aside.borrow().is_empty());
        drop(second);
        assert!(replies.waiting.borrow().iter().all(Option::is_none));
        replies.deliver(request(0, 2), Reply::Write(Ok(())));
        assert!(replies.waiting.borrow().iter().all(Option::is_none));
    }
}
