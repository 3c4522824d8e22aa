//! What a keeper asks its own server about synchronous replication, as `keeper/pg/synchronous.rs` does it: commits of its own,
//! which no client sees acknowledged.

use std::rc::Rc;

use stolon::model::Lsn;

use super::{Machine, Mode, Server, lsn};
use crate::{runtime::answer, world::MS};

impl Machine {
    /// A commit that does not wait itself: the list in force and its end; `None` when the server ends meanwhile.
    pub async fn commit_once(self: &Rc<Machine>, server: &Rc<Server>) -> Option<(Vec<String>, Lsn)> {
        let (question, answer) = answer();
        let (machine, own) = (self.clone(), server.clone());
        self.world.rt.spawn(&server.process, async move {
            machine.world.pass(MS / 2, 5 * MS).await;
            let names = own.names.borrow().clone();
            if let Some(end) = machine.write(&own) {
                question.answer((names, lsn(end)));
            }
        });
        answer.await
    }

    /// Makes a commit that has to wait, the list in force holding a name that nobody has: true when it was seen to hang,
    /// false when it ended because backends don't wait yet (L5).
    pub async fn commits_wait(self: &Rc<Machine>, server: &Rc<Server>) -> Option<bool> {
        let (question, answer) = answer();
        let (machine, own) = (self.clone(), server.clone());
        self.world.rt.spawn(&server.process, async move {
            machine.world.pass(MS / 2, 5 * MS).await;
            let waits = own.published.get();
            if machine.write(&own).is_some() {
                machine.world.pass(MS, 3 * MS).await;
                question.answer(waits);
            }
        });
        answer.await
    }

    /// One record; the number of records after it.
    fn write(&self, server: &Server) -> Option<usize> {
        if server.mode.get() != Mode::Primary {
            return None;
        }
        let record = self.world.audit.borrow_mut().record();
        self.change_data(|data| data.wal.push(record));
        self.with_data(|data| data.wal.len())
    }
}
