//! Requests as odd as they come.
