//! The chart: what it renders, and what install, upgrade and uninstall do to jobs.
