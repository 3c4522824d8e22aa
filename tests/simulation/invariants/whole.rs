//! After all faults have ended every member follows again, whatever history its data had: left behind, ahead, or on another
//! branch (R11).

use std::rc::Rc;

use crate::{keeper::host_of, postgres::Mode, town::Town};

pub fn judge(town: &Rc<Town>) {
    let mirror = town.etcd.state.borrow().newest();
    let Some((data, _)) = mirror.data() else { return };
    let Some(primary) = town.primary().filter(|host| town.machines[*host].mode() == Some(Mode::Primary)) else {
        return;
    };
    for db in data.dbs.values() {
        let host = host_of(&db.spec.keeper_uid);
        let server = town.machines[host].running();
        let follows = server.is_some_and(|server| server.receiving.get().is_some());
        if host != primary && !follows {
            let machine = &town.machines[host];
            let (mode, at) = (machine.mode(), machine.with_data(|data| (data.position(), data.upstream)));
            let what = format!("h{host} ({mode:?}, {at:?}) does not follow h{primary}, long after the last fault");
            town.world.audit.borrow_mut().found(town.world.rt.now(), "whole", what);
        }
    }
}
