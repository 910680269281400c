//! A node as a library over env: boot, connections, execution, the pump, system tables.
