//! Service levels: named workload classes that roles are attached to (an extension of CQL).

use super::{Name, Properties};

/// `CREATE SERVICE LEVEL` or `ALTER SERVICE LEVEL`
#[derive(Clone, PartialEq, Debug)]
pub struct ServiceLevelDefinition {
    /// Its name.
    pub name: Name,
    /// IF NOT EXISTS; never set by ALTER.
    pub if_not_exists: bool,
    /// WITH, maybe empty
    pub properties: Properties,
}

/// `ATTACH SERVICE LEVEL name TO role`
#[derive(Clone, PartialEq, Debug)]
pub struct AttachServiceLevel {
    /// The level.
    pub service_level: Name,
    /// The role.
    pub role: Name,
}

/// `LIST .. SERVICE LEVEL ..`
#[derive(Clone, PartialEq, Debug)]
pub enum ListServiceLevels {
    /// LIST ALL SERVICE LEVELS
    All,
    /// LIST SERVICE LEVEL name
    One(Name),
    /// LIST ATTACHED SERVICE LEVEL OF role
    AttachedTo(Name),
    /// LIST ALL ATTACHED SERVICE LEVELS
    AllAttached,
}
