//! CQL: text to plans. Pure.
