//! Where the futures of hyper's HTTP/2 connections run.

use std::future::Future;

/// Runs hyper's futures on the worker they were made on.
#[derive(Clone, Copy)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
