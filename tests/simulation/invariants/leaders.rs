//! Cluster data are written by the leading sentinel and nobody else: one whose key of the election is gone writes no more.

use std::rc::Rc;

use crate::town::Town;

pub fn stored(town: &Rc<Town>) {
    let deposed = std::mem::take(&mut town.etcd.state.borrow_mut().deposed);
    if deposed {
        let what = "a sentinel that leads no more has changed the cluster data".to_owned();
        town.world.audit.borrow_mut().found(town.world.rt.now(), "leaders", what);
    }
}
