//! Layers made by hand, unpacked for real.

#![allow(
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tests write files plainly"
)]

mod differential;
mod hostile;
mod maker;
mod overlay;
mod reserve;
mod store;
mod unpack;
mod unsettled;
mod whiteouts;
