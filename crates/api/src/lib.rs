//! Generated CRI v1 types, server traits and client.
