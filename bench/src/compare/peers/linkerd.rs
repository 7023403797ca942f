//! linkerd2-proxy: known, and not run.

use std::path::Path;

/// Why a linkerd2-proxy at `path` is not measured.
pub(crate) fn not_run(path: &Path) -> String {
    format!(
        "{}: not run. A linkerd2-proxy asks its control plane for identity, policy and destinations over gRPC, and \
         serves nothing without them; this comparison does not stand in for that control plane",
        path.display()
    )
}
