//! Stand-ins that run on one machine.
