//! Memory that two processes share, in which one hands the other bytes: cheaper than through a socket.
//!
//! The memory has [`SLOTS`] slots. A [`Sender`] fills one and tells the [`Receiver`], through a socket
//! for that, which and how far; whoever is to read the bytes waits for that itself, and nobody else is
//! woken. The receiver copies the bytes out. Once its [`Slot`] is dropped the sender hears of it, through
//! another socket, and may fill it again. A receiver that is slow so stops the sender, and memory is
//! bounded.
//!
//! The sender makes the memory and offers it ([`Sender::offer`]), for the receiver to open
//! ([`Receiver::open`]). When no more will come is for the receiver's process to find out; whoever takes
//! the slots can then be told, behind those that have come ([`Receiver::tell_end`]).
//!
//! **Invariant:** nothing that the process on one side does, or does to a descriptor that both have,
//! makes the other wait or crash. The sender alone can write to the memory, and that it does not shrink
//! under a reader is sealed. Each side reads messages from a socket that it has made and nobody else has
//! ([`channel`]), by calls that never wait, and closes what the other has sent it on a thread of its own
//! ([`descriptors`]), as whoever talks to such a process over a Unix socket should.
//!
//! **Invariant:** a slot belongs to one side at a time. Nothing but agreement keeps a sender from
//! writing to what is not its own, so a receiver gets copies, and never looks at a byte twice.

mod channel;
mod copy;
pub mod descriptors;
mod end;
mod memory;
mod note;
mod receiver;
mod sender;

pub use receiver::{Next, Receiver, Slot};
pub use sender::{Filling, Offer, Sender};

/// How many slots there are: enough for one side to go on while the other's core does something else
/// for a millisecond or two.
pub const SLOTS: usize = 6;

/// How many bytes a slot holds: large enough that telling of it costs nothing beside copying it.
pub const SLOT_BYTES: usize = 512 << 10;

#[cfg(test)]
mod tests;
