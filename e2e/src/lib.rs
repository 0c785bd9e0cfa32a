//! What the end-to-end tests share: daemons, registries, images and the independent checker.
