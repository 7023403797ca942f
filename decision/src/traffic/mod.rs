//! Where a request goes, when it is tried again, and when it is given up.
