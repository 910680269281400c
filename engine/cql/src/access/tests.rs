#![allow(clippy::unwrap_used)]

use super::*;
use crate::CqlError;
use crate::parse_statement;
use crate::schema_change::SchemaChange;
use ceto_model::Schema;
use uuid::Uuid;

const RULES: AccessRules = AccessRules {
    requires_login: true,
    authorizes: true,
};
const HASH: &str = "$2a$10$JSJEMFm6GeaW9XxT5JIheuEtPvat6i7uKbnTcxX3c1wshIIsGyUtG";

/// What is present, changed by statements.
struct World {
    access: AccessControl,
    schema: Schema,
    /// Schema changes so far.
    changes: u128,
}

impl World {
    /// One superuser, and a table.
    fn new() -> World {
        let mut world = World {
            access: AccessControl::default(),
            schema: Schema::default(),
            changes: 0,
        };
        let root = Role {
            can_login: true,
            is_superuser: true,
            ..Role::default()
        };
        world.access.roles.insert("root".into(), root);
        for text in [
            "CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
            "CREATE TABLE ks.t (k int PRIMARY KEY)",
        ] {
            world.schema(text, None);
        }
        world
    }

    fn performer(&self, role: &str) -> Performer {
        Performer::new(Arc::new(self.access.clone()), RULES, Some(role.into()))
    }

    /// What the node does with a schema change, without a check.
    fn schema(&mut self, text: &str, role: Option<&str>) {
        let statement = parse_statement(text).unwrap().statement;
        self.changes += 1;
        let id = Uuid::from_u128(self.changes);
        let change = SchemaChange::prepare(&statement, None, id).unwrap().unwrap();
        let created = change.created(&self.schema);
        let next = change.apply(&self.schema, 1).unwrap().unwrap();
        let renamed = change.renamed(&self.schema, &next);
        self.schema = next;
        let role = role.map(Arc::from);
        let after = self
            .access
            .after_schema_change(&self.schema, &renamed, created, role.as_ref());
        self.access = after.unwrap_or_else(|| self.access.clone());
    }

    fn try_run(&mut self, role: &str, text: &str) -> Result<(), CqlError> {
        let statement = parse_statement(text).unwrap().statement;
        let change = AccessChange::prepare(&statement, Some("ks")).unwrap()?;
        let change = match change.password() {
            Some(_) => change.with_hash(HASH),
            None => change,
        };
        if let Some(after) = change.apply(&self.performer(role), &self.schema, "dc1")? {
            self.access = after;
        }
        Ok(())
    }

    fn run(&mut self, role: &str, text: &str) {
        self.try_run(role, text)
            .unwrap_or_else(|error| panic!("{text}: {error}"));
    }

    fn refused(&mut self, role: &str, text: &str) -> String {
        let before = self.access.clone();
        let error = self.try_run(role, text).unwrap_err();
        assert_eq!(self.access, before);
        error.to_string()
    }

    fn may(&self, role: &str, text: &str) -> bool {
        let prepared = crate::parse_and_prepare(text, &self.schema, Some("ks")).unwrap();
        let performer = self.performer(role);
        let needed = prepared.required_permissions();
        needed
            .iter()
            .all(|(permission, resource)| performer.has(*permission, resource))
    }

    fn list(&self, role: &str, text: &str) -> Result<Vec<Vec<String>>, CqlError> {
        let statement = parse_statement(text).unwrap().statement;
        let query = AccessQuery::prepare(&statement, Some("ks")).unwrap();
        let listed = query.rows(&self.performer(role), &self.schema)?;
        let cell = |cell: Option<bytes::Bytes>| match cell.as_deref() {
            None => "null".to_owned(),
            Some([0]) => "false".to_owned(),
            Some([1]) => "true".to_owned(),
            Some(text) => String::from_utf8_lossy(text).into_owned(),
        };
        let rows = listed.into_iter().flat_map(|listed| listed.rows);
        Ok(rows.map(|row| row.into_iter().map(cell).collect()).collect())
    }
}

