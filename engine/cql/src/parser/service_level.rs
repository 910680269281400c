//! Service levels. Their words are no keywords, so that they stay free as names.

use super::cursor::{Parse, Parser};
use crate::ast::{AttachServiceLevel, ListServiceLevels, QualifiedName, ServiceLevelDefinition, Statement};
use crate::lexer::Keyword;

impl Parser<'_> {
    /// `SERVICE LEVEL` or `SERVICE_LEVEL` comes next, in singular or plural.
    pub(super) fn service_level_follows_at(&self, ahead: usize) -> bool {
        let second_word = self.word_at(ahead + 1, "level") || self.word_at(ahead + 1, "levels");
        (self.word_at(ahead, "service") && second_word)
            || self.word_at(ahead, "service_level")
            || self.word_at(ahead, "service_levels")
    }

    pub(super) fn take_service_level(&mut self) -> bool {
        let found = self.service_level_follows_at(0);
        if found {
            let words = if self.word_at(0, "service") { 2 } else { 1 };
            self.position += words;
        }
        found
    }

    fn expect_service_level(&mut self) -> Parse<()> {
        if self.take_service_level() {
            Ok(())
        } else {
            Err(self.no_viable())
        }
    }

    /// After CREATE SERVICE LEVEL.
    pub(super) fn create_service_level(&mut self) -> Parse<ServiceLevelDefinition> {
        let if_not_exists = self.if_not_exists()?;
        self.service_level_definition(if_not_exists)
    }

    /// `name [WITH ..]`
    pub(super) fn service_level_definition(&mut self, if_not_exists: bool) -> Parse<ServiceLevelDefinition> {
        let name = self.role_name()?;
        Ok(ServiceLevelDefinition {
            name,
            if_not_exists,
            properties: self.optional_properties()?,
        })
    }

    /// The name after DROP SERVICE LEVEL.
    pub(super) fn service_level_alone(&mut self) -> Parse<QualifiedName> {
        let name = self.role_name()?;
        Ok(QualifiedName { keyspace: None, name })
    }

    /// After ATTACH.
    pub(super) fn attach_service_level(&mut self) -> Parse<AttachServiceLevel> {
        self.expect_service_level()?;
        let service_level = self.role_name()?;
        self.expect_keyword(Keyword::To)?;
        Ok(AttachServiceLevel {
            service_level,
            role: self.role_name()?,
        })
    }

    /// After DETACH.
    pub(super) fn detach_service_level(&mut self) -> Parse<Statement> {
        self.expect_service_level()?;
        self.expect_keyword(Keyword::From)?;
        Ok(Statement::DetachServiceLevel(self.role_name()?))
    }

    /// After LIST, if it is about service levels.
    pub(super) fn list_service_levels(&mut self) -> Parse<Option<ListServiceLevels>> {
        let all = usize::from(self.at_keyword(Keyword::All));
        let attached = usize::from(self.word_at(all, "attached"));
        if !self.service_level_follows_at(all + attached) {
            return Ok(None);
        }
        self.position += all + attached;
        self.take_service_level();
        Ok(Some(match (all, attached) {
            (1, 1) => ListServiceLevels::AllAttached,
            (1, _) => ListServiceLevels::All,
            (_, 1) => {
                self.expect_keyword(Keyword::Of)?;
                ListServiceLevels::AttachedTo(self.role_name()?)
            }
            _ => ListServiceLevels::One(self.role_name()?),
        }))
    }
}
