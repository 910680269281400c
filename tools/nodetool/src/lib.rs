//! `ceto nodetool`: nodetool's verbs over the admin API.

pub mod api;