#[test]
fn a_permission_reaches_down_and_over_roles() {
    let mut world = World::new();
    for text in [
        "CREATE ROLE readers",
        "CREATE ROLE staff",
        "CREATE ROLE ada WITH PASSWORD = 'x' AND LOGIN = true",
        "GRANT readers TO staff",
        "GRANT staff TO ada",
    ] {
        world.run("root", text);
    }
    let read = "SELECT * FROM t";
    assert!(!world.may("ada", read));
    for resource in ["t", "ALL TABLES IN KEYSPACE ks", "KEYSPACE ks", "ALL KEYSPACES"] {
        world.run("root", &format!("GRANT SELECT ON {resource} TO readers"));
        assert!(world.may("ada", read), "{resource}");
        assert!(!world.may("ada", "INSERT INTO t (k) VALUES (1)"));
        world.run("root", &format!("REVOKE SELECT ON {resource} FROM readers"));
        assert!(!world.may("ada", read), "{resource}");
    }
    world.run("root", "GRANT MODIFY ON t TO ada");
    assert!(world.may("ada", "INSERT INTO t (k) VALUES (1)"));
    // A condition tells what is stored.
    assert!(!world.may("ada", "INSERT INTO t (k) VALUES (1) IF NOT EXISTS"));
    assert!(world.may("root", "TRUNCATE t"));
    world.run("root", "REVOKE staff FROM ada");
    world.run("root", "GRANT SELECT ON t TO readers");
    assert!(!world.may("ada", read));
}

#[test]
fn who_makes_a_table_may_do_everything_with_it_and_its_end_ends_that() {
    let mut world = World::new();
    world.run("root", "CREATE ROLE ada");
    world.schema("CREATE TABLE ks.own (k int PRIMARY KEY)", Some("ada"));
    assert!(world.may("ada", "SELECT * FROM own"));
    assert!(world.may("ada", "TRUNCATE own"));
    assert!(!world.may("ada", "SELECT * FROM t"));
    world.schema("DROP TABLE ks.own", Some("ada"));
    world.schema("CREATE TABLE ks.own (k int PRIMARY KEY)", None);
    assert!(!world.may("ada", "SELECT * FROM own"));
}

#[test]
fn roles_are_never_members_of_themselves() {
    let mut world = World::new();
    for text in [
        "CREATE ROLE a",
        "CREATE ROLE b",
        "CREATE ROLE c",
        "GRANT a TO b",
        "GRANT b TO c",
    ] {
        world.run("root", text);
    }
    assert_eq!(world.refused("root", "GRANT c TO a"), "c is a member of a");
    assert_eq!(world.refused("root", "GRANT a TO c"), "c is a member of a");
    assert_eq!(world.refused("root", "GRANT a TO a"), "a is a member of a");
    assert_eq!(world.refused("root", "REVOKE a FROM c"), "c is not a member of a");
    assert_eq!(world.refused("root", "GRANT a TO nobody"), "nobody doesn't exist");
}

#[test]
fn refusals_are_cassandras() {
    let mut world = World::new();
    for text in [
        "CREATE ROLE ada WITH LOGIN = true AND PASSWORD = 'x'",
        "CREATE ROLE boss WITH SUPERUSER = true",
        "CREATE ROLE other",
    ] {
        world.run("root", text);
    }
    let no_privilege = "ada does not have sufficient privileges to perform the requested operation";
    let cases = [
        ("ada", "CREATE ROLE x", no_privilege),
        ("ada", "DROP ROLE other", no_privilege),
        ("ada", "ALTER ROLE other WITH LOGIN = true", no_privilege),
        ("ada", "GRANT other TO ada", no_privilege),
        (
            "ada",
            "ALTER ROLE ada WITH LOGIN = false",
            "You aren't allowed to alter LOGIN",
        ),
        (
            "ada",
            "ALTER ROLE ada WITH SUPERUSER = true",
            "You aren't allowed to alter your own superuser status or that of a role granted to you",
        ),
        (
            "ada",
            "ALTER ROLE other WITH SUPERUSER = true",
            "Only superusers are allowed to alter superuser status",
        ),
        (
            "ada",
            "GRANT SELECT ON t TO other",
            "User ada has no AUTHORIZE permission on <table ks.t> or any of its parents",
        ),
        ("root", "CREATE ROLE ada", "ada already exists"),
        (
            "root",
            "DROP ROLE root",
            "Cannot DROP primary role for current login",
        ),
        ("root", "DROP ROLE nobody", "nobody doesn't exist"),
        (
            "root",
            "GRANT SELECT ON nothing TO ada",
            "Resource <table ks.nothing> doesn't exist",
        ),
        ("root", "GRANT SELECT ON t TO nobody", "Role nobody doesn't exist"),
        (
            "root",
            "CREATE ROLE x WITH HASHED PASSWORD = 'y'",
            "Invalid hashed password value. Please use jBcrypt.",
        ),
        (
            "root",
            "CREATE ROLE x WITH ACCESS TO DATACENTERS {'dc1', 'dc9'}",
            "Invalid value(s) for DATACENTERS 'dc9', All values must be valid datacenters",
        ),
    ];
    for (role, text, refusal) in cases {
        assert_eq!(world.refused(role, text), refusal, "{role}: {text}");
    }
    // One's own password is one's own; ALTER on a role is enough for the password of a superuser.
    world.run("ada", "ALTER ROLE ada WITH PASSWORD = 'y'");
    world.run("root", "GRANT ALTER ON ALL ROLES TO ada");
    world.run("ada", "ALTER ROLE boss WITH PASSWORD = 'y'");
    world.run("root", "GRANT DROP ON ALL ROLES TO ada");
    assert_eq!(
        world.refused("ada", "DROP ROLE boss"),
        "Only superusers can drop a role with superuser status"
    );
    world.run("ada", "DROP ROLE other");
    world.run("root", "CREATE ROLE IF NOT EXISTS ada");
    world.run("root", "DROP ROLE IF EXISTS nobody");
}

