//! `crisp-cni`: the plugin `crisp` as a program. Install it as `crisp` among the CNI plugins.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a plugin answers on stdout")]

use std::process::ExitCode;

use crisp_cni::plugin::{Environment, answer};

fn main() -> ExitCode {
    let answer = answer(&Environment::of_process(), std::io::stdin());
    if !answer.stdout.is_empty() {
        println!("{}", answer.stdout);
    }
    if answer.failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
