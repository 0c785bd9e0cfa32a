//! Pull, list, resolve and remove images over registry, content and snapshotter.