#[test]
fn nothing_outlives_its_role() {
    let mut world = World::new();
    for text in [
        "CREATE ROLE ada",
        "CREATE ROLE staff",
        "GRANT staff TO ada",
        "GRANT SELECT ON t TO staff",
        "GRANT ALTER ON ROLE staff TO ada",
        "DROP ROLE staff",
        "CREATE ROLE staff",
    ] {
        world.run("root", text);
    }
    assert!(!world.may("ada", "SELECT * FROM t"));
    assert!(world.list("root", "LIST ALL OF ada").unwrap().is_empty());
    assert!(world.list("root", "LIST ALL OF staff").unwrap().is_empty());
}

#[test]
fn lists_show_what_their_reader_may_see() {
    let mut world = World::new();
    for text in [
        "CREATE ROLE ada WITH LOGIN = true",
        "CREATE ROLE staff",
        "GRANT staff TO ada",
        "GRANT SELECT ON t TO staff",
        "GRANT ALTER ON KEYSPACE ks TO ada",
    ] {
        world.run("root", text);
    }
    let names = |rows: Vec<Vec<String>>| rows.into_iter().map(|row| row[0].clone()).collect::<Vec<_>>();
    assert_eq!(
        names(world.list("root", "LIST ROLES").unwrap()),
        ["ada", "root", "staff"]
    );
    assert_eq!(names(world.list("ada", "LIST ROLES").unwrap()), ["ada", "staff"]);
    assert_eq!(names(world.list("root", "LIST USERS").unwrap()), ["ada", "root"]);
    assert_eq!(names(world.list("root", "LIST SUPERUSERS").unwrap()), ["root"]);
    assert_eq!(
        world.list("ada", "LIST ALL PERMISSIONS OF ada").unwrap(),
        [
            ["ada", "ada", "<keyspace ks>", "ALTER"],
            ["staff", "staff", "<table ks.t>", "SELECT"]
        ]
    );
    assert_eq!(
        world.list("ada", "LIST ALTER ON t OF ada").unwrap(),
        [["ada", "ada", "<keyspace ks>", "ALTER"]]
    );
    assert!(
        world
            .list("ada", "LIST ALTER ON t OF ada NORECURSIVE")
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        world.list("ada", "LIST ALL").unwrap_err().to_string(),
        "You are not authorized to view everyone's permissions"
    );
    assert_eq!(
        world.list("ada", "LIST ROLES OF root").unwrap_err().to_string(),
        "You are not authorized to view roles granted to root "
    );
}

#[test]
fn service_levels_are_the_strictest_of_all_roles() {
    use std::time::Duration;
    let mut world = World::new();
    for text in [
        "CREATE ROLE ada",
        "CREATE ROLE staff",
        "GRANT staff TO ada",
        "CREATE SERVICE LEVEL slow WITH timeout = 2s AND workload_type = 'batch'",
        "CREATE SERVICE LEVEL 'fa st' WITH timeout = 500ms",
        "ATTACH SERVICE LEVEL slow TO ada",
        "ATTACH SERVICE LEVEL 'fa st' TO staff",
    ] {
        world.run("root", text);
    }
    let level = world.access.service_level_of("ada");
    assert_eq!(level.timeout, Some(Duration::from_millis(500)));
    assert_eq!(level.workload_type, Some(WorkloadType::Batch));
    world.run("root", "DETACH SERVICE LEVEL FROM staff");
    assert_eq!(
        world.access.service_level_of("ada").timeout,
        Some(Duration::from_secs(2))
    );
    world.run("root", "ALTER SERVICE LEVEL slow WITH timeout = 'null'");
    assert_eq!(world.access.service_level_of("ada").timeout, None);
    assert_eq!(
        world.list("root", "LIST ALL SERVICE LEVELS").unwrap(),
        [["fa st", "500ms", "null"], ["slow", "null", "batch"]]
    );
    world.run("root", "DROP SERVICE LEVEL slow");
    assert!(
        world
            .list("root", "LIST ALL ATTACHED SERVICE LEVELS")
            .unwrap()
            .is_empty()
    );
    for (text, refusal) in [
        (
            "CREATE SERVICE LEVEL 'fa st'",
            "Service Level fa st already exists.",
        ),
        (
            "ATTACH SERVICE LEVEL slow TO ada",
            "Service Level slow doesn't exist.",
        ),
        (
            "CREATE SERVICE LEVEL x WITH timeout = 1d",
            "Invalid timeout value 1d: timeout values cannot be expressed in days/months",
        ),
        (
            "CREATE SERVICE LEVEL x WITH shares = 1",
            "Unknown service level option shares; there are timeout and workload_type",
        ),
    ] {
        assert_eq!(world.refused("root", text), refusal);
    }
    assert_eq!(
        world.refused("ada", "DROP SERVICE LEVEL 'fa st'"),
        "Only superusers can change service levels"
    );
}

