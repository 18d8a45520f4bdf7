//! What a completion touches of an engine, fetched before it comes: each look at what the one before it had fetched.

use super::Engine;
use crate::executor::execution_of;
use ubccl_core::endpoint::Token;
use ubccl_core::prefetch::prefetch;

impl Engine {
    /// Has of the engine itself fetched what any completion touches.
    #[inline]
    pub(crate) fn foresee(&self) {
        prefetch(&self.slots);
        prefetch(&self.queue);
        prefetch(&self.completions);
        prefetch(&self.endpoint);
        prefetch(&self.loose);
        prefetch(&self.tagged);
        prefetch(&self.breakdown);
    }

    /// Has the execution that a completion is of fetched, a while after [`Engine::foresee`].
    #[inline]
    pub(crate) fn foresee_execution(&self, token: Token) {
        if let Some(slot) = self.slots.get(execution_of(token)) {
            prefetch(&slot.call);
            prefetch(&slot.role);
            prefetch(&slot.number);
            slot.execution.foresee(token);
        }
        self.queue.iter().take(1).for_each(prefetch);
        prefetch(&*self.endpoint);
    }

    /// Has the posts that may follow fetched, a while after [`Engine::foresee_execution`].
    #[inline]
    pub(crate) fn foresee_posts(&self, token: Token) {
        if let Some(slot) = self.slots.get(execution_of(token)) {
            slot.execution.foresee_posts(token);
        }
    }
}
