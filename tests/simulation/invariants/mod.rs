//! What must hold in every world: one file for each invariant, judging what the models know for certain, not what any
//! program believes.

pub mod calm;
pub mod durable;
pub mod eligible;
pub mod enough;
pub mod epochs;
pub mod fenced;
pub mod handed_over;
pub mod leaders;
pub mod one_primary;
pub mod visible;
pub mod whole;
pub mod writable;

use std::rc::Rc;

use crate::town::Town;

/// etcd has moved on by a revision.
pub fn stored(town: &Rc<Town>) {
    leaders::stored(town);
    fenced::stored(town);
    epochs::stored(town);
}

/// The history is over.
pub fn at_the_end(town: &Rc<Town>) {
    writable::judge(town);
    calm::judge(town);
    whole::judge(town);
    durable::judge(town);
}
