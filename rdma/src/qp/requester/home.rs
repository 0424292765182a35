//! Requests that no peer hears of: a memory window is bound, or its key taken back. They stand in the send queue like the others and have
//! no packet. One is done when everything before it has left for the first time, and only once: going back goes over it. It is finished
//! when everything before it is.

use super::{Broken, Context, Requester};
use crate::{
    qp::{Completions, QpOptions, send_queue::Task},
    region::{BindError, HomeWork},
    work::CompletionError,
};

impl Requester {
    /// Whether there are any.
    pub(in crate::qp) fn has_home_work(&self) -> bool {
        self.at_home_count > 0
    }

    /// What is to be done before the next packet leaves. Whoever does it tells [`Requester::worked_at_home`] how it went.
    pub(in crate::qp) fn home_work(&mut self, options: &QpOptions) -> Option<HomeWork> {
        while let Some(posted) = self.queue.get(self.next_request)
            && let Task::Home { work, is_done } = posted.task
        {
            if !is_done {
                return self.may_send(options).then_some(work);
            }
            self.next_request += 1;
        }
        None
    }

    pub(in crate::qp) fn worked_at_home(
        &mut self,
        done: Result<(), BindError>,
        context: &mut Context<'_>,
    ) -> Result<(), Broken> {
        if let Err(error) = done {
            return self.fail_at(self.next_request, CompletionError::Bind(error), context);
        }
        if let Some(posted) = self.queue.get_mut(self.next_request)
            && let Task::Home { is_done, .. } = &mut posted.task
        {
            *is_done = true;
        }
        self.next_request += 1;
        self.finish_home_work(context.completions);
        Ok(())
    }

    /// What stands at the head and is done is finished.
    pub(super) fn finish_home_work(&mut self, completions: &mut Completions) {
        while let Some(posted) = self.queue.front()
            && let Task::Home { is_done: true, .. } = posted.task
        {
            if posted.signalled {
                completions.push(posted.wr_id, posted.task.kind(), 0, None);
            }
            self.queue.pop_front();
            self.at_home_count -= 1;
            self.next_request = self.next_request.saturating_sub(1);
        }
    }
}
