//! Layers: extraction, overlayfs, usage, lookup of a path through layers.
