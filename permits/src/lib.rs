//! Permits: how much of something may be under way at once, fairly between those who ask.
//!
//! A [`Pool`] is a semaphore that grants permits in the order in which they were asked for, and whose
//! holders can find out that somebody [waits](Permit::wanted). [`Keyed`] has a pool for each key: for
//! each repository, user, address, connection. [`Shares`] are both: a pool of which each key has a part at
//! most.
//!
//! Limits at several levels are pools that are asked one after the other, the narrowest first: who
//! fills the pool of a connection waits there, and takes no place in the queue of the address or of
//! the process. So a crowd behind one key never stands in the way of the others.

mod keyed;
mod pool;
mod shares;

pub use keyed::Keyed;
pub use pool::{Permit, Pool};
pub use shares::{Share, Shares};
