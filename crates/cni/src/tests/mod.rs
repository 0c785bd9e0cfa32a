//! The network tried for real: namespaces that stand for a node, its pods and the world outside.

mod builtin_network;
mod damage;
mod lab;
mod mending;
mod neighbours;
mod owed;
mod plugin_answers;
mod plugin_programs;
mod pod_cidr;
mod release;
mod sources;
mod take_over;
mod together;
