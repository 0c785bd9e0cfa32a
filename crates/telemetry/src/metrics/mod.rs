//! Metrics are the daemon's figures about itself, on a page that Prometheus and its like read.
//!
//! ```text
//! figure      one family of figures as the program tells it when the page is read
//! operations  calls of the doors, counted and timed while they run
//! page        all of it as text, in the format that a client asks for
//! server      the page over HTTP/1.1
//! ```
//!
//! Figures that are kept anyway are read when a client comes, so that they cost nothing until
//! then; only the times of calls are recorded as they end. Names and values of labels are
//! constants of the program ([`figure::Label`]), so how many series there are is bounded by the
//! program's text: no id of a pod and no name of an image can become one.

mod figure;
mod operations;
mod page;
mod server;

pub use figure::{Figure, Kind, Label, Unit, Value};
pub use operations::{Operation, Operations};
pub use server::{Bound, Server, bind};
