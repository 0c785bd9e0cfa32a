//! Steps that block, on threads of their own.

use crate::error::{Error, Result};

/// Runs a blocking step and waits for it; a panic in it is an error. Dropping the future does not
/// end the step.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match crisp_tasks::blocking(work).await {
        Ok(outcome) => outcome,
        Err(failed) => Err(Error::fault(&failed)),
    }
}

/// Like [`blocking`], for a step that is nearly always over at once, on the caller's thread.
pub(crate) async fn brief<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match crisp_tasks::brief(work).await {
        Ok(outcome) => outcome,
        Err(failed) => Err(Error::fault(&failed)),
    }
}

/// Gives memory that the allocator holds free back to the kernel.
pub async fn give_memory_back() {
    let given = blocking(|| {
        crisp_sys::memory::give_back();
        Ok(())
    });
    if let Err(error) = given.await {
        tracing::warn!(%error, "cannot give memory back");
    }
}
