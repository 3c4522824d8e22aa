//! A handover that somebody waits for: asked by the admin service, granted or refused by the leader's loop.

use stolon::model::Epoch;
use tokio::sync::oneshot;

use crate::decide::Wish;

/// What became of a wish: the epoch that is handed over, or why not; for people.
pub type Verdict = Result<Epoch, String>;

/// One wish at a time, and why the last granted one was called off.
#[derive(Debug, Default)]
pub struct Wishes {
    open: Option<(Wish, oneshot::Sender<Verdict>)>,
    called_off: Option<(Epoch, String)>,
}

impl Wishes {
    /// Asks for a handover. Refused while another one is asked for.
    pub fn ask(&mut self, wish: Wish) -> Result<oneshot::Receiver<Verdict>, String> {
        if self.open.as_ref().is_some_and(|(_, asker)| !asker.is_closed()) {
            return Err("somebody else is asking for a handover right now".into());
        }
        let (asker, verdict) = oneshot::channel();
        self.open = Some((wish, asker));
        self.called_off = None;
        Ok(verdict)
    }

    /// The wish to decide on. One whose asker went away is no wish any more.
    pub fn open(&mut self) -> Option<&Wish> {
        self.open.take_if(|(_, asker)| asker.is_closed());
        self.open.as_ref().map(|(wish, _)| wish)
    }

    pub fn answer(&mut self, verdict: Verdict) {
        if let Some((_, asker)) = self.open.take() {
            let _ = asker.send(verdict);
        }
    }

    pub fn call_off(&mut self, epoch: Epoch, why: String) {
        self.called_off = Some((epoch, why));
    }

    /// Why the handover of this epoch was called off, if it was.
    pub fn called_off(&self, epoch: Epoch) -> Option<String> {
        self.called_off.as_ref().filter(|(of, _)| *of == epoch).map(|(_, why)| why.clone())
    }
}