#[test]
fn described_statements_make_the_same_again() {
    let mut world = World::new();
    let statements = [
        "CREATE ROLE ada WITH LOGIN = true AND SUPERUSER = false",
        "CREATE ROLE \"St'aff \"\"x\"\"\" WITH LOGIN = false AND SUPERUSER = false",
        "GRANT \"St'aff \"\"x\"\"\" TO ada",
        "GRANT SELECT ON ks.t TO \"St'aff \"\"x\"\"\"",
        "GRANT ALTER ON ALL FUNCTIONS IN KEYSPACE ks TO ada",
        "GRANT DROP ON ROLE ada TO ada",
        "CREATE SERVICE LEVEL \"Gold\" WITH TIMEOUT = 10ms AND WORKLOAD_TYPE = 'interactive'",
        "ATTACH SERVICE LEVEL \"Gold\" TO ada",
    ];
    for text in statements {
        world.run("root", text);
    }
    let described = access_elements(&world.access);
    for text in statements {
        let text = format!("{text};");
        assert!(described.iter().any(|element| element.text == text), "{text}");
    }
    let mut again = World::new();
    for element in described {
        let is_root = element.text.starts_with("CREATE ROLE root");
        if !is_root {
            again.run("root", &element.text);
        }
    }
    assert_eq!(again.access, world.access);
}

#[test]
fn what_is_granted_on_a_function_outlives_changes_of_its_types() {
    let mut world = World::new();
    for text in [
        "CREATE TYPE ks.inner (a int)",
        "CREATE TYPE ks.outer (i frozen<inner>)",
        "CREATE FUNCTION ks.f (o outer) CALLED ON NULL INPUT RETURNS int LANGUAGE lua AS 'return 1'",
        "CREATE FUNCTION ks.f (i list<frozen<inner>>) CALLED ON NULL INPUT RETURNS int LANGUAGE lua AS 'return 2'",
        "CREATE FUNCTION ks.f (n int) CALLED ON NULL INPUT RETURNS int LANGUAGE lua AS 'return 3'",
    ] {
        world.schema(text, None);
    }
    world.run("root", "CREATE ROLE ada");
    let grants = [
        "GRANT EXECUTE ON FUNCTION ks.f(outer) TO ada",
        "GRANT ALTER ON FUNCTION ks.f(list<frozen<inner>>) TO ada",
        "GRANT DROP ON FUNCTION ks.f(int) TO ada",
    ];
    for text in grants {
        world.run("root", text);
    }
    let of_ada = |world: &World| world.access.permissions["ada"].clone();
    for text in [
        "ALTER TYPE ks.inner ADD b text",
        "ALTER TYPE ks.outer RENAME i TO j",
    ] {
        let before = of_ada(&world);
        world.schema(text, None);
        assert_ne!(of_ada(&world), before, "{text}");
    }
    let granted = of_ada(&world);
    assert_eq!(granted.len(), 3);
    // To grant the same again changes nothing: these are the names.
    for text in grants {
        world.run("root", text);
    }
    assert_eq!(of_ada(&world), granted);
}

#[test]
fn resources_come_back_from_their_names() {
    let all = [
        Resource::AllKeyspaces,
        Resource::Keyspace("k".into()),
        Resource::AllTables("k".into()),
        Resource::Table("k".into(), "t".into()),
        Resource::AllRoles,
        Resource::Role("a/b".into()),
        Resource::AllFunctions,
        Resource::KeyspaceFunctions("k".into()),
        Resource::Function(
            "k".into(),
            "f[org.apache.cassandra.db.marshal.LongType^org.apache.cassandra.db.marshal.Int32Type]".into(),
        ),
        Resource::AllMbeans,
        Resource::Mbean("a:type=b".into()),
    ];
    for resource in all {
        assert_eq!(Resource::from_name(&resource.name()), Some(resource.clone()));
        if let Resource::Function(..) = resource {
            assert_eq!(resource.to_string(), "<function k.f(bigint, int)>");
        }
    }
    assert_eq!(Resource::from_name("nonsense"), None);
}
